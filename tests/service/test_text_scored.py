"""A text task over HTTP with a real (tiny) model: searched, handed in, scored, audited; queries in a scoring."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx2
import numpy as np
import pytest
import tiny_causal
from small_service import served, until

import harness
from harness.blackbox.checkpoints import without_checkpoints
from harness.contract import Answer, TextTask
from harness.evaluation.overrides import Overrides
from harness.evaluation.run import Evaluation
from harness.evaluation.text_cells import write
from harness.results.audit import audit
from harness.results.finding import find_run
from harness.results.store import Store
from harness.service.accounts import Accounts
from harness.service.serve import service_of, settle, track_id
from harness.solving import answers
from harness.tracks.examples import load_test
from harness.tracks.tiers import ELSEWHERE
from harness.tracks.track import load_track

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def track(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_causal.write_track(tmp_path_factory.mktemp("text"))


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Accounts]:
    made = Accounts(str(tmp_path / "service.db"))
    yield made
    made.close()


@pytest.fixture
def evaluation(track: Path, tmp_path: Path) -> Iterator[Evaluation]:
    store = Store(str(tmp_path / "results.db"))
    made = Evaluation(load_track(str(track)), Overrides(tasks=("plain",), splits=(1,)), store)
    yield made
    store.close()


def test_a_text_task_is_searched_over_http_handed_in_scored_and_audited(evaluation: Evaluation, book: Accounts) -> None:
    token, (cell,) = book.new_token("alice"), evaluation.cells
    assert isinstance(cell.task, TextTask)
    with served(service_of(evaluation, book, 1000, 1000, show_scores=True)) as url:
        with harness.connect(url, token, task="plain") as box:
            lm: Any = box
            assert lm.task == cell.task
            space = harness.Subspace.deep(lm.info, 5, np.random.default_rng(0), 0.5, 0.5)
            zs = np.random.default_rng(1).standard_normal((4, space.layers, 5))
            targets = lm.task.targets(lm.shots.train)
            losses = lm.score(space.at(zs), lm.shots.train.texts, targets).losses()
            written = lm.generate(space.at(zs[:1]), lm.shots.dev.texts, temperature=0.7, seed=3)
            assert len(written.texts[0]) == len(lm.shots.dev)
            while not lm.generate(None, lm.shots.dev.texts, stop=(), most_tokens=60).cut:
                assert lm.budget.rows_left
            answer = Answer.of(lm.task, space.at(zs[losses.argmin()][None]), loss=float(losses.min()))
            lm.submit(answer)
        until(lambda: not book.unscored(track_id(evaluation)))
        mine = httpx2.get(f"{url}/v1/me", headers={"Authorization": f"Bearer {token}"}).json()
    run = find_run(evaluation.store, "alice@service")
    (stored,) = evaluation.store.cells(run.id)
    record = stored.record
    assert (stored.status, record.sandbox, record.metric, record.row_tokens) == ("ok", ELSEWHERE, "chrf", 32)
    assert record.rows_spent == sum(row.rows for row in evaluation.store.ledger(stored.attempt)) <= record.rows_total
    assert record.queries == len(evaluation.store.ledger(stored.attempt)) > 3
    test = load_test(cell.file, cell.source)
    assert record.outputs is not None
    outputs = record.outputs.at(1.0)
    assert outputs is not None
    assert len(outputs) == len(test)
    blob = evaluation.store.answer(run.id, "plain", 1)
    assert blob is not None
    assert write(answers.from_bytes(blob), cell.task, evaluation.lm, test.texts[:4]) == outputs[:4]
    assert audit(evaluation.store).findings == ()
    (entry,) = mine["cells"]
    assert entry["answer"] == "scored"
    assert 0 < entry["score"] < 1


def test_queries_are_answered_in_the_midst_of_writing_test_texts_and_change_nothing(
    evaluation: Evaluation, book: Accounts
) -> None:
    (cell,), lm = evaluation.cells, evaluation.lm
    assert isinstance(cell.task, TextTask)
    task, asked = cell.task, list[Any]()
    own = harness.Subspace(3, (0.5,), lm.prompt_tokens, seed=1).at(np.ones((1, 1, 3)))
    text = (("Kindly remit the amount due.",),)
    alone = write(Answer.of(task, own), task, lm, text)

    def others() -> None:
        if len(asked) < 5:
            with without_checkpoints():
                asked.append(write(Answer.of(task, own), task, lm, text))

    for name in ("alone", "disturbed"):
        book.new_token(name)
        account = book.account(name, track_id(evaluation), "plain", 1, 120)
        book.submit(account, answers.to_bytes(Answer.of(task)))
        assert settle(evaluation, book, set(), others if name == "disturbed" else lambda: None)
    assert asked == [alone] * 5
    kept = [
        evaluation.store.cells(find_run(evaluation.store, f"{name}@service").id)[0].record.outputs
        for name in ("alone", "disturbed")
    ]
    assert kept[0] == kept[1] is not None
