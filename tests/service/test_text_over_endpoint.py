"""Text tasks whose model is on a server: evaluated in a worker, and asked over HTTP; billed, stored and audited."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tiny_causal
from endpoints import SECRET, log_probabilities
from evaluating import Watcher
from fake_openai_server import FakeServer
from small_service import served, until

import harness
from harness.contract import Answer, Member
from harness.errors import QueryError
from harness.evaluation.overrides import Overrides
from harness.evaluation.run import Evaluation
from harness.lm.endpoint.requests import KEY
from harness.results.audit import audit
from harness.results.finding import find_run
from harness.results.store import Store
from harness.sandbox.submission import find
from harness.service.accounts import Accounts
from harness.service.serve import service_of, track_id
from harness.service.spending import spending
from harness.tracks.track import load_track

if TYPE_CHECKING:
    from collections.abc import Iterator

SUBMISSIONS = Path(__file__).resolve().parents[2] / "submissions"
SOLVER = """
from dataclasses import dataclass
from harness import Answer, Member

TEMPLATES = ("Formal: {a}\\nPlain:", "{a}\\nIn plain words:")


@dataclass(frozen=True)
class Config:
    pass


def tune(lm, task, shots, rng, config):
    targets, best = task.targets(shots.train), float("inf")
    for template in TEMPLATES:
        loss = float(lm.score(None, shots.train.texts, targets, template).losses()[0])
        if loss < best:
            best = loss
            yield Answer((Member(template, ()),), {"loss": loss})
    print(task.output(lm.generate(None, shots.dev.texts).texts[0][0]))
"""


@pytest.fixture(scope="module")
def track(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_causal.write_track(tmp_path_factory.mktemp("text"))


@pytest.fixture
def server(track: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    """A llama.cpp server for the track's tokenizer."""
    from transformers import AutoTokenizer

    monkeypatch.setenv(KEY, SECRET)
    tokenizer: Any = AutoTokenizer.from_pretrained(track.parent / "model")
    values = log_probabilities(len(tokenizer))
    made = FakeServer("llama.cpp", values, lambda text: tokenizer(text)["input_ids"], lambda t: tokenizer.decode([t]))
    made.end = tokenizer.eos_token_id
    with made:
        yield made


@pytest.fixture
def evaluation(track: Path, server: FakeServer, tmp_path: Path) -> Iterator[Evaluation]:
    store = Store(str(tmp_path / "results.db"))
    choices = Overrides(backend="openai", endpoint=server.url, tasks=("plain",), splits=(1,))
    made = Evaluation(load_track(str(track)), choices, store)
    yield made
    made.close()
    store.close()


def test_a_search_in_templates_runs_over_a_server(evaluation: Evaluation, tmp_path: Path, server: FakeServer) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "submission.py").write_text(SOLVER, encoding="utf-8")
    store = evaluation.store
    for folder in (SUBMISSIONS / "manual", tmp_path / "templates", SUBMISSIONS / "random_search"):
        evaluation.run(find(folder), {}, Watcher())
    (soft,) = store.cells(find_run(store, "random_search").id)
    assert soft.status == "crashed"
    assert "no soft prompts" in soft.record.detail
    for entry, queries in (("manual", 0), ("templates", 3)):
        run = find_run(store, entry)
        assert run.key.device == "endpoint llama.cpp b1, tiny-model, label log-probabilities"
        (cell,) = store.cells(run.id)
        record = cell.record
        assert (cell.status, record.level, record.queries) == ("ok", 0, queries), record.detail
        assert record.outputs is not None
        outputs = record.outputs.at(1.0)
        assert outputs is not None
        assert len(outputs) == 240
        assert record.billed is not None
        answers = len(set(dict(record.outputs.marks).values()))
        assert record.billed.requests == 4 * queries + 240 * answers, "a text is one request"
        assert record.billed.test_received > 0
        assert bool(record.billed.sent) == bool(queries)
    assert audit(store).findings == ()
    assert all(each.get("Authorization") == f"Bearer {SECRET}" for each in server.headers)


def test_a_solver_elsewhere_asks_about_text_that_a_server_knows(
    evaluation: Evaluation, server: FakeServer, tmp_path: Path
) -> None:
    book = Accounts(str(tmp_path / "service.db"))
    token = book.new_token("alice")
    with served(service_of(evaluation, book, 1000, 1000)) as url:
        with harness.connect(url, token, task="plain") as box:
            lm: Any = box
            targets = lm.task.targets(lm.shots.train)
            asked = len(server.asked)
            with pytest.raises(QueryError, match="no soft prompts"):
                lm.score(harness.Prompt(np.zeros((1, 1, 2, 16), np.float32)), lm.shots.train.texts, targets)
            assert (len(server.asked), lm.budget.rows_left) == (asked, lm.budget.rows_total)
            losses = [
                lm.score(None, lm.shots.train.texts, targets, template).losses()[0]
                for template in (lm.task.template, "{a}\nIn plain words:")
            ]
            assert losses[0] != losses[1]
            assert all(lm.generate(None, lm.shots.dev.texts).texts[0])
            assert len(server.asked) - asked == 3 * len(lm.shots.train)
            lm.submit(Answer((Member("{a}\nIn plain words:", ()),)))
        until(lambda: not book.unscored(track_id(evaluation)), 120)
    (cell,) = evaluation.store.cells(find_run(evaluation.store, "alice@service").id)
    assert cell.status == "ok", cell.record.detail
    assert cell.record.billed is not None
    assert cell.record.billed.requests == 3 * 4 + 240
    assert audit(evaluation.store).findings == ()
    (spent,) = spending(book)
    assert spent.queries == 3
    book.close()
