"""From a track to a served black box, and from an answer to a cell on the leaderboard."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from small_service import served, until
from typer.testing import CliRunner

import harness
from harness.cli import app as cli
from harness.contract import Answer, Subspace
from harness.errors import DeviceMemoryError, InputError
from harness.evaluation.overrides import Overrides
from harness.evaluation.replay import choices_of
from harness.evaluation.run import Evaluation
from harness.leaderboard.rank import rank
from harness.results.asked import Asked
from harness.results.audit import audit
from harness.results.store import Store
from harness.service import serve
from harness.service.accounts import Accounts
from harness.service.serve import places, service_of, settle, track_id
from harness.solving.answers import to_bytes
from harness.tracks.tiers import ELSEWHERE
from harness.tracks.track import load_track

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def evaluation(tiny_track: Path, tmp_path: Path) -> Iterator[Evaluation]:
    store = Store(str(tmp_path / "results.db"))
    yield Evaluation(load_track(str(tiny_track)), Overrides(), store)
    store.close()


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Accounts]:
    made = Accounts(str(tmp_path / "service.db"))
    yield made
    made.close()


def test_a_solver_elsewhere_ends_up_on_the_leaderboard_in_a_division_of_its_own(
    evaluation: Evaluation, book: Accounts
) -> None:
    token = book.new_token("alice")
    with served(service_of(evaluation, book, 1000, 1000)) as url:
        for task, split in places(evaluation):
            with harness.connect(url, token, task=task, split=split) as box:
                space = Subspace(4, (1.0,), 2, seed=1)
                z = np.random.default_rng(split).standard_normal((2, 4))
                box.logits(space.at(z), box.shots.train.texts)
                box.logits(None, box.shots.dev.texts)
                answer = Answer.of(box.task, space.at(z[0]), loss=0.5)
                box.submit(answer)
        until(lambda: not book.unscored(track_id(evaluation)), 60)
    track = load_track(evaluation.track.name) if evaluation.track.name == "mini" else evaluation.track
    ranking = rank(evaluation.store, track.name, track.fingerprint, track.planned, track.ranks)
    (entry,) = ranking.entries
    assert entry.name == "alice@service"
    assert entry.rank == 1
    assert entry.division.sandbox == ELSEWHERE
    assert len(entry.cells) == 3
    for cell in entry.cells:
        assert cell.status == "ok"
        assert cell.record.rows_spent == 3 * cell.record.train_rows
        assert cell.record.queries == 2
        assert cell.record.level == 1
        assert cell.record.nominal_up > 0
        assert 0 < cell.record.tuning_s < 600
        train, dev = cell.record.train_rows, cell.record.asked.texts - cell.record.train_rows
        assert cell.record.asked == Asked(len(cell.record.words), train + dev, 2 * train + dev)
    (run,) = [found.id for found in evaluation.store.runs()]
    for stored in evaluation.store.cells(run):
        ledger = evaluation.store.ledger(stored.attempt)
        assert sum(row.rows for row in ledger) == stored.record.rows_spent
        assert evaluation.store.answer(run, stored.task, stored.split) is not None


def test_an_answer_is_scored_as_the_referee_scores_it(evaluation: Evaluation, book: Accounts) -> None:
    from harness.solving import answers
    from harness.tracks.examples import load_test

    cell = evaluation.cells[0]
    answer = Answer.of(cell.task)
    hand_in(evaluation, book, answer)
    settle(evaluation, book, set())
    (run,) = [found.id for found in evaluation.store.runs()]
    (stored,) = evaluation.store.cells(run)
    test = load_test(cell.file, cell.source)
    want = answers.probabilities(answer, cell.task, evaluation.lm, test.texts).argmax(axis=1)
    np.testing.assert_array_equal(stored.predictions[1.0], want)
    np.testing.assert_array_equal(stored.labels, test.labels)


def hand_in(evaluation: Evaluation, book: Accounts, answer: Answer, calls: int | None = None) -> None:
    cell = evaluation.cells[0]
    if not book.tokens():
        book.new_token("alice", calls)
    rows = (calls or cell.spec.calls) * cell.train_rows
    book.submit(book.account("alice", track_id(evaluation), cell.task.name, cell.split, rows), to_bytes(answer))


def test_settling_twice_or_after_a_crash_between_store_and_book_stores_one_cell(
    evaluation: Evaluation, book: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand_in(evaluation, book, Answer.of(evaluation.cells[0].task))
    with monkeypatch.context() as patched:
        patched.setattr(book, "scored", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            settle(evaluation, book, set())
    assert len(book.unscored(track_id(evaluation))) == 1
    settle(evaluation, book, set())
    settle(evaluation, book, set())
    assert book.unscored(track_id(evaluation)) == []
    (run,) = [found.id for found in evaluation.store.runs()]
    assert len(evaluation.store.cells(run)) == 1


def test_what_was_handed_in_while_no_server_ran_is_scored_at_the_start(evaluation: Evaluation, book: Accounts) -> None:
    hand_in(evaluation, book, Answer.of(evaluation.cells[0].task))
    with TestClient(service_of(evaluation, book, 10, 10)):
        until(lambda: not book.unscored(track_id(evaluation)), 60)
    assert len(evaluation.store.runs()) == 1


def test_an_answer_under_another_budget_is_never_ranked_with_the_track(evaluation: Evaluation, book: Accounts) -> None:
    hand_in(evaluation, book, Answer.of(evaluation.cells[0].task), calls=77)
    settle(evaluation, book, set())
    (run,) = evaluation.store.runs()
    assert run.key.modified == ("calls",)
    ranking = rank(evaluation.store, evaluation.track.name)
    assert not ranking.entries


def test_budgets_belong_to_track_model_and_data(evaluation: Evaluation, tiny_track: Path, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "other.db"))
    other = Evaluation(load_track(str(tiny_track)), Overrides(calls=3), store)
    assert track_id(other) != track_id(evaluation)
    store.close()


def test_budgets_do_not_depend_on_how_the_model_s_place_is_spelled(
    tiny_track: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(str(tmp_path / "results.db"))
    monkeypatch.chdir(tiny_track.parent)
    places = [Overrides(model=str(place)) for place in (tiny_track.parent / "model", Path("model"))]
    one, other = (track_id(Evaluation(load_track(str(tiny_track)), choices, store)) for choices in places)
    assert one == other
    store.close()


def test_an_answer_that_cannot_be_scored_holds_up_nobody(
    evaluation: Evaluation, book: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell, failed = evaluation.cells[0], set[int]()
    for name in ("mallory", "alice"):
        book.new_token(name)
        account = book.account(name, track_id(evaluation), cell.task.name, cell.split, 80)
        book.submit(account, to_bytes(Answer.of(cell.task)))
    with monkeypatch.context() as patched:
        patched.setattr(serve, "score_handed", lambda *_: (_ for _ in ()).throw(DeviceMemoryError("full")))
        with pytest.raises(DeviceMemoryError):
            settle(evaluation, book, failed)
    assert settle(evaluation, book, failed)
    assert not settle(evaluation, book, failed)
    assert [account.token for account in book.unscored(track_id(evaluation))] == ["mallory"]
    assert settle(evaluation, book, set())  # the next start takes it up
    assert book.unscored(track_id(evaluation)) == []
    assert audit(evaluation.store).findings == ()


def test_a_token_with_its_own_budget_has_one_run_though_some_tasks_have_the_same(
    evaluation: Evaluation, book: Accounts
) -> None:
    own = evaluation.cells[0].spec.calls
    book.new_token("carol", own)
    for cell in evaluation.cells:
        account = book.account("carol", track_id(evaluation), cell.task.name, cell.split, own * cell.train_rows)
        book.submit(account, to_bytes(Answer.of(cell.task)))
    while settle(evaluation, book, set()):
        pass
    (run,) = evaluation.store.runs()
    assert (run.key.modified, run.key.calls) == (("calls",), own)
    assert len(evaluation.store.cells(run.id)) == len(evaluation.cells)


def test_a_token_of_the_same_name_in_another_book_has_a_run_of_its_own(
    evaluation: Evaluation, book: Accounts, tmp_path: Path
) -> None:
    hand_in(evaluation, book, Answer.of(evaluation.cells[0].task))
    settle(evaluation, book, set())
    second = Accounts(str(tmp_path / "second season.db"))
    hand_in(evaluation, second, Answer.of(evaluation.cells[0].task, loss=1.0))
    settle(evaluation, second, set())
    second.close()
    assert len(evaluation.store.runs()) == 2


def test_a_run_over_http_cannot_be_replayed_and_says_why(evaluation: Evaluation, book: Accounts) -> None:
    hand_in(evaluation, book, Answer.of(evaluation.cells[0].task))
    settle(evaluation, book, set())
    (run,) = evaluation.store.runs()
    with pytest.raises(InputError, match="its solver ran elsewhere, over HTTP"):
        choices_of(run.key, evaluation.store.cells(run.id), evaluation.track, Overrides())


def test_the_command_line_makes_lists_and_revokes_tokens(tmp_path: Path) -> None:
    book, runner = str(tmp_path / "service.db"), CliRunner()
    made = runner.invoke(cli, ["serve", "--book", book, "--new-token", "alice", "--calls", "5"])
    assert made.exit_code == 0
    token = made.stdout.strip()
    kept = Accounts(book)
    found = kept.token(token)
    assert found is not None
    assert found.calls == 5
    listed = runner.invoke(cli, ["serve", "--book", book, "--tokens"])
    assert "alice" in listed.stdout
    assert token.split(".")[1] not in listed.output
    assert runner.invoke(cli, ["serve", "--book", book, "--revoke-token", "alice"]).exit_code == 0
    assert kept.token(token) is None
    kept.close()


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", False), ("0.0.0.0", True)])  # noqa: S104
def test_listening_beyond_loopback_warns_that_tls_is_the_proxy_s(
    tiny_track: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, warned: bool
) -> None:
    ran: list[Any] = []
    monkeypatch.setattr(serve, "run", lambda _app, *where: ran.append(where))
    result = CliRunner().invoke(
        cli,
        ["serve", "--track", str(tiny_track), "--host", host, "--book", str(tmp_path / "b.db"),
         "--store", str(tmp_path / "r.db")],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert ran == [(host, 8000, None)]
    assert ("TLS" in result.output) is warned
    assert "--new-token" in result.output  # there is none yet
