"""From stored facts to ranks."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import key

from harness.leaderboard.rank import Ranking, rank
from harness.leaderboard.table import document
from harness.leaderboard.terminal import notes
from harness.results.records import CellRecord, KeptAnswer
from harness.results.status import FIRST_MARKS, MARKS
from harness.results.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.leaderboard.entries import Entry

LABELS = np.array([0, 1, 1, 0, 1, 0, 1, 1])  # majority class 1: 5 of 8
FACTS = {
    "rows_spent": 64, "train_rows": 32, "tuning_s": 30.0, "level": 1, "tokens": 7, "bytes_up": 5, "bytes_down": 6,
    "lm_s": 0.25, "sandbox": "process",
}  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(str(tmp_path / "results.db"))
    yield made
    made.close()


def add(
    store: Store,
    entry: str,
    right: dict[tuple[str, int], int],
    status: str = "ok",
    marks: tuple[float, ...] = (1.0,),
    facts: dict[str, Any] | None = None,
    **identity: Any,
) -> str:
    """A run whose cells predict so many of the eight labels right."""
    run = store.open_run(key(entry, **identity), {"packages": {"torch": "1"}})
    for (task, split), count in right.items():
        predicted = np.where(np.arange(8) < count, LABELS, 1 - LABELS)
        kept = [KeptAnswer(mark, 1, b"a", predicted) for mark in marks]
        store.begin(run, task, split).finish(status, CellRecord(**FACTS | (facts or {})), "t", LABELS, kept)
    return run


def by_name(ranking: Ranking) -> dict[str, Entry]:
    return {entry.name: entry for entry in ranking.entries}


def test_better_entries_come_first(store: Store) -> None:
    add(store, "low", {("sst2", 1): 5})
    add(store, "high", {("sst2", 1): 7})
    ranking = rank(store, "tiny")
    assert [(entry.rank, entry.name) for entry in ranking.entries] == [(1, "high"), (2, "low")]
    assert by_name(ranking)["high"].average == 7 / 8


def test_equal_averages_share_a_rank_and_the_next_one_is_skipped(store: Store) -> None:
    for name, count in (("b", 6), ("a", 6), ("c", 8), ("d", 5)):
        add(store, name, {("sst2", 1): count})
    assert [(e.rank, e.name) for e in rank(store, "tiny").entries] == [(1, "c"), (2, "a"), (2, "b"), (4, "d")]


@pytest.mark.parametrize("status", ["crashed", "no_answer", "invalid_answer", "protocol_error", "out_of_memory"])
def test_a_failed_cell_counts_as_the_majority_class(store: Store, status: str) -> None:
    add(store, "failed", {("sst2", 1): 8}, status=status)
    (entry,) = rank(store, "tiny").entries
    assert entry.average == 5 / 8
    assert set(entry.cells[0].anytime.values()) == {5 / 8}
    assert entry.statuses == {status: 1}


@pytest.mark.parametrize("status", ["ok", "budget_exhausted", "timeout"])
def test_an_answer_that_stands_counts(store: Store, status: str) -> None:
    add(store, "stands", {("sst2", 1): 8}, status=status)
    assert rank(store, "tiny").entries[0].average == 1


def test_before_the_first_answer_stands_the_bare_template(store: Store) -> None:
    """As the entry `manual` scores where nothing is frozen for these runs; without one, nothing is said."""
    add(store, "late", {("sst2", 1): 8}, marks=(1 / 2, 1.0))
    (entry,) = rank(store, "tiny").entries
    assert (entry.at(1 / 16), entry.at(1 / 2), entry.at(1.0)) == (None, 1, 1)
    add(store, "manual", {("sst2", 1): 6})
    ranking = rank(store, "tiny")
    entry = by_name(ranking)["late"]
    assert ranking.bare == {"sst2": 6 / 8}
    assert (entry.at(1 / 16), entry.at(1 / 2), entry.at(1.0)) == (6 / 8, 1, 1)


def test_a_cell_without_any_answer_fails_as_the_majority_class(store: Store) -> None:
    """In the end, not the bare template: an answer was asked for."""
    run = store.open_run(key("none"), {"packages": {}})
    store.begin(run, "sst2", 1).finish("no_answer", CellRecord(**FACTS), "t", LABELS, [])
    assert rank(store, "tiny").entries[0].average == 5 / 8


HALF = {"rows_total": 512, "history": [[1, {}], [20, {}]]}
"""A budget of 512 rows, whose marks are at 2, 8, 32, 64, 128, 256 and 512 of them, and two offers."""


def kept_from(store: Store, rows: int, facts: dict[str, Any], marks: tuple[float, ...] = FIRST_MARKS) -> Entry:
    """An entry with one cell whose answer, all right, was offered after so many rows and kept at `marks`.

    The bare template gets six of eight right.
    """
    add(store, "manual", {("sst2", 1): 6})
    run = store.open_run(key("old"), {"packages": {}})
    kept = [KeptAnswer(mark, rows, b"a", LABELS) for mark in marks]
    store.begin(run, "sst2", 1).finish("ok", CellRecord(**FACTS | facts), "t", LABELS, kept)
    return by_name(rank(store, "tiny"))["old"]


def test_a_missing_mark_of_an_older_cell_is_inferred_from_a_known_incumbent(store: Store) -> None:
    """The incumbent of 1/16 had been offered after 5 rows: by 1/64 (8 rows), not by 1/256 (2 rows)."""
    entry = kept_from(store, 5, {"rows_total": 512, "history": [[1, {}], [5, {}]]})
    assert entry.at(1 / 64) == entry.at(1 / 16) == entry.at(1 / 64, "sst2") == 1
    assert entry.at(1 / 256) is None  # another answer stood, which was not kept


def test_before_the_first_offer_an_older_cell_counts_as_the_bare_template(store: Store) -> None:
    entry = kept_from(store, 20, {"rows_total": 512, "history": [[20, {}]]})
    assert (entry.at(1 / 256), entry.at(1 / 64), entry.at(1 / 16)) == (6 / 8, 6 / 8, 1)


def test_an_older_cell_whose_answer_was_not_stored_has_no_value(store: Store) -> None:
    entry = kept_from(store, 20, HALF)
    assert (entry.at(1 / 256), entry.at(1 / 64), entry.at(1 / 16)) == (None, None, 1)


def test_a_cell_that_names_its_marks_is_taken_at_its_word(store: Store) -> None:
    """It has no incumbent at the first marks, so there was none."""
    entry = kept_from(store, 20, HALF | {"marks": MARKS})
    assert (entry.at(1 / 256), entry.at(1 / 64), entry.at(1 / 16)) == (6 / 8, 6 / 8, 1)


def test_an_entry_that_lacks_cells_has_no_rank(store: Store) -> None:
    add(store, "part", {("sst2", 1): 8})
    add(store, "whole", {("sst2", 1): 5, ("sst2", 2): 5})
    ranking = rank(store, "tiny")
    assert [(e.rank, e.name, e.missing) for e in ranking.entries] == [(1, "whole", 0), (None, "part", 1)]


def test_an_entry_that_lacks_cells_of_the_track_has_no_rank_even_alone(store: Store) -> None:
    add(store, "part", {("sst2", 1): 8})
    (entry,) = rank(store, "tiny", planned=[("sst2", 1), ("sst2", 2), ("qqp", 1)]).entries
    assert (entry.rank, entry.missing) == (None, 2)


def test_the_newest_run_of_an_entry_counts(store: Store) -> None:
    add(store, "entry", {("sst2", 1): 8}, submission_sha256="old")
    newest = add(store, "entry", {("sst2", 1): 5}, submission_sha256="new")
    (entry,) = rank(store, "tiny").entries
    assert (entry.run, entry.average) == (newest, 5 / 8)


def test_runs_with_choices_replaced_are_left_out_and_counted(store: Store) -> None:
    add(store, "plain", {("sst2", 1): 5})
    add(store, "trial", {("sst2", 1): 8}, modified=("calls",))
    ranking = rank(store, "tiny")
    assert list(by_name(ranking)) == ["plain"]
    assert ranking.left_out == 1


def test_a_trial_does_not_replace_the_entry_it_is_a_trial_of(store: Store) -> None:
    add(store, "entry", {("sst2", 1): 6})
    add(store, "entry", {("sst2", 1): 8}, modified=("model",))
    assert rank(store, "tiny").entries[0].average == 6 / 8


def test_one_run_with_another_seed_does_not_take_the_leaderboard_over(store: Store) -> None:
    for name in ("a", "b"):
        add(store, name, {("sst2", 1): 6})
    add(store, "a", {("sst2", 1): 8}, seed=5)
    ranking = rank(store, "tiny")
    assert {name: entry.average for name, entry in by_name(ranking).items()} == {"a": 6 / 8, "b": 6 / 8}
    assert ranking.left_out == 1


@pytest.mark.parametrize("change", [{"data_sha256": "x"}, {"model_sha256": "x"}, {"seed": 3}, {"rules": 2}])
def test_runs_that_differ_in_what_they_ran_on_are_not_ranked_together(store: Store, change: dict[str, Any]) -> None:
    add(store, "a", {("sst2", 1): 6})
    add(store, "b", {("sst2", 1): 6}, **change)
    ranking = rank(store, "tiny")
    assert list(by_name(ranking)) == ["b"]
    assert ranking.left_out == 1


def test_the_tracks_device_is_ranked_and_others_are_listed_apart(store: Store) -> None:
    """However many and however good the runs on other devices are; a run of the same entry there replaces nothing."""
    add(store, "a", {("sst2", 1): 5}, device="NVIDIA H200")
    for name in ("a", "b", "c"):
        add(store, name, {("sst2", 1): 8, ("sst2", 2): 8}, device="cpu")
    add(store, "a", {("sst2", 1): 7}, device="NVIDIA A100")
    ranking = rank(store, "tiny", ranks=lambda device: device == "NVIDIA H200")
    assert [(e.rank, e.name, e.device, e.missing) for e in ranking.entries] == [(1, "a", "NVIDIA H200", 0)]
    assert [(e.rank, e.name, e.device) for e in ranking.elsewhere] == [
        (None, "a", "NVIDIA A100"), (None, "a", "cpu"), (None, "b", "cpu"), (None, "c", "cpu"),
    ]  # fmt: skip
    assert ranking.entries[0].average == 5 / 8
    assert ranking.left_out == 0


def test_without_a_run_on_the_tracks_device_nobody_is_ranked(store: Store) -> None:
    """The other runs are still listed."""
    add(store, "a", {("sst2", 1): 8}, device="cpu")
    ranking = rank(store, "tiny", ranks=lambda device: device != "cpu")
    assert ranking.entries == ()
    assert [(e.rank, e.name, e.device) for e in ranking.elsewhere] == [(None, "a", "cpu")]
    assert ranking.tasks == ("sst2",)


def test_if_several_devices_may_rank_the_one_with_most_entries_is_shown(store: Store) -> None:
    """A track that takes any GPU has one ranking for each kind, and shows the largest."""
    for name in ("a", "b"):
        add(store, name, {("sst2", 1): 6}, device="NVIDIA A100")
    add(store, "c", {("sst2", 1): 6}, device="NVIDIA H200")
    ranking = rank(store, "tiny", ranks=lambda device: device != "cpu")
    assert [(e.name, e.device) for e in ranking.entries] == [("a", "NVIDIA A100"), ("b", "NVIDIA A100")]
    assert [(e.name, e.device) for e in ranking.elsewhere] == [("c", "NVIDIA H200")]


def test_another_version_of_the_track_is_left_out(store: Store) -> None:
    add(store, "a", {("sst2", 1): 6}, track_fingerprint="old")
    add(store, "b", {("sst2", 1): 6}, track_fingerprint="new")
    assert list(by_name(rank(store, "tiny"))) == ["b"]
    assert list(by_name(rank(store, "tiny", "old"))) == ["a"]
    assert rank(store, "tiny", "none").entries == ()
    assert rank(store, "tiny", "none").left_out == 2


def test_another_track_is_not_even_counted(store: Store) -> None:
    add(store, "a", {("sst2", 1): 6}, track="other")
    assert rank(store, "tiny") == Ranking("tiny", (), (), 0)


def test_the_average_is_over_tasks_of_the_mean_over_splits(store: Store) -> None:
    add(store, "a", {("sst2", 1): 8, ("sst2", 2): 4, ("qqp", 1): 8})
    (entry,) = rank(store, "tiny").entries
    mean, std, splits = entry.task("sst2")
    assert (mean, splits) == (0.75, 2)
    assert std == pytest.approx(np.std([1, 0.5], ddof=1))
    assert entry.task("qqp")[1] == 0
    assert entry.average == (0.75 + 1) / 2


def test_snli_is_scored_by_macro_f1(store: Store) -> None:
    add(store, "a", {("snli", 1): 8})
    assert rank(store, "tiny").entries[0].average == pytest.approx(2 / 3)  # a class that is in neither counts 0


def test_use_is_summed_over_cells(store: Store) -> None:
    add(store, "a", {("sst2", 1): 8, ("sst2", 2): 8}, facts={"level": 2})
    (entry,) = rank(store, "tiny").entries
    assert (entry.calls, entry.wall_s, entry.access) == (4, 60, 2)


def test_a_run_without_a_finished_cell_is_not_listed(store: Store) -> None:
    store.begin(store.open_run(key("started"), {}), "sst2", 1)
    assert rank(store, "tiny").entries == ()


WHITE: dict[str, Any] = {"access": "white-box"}


def test_references_follow_unranked_with_the_best_first(store: Store) -> None:
    for name, count in (("lora", 6), ("tuned", 8), ("bitfit", 6)):
        add(store, name, {("sst2", 1): count}, facts={"level": 4}, **WHITE)
    add(store, "worse", {("sst2", 1): 4})
    add(store, "better", {("sst2", 1): 5})
    add(store, "part", {("sst2", 2): 5}, status="ok")
    found = rank(store, "tiny", planned=[("sst2", 1)]).entries
    assert [(e.name, e.rank, e.white_box) for e in found[-3:]] == [
        ("tuned", None, True), ("bitfit", None, True), ("lora", None, True),
    ]  # fmt: skip
    assert {e.access for e in found[-3:]} == {4}
    assert not any(e.white_box for e in found[:3])


def test_a_reference_that_lacks_cells_is_not_listed_above_complete_ones(store: Store) -> None:
    """Its average is over the tasks it has, which may be the easy ones."""
    add(store, "bbt", {("sst2", 1): 5, ("qqp", 1): 5})
    add(store, "easy", {("sst2", 1): 8}, **WHITE)
    add(store, "whole", {("sst2", 1): 8, ("qqp", 1): 6}, **WHITE)
    assert [e.name for e in rank(store, "tiny").entries] == ["bbt", "whole", "easy"]


def test_cells_of_a_reference_are_asked_of_nobody_else(store: Store) -> None:
    add(store, "bbt", {("sst2", 1): 5})
    add(store, "lora", {("sst2", 1): 8, ("sst2", 2): 8, ("qqp", 1): 8}, **WHITE)
    add(store, "bitfit", {("qqp", 1): 8}, **WHITE)
    entries = by_name(rank(store, "tiny"))
    assert (entries["bbt"].rank, entries["bbt"].missing) == (1, 0)
    assert (entries["lora"].missing, entries["bitfit"].missing) == (0, 1)
    assert rank(store, "tiny").tasks == ("qqp", "sst2")


def test_references_do_not_decide_which_runs_are_compared(store: Store) -> None:
    add(store, "bbt", {("sst2", 1): 5})
    for name in ("lora", "bitfit"):
        add(store, name, {("sst2", 1): 8}, seed=7, **WHITE)
    add(store, "late", {("sst2", 1): 8}, track_fingerprint="new", **WHITE)
    ranking = rank(store, "tiny")
    assert [(e.name, e.rank) for e in ranking.entries] == [("bbt", 1)]
    assert ranking.left_out == 3


def test_references_alone_are_listed(store: Store) -> None:
    add(store, "lora", {("sst2", 1): 8}, **WHITE)
    (entry,) = rank(store, "tiny").entries
    assert (entry.name, entry.rank, entry.missing) == ("lora", None, 0)


def test_a_reference_does_not_replace_a_submission_of_the_same_name(store: Store) -> None:
    add(store, "mine", {("sst2", 1): 5})
    add(store, "mine", {("sst2", 1): 8}, **WHITE)
    assert [(e.rank, e.average) for e in rank(store, "tiny").entries] == [(1, 5 / 8), (None, 1.0)]


CELLS = st.dictionaries(st.sampled_from([("sst2", 1), ("sst2", 2), ("qqp", 1)]), st.integers(0, 8), min_size=1)
RUNS = st.lists(st.tuples(st.sampled_from("abc"), CELLS, st.integers(0, 1)), max_size=4)


@given(contestants=RUNS, references=RUNS)
@settings(max_examples=25, deadline=None)
def test_references_never_change_what_is_said_of_the_others(
    contestants: list[tuple[str, dict[tuple[str, int], int], int]],
    references: list[tuple[str, dict[tuple[str, int], int], int]],
) -> None:
    said = []
    for more in ((), references):
        store = Store("sqlite://")
        for number in range(max(len(contestants), len(more))):
            for runs, access in ((contestants, "black-box"), (more, "white-box")):
                for name, right, seed in runs[number : number + 1]:
                    add(store, name, right, seed=seed, access=access, submission_sha256=f"{number}")
        listed = rank(store, "tiny").entries
        store.close()
        said.append([(e.name, e.rank, e.missing, e.average) for e in listed if not e.white_box])
        assert all(e.rank is None for e in listed if e.white_box)
        assert [e.white_box for e in listed] == sorted(e.white_box for e in listed)
    assert said[0] == said[1]


def test_ranking_needs_neither_torch_nor_the_language_model() -> None:
    program = (
        "import harness.leaderboard.rank, harness.leaderboard.table, sys;"
        "names = ('torch', 'transformers', 'harness.lm');"
        "found = [m for m in sys.modules if m.startswith(names)];"
        "sys.exit(str(found or ''))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert not done.stderr.strip()


def test_two_teams_with_one_entry_share_a_rank_and_no_lead_is_promised(store: Store) -> None:
    """The line below the table says why nothing is known of leads, and does not say that a lead of 0.0 is seen."""
    right = {(task, split): 4 + split for task in ("sst2", "qqp", "snli") for split in (1, 2, 3)}
    for team in ("alice", "bob"):
        add(store, "same", right, team=team)
    ranking = rank(store, "tiny")
    (division,) = ranking.divisions
    assert [standing.rank for entry in ranking.entries if (standing := ranking.standing(entry))] == [1, 1]
    lines = notes(ranking, division)
    assert "not known: most of its entries predict exactly the same" in lines[1]
    assert document(ranking)["lists"][0]["power"] is None
