"""What a list can tell."""

from __future__ import annotations

import numpy as np
import pytest

from harness.leaderboard.power import CHANCES, Power
from harness.leaderboard.ties import critical

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
