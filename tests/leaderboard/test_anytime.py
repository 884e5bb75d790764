"""Step curves, areas, runtimes, ECDF, average runtime: hand cases and invariants."""

from __future__ import annotations

import math
import tomllib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import key

from harness.errors import InputError
from harness.leaderboard.anytime import (
    REFERENCES,
    Curve,
    Reference,
    bare_scores,
    curve,
    ecdf,
    expected_calls,
    load_reference,
    normalised_area,
    profile,
    runtimes,
)
from harness.leaderboard.entries import CellScore, Entry
from harness.leaderboard.rank import score_cell
from harness.results.records import CellRecord, KeptAnswer
from harness.results.store import Store
from harness.tracks.track import load_track

if TYPE_CHECKING:
    from pathlib import Path

INF = float("inf")
MARKS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
FACTS = {"calls_total": 100, "train_rows": 32, "rows_total": 3_200, "rows_spent": 1_600, "sandbox": "process"}
REFERENCE = Reference({"sst2": 0.5, "qqp": 0.6}, {"sst2": 0.7, "qqp": 0.8}, "made up")


def cell(scores: list[float], rows: list[int], task: str = "sst2", status: str = "ok", **facts: Any) -> CellScore:
    """A cell whose incumbents at the last marks have these scores and were offered after so many rows."""
    marks = MARKS[-len(rows) :] if rows else ()
    known = dict(zip(MARKS, [0.1] * (5 - len(scores)) + scores, strict=True))
    return CellScore(
        task, 1, status, known[1.0], known, CellRecord(**FACTS | facts), dict(zip(marks, rows, strict=True))
    )


def entry(*cells: CellScore, white_box: bool = False) -> Entry:
    """An entry of these cells."""
    return Entry(1, "a", "run", cells, 0, {}, white_box)


def test_a_curve_steps_when_an_answer_was_offered() -> None:
    """Offers after 0, 320 and 1,600 rows of 32 a call; marks between share an incumbent."""
    found = curve(cell([0.5, 0.6, 0.6, 0.6, 0.8], [0, 320, 320, 320, 1_600]))
    assert (found.calls, found.scores) == ((0, 10, 50), (0.5, 0.6, 0.8))
    assert (found.budget, found.spent) == (100, 50)


def test_offers_are_read_back_from_the_store() -> None:
    """Rows per mark, as the referee stored them; two of four right from the second offer on."""
    store, labels = Store("sqlite://"), np.array([0, 1, 0, 1])
    kept = [KeptAnswer(1 / 2, 320, b"a", labels), KeptAnswer(1.0, 2_560, b"b", 0 * labels)]
    run = store.open_run(key(), {})
    store.begin(run, "sst2", 1).finish("ok", CellRecord(**FACTS), "t", labels, kept)
    (found,) = map(score_cell, store.cells(run))
    store.close()
    assert found.rows == {1 / 2: 320, 1.0: 2_560}
    assert (curve(found).calls, curve(found).scores) == ((10, 80), (1.0, 0.5))


def test_marks_without_an_answer_have_no_step() -> None:
    """Nothing was offered before a quarter of the budget."""
    assert curve(cell([0.1, 0.1, 0.6, 0.6, 0.8], [640, 640, 3_200])).calls == (20, 100)


def test_a_failed_cell_is_flat() -> None:
    """Its curve has the score of the majority class from the beginning."""
    assert curve(cell([0.4] * 5, [0] * 5, status="crashed")).scores == (0.4,)


def test_an_area_by_hand() -> None:
    """Budget 100, two decades: 0.5 until 10 calls, then 0.7. Before the first answer, the given score counts."""
    assert Curve((0, 10), (0.5, 0.7), 100, 100).area(0.0) == pytest.approx(0.6)
    assert Curve((10,), (0.7,), 100, 100).area(0.3) == pytest.approx(0.5)
    assert Curve((), (), 100, 0).area(0.3) == 0.3
    assert Curve((0.5, 1), (0.2, 0.7), 100, 1).area(0.0) == pytest.approx(0.7)  # a step within the first call
    assert Curve((0, 1), (0.2, 0.7), 1, 1).area(0.0) == 0.7  # a budget of one call: the last score


@given(steps=st.lists(st.tuples(st.floats(0, 100), st.floats(0, 1)), max_size=6), before=st.floats(0, 1))
def test_an_area_lies_between_the_scores(steps: list[tuple[float, float]], before: float) -> None:
    """It is a mean of the scores, and grows by the amount by which all scores grow."""
    steps = sorted(steps)
    found = Curve(tuple(c for c, _ in steps), tuple(s for _, s in steps), 100, 100)
    held = [before, *found.scores]
    assert min(held) - 1e-9 <= found.area(before) <= max(held) + 1e-9
    raised = Curve(found.calls, tuple(s + 0.25 for s in found.scores), 100, 100)
    assert raised.area(before + 0.25) == pytest.approx(found.area(before) + 0.25)


def test_the_manual_prompt_is_0_and_the_reference_at_once_is_1() -> None:
    """Whatever the gaps of single tasks are."""
    manual = entry(cell([0.5] * 5, [0] * 5), cell([0.6] * 5, [0] * 5, "qqp"))
    best = entry(cell([0.7] * 5, [0] * 5), cell([0.8] * 5, [0] * 5, "qqp"))
    assert normalised_area(manual, REFERENCE) == pytest.approx(0)
    assert normalised_area(best, REFERENCE) == pytest.approx(1)


def test_tasks_weigh_by_points_not_by_gap() -> None:
    """Two points on a task with a gap of 20 and on one with a gap of 1 are the same."""
    narrow = Reference({"sst2": 0.5, "qqp": 0.6}, {"sst2": 0.7, "qqp": 0.61}, "made up")
    on_one = entry(cell([0.52] * 5, [0] * 5), cell([0.6] * 5, [0] * 5, "qqp"))
    on_other = entry(cell([0.5] * 5, [0] * 5), cell([0.62] * 5, [0] * 5, "qqp"))
    area = normalised_area(on_one, narrow)
    assert area == pytest.approx(0.01 / 0.105)
    assert area == pytest.approx(normalised_area(on_other, narrow) or 0)


def test_no_area_without_a_budget_or_on_other_tasks() -> None:
    """White-box references have no calls; half the tasks are another scale."""
    cells = (cell([0.5] * 5, [0] * 5), cell([0.6] * 5, [0] * 5, "qqp"))
    assert normalised_area(entry(*cells, white_box=True), REFERENCE) is None
    assert normalised_area(entry(cells[0]), REFERENCE) is None


def test_targets_are_between_manual_and_reference() -> None:
    """25, 50, 75, 90 and 100 % of the way from 0.5 to 0.7."""
    assert REFERENCE.targets("sst2") == pytest.approx((0.55, 0.6, 0.65, 0.68, 0.7))


def test_a_runtime_is_the_first_time_a_target_is_met() -> None:
    """Later, worse incumbents do not matter. A target that is never met has inf. Rounding of a target costs nothing."""
    found = Curve((0, 10, 50), (0.5, 0.7, 0.6), 100, 50)
    assert [found.runtime(t) for t in (0.5, 0.55, 0.7, 0.7 + 1e-12, 0.8)] == [0, 10, 10, 10, INF]


def test_runtimes_of_an_entry_by_cell_and_target() -> None:
    """At 0 calls 25 % of the way is reached, after 10 calls all of it."""
    times = runtimes(entry(cell([0.55, 0.7, 0.7, 0.7, 0.7], [0, 320, 320, 320, 320])), REFERENCE)
    assert times.tolist() == [[0, 10, 10, 10, 10]]


def test_an_ecdf_by_hand() -> None:
    """Of four, one at once, two after 10 calls, one never: a step of 1/4, then 1/4 twice; it ends at 3/4."""
    calls, share = ecdf(np.array([[10, INF], [0, 10]]))
    assert calls.tolist() == [1, 10, 10]
    assert share.tolist() == [0.25, 0.5, 0.75]


@given(times=st.lists(st.one_of(st.just(INF), st.floats(0, 1e6)), min_size=1))
def test_an_ecdf_ascends_to_the_share_that_was_reached(times: list[float]) -> None:
    """And never beyond 1."""
    calls, share = ecdf(np.array(times))
    assert (np.diff(calls) >= 0).all()
    assert (np.diff(share) > 0).all()
    assert (share[-1] if len(share) else 0) == pytest.approx(np.mean(np.isfinite(times)))


def test_an_average_runtime_by_hand() -> None:
    """Two successes after 10 and 20 calls, one failure that used 30: 60 calls, 30 a success. No success: none."""
    assert expected_calls([10, INF, 20], [100, 30, 20]) == 30
    assert expected_calls([INF, INF], [100, 30]) is None


def test_references_hold_for_one_version_of_a_track(tmp_path: Path) -> None:
    """There are none for another model, other data or another track file."""
    path = tmp_path / "references.toml"
    path.write_text(
        'tiny.track_fingerprint = "f"\ntiny.model_sha256 = "m"\ntiny.data_sha256 = "d"\ntiny.origin = "runs"\n'
        "tiny.manual.sst2 = 0.5\ntiny.reference.sst2 = 0.7\n"
    )
    same = {"track_fingerprint": "f", "model_sha256": "m", "data_sha256": "d", "seed": 3}
    found = load_reference("tiny", same, path)
    assert found == Reference({"sst2": 0.5}, {"sst2": 0.7}, "runs")
    for name in ("track_fingerprint", "model_sha256", "data_sha256"):
        assert load_reference("tiny", same | {name: "x"}, path) is None
    assert load_reference("tiny", {}, path) is None
    assert load_reference("other", same, path) is None


@given(steps=st.lists(st.tuples(st.floats(0, 100), st.floats(0, 1)), max_size=6))
def test_weights_share_out_the_whole_budget(steps: list[tuple[float, float]]) -> None:
    """None is negative, and they sum to 1."""
    found = Curve(tuple(sorted(c for c, _ in steps)), tuple(s for _, s in steps), 100, 100).weights()
    assert (found >= -1e-12).all()
    assert found.sum() == pytest.approx(1)


def test_a_performance_profile_by_hand() -> None:
    """Two entries in four places: 10 against 20 calls, 30 against 10, never against 5, and never at all."""
    ratios, shares = profile(np.array([[10, 30, INF, INF], [20, 10, 5, INF]]))
    assert ratios.tolist() == [1, 2, 3]
    assert shares.tolist() == [[0.25, 0.25, 0.5], [0.5, 0.75, 0.75]]


def test_less_than_a_call_is_a_call_in_a_profile() -> None:
    """Otherwise who answers at once would be infinitely better."""
    assert profile(np.array([[0.0], [2.0]]))[0].tolist() == [1, 2]


def test_the_bare_template_is_the_frozen_one_or_that_of_manual() -> None:
    """A reference or an entry that lacks cells is none."""
    half = [cell([0.5] * 5, [0] * 5)]
    manual = [Entry(1, "manual", "run", (*half, cell([0.6] * 5, [0] * 5, "qqp")), 0, {})]
    assert bare_scores(REFERENCE, manual) == REFERENCE.manual
    assert bare_scores(None, manual) == {"sst2": 0.5, "qqp": 0.6}
    assert bare_scores(None, [Entry(None, "manual", "run", tuple(half), 1, {})]) is None
    assert bare_scores(None, [entry(*half)]) is None


def test_the_references_that_ship_are_whole() -> None:
    """For the tracks as they are, on all tasks, each above manual, with their origin; a table may be power alone."""
    shipped = tomllib.loads(REFERENCES.read_text(encoding="utf-8"))
    assert {name for name, found in shipped.items() if "manual" in found} == {"mini", "mini-text"}
    for name, found in shipped.items():
        track = load_track(name)
        assert found["track_fingerprint"] == track.fingerprint
        if "manual" not in found:
            assert set(found) == {"track_fingerprint", "model_sha256", "data_sha256", "origin", "power"}
            continue
        assert set(found["manual"]) == set(found["reference"]) == set(track.tasks)
        assert all(0 < found["manual"][task] < found["reference"][task] < 1 for task in track.tasks)
        assert "run " in found["origin"]
        assert not math.isnan(sum(found["manual"].values()))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[mini\n", "is not a file of references: .*; mend it or move it away"),
        (
            "[mini]\ntrack_fingerprint = 1\nmodel_sha256 = 2\ndata_sha256 = 3\n",
            r"\[mini\] has no manual; mend it, or take",
        ),
    ],
)
def test_a_file_of_references_that_is_none_is_told(tmp_path: Path, text: str, said: str) -> None:
    """It was a traceback of the leaderboard."""
    path = tmp_path / "references.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=said):
        load_reference("mini", {"track_fingerprint": 1, "model_sha256": 2, "data_sha256": 3}, path)


def test_a_track_without_an_identity_has_no_reference(tmp_path: Path) -> None:
    path = tmp_path / "references.toml"
    path.write_text("[mini.power]\nentries = 3\n", encoding="utf-8")
    assert load_reference("mini", {"track_fingerprint": "f"}, path) is None
