"""Freezes what a track's list stands on: the scores that are 0 and 1 on the scale of areas and targets, and its power.

0 is the entry `harness.leaderboard.anytime.BARE`, which answers with the bare template, and 1 an entry that an
organiser names. Where no entry can be 1, the power alone can be frozen: the leads that the list can tell. What was
frozen for a track before is replaced; the other tracks' tables stay as they are.
"""

from __future__ import annotations

import json
import re
import tomllib
from typing import TYPE_CHECKING

from harness.errors import InputError
from harness.leaderboard.anytime import BARE
from harness.leaderboard.table import write_text

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping
    from pathlib import Path

    from harness.leaderboard.entries import Entry
    from harness.leaderboard.rank import Ranking


def frozen(ranking: Ranking, name: str, day: dt.date) -> str:
    """The tables of a track, as TOML: both scores, and the power of the list.

    Args:
        ranking: the track's leaderboard.
        name: the entry that becomes 1.
        day: when it is frozen.

    Raises:
        InputError: one of the two is no complete entry of the main division, or the reference is not above the bare
            template on every task.
    """
    bare, best = _complete(ranking, BARE), _complete(ranking, name)
    scores = {task: (bare.task(task)[0], best.task(task)[0]) for task in sorted(best.tasks)}
    below = [f"{task} ({100 * low:.1f} and {100 * high:.1f})" for task, (low, high) in scores.items() if high <= low]
    if below:
        raise InputError(
            f"{name} is not above {BARE} on {', '.join(below)}: there would be no scale; name a better entry, or "
            "freeze what the list can tell alone: --freeze-power"
        )
    shared = _shared(ranking, best, day)
    lines = _head(ranking, f"{BARE}: run {bare.run}; reference: submission {name}, run {best.run}; {shared}")
    lines += _power(ranking, day)
    for place, table in enumerate(("manual", "reference")):
        lines += ["", f"[{_key(ranking.track)}.{table}]"]
        lines += [f"{_key(task)} = {_value(pair[place])}" for task, pair in scores.items()]
    return "\n".join(lines) + "\n"


def frozen_power(ranking: Ranking, day: dt.date) -> str:
    """The tables of a track without a scale, as TOML: the power of its list alone.

    Args:
        ranking: the track's leaderboard.
        day: when it is frozen.

    Raises:
        InputError: the main division has fewer than two complete entries.
    """
    power = _power(ranking, day)
    if not power:
        raise InputError(
            f"what track {ranking.track} can tell is measured between entries: two complete ones are needed, and the "
            f"main division has {len(_entries(ranking))}; run another one: harness evaluate submissions/{BARE} --track "
            f"{ranking.track}"
        )
    return "\n".join(_head(ranking, "no scale was frozen; the power is") + power) + "\n"


def _head(ranking: Ranking, origin: str) -> list[str]:
    """The first lines of a track: the version, model and data for which the tables hold, and where they are from."""
    named = ("track_fingerprint", "model_sha256", "data_sha256")
    return [
        f"[{_key(ranking.track)}]",
        *(f"{each} = {_value(ranking.identity[each])}" for each in named),
        f"origin = {_value(origin)}",
    ]


def _power(ranking: Ranking, day: dt.date) -> list[str]:
    """The lines of the power of the main list; none where it has no power."""
    complete = _entries(ranking)
    found = ranking.standings(complete[0].division) if complete else None
    if not found or not found.power:
        return []
    names, runs = ", ".join(entry.name for entry in complete), ", ".join(entry.run for entry in complete)
    origin = f"{names}: runs {runs}; {_shared(ranking, complete[0], day)}"
    power = {n: v for n, v in found.power.record().items() if n != "lead_seen"} | {"origin": origin}
    return ["", f"[{_key(ranking.track)}.power]", *(f"{each} = {_value(v)}" for each, v in power.items())]


def _shared(ranking: Ranking, entry: Entry, day: dt.date) -> str:
    """What the runs have in common."""
    splits = sorted({entry.task(task)[2] for task in entry.tasks})
    return f"seed {ranking.identity['seed']}, {' to '.join(map(str, splits))} splits a task, {day.day} {day:%B %Y}"


def freeze(track: str, tables: str, path: Path) -> None:
    """Put a track's tables into a file of references, in the place of older ones.

    Raises:
        InputError: the file cannot be read or written.
    """
    try:
        before = path.read_text(encoding="utf-8-sig") if path.exists() else ""
    except (OSError, UnicodeDecodeError) as problem:
        raise InputError(f"{path} cannot be read: {problem}") from problem
    own = rf"^\[{re.escape(_key(track))}(\.[^\]]+)?\][ \t]*(#.*)?$"
    kept, inside = list[str](), False
    for line in before.splitlines():
        inside = bool(re.match(own, line)) if line.startswith("[") else inside
        kept += [] if inside else [line]
    text = "\n".join(kept).rstrip() + f"\n\n{tables}"
    _whole(text, track, path)
    write_text(text.lstrip(), path)


def _whole(text: str, track: str, path: Path) -> None:
    """Refuse to write what cannot be read back."""
    try:
        found: Mapping[str, object] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        raise InputError(f"{path} is not a file of references: {problem}; mend it or move it away") from problem
    if track not in found:
        raise InputError(f"{path}: track {track} cannot be written into it")


def _entries(ranking: Ranking) -> tuple[Entry, ...]:
    """The complete entries of the main division."""
    main = next(iter(ranking.divisions), None)
    return tuple(ranking.complete(main)) if main else ()


def _complete(ranking: Ranking, name: str) -> Entry:
    complete = _entries(ranking)
    for entry in complete:
        if entry.name == name:
            return entry
    there = ", ".join(entry.name for entry in complete) or "none"
    hint = f"; run it: harness evaluate submissions/{BARE} --track {ranking.track}" if name == BARE else ""
    raise InputError(
        f"a frozen reference needs a complete run of {name} on track {ranking.track}; complete are: {there}{hint}"
    )


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)


def _value(value: object) -> str:
    return json.dumps(value)
