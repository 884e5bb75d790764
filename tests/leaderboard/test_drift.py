"""Fingerprints of backends, compared within a ranking."""

from __future__ import annotations

from harness.leaderboard.drift import Drift, drift
from harness.leaderboard.entries import CellScore, Entry
from harness.results.records import CellRecord, Fingerprint
from harness.tracks.track import ROUNDING, load_track, track_names


def entry(name: str, *probes: tuple[str, list[float] | None]) -> Entry:
    cells = tuple(
        CellScore(task, n, "ok", 0.5, {}, CellRecord(probe=None if logits is None else Fingerprint("", tuple(logits))))
        for n, (task, logits) in enumerate(probes)
    )
    return Entry(1, name, name, cells, 0, {})


def test_the_largest_difference_of_each_task_is_found_with_the_two_that_differ() -> None:
    """Per logit, over all pairs of cells."""
    found = drift([
        entry("a", ("sst2", [1.0, 2.0]), ("qqp", [5.0, 5.0])),
        entry("b", ("sst2", [1.1, 2.0])),
        entry("c", ("sst2", [1.0, 1.5])),
    ])  # fmt: skip
    assert found == [Drift("qqp", 0.0, ("a", "a")), Drift("sst2", 0.5, ("c", "a"))]


def test_cells_without_a_fingerprint_are_not_compared() -> None:
    """Cells of earlier versions have none. Different numbers of label words are not compared."""
    assert drift([entry("a", ("sst2", None))]) == []
    (found,) = drift([entry("a", ("sst2", None), ("sst2", [1.0])), entry("b", ("sst2", [1.0, 9.0]), ("sst2", [2.0]))])
    assert (found.difference, found.between) == (1.0, ("a", "b"))


def test_two_cells_of_one_entry_may_differ() -> None:
    """The run was continued on another machine."""
    (found,) = drift([entry("a", ("sst2", [1.0]), ("sst2", [1.25]))])
    assert found == Drift("sst2", 0.25, ("a", "a"))


def test_every_number_format_of_a_track_has_a_tolerance() -> None:
    """So that a ranking can always be judged."""
    assert {load_track(name).model.dtype for name in track_names()} <= set(ROUNDING)
    assert set(ROUNDING) == {"float32", "float16", "bfloat16", "int8"}
