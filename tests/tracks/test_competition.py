"""The `[competition]` table: when it is open, how often a team may try, and what is public until the end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from harness.errors import InputError, TrackError
from harness.tracks.competition import DAY_S, Competition, day_start
from harness.tracks.track import load_track, tracks_dir

if TYPE_CHECKING:
    from pathlib import Path

OPENS, CLOSES = datetime(2030, 1, 1, 9, tzinfo=UTC), datetime(2030, 1, 31, 21, tzinfo=UTC)
BEFORE, DURING, AFTER = (OPENS.timestamp() - 7200, OPENS.timestamp(), CLOSES.timestamp())
BOTH = Competition(OPENS, CLOSES, 2, "ranks")


def track(folder: Path, table: str) -> Path:
    path = folder / "mini.toml"
    path.write_text((tracks_dir() / "mini.toml").read_text(encoding="utf-8") + f"\n[competition]\n{table}\n")
    return path


def test_it_is_open_from_the_first_moment_until_the_last() -> None:
    assert BOTH.refusal(BEFORE) == "the competition opens at 2030-01-01 09:00 UTC, in 2 hours"
    assert BOTH.refusal(DURING) is None
    assert BOTH.refusal(AFTER - 1) is None
    assert BOTH.refusal(AFTER) == "the competition closed at 2030-01-31 21:00 UTC"
    assert Competition().refusal() is None
    assert Competition(closes=datetime.now(UTC) - timedelta(seconds=1)).refusal() is not None


def test_what_is_kept_back_is_shown_at_the_end() -> None:
    assert [BOTH.public_at(at) for at in (BEFORE, DURING, AFTER)] == ["ranks", "ranks", "scores"]
    assert Competition().public_at() == "scores"


def test_people_are_told_dates_and_limits() -> None:
    limits = "2 attempts a team and day; scores are kept back until then"
    assert BOTH.lines(DURING) == [f"competition: open until 2030-01-31 21:00 UTC, for 30 days more; {limits}"]
    assert BOTH.lines(AFTER) == ["competition: closed since 2030-01-31 21:00 UTC; 2 attempts a team and day"]
    assert BOTH.lines(BEFORE)[0].startswith("competition: opens at 2030-01-01 09:00 UTC, in 2 hours; open until")
    assert Competition().lines() == []


def test_a_team_has_so_many_attempts_a_day() -> None:
    BOTH.check_attempts("alice", 1)
    with pytest.raises(InputError, match="alice has had 2 attempts today, and the track allows 2 a day"):
        BOTH.check_attempts("alice", 2)
    Competition().check_attempts("alice", 1000)
    assert day_start(DURING) == datetime(2030, 1, 1, tzinfo=UTC).timestamp()
    assert day_start(day_start(DURING)) == day_start(DURING) == day_start(day_start(DURING) + DAY_S - 1)


def test_a_table_with_offsets_is_read_and_changes_no_fingerprint(tmp_path: Path) -> None:
    table = 'opens = 2030-01-01T10:00:00+01:00\ncloses = 2030-01-31T21:00:00Z\nattempts_per_day = 2\npublic = "ranks"'
    found = load_track(str(track(tmp_path, table)))
    assert found.competition == BOTH
    assert found.fingerprint == load_track("mini").fingerprint


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("closes = 2030-01-31", r"mini\.toml:\d+: Expected `datetime \| null`, got `date`"),
        ("closes = 2030-01-31T21:00:00", "Expected `datetime` with a timezone component"),
        ("opens = 2030-02-01T00:00:00Z\ncloses = 2030-01-01T00:00:00Z", r":52: competition: it closes at 2030-01-01"),
        ('public = "ranks"', "there is no `closes`; add it"),
        ('public = "some"', "Invalid enum value 'some'"),
        ("attempts_per_day = 0", "`int` >= 1"),
        ("closed = true", "unknown field `closed`"),
    ],
)
def test_a_table_that_makes_no_sense_is_told_with_its_line(tmp_path: Path, table: str, says: str) -> None:
    with pytest.raises(TrackError, match=says):
        load_track(str(track(tmp_path, table)))
