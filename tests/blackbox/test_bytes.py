"""Sent and stored bytes equal those of the previous version, because the ledger's digests cover them."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

import harness
from harness.blackbox import framing, wire
from harness.blackbox.client import RemoteBlackBox
from harness.contract import Answer, Budget, LinearHead, Member, ModelInfo, Prompt, Subspace, Task
from harness.service import messages
from harness.solving import answers

if TYPE_CHECKING:
    from harness.contract import BlackBox

GOLDEN = json.loads(Path(__file__).with_name("golden_bytes.json").read_text(encoding="utf-8"))
"""Recorded with the version before queries, subspaces and pricing were written anew."""
WIDTH, CANDIDATES = 2, 2
TASK = Task("sst2", ("negative", "positive"), "accuracy", "{a} It was {mask} .", (" bad", " good"))
INFO = ModelInfo("made up", "masked", 3, WIDTH, 100, 512, 2, 0.05, (0.5, 0.6, 0.7))
TEXTS = (("a film",), ("b film",))
WIDE = Subspace(np.int64(3), (0.5, np.float32(0.1)), 2, np.int64(9), "uniform")  # type: ignore[arg-type]
NARROW = Subspace(3, (1.0,), 2, 2**62, mode="prepend")
ANSWER = Answer(
    (
        Member(
            TASK.template, TASK.words, WIDE.at(np.ones((1, 2, 3))), (1.0, 2.0), (0.0, 1.5),
            LinearHead(np.ones((2, WIDTH)), np.zeros(2)), 0.5, "logits", "mask",
        ),
        Member("{a} {mask}", (" x", " y"), Prompt(np.ones((1, 1, 2, WIDTH)))),
        Member("{a} {mask}", (" x", " y")),
    ),
    {"loss": 0.5, "dev": 1},
)  # fmt: skip


def ask(box: BlackBox) -> None:
    """Every kind of query, some of which refer to declared texts and subspaces again."""
    box.logits(None, TEXTS)
    box.logits(Prompt(np.arange(8).reshape(2, 1, 2, WIDTH) / 7), ["a film", "b film"], normalize=True)  # type: ignore[list-item]
    box.logits(Prompt(np.ones((1, 3, 2, WIDTH)), "prepend"), TEXTS, "{a} {mask}", [" x", np.str_(" y")])
    box.outputs(WIDE.at(np.linspace(-1, 1, 12).reshape(2, 2, 3)), TEXTS)
    box.outputs(NARROW.at([1, 2, 3]), TEXTS, features="cls", normalize=True)
    box.outputs(None, (("d film",),), words=(" x",), features="all")
    box.logits(NARROW.at([3, 2, 1]), TEXTS)
    box.word_ids([" a"])


def result(candidates: int, features: str | None) -> wire.Result:
    """A reply of the right number of dimensions."""
    shape = (candidates, 1, 5, WIDTH) if features == "all" else (candidates, 1, WIDTH)
    states = None if features is None else wire.Array.of(np.zeros(shape))
    return wire.Result(10, wire.Array.of(np.zeros((candidates, 1, 2))), states, [5] if features == "all" else None)


def over_the_socket() -> list[str]:
    """Bodies of a worker's frames."""
    ours, theirs = socket.socketpair()
    bodies: list[str] = []

    def referee() -> None:
        while (body := framing.receive(ours, 1 << 20)) is not None:
            bodies.append(body.hex())
            asked = msgspec.msgpack.decode(body)
            reply: wire.Reply = wire.Done()
            if asked["type"] == "Query":
                reply = result(asked["prompt"][0][0] if asked["prompt"] else 1, asked["features"])
            elif asked["type"] == "Words":
                reply = wire.WordIds([[1]])
            ours.sendall(wire.encode(reply))

    thread = threading.Thread(target=referee)
    thread.start()
    box = RemoteBlackBox(theirs, INFO, TASK, Budget(100, 100, 2))
    box.ready({"dim": 3})
    ask(box)
    box.offer(ANSWER)
    theirs.close()
    thread.join()
    ours.close()
    return bodies


def over_http() -> list[str]:
    """Bodies of an HTTP client's requests."""
    httpx2: Any = pytest.importorskip("httpx2", reason='needs pip install -e ".[service]"')
    bodies: list[str] = []
    train, dev = messages.Labelled(list(TEXTS), [0, 1]), messages.Labelled([("d film",)], [1])
    page = messages.CellPage("mini", TASK, 1, train, dev, INFO, Budget(100, 100, 2), False)

    def reply(request: Any) -> Any:
        value: Any = page
        if request.method == "POST":
            bodies.append(request.content.hex())
            asked = msgspec.msgpack.decode(request.content)
            value = messages.Receipt("x", 3)
            if request.url.path.endswith("/query"):
                value = result(asked["prompt"][0][0] if asked["prompt"] else 1, asked["features"])
            elif request.url.path.endswith("/words"):
                value = wire.WordIds([[1]])
        return httpx2.Response(200, content=messages.encode(value, messages.MSGPACK))

    with harness.connect("http://x", "t.s", task="sst2", transport=httpx2.MockTransport(reply)) as box:
        ask(box)
        box.logits(None, [("elsewhere",)])
        box.submit(ANSWER)
    return bodies


def replies() -> list[str]:
    """Frames to a worker."""
    frames: list[wire.Reply] = [
        result(1, None), result(1, "all"), wire.Done(), wire.Refused(3, 2, 1), wire.Rejected("why"),
        wire.WordIds([[1, 2]]), wire.WordList(("a", "")),
    ]  # fmt: skip
    return [wire.encode(frame).hex() for frame in frames]


def test_a_workers_frames_are_what_they_were() -> None:
    assert over_the_socket() == GOLDEN["socket"]


def test_an_http_clients_bodies_are_what_they_were() -> None:
    assert over_http() == GOLDEN["http"]


def test_replies_are_what_they_were() -> None:
    assert replies() == GOLDEN["replies"]


def test_a_stored_answer_is_what_it_was() -> None:
    blob = answers.to_bytes(ANSWER)
    assert blob.hex() == GOLDEN["answer"]
    assert answers.to_bytes(answers.from_bytes(blob)) == blob
