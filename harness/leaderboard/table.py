"""The ranking as a CSV file, as JSON, and as tables for the terminal. Columns are described in docs/leaderboard.md."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from harness.errors import InputError
from harness.leaderboard.anytime import load_reference, normalised_area
from harness.leaderboard.divisions import ACCESS, ceilings
from harness.leaderboard.pareto import fronts
from harness.results.status import COUNTS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd

    from harness.leaderboard.anytime import Reference
    from harness.leaderboard.entries import Division, Entry
    from harness.leaderboard.rank import Ranking
    from harness.leaderboard.standing import Standing, Standings

_MARKS = {"1_256": 1 / 256, "1_64": 1 / 64, "1_16": 1 / 16, "1_8": 1 / 8, "1_4": 1 / 4, "1_2": 1 / 2}


def records(ranking: Ranking) -> list[dict[str, Any]]:
    """One flat record per entry, those on other devices last; the columns of the CSV, in order."""
    reference = load_reference(ranking.track, ranking.identity)
    on: dict[str, tuple[str, ...]] = {}
    for division in ranking.divisions:
        complete = ranking.complete(division)
        on |= dict(zip((entry.run for entry in complete), fronts(complete), strict=True))
    return [
        _record(entry, ranking.tasks, ranking.standing(entry), on.get(entry.run, ()), reference)
        for entry in (*ranking.entries, *ranking.elsewhere)
    ]


def document(ranking: Ranking) -> dict[str, Any]:
    """The ranking for machines: its lists, each with resolution and the ranks in it, and a record per entry."""
    lists: list[dict[str, Any]] = []
    for division in ranking.divisions:
        for level in ceilings(ranking.complete(division)):
            found = ranking.standings(division, level)
            ranks = {name: standing.rank for name, standing in found.entries.items()} if found else {}
            resolution = _rounded(found.resolution) if found else ""
            lists.append({"division": division.title, "up_to": f"L{level}", "resolution": resolution, "ranks": ranks})
    common = {"track": ranking.track, "identity": ranking.identity, "left_out": ranking.left_out}
    return common | {"lists": lists, "entries": records(ranking)}


def json_beside(csv_path: Path) -> Path:
    """Where the JSON goes that is written with a CSV: beside it, under the same name.

    Raises:
        InputError: the CSV would be overwritten by it.
    """
    if not csv_path.name or csv_path.suffix.lower() == ".json":
        raise InputError(f"{csv_path} cannot be a CSV with its JSON beside it; name the CSV, e.g. x.csv for x.json")
    return csv_path.with_suffix(".json")


def write_document(found: dict[str, Any], csv_path: Path, json_path: Path) -> None:
    """Write a ranking's `document`: its entries as a CSV, all of it as JSON.

    Raises:
        InputError: a file cannot be written.
    """
    write_records(found["entries"], csv_path)
    _write(json.dumps(found, indent=2, allow_nan=False) + "\n", json_path)


def write_records(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write records as a CSV.

    Raises:
        InputError: the file cannot be written.
    """
    _write(frame(rows).to_csv(index=False, lineterminator="\n"), path)


def frame(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Records as a DataFrame that holds what they hold: an integer beside a gap stays an integer."""
    import pandas as pd  # noqa: PLC0415 - half a second

    return pd.DataFrame(rows, columns=None if rows else ["rank", "submission"], dtype=object)


def _write(text: str, path: Path) -> None:
    """Write a file beside its final place and move it there, so that a reader never sees half of it.

    Raises:
        InputError: the file cannot be written.
    """
    beside = path.parent / f".{path.name}.{os.getpid()}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as problem:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise InputError(f"{path} cannot be written: {problem}") from problem


def terminal_table(ranking: Ranking) -> Group:
    """A table per division, main one first, readable at 100 columns, and what its differences are worth below it.

    White-box references close the first table.
    """
    references = [entry for entry in (*ranking.entries, *ranking.elsewhere) if entry.white_box]
    contestants = [entry for entry in (*ranking.entries, *ranking.elsewhere) if not entry.white_box]
    shown: list[Table | Text] = []
    for number, division in enumerate(ranking.divisions):
        entries = [entry for entry in contestants if entry.division == division] + ([] if number else references)
        of_several = f": {division.title}" if len(ranking.divisions) > 1 else ""
        shown.append(_table(f"track {ranking.track}{of_several}", ranking, entries))
        shown += [Text(line, style="dim") for line in _notes(ranking, division)]
    return Group(*shown)


def _table(title: str, ranking: Ranking, entries: list[Entry]) -> Table:
    table = Table(title=escape(title), title_justify="left", box=None, pad_edge=False)
    table.add_column("#", justify="right")
    table.add_column("submission", overflow="fold")
    for task in ranking.tasks:
        table.add_column(task, justify="right", no_wrap=True)
    table.add_column("average", justify="right", style="bold", no_wrap=True)
    table.add_column("calls", justify="right")
    table.add_column("min", justify="right")
    states = [_state(entry) for entry in entries]
    if any(states):
        table.add_column("failed", justify="right")
    standings = [ranking.standing(entry) for entry in entries]
    ranks = [standing.rank for standing in standings if standing]
    for entry, standing, state in zip(entries, standings, states, strict=True):
        table.add_row(
            "white-box" if entry.white_box else shown_rank(entry, standing, ranks),
            escape(_apart(entry) if entry in ranking.elsewhere else entry.name),
            *(f"{entry.task(task)[0] * 100:.1f}" if task in entry.tasks else "-" for task in ranking.tasks),
            _average(entry, standing),
            f"{entry.calls:,.0f}",
            f"{entry.wall_s / 60:.1f}",
            *([state] if any(states) else []),
        )
    return table


def _apart(entry: Entry) -> str:
    """Name of an entry that is listed apart, with why."""
    return f"{entry.name} on {entry.device}" + (f" with {entry.external}" if entry.external else "")


def shown_rank(entry: Entry, standing: Standing | None, ranks: list[int]) -> str:
    """Shared rank as people see it, ``3=`` where others in `ranks` have it, too; ``-`` where cells are missing."""
    if standing is None:
        return str(entry.rank or "-")
    return f"{standing.rank}=" if ranks.count(standing.rank) > 1 else str(standing.rank)


def _average(entry: Entry, standing: Standing | None) -> str:
    average = f"{entry.average * 100:.1f}"
    if standing is None:
        return average
    return f"{average} [{standing.average.low * 100:.1f}, {standing.average.high * 100:.1f}]"


def _state(entry: Entry) -> str:
    failed = sum(count for status, count in entry.statuses.items() if status not in COUNTS)
    to_run = f"+{entry.missing} to run" if entry.missing else ""
    return " ".join(filter(None, [str(failed or ""), to_run]))


def _notes(ranking: Ranking, division: Division) -> list[str]:
    """What the ranks of a division mean, and who is first where less access is allowed."""
    whole = ranking.standings(division)
    if whole is None or whole.resolution is None:
        return []
    points = f"{whole.resolution * 100:.1f} points"
    lines = ["[95 % interval over splits and test items]  = cannot be told apart from the first of that rank"]
    lines.append(f"resolution: differences to the first under {points} are usually ties")
    for level in ceilings(ranking.complete(division))[:-1]:
        found = ranking.standings(division, level)
        lines.append(f"first up to {ACCESS[level]}: {', '.join(_first(found))}" if found else "")
    return lines


def _first(standings: Standings) -> list[str]:
    return [name for name in standings.names if standings.entries[name].rank == 1]


def _record(
    entry: Entry,
    tasks: tuple[str, ...],
    standing: Standing | None,
    pareto: tuple[str, ...],
    reference: Reference | None,
) -> dict[str, Any]:
    access = "white-box" if entry.white_box else f"L{entry.access}"
    row: dict[str, Any] = {
        "rank": standing.rank if standing else entry.rank or "",
        "submission": entry.name,
        "access": access,
        "division": entry.division.title,
        "rank_low": standing.rank_low if standing else "",
        "rank_high": standing.rank_high if standing else "",
    }
    for task in tasks:
        mean, std, splits = entry.task(task) if task in entry.tasks else (None, None, 0)
        row |= {f"{task}": _rounded(mean), f"{task}_std": _rounded(std), f"{task}_splits": splits}
    behind = standing.behind if standing else None
    area = normalised_area(entry, reference) if reference and not entry.missing else None
    row |= {
        "average": _rounded(entry.average),
        "average_low": _rounded(standing.average.low if standing else None),
        "average_high": _rounded(standing.average.high if standing else None),
        "behind": _rounded(behind.difference.value if behind else None),
        "behind_low": _rounded(behind.difference.low if behind else None),
        "behind_high": _rounded(behind.difference.high if behind else None),
        "behind_p": _rounded(behind.p_holm if behind else None),
        "anytime_area": _rounded(area),
    }
    early = {name: None if entry.white_box else entry.at(mark) for name, mark in _MARKS.items()}  # of a budget
    row |= {f"average_at_{name}": _rounded(value) for name, value in early.items()}
    row |= {
        "calls": round(entry.calls, 2),
        "tokens": sum(cell.record.tokens for cell in entry.cells),
        "bytes_up": sum(cell.record.bytes_up for cell in entry.cells),
        "bytes_down": sum(cell.record.bytes_down for cell in entry.cells),
        "wall_s": round(entry.wall_s, 1),
        "lm_s": round(sum(cell.record.lm_s for cell in entry.cells), 1),
        "pareto": " ".join(pareto),
        "statuses": " ".join(f"{name}:{count}" for name, count in entry.statuses.items()),
        "missing_cells": entry.missing,
        "device": entry.device,
        "sandbox": " ".join(sorted({cell.record.sandbox for cell in entry.cells})),
        "versions": " ".join(f"{name}={value}" for name, value in sorted(entry.environment["packages"].items())),
        "run": entry.run,
    }
    return row


def _rounded(value: float | None) -> float | str:
    return "" if value is None else round(value, 4)
