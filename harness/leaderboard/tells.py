"""The power of a track before a new run: from the runs in a results database, or from published runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.leaderboard.anytime import REFERENCES, frozen_tables
from harness.leaderboard.power import Power
from harness.leaderboard.rank import rank

if TYPE_CHECKING:
    from pathlib import Path

    from harness.leaderboard.rank import Results
    from harness.tracks.track import Track


def tells(track: Track, results: Results | None, path: Path = REFERENCES) -> Power | None:
    """The leads that the main list of a track can detect.

    Args:
        track: the track.
        results: runs to take the noise from, where there are two complete entries or more of this version of the track.
        path: where it is taken from otherwise, as frozen for this version: the table ``[<track>.power]``, which is the
            ``power`` of a list in the JSON of ``harness leaderboard``.

    Returns:
        The power; None if no noise was measured.
    """
    if results is not None:
        ranking = rank(results, track.name, track.fingerprint, track.planned, track.ranks)
        for division in ranking.divisions[:1]:
            found = ranking.standings(division)
            if found is not None and found.power is not None:
                return found.power
    frozen = frozen_tables(track.name, path)
    if frozen.get("track_fingerprint") != track.fingerprint or "power" not in frozen:
        return None
    return Power.from_record(frozen["power"])
