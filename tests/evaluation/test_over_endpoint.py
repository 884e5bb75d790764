"""An evaluation over an endpoint: the same commands, meter and ledger, a division of its own, tokens and money."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from endpoints import SECRET, fake_server, save_track
from made_up import key
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import InputError
from harness.evaluation.overrides import Overrides
from harness.evaluation.preparation import check_endpoint
from harness.leaderboard.rank import rank
from harness.lm.endpoint.requests import KEY
from harness.results.records import Billed, CellRecord, Run, StoredCell, cell_record
from harness.results.store import Store
from harness.tracks.track import load_track

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fake_openai_server import FakeServer

    from harness.results.rulings import Ruling

ROOT = Path(__file__).parents[2]
SUBMISSIONS = ROOT / "submissions"


@pytest.fixture(scope="module")
def track(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See `endpoints.save_track`."""
    return save_track(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def server(track: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    """See `endpoints.fake_server`."""
    monkeypatch.setenv(KEY, SECRET)
    with fake_server(track) as made:
        yield made


def evaluate(track: Path, store: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Run ``harness evaluate`` in a process of its own."""
    command = [sys.executable, "-c", "from harness.cli import main; main()", "evaluate", "--track", str(track)]
    return subprocess.run(
        [*command, "--store", str(store), *more], capture_output=True, text=True, check=False, timeout=300
    )


def test_a_run_over_an_endpoint(server: FakeServer, track: Path, tmp_path: Path) -> None:
    """Text runs, is metered, billed and ranked; what needs more fails with the reason; the key is in nothing."""
    store = tmp_path / "r.db"
    asks = tmp_path / "asks"
    asks.mkdir()
    (asks / "submission.py").write_text(
        "from dataclasses import dataclass\nfrom harness import Answer\n\n@dataclass(frozen=True)\nclass Config:\n"
        "    '''None.'''\n\ndef tune(lm, task, shots, rng, config):\n    yield Answer.of(task)\n    while True:\n"
        "        lm.logits(None, shots.train.texts)\n",
        encoding="utf-8",
    )
    given = ("--backend", "openai", "--endpoint", server.url)
    folders = (str(SUBMISSIONS / "manual"), str(asks), str(SUBMISSIONS / "random_search"))
    done = evaluate(track, store, *folders, *given)
    assert done.returncode == 1, done.stderr  # random_search needs soft prompts
    assert "no soft prompts" in done.stdout + done.stderr
    assert "endpoint: gives label log-probabilities" in done.stdout + done.stderr

    requests = len(server.asked)
    again = evaluate(track, store, *folders[:2], *given)
    assert again.returncode == 0, again.stderr
    assert len(server.asked) - requests < 15, "only the probe: finished cells are not run again"

    records = {run.key.entry: (run.key, cell) for run, cell in cells(store)}
    identity, cell = records["asks"]
    assert identity.device == "endpoint llama.cpp b1, tiny-model, label log-probabilities"
    assert identity.modified == ()
    record = cell.record
    assert (cell.status, record.rows_spent, record.queries, record.level) == ("budget_exhausted", 12, 3, 0)
    assert record.billed is not None
    assert record.billed.sent == record.tokens > 0
    assert (record.billed.received, record.billed.resent) == (12, 0)
    assert record.billed.test_received == len(cell.labels)
    assert record.billed.requests == 12 + len(cell.labels)
    assert "tiny-model is an endpoint that gives label log-probabilities" in records["random_search"][1].record.detail

    shown = CliRunner().invoke(
        app, ["leaderboard", "--track", str(track), "--store", str(store), "--out", str(tmp_path / "r.csv"), "--json"]
    )
    assert shown.exit_code == 0, shown.output
    entries = {each["submission"]: each for each in json.loads(shown.output)["entries"]}
    assert entries["asks"]["missing_cells"] == 0
    assert identity.device in entries["asks"]["division"]
    assert entries["asks"]["money"] == pytest.approx(record.billed.sent / 1000 + 12 / 500, abs=0.01)
    everything = done.stdout + done.stderr + again.stderr + "".join(sqlite3.connect(store).iterdump()) + shown.output
    assert SECRET not in everything
    assert any(each.get("Authorization") == f"Bearer {SECRET}" for each in server.headers)


def cells(path: Path) -> list[tuple[Run, StoredCell]]:
    store = Store(str(path))
    try:
        return [(run, cell) for run in store.runs() for cell in store.cells(run.id)]
    finally:
        store.close()


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"endpoint": "http://a"}, "--endpoint names a server"),
        ({"served_model": "m", "backend": "torch"}, "--served-model names a server"),
        ({"backend": "openai"}, "name it with --endpoint"),
        ({"backend": "openai", "endpoint": "http://a", "device": "cuda"}, "--device: the weights are on the server"),
        ({"backend": "openai", "endpoint": "http://a", "white_box": True}, "--white-box: the weights"),
        ({"backend": "openai", "endpoint": "http://a", "p0": Path("p0")}, "--p0: the weights"),
        ({"backend": "openai", "endpoint": "http://a", "concurrency": 0}, "--concurrency 0"),
    ],
)
def test_choices_that_do_not_go_together(given: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError, match=why):
        check_endpoint(load_track("api"), Overrides(**given))


def test_a_server_is_no_change_of_a_track_that_is_made_for_one() -> None:
    served = Overrides(backend="openai", endpoint="http://a")
    assert served.modified(load_track("api")) == ()
    assert served.modified(load_track("mini-causal")) == ("backend",)
    assert load_track("api").ranks("endpoint llama.cpp b1, m, label log-probabilities")
    assert not load_track("mini-causal").ranks("endpoint llama.cpp b1, m, label log-probabilities")


def test_a_replay_of_a_served_run_asks_a_server_again() -> None:
    stored = key(device="endpoint vLLM 1, m, label log-probabilities")
    cell = StoredCell("r", "sst2", 1, 1, "ok", CellRecord(train_rows=4, words=("a", "b")), np.zeros(1, int), {}, 0.0)
    given = Overrides(endpoint="http://a", served_model="m", concurrency=2)
    repeated = given.repeating(stored, [cell], load_track("api"))
    assert (repeated.backend, repeated.endpoint, repeated.served_model, repeated.concurrency) == (
        "openai", "http://a", "m", 2,
    )  # fmt: skip


def test_what_a_cell_exchanged_is_stored_and_older_cells_have_nothing() -> None:
    record = CellRecord(billed=Billed(5, 1, 100, 5, 40, 2))
    assert cell_record(record.to_json()) == record
    assert "billed" not in CellRecord().to_json()
    assert cell_record(CellRecord().to_json()).billed is None


def test_the_command_endpoint_says_what_a_server_gives(server: FakeServer, track: Path) -> None:
    shown = CliRunner().invoke(app, ["endpoint", server.url, "--track", str(track)])
    assert shown.exit_code == 0, shown.output
    assert "gives label log-probabilities" in shown.output
    assert "not here: soft prompts" in shown.output
    assert f"{len(server.asked)} requests were sent to find out" in shown.output
    found = json.loads(CliRunner().invoke(app, ["endpoint", server.url, "--track", str(track), "--json"]).output)
    assert (found["model"], found["context"], found["takes_ids"]) == ("some/tiny-model", 300, True)
    assert "text tasks: likelihoods by llama.cpp's /completion with a grammar" in shown.output
    assert found["text"]["writes"] == "llama.cpp's /completion"
    server.before = lambda _n, _path, body: (400, {"error": "no"}, {}) if body.get("n_predict", 1) > 1 else None
    shown = CliRunner().invoke(app, ["endpoint", server.url, "--track", str(track)])
    assert shown.exit_code == 0, shown.output
    assert "text tasks: no likelihoods of given texts; texts are written by /v1/completions" in shown.output
    assert SECRET not in shown.output + str(found)


class Results:
    """Runs with one cell each."""

    def __init__(self, *runs: Run) -> None:
        self._runs = runs

    def runs(self) -> list[Run]:
        """All runs."""
        return list(self._runs)

    def cells(self, run: str) -> list[StoredCell]:
        """Its only cell."""
        labels = np.array([0, 1, 1, 0])
        return [StoredCell(run, "sst2", 1, 1, "ok", CellRecord(train_rows=4), labels, {1.0: labels}, 0.0)]

    def rulings(self) -> list[Ruling]:
        """None."""
        return []


def test_every_server_is_a_division_of_its_own_beside_the_model_here() -> None:
    """Weights on a server have no digest. So its runs are neither left out nor mixed with others."""
    track = load_track("api")
    keys = [
        key("here", device="cpu", track="api"),
        key("too", device="cpu", track="api"),
        key("here", device="endpoint one", model_sha256="1", track="api"),
        key("here", device="endpoint two", model_sha256="2", track="api"),
    ]
    for order in (keys, keys[::-1]):
        runs = [Run(str(n), each, {}, float(n)) for n, each in enumerate(order)]
        ranking = rank(Results(*runs), "api", keys[0].track_fingerprint, (), track.ranks)
        assert ranking.left_out == 0
        assert {entry.device for entry in ranking.entries} == {"cpu"}
        assert [entry.device for entry in ranking.elsewhere] == ["endpoint one", "endpoint two"]
        assert len(ranking.divisions) == 3
