"""A worker that the clock ends says where it was, in every tier, whether Python or C code runs in it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from tiers import skip_where_missing

from harness.tracks.tiers import TIERS, Tier

if TYPE_CHECKING:
    from outer_models import Arena

BUSY = """
def tune(lm, task, shots, rng, config):
    yield Answer.of(task)
    print("begun")
    while True:
        pass
"""
WAITING = """
def tune(lm, task, shots, rng, config):
    yield Answer.of(task)
    print("begun")
    time.sleep(600)
"""
DEAF = """
def tune(lm, task, shots, rng, config):
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    yield Answer.of(task)
    time.sleep(600)
"""


@pytest.mark.parametrize("body", [BUSY, WAITING], ids=["python", "c"])
@pytest.mark.parametrize("tier", TIERS)
def test_the_stack_is_kept_and_is_no_part_of_the_output(arena: Arena, tier: Tier, body: str) -> None:
    skip_where_missing(tier)
    run = arena.run(body, tier=tier, wall_s=6, test_s=60)
    assert run.status == "timeout"
    first, head, *frames = run.record.detail.splitlines()
    assert (first, head) == ("wall-clock limit reached", "Where it was (most recent call last):")
    assert re.fullmatch(r'  File ".*/entry/submission\.py", line \d+, in tune', frames[0])
    assert frames[1].strip() in {"while True:", "pass", "time.sleep(600)"}
    assert run.record.output == "begun\n"


def test_a_submission_that_hides_its_stack_is_ended_all_the_same(arena: Arena) -> None:
    run = arena.run(DEAF, wall_s=6, test_s=60)
    assert (run.status, run.record.detail) == ("timeout", "wall-clock limit reached")
    assert run.record.tuning_s < 12
