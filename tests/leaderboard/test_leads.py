"""What a list can tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from made_up import key

from harness.leaderboard.power import CHANCES, Power
from harness.leaderboard.tells import tells
from harness.leaderboard.ties import critical
from harness.results.records import CellRecord, KeptAnswer
from harness.results.store import Store
from harness.tracks.track import load_track

if TYPE_CHECKING:
    from pathlib import Path

POWER = Power(10, 0.012, 25, True)


def test_the_chance_to_see_a_lead_is_what_drawing_gives() -> None:
    """Normal differences with a standard error from chi-square: 20,000 draws of a lead of 4 points."""
    rng = np.random.default_rng(0)
    difference = 0.04 + 0.012 * rng.standard_normal(20_000)
    error = 0.012 * np.sqrt(rng.chisquare(25, 20_000) / 25)
    seen = (difference > critical(10, np.array([25.0]))[0] * error).mean()
    assert POWER.chance(0.04) == pytest.approx(seen, abs=0.012)


def test_leads_and_chances_turn_around() -> None:
    leads = [POWER.lead(chance) for chance in CHANCES]
    assert [POWER.chance(lead) for lead in leads] == pytest.approx(CHANCES, abs=1e-4)
    assert leads == sorted(leads, reverse=True)


def test_more_entries_need_a_larger_lead() -> None:
    assert Power(40, 0.012, 25, True).lead(0.9) > POWER.lead(0.9)
    assert Power(2, 0.012, 25, True).lead(0.9) < POWER.lead(0.9)


def test_it_is_said_in_points() -> None:
    often, half, rarely = (f"{100 * POWER.lead(chance):.1f}" for chance in CHANCES)
    assert POWER.sentence() == (
        f"with 10 entries, a lead of {often} points over one of them is seen in 9 of 10 cases, one of {half} in 5 of 10"
        f", one of {rarely} in 1 of 10"
    )


def test_a_record_is_read_back() -> None:
    assert Power.from_record(POWER.record()) == POWER


def test_without_noise_every_lead_is_seen() -> None:
    certain = Power(3, 0.0, 10, True)
    assert (certain.chance(0.001), certain.chance(0), certain.lead(0.9)) == (1, 0, 0)


FROZEN = """
[mini]
track_fingerprint = "{fingerprint}"
[mini.power]
entries = 10
standard_error = 0.012
degrees_of_freedom = 25.0
ranked = true
"""


def test_a_track_tells_what_was_frozen_for_its_version(tmp_path: Path) -> None:
    """Another version of the track, or another track, tells nothing."""
    track, path = load_track("mini"), tmp_path / "references.toml"
    path.write_text(FROZEN.format(fingerprint=track.fingerprint), encoding="utf-8")
    assert tells(track, None, path) == POWER
    assert tells(load_track("kit"), None, path) is None
    path.write_text(FROZEN.format(fingerprint="before"), encoding="utf-8")
    assert tells(track, None, path) is None


def test_runs_that_are_there_come_before_what_is_frozen(tmp_path: Path) -> None:
    """With two complete entries; one alone has nobody to lead."""
    track, path, store = load_track("mini"), tmp_path / "references.toml", Store("sqlite://")
    path.write_text(FROZEN.format(fingerprint=track.fingerprint), encoding="utf-8")
    labels = np.array([0, 1] * 20)
    for n, name in enumerate(("a", "b")):
        run = store.open_run(key(name, track="mini", track_fingerprint=track.fingerprint), {"packages": {}})
        for task, split in track.planned:
            rng = np.random.default_rng([n, split, len(task)])
            kept = [KeptAnswer(1.0, 32, b"a", np.where(rng.random(40) < 0.8, labels, 1 - labels))]
            record = CellRecord(rows_spent=32, train_rows=32, calls_total=10, rows_total=320, sandbox="A")
            store.begin(run, task, split).finish("ok", record, "t", labels, kept)
        found = tells(track, store, path)
        assert found is not None
        assert found.entries == (10, 2)[n]
    assert found.ranked
    store.close()
