"""The ranking as a CSV file and as JSON. Columns are described in docs/leaderboard.md."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import InputError
from harness.leaderboard.anytime import load_reference, normalised_area
from harness.leaderboard.divisions import ceilings, level_name
from harness.leaderboard.pareto import cost, fronts, money
from harness.leaderboard.ties import ALPHA

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from harness.leaderboard.anytime import Reference
    from harness.leaderboard.entries import Entry
    from harness.leaderboard.rank import Ranking
    from harness.leaderboard.ties import Comparison

VERSION = 1
"""Version of the JSON document; another number means that a field was renamed, removed, or means something else."""
SCHEMA = Path(__file__).with_name("leaderboard.schema.json")
"""JSON Schema of the document (draft 2020-12)."""
_MARKS = {"1_256": 1 / 256, "1_64": 1 / 64, "1_16": 1 / 16, "1_8": 1 / 8, "1_4": 1 / 4, "1_2": 1 / 2}


def records(ranking: Ranking) -> list[dict[str, Any]]:
    """One flat record per entry, those on other devices last; the columns of the CSV, in order."""
    reference = load_reference(ranking.track, ranking.identity)
    on: dict[str, tuple[str, ...]] = {}
    for division in ranking.divisions:
        complete = ranking.complete(division)
        on |= dict(zip((entry.run for entry in complete), fronts(complete), strict=True))
    return [
        _record(ranking, entry, on.get(entry.run, ()), reference) for entry in (*ranking.entries, *ranking.elsewhere)
    ]


def document(ranking: Ranking) -> dict[str, Any]:
    """The ranking for machines: its lists, each with resolution and the ranks in it, and a record per entry."""
    lists: list[dict[str, Any]] = []
    for division in ranking.divisions:
        for level in ceilings(ranking.complete(division)):
            found = ranking.standings(division, level)
            ranks = {name: standing.rank for name, standing in found.entries.items()} if found else {}
            resolution = _rounded(found.resolution) if found else None
            power = found.power.record() if found and found.power else None
            where = {"division": division.title, "up_to": level_name(level)}
            lists.append({**where, "resolution": resolution, "power": power, "ranks": ranks})
    efficiency = [
        {"division": division.title, "ranks": {name: each.rank for name, each in found.entries.items()}}
        for division in ranking.divisions
        if (found := ranking.efficiency(division))
    ]
    common = {"version": VERSION, "track": ranking.track, "tasks": list(ranking.tasks), "identity": ranking.identity}
    taken_out = {
        "left_out": ranking.left_out,
        "withdrawn": [dataclasses.asdict(each) for each in ranking.withdrawn],
        "replaced": [dataclasses.asdict(each) for each in ranking.replaced],
        "labels": list(ranking.labels),
    }
    return common | taken_out | {"efficiency": efficiency, "lists": lists, "entries": records(ranking)}


def write_document(found: dict[str, Any], csv_path: Path, json_path: Path) -> None:
    """Write a ranking's `document`: its entries as a CSV, all of it as JSON.

    Raises:
        InputError: a file cannot be written.
    """
    write_records(found["entries"], csv_path)
    write_text(as_json(found), json_path)


def as_json(found: dict[str, Any]) -> str:
    """A document as strict JSON text. Missing values are null."""
    return json.dumps(found, indent=2, allow_nan=False) + "\n"


def finite(value: Any) -> Any:
    """Plain data without the numbers that JSON lacks: a reference's loss may be NaN, and an interval without end."""
    if isinstance(value, Mapping):
        return {name: finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Records as CSV text, written by pandas. Missing values are empty."""
    return frame(rows).to_csv(index=False, lineterminator="\n")


def write_records(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write records as a CSV.

    Raises:
        InputError: the file cannot be written.
    """
    write_text(as_csv(rows), path)


def frame(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Records as a DataFrame with the same types. An integer column with missing values stays an integer column."""
    import pandas as pd  # noqa: PLC0415 - half a second

    return pd.DataFrame(rows, columns=None if rows else ["rank", "submission"], dtype=object)


def write_text(text: str, path: Path) -> None:
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
        raise InputError(f"{path} cannot be written: {problem}") from problem
    finally:  # after Ctrl-C as well
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def _record(ranking: Ranking, entry: Entry, pareto: tuple[str, ...], reference: Reference | None) -> dict[str, Any]:
    standing = ranking.standing(entry)
    row: dict[str, Any] = {
        "rank": standing.rank if standing else entry.rank,
        "submission": entry.name,
        "access": "white-box" if entry.white_box else level_name(entry.access),
        "division": entry.division.title,
        "rank_low": standing.rank_low if standing else None,
        "rank_high": standing.rank_high if standing else None,
    }
    for task in ranking.tasks:
        mean, std, splits = entry.task(task) if task in entry.tasks else (None, None, 0)
        row |= {f"{task}": _rounded(mean), f"{task}_std": _rounded(std), f"{task}_splits": splits}
    behind = standing.behind if standing else None
    row |= {
        "average": _rounded(entry.average),
        "average_low": _rounded(standing.average.low if standing else None),
        "average_high": _rounded(standing.average.high if standing else None),
        "behind": _rounded(behind.difference.value if behind else None),
        "behind_low": _rounded(behind.difference.low if behind else None),
        "behind_high": _rounded(behind.difference.high if behind else None),
        "behind_p": _rounded_p(behind) if behind else None,
    }
    efficient = ranking.efficient(entry)
    area = normalised_area(entry, reference) if reference and not entry.missing else None
    row |= {
        "efficiency_rank": efficient.rank if efficient else None,
        "efficiency_rank_low": efficient.rank_low if efficient else None,
        "efficiency_rank_high": efficient.rank_high if efficient else None,
        "efficiency": _rounded(efficient.average.value if efficient else None),
        "efficiency_low": _rounded(efficient.average.low if efficient else None),
        "efficiency_high": _rounded(efficient.average.high if efficient else None),
        "anytime_area": _rounded(area),
    }
    early = {name: None if entry.white_box else entry.at(mark) for name, mark in _MARKS.items()}  # of a budget
    row |= {f"average_at_{name}": _rounded(value) for name, value in early.items()}
    row |= {
        "calls": round(entry.calls, 2),
        "tokens": int(cost(entry, "tokens")),
        "bytes_up": sum(cell.record.bytes_up for cell in entry.cells),
        "bytes_down": sum(cell.record.bytes_down for cell in entry.cells),
        "wall_s": round(entry.wall_s, 1),
        "lm_s": round(sum(cell.record.lm_s for cell in entry.cells), 1),
        "money": _rounded(money(entry, ranking.prices)),
        "pareto": " ".join(pareto),
        "statuses": " ".join(f"{name}:{count}" for name, count in entry.statuses.items()),
        "missing_cells": entry.missing,
        "runs": entry.runs,
        "test_texts": entry.test_texts,
        "device": entry.device,
        "sandbox": entry.division.sandbox,
        "versions": " ".join(f"{name}={value}" for name, value in sorted(entry.environment["packages"].items())),
        "run": entry.run,
    }
    return row


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _rounded_p(comparison: Comparison) -> float:
    """A p-value that stays on its side of the level when it is rounded."""
    rounded = round(comparison.p, 4)
    return rounded if (rounded > ALPHA) == comparison.tied else round(ALPHA + 1e-4, 4)
