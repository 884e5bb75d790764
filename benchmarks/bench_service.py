"""The cost of a query through the service and through the worker's socketpair: rate, latency, overhead.

    python benchmarks/bench_service.py                    # a model that takes a set time, and computes nothing
    python benchmarks/bench_service.py --model embedded   # the embedded model, sst2
    python benchmarks/bench_service.py --participants 100 # a class: shares, waits, what is lost or charged twice

In both cases the model runs in a process of its own, and every query is committed to a SQLite file before the reply.
A query is that of a BBT generation: 20 candidates in 500 dimensions x 32 texts x 2 words, 40 kB up and 5 kB down.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import socket
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx2
import numpy as np
import uvicorn

import harness
from harness.blackbox import wire
from harness.blackbox.client import RemoteBlackBox
from harness.blackbox.fake import fake_shots, fake_task
from harness.blackbox.fake_language_model import FakeLanguageModel
from harness.blackbox.meter import Meter
from harness.blackbox.pricing import PricedModel
from harness.blackbox.session import Session
from harness.contract import Subspace
from harness.results.records import RunKey
from harness.results.store import Store
from harness.service import messages
from harness.service.accounts import Accounts
from harness.service.app import make_app
from harness.service.queries import Limits, Place, QueryHandler
from harness.service.spending import spending
from harness.service.tokens import NewToken

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.contract import Shots, Task

CANDIDATES, DIM, CALLS = 20, 500, 10_000_000
TRACK = "bench 0"
START_S = 10
"""Seconds in which the processes of a class start."""
LIMITS = Limits(per_s=1e9, burst=1_000_000_000, at_once=1000)


class Still(FakeLanguageModel):
    """Waits for the set time and answers zeros."""

    def forward(self, prompts: Any, texts: Any, words: Any, features: Any = None, normalize: bool = False) -> Any:
        """Sleep."""
        del features, normalize
        time.sleep(self.service_s)
        logits = np.zeros((len(prompts.z), len(texts.texts), len(words)), dtype=np.float32)
        return SimpleNamespace(logits=logits, features=None, lengths=None)


def stage(model: str, service_s: float) -> tuple[Any, Task, Shots]:
    """Model, task and shots."""
    if model == "fake":
        task = fake_task()
        return Still(task, service_s=service_s), task, fake_shots(task, np.random.default_rng(0))
    from harness.lm.load import load_model  # noqa: PLC0415
    from harness.tracks.examples import Source, load_shots  # noqa: PLC0415
    from harness.tracks.tasks import load_task  # noqa: PLC0415
    from harness.tracks.track import load_track  # noqa: PLC0415

    track, file = load_track("mini"), load_task("sst2")
    lm = load_model(track.model, track.prompt, numerics=track.numerics)
    shots = load_shots(file, Source("embedded"), 1, track.tasks["sst2"])
    return lm, file.task(track.profile, "masked"), shots


def http_server(
    model: str, service_s: float, folder: str, line: Any, names: Sequence[str] = ("bench",), limits: Limits = LIMITS
) -> None:
    """A service on a free port; it sends the port and the tokens of `names`."""
    lm, task, shots = stage(model, service_s)
    book = Accounts(f"{folder}/service.db")
    tokens = book.new_tokens([NewToken(name) for name in names])
    place = Place(task, 1, shots, lm.info(shots.train.texts, task.template), CALLS)
    app = make_app(QueryHandler(lm, TRACK, {(task.name, 1): place}, book, limits))
    sock = socket.socket(proto=socket.IPPROTO_TCP)  # asyncio sends at once (TCP_NODELAY) only where it is named
    sock.bind(("127.0.0.1", 0))
    line.send((sock.getsockname()[1], tokens))
    uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[sock])


def pair_server(model: str, service_s: float, folder: str, sock: socket.socket, line: Any) -> None:
    """A session on its end of a socketpair, with the results store's ledger."""
    lm, task, shots = stage(model, service_s)
    store = Store(f"{folder}/results.db")
    key = RunKey("bench", "", (), "bench", "", 1, "", "", "", "", "cpu", 0, "")
    attempt = store.begin(store.open_run(key, {}), task.name, 1)
    session = Session(PricedModel(lm, task, 1 << 20, 64 << 20), Meter(CALLS, len(shots.train)), attempt)
    line.send(dataclasses.asdict(lm.info(shots.train.texts, task.template)))
    session.serve(sock, time.monotonic() + 3600)


def loads(asks: list[Callable[[], Any]], queries: int) -> dict[str, float]:
    """Call each of `asks` in a thread of its own, `queries` times in all after a warm-up."""
    for ask in asks:
        ask()
        ask()
    times: list[float] = []
    gate = threading.Barrier(len(asks) + 1)

    def work(ask: Callable[[], Any]) -> None:
        gate.wait()
        for _ in range(max(1, queries // len(asks))):
            before = time.perf_counter()
            ask()
            times.append(time.perf_counter() - before)

    threads = [threading.Thread(target=work, args=(ask,)) for ask in asks]
    for thread in threads:
        thread.start()
    gate.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    p50, p99 = np.percentile(np.array(times) * 1e3, [50, 99])
    return {"queries": len(times), "per_s": len(times) / (time.perf_counter() - began), "p50_ms": p50, "p99_ms": p99}


def over_pair(model: str, service_s: float, queries: int) -> dict[str, float]:
    """Measure queries over the worker's socketpair."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = socket.socketpair()
    line, far = context.Pipe()
    with tempfile.TemporaryDirectory() as folder:
        process = context.Process(target=pair_server, args=(model, service_s, folder, theirs, far))
        process.start()
        theirs.close()
        info = harness.ModelInfo(**line.recv())
        task, shots = stage(model, service_s)[1:] if model == "fake" else _sst2()
        budget = harness.Budget(CALLS * len(shots.train), CALLS * len(shots.train), len(shots.train))
        box = RemoteBlackBox(ours, info, task, budget)
        box.ready({})
        space, z = _generation(info)
        found = loads([lambda: box.logits(space.at(z), shots.train.texts)], queries)
        ours.close()
        process.join(30)
    return found


def over_http(model: str, service_s: float, queries: int, connections: int, media: str) -> dict[str, float]:
    """Measure queries over the service."""
    context = multiprocessing.get_context("spawn")
    line, far = context.Pipe()
    with tempfile.TemporaryDirectory() as folder:
        process = context.Process(target=http_server, args=(model, service_s, folder, far))
        process.start()
        port, (token,) = line.recv()
        url, task = f"http://127.0.0.1:{port}", "fake" if model == "fake" else "sst2"
        boxes = [harness.connect(url, token, task=task) for _ in range(connections)]
        space, z = _generation(boxes[0].info)
        train = boxes[0].shots.train.texts
        asks: list[Callable[[], Any]] = [lambda box=box: box.logits(space.at(z), train) for box in boxes]
        if media == "json":
            client = httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=600.0)
            asks = [lambda: _in_json(client, f"/v1/cells/{task}/1/query", space, z)] * connections
        found = loads(asks, queries)
        for box in boxes:
            box.close()
        process.terminate()
        process.join(30)
    return found


def crowd(url: str, path: str, tokens: Sequence[str], begins: float, ends: float, line: Any) -> None:
    """Ask for each token from `begins` until `ends`; send token, rows, seconds and "in time" of each answered query.

    Of ten participants nine have one connection and ask for five candidates; the tenth has four and asks for twenty.
    """
    info = harness.ModelInfo(**line.recv())
    done: list[tuple[str, int, float, bool]] = []
    lock = threading.Lock()

    def ask(token: str, candidates: int, number: int) -> None:
        space, z = _generation(info)
        shape = messages.QueryBody("train", prompt=wire.Array.of(space.at(z[:candidates]).z), space=space)
        body, name = messages.encode(shape, messages.MSGPACK), token.partition(".")[0]
        headers = {"Authorization": f"Bearer {token}", "Content-Type": messages.MSGPACK, "Accept": messages.MSGPACK}
        with httpx2.Client(base_url=url, headers=headers, timeout=600.0) as client:
            asked = 0
            time.sleep(max(0.0, begins - time.time()))
            while time.time() < ends:
                key, before = f"{number}-{asked}", time.perf_counter()
                got = client.post(path, content=body, headers={"Idempotency-Key": key})
                if got.status_code in {429, 503}:
                    time.sleep(float(got.headers.get("Retry-After", 1)))
                    continue
                rows = messages.decode(got.raise_for_status().content, messages.MSGPACK, wire.Result).logits.shape
                asked += 1
                with lock:
                    done.append((name, rows[0] * rows[1], time.perf_counter() - before, time.time() < ends))

    wanted = [
        (token, CANDIDATES if greedy else 5, number)
        for place, token in enumerate(tokens)
        for greedy in [place % 10 == 0]
        for number in range(4 if greedy else 1)
    ]
    threads = [threading.Thread(target=ask, args=each) for each in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    line.send(done)


def many(model: str, service_s: float, participants: int, seconds: float, processes: int = 4) -> dict[str, float]:
    """A class asks at once, with the limits that `harness serve` has."""
    context = multiprocessing.get_context("spawn")
    line, far = context.Pipe()
    names = [f"student-{number}" for number in range(participants)]
    with tempfile.TemporaryDirectory() as folder:
        server = context.Process(target=http_server, args=(model, service_s, folder, far, names, Limits()))
        server.start()
        port, tokens = line.recv()
        url, task = f"http://127.0.0.1:{port}", "fake" if model == "fake" else "sst2"
        with harness.connect(url, tokens[0], task=task) as box:
            info = dataclasses.asdict(box.info)
        begins = time.time() + START_S
        clients = []
        for first in range(processes):
            ours, theirs = context.Pipe()
            told = (url, f"/v1/cells/{task}/1/query", tokens[first::processes], begins, begins + seconds, theirs)
            process = context.Process(target=crowd, args=told)
            process.start()
            ours.send(info)
            clients.append((process, ours))
        done = [each for process, ours in clients for each in ours.recv()]
        for process, _ in clients:
            process.join(60)
        server.terminate()
        server.join(60)
        book = Accounts(f"{folder}/service.db")
        spent = {each.token: each for each in spending(book)}
        book.close()
    rows, queries = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    for name, asked, _, in_time in done:
        rows[name] += asked if in_time else 0  # what was in line at the end would count for whoever has more of it
        queries[name] += 1
    kept = {name: spent[name].queries if name in spent else 0 for name in names}
    p50, p99 = np.percentile([1e3 * each for _, _, each, _ in done], [50, 99])
    return {
        "participants": participants, "queries": len(done), "per_s": sum(each[-1] for each in done) / seconds,
        "p50_ms": p50, "p99_ms": p99,
        "largest_share_over_smallest": max(rows.values()) / max(1, min(rows.values())),
        "lost": sum(max(0, queries[name] - kept[name]) for name in names),
        "double": sum(max(0, kept[name] - queries[name]) for name in names),
    }  # fmt: skip


def _in_json(client: httpx2.Client, path: str, space: Subspace, z: Any) -> Any:
    prompt, spec = wire.Array.of(space.at(z).z), space
    body = messages.encode(messages.QueryBody("train", prompt=prompt, space=spec), messages.JSON)
    got = client.post(path, content=body, headers={"Content-Type": messages.JSON, "Accept": messages.JSON})
    return messages.decode(got.raise_for_status().content, messages.JSON, wire.Result).logits.values(3)


def _generation(info: harness.ModelInfo) -> tuple[Subspace, Any]:
    z = np.random.default_rng(0).standard_normal((CANDIDATES, DIM)).astype(np.float32)
    return Subspace(DIM, (info.hidden_std[0],), info.prompt_tokens, seed=1), z


def _sst2() -> tuple[Task, Shots]:
    from harness.tracks.examples import Source, load_shots  # noqa: PLC0415
    from harness.tracks.tasks import load_task  # noqa: PLC0415
    from harness.tracks.track import load_track  # noqa: PLC0415

    track, file = load_track("mini"), load_task("sst2")
    return file.task("harness-2026", "masked"), load_shots(file, Source("embedded"), 1, track.tasks["sst2"])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=["fake", "embedded"], default="fake")
    parser.add_argument("--service-ms", type=float, nargs="+", default=[0.0, 20.0])
    parser.add_argument("--queries", type=int, default=400)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--json", type=Path, help="Also write the numbers to this file.")
    parser.add_argument("--participants", type=int, help="A class of so many tokens, in place of all else.")
    parser.add_argument("--seconds", type=float, default=60.0, help="How long a class asks.")
    given = parser.parse_args()
    if given.participants:
        for service_ms in given.service_ms[-1:] if given.model == "fake" else [0.0]:
            found = many(given.model, service_ms / 1e3, given.participants, given.seconds)
            print("  ".join(f"{name} {value:,.1f}" for name, value in found.items()), flush=True)
        return
    rows = []
    for service_ms in given.service_ms if given.model == "fake" else [0.0]:
        how = (given.model, service_ms / 1e3, given.queries)
        asked = [(connections, media) for connections in given.connections for media in ("msgpack", "json")]
        for connections, media in [(1, ""), *asked]:
            found = over_http(*how, connections, media) if media else over_pair(*how)
            face = f"http {media}" if media else "socketpair"
            rows.append(
                {"model": given.model, "service_ms": service_ms, "face": face, "connections": connections} | found
            )
            print(
                f"{given.model} {service_ms:4.0f} ms  {face:12}  {connections:2} connections  "
                f"{found['queries']:4} queries  {found['per_s']:7.1f} /s  "
                f"p50 {found['p50_ms']:7.2f} ms  p99 {found['p99_ms']:7.2f} ms",
                flush=True,
            )
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
