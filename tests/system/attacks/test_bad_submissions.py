"""A bad submission ends its own cell, in every tier, and the next one runs as if it had never been there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from bad_submissions import BAD

from harness.blackbox import memory
from harness.results.audit import audit

if TYPE_CHECKING:
    from outer_models import Arena

    from harness.tracks.tiers import Tier


@pytest.mark.slow
def test_bad_submissions_end_their_own_cells_alone(arena: Arena, tier: Tier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 256 << 20)
    before = arena.run("tune = search", tier=tier)
    wrong = {}
    for name, (source, status, told) in BAD.items():
        bad = arena.run(source, tier=tier, wall_s=20)
        allowed = {"crashed", "out_of_memory"} if status == "killed" else {status}
        if bad.status not in allowed or told not in bad.record.detail:
            wrong[name] = (bad.status, bad.record.detail[-500:])
    assert not wrong
    after = arena.run("tune = search", tier=tier)
    assert after.verdict.score == before.verdict.score
    assert [row.sha256 for row in after.ledger] == [row.sha256 for row in before.ledger]
    assert audit(arena.store).findings == ()
