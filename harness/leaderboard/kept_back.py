"""What of a ranking may be shown while a competition is open (`harness.tracks.competition`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.errors import InputError, counted
from harness.tracks.competition import shown

if TYPE_CHECKING:
    from harness.leaderboard.rank import Ranking
    from harness.tracks.track import Track


def check_public(track: Track, *, organiser: bool) -> None:
    """Refuse to show scores that are kept back.

    Args:
        track: the track.
        organiser: whether the organiser asks.

    Raises:
        InputError: scores are kept back until the competition closes.
    """
    competition = track.competition
    if not organiser and competition.public_at() != "scores" and competition.closes:
        raise InputError(
            f"scores on track {track.name} are kept back until the competition closes at {shown(competition.closes)}; "
            "the organiser sees them with --organiser"
        )


def public_record(ranking: Ranking, track: Track) -> dict[str, Any]:
    """What may be shown of a ranking, for machines: its number of entries, and their ranks if these are public."""
    contestants = [each for each in (*ranking.entries, *ranking.elsewhere) if not each.white_box]
    record: dict[str, Any] = {
        "track": ranking.track,
        "competition": track.competition.lines(),
        "entries": len(contestants),
    }
    if track.competition.public_at() == "ranks":
        ranks = []
        for division in ranking.divisions:
            found = ranking.standings(division)
            names = found.names if found else ()
            listed = {name: found.entries[name].rank for name in names} if found else {}
            ranks.append({"division": division.title, "ranks": listed})
        record["ranks"] = ranks
    return record


def public_lines(ranking: Ranking, track: Track) -> list[str]:
    """What may be shown of a ranking, for people. Names of one rank are in alphabetical order."""
    record = public_record(ranking, track)
    lines = [counted(record["entries"], "entry", "entries")]
    for each in record.get("ranks", ()):
        title = f"{each['division']}: " if len(record["ranks"]) > 1 else ""
        if any(rank is None for rank in each["ranks"].values()):
            lines.append(f"{title}too few splits for ranks: {', '.join(sorted(each['ranks']))}")
            continue
        lines += [f"{title}{rank}  {name}" for name, rank in sorted(each["ranks"].items(), key=lambda e: (e[1], e[0]))]
    return [*lines, "scores are not shown and no file is written; the organiser gives --organiser"]
