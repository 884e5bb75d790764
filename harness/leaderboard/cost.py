"""The cost of each submission on each task: the columns of BBT's Table 4, from stored facts.

As in the paper, a query here is one candidate prompt on the whole training set. Its nominal upload is two bytes of id
and one byte of mask for every token of the texts, and four bytes for every float of the prompt or of its coordinates z.
Its nominal download is four bytes for every logit and every float of a hidden state (BBT, appendix C). The bytes that
were really sent are shown as well. They differ, because texts are declared once and many candidates share a frame.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from harness.leaderboard.entries import CellScore, Entry
    from harness.leaderboard.rank import Ranking
    from harness.results.records import CellRecord


@dataclass(frozen=True)
class Cost:
    """One entry on one task. Means are over splits, and a peak is the largest one of all splits."""

    submission: str
    task: str
    splits: int
    device: str
    deployment_efficient: bool
    """Whether one shared model can serve the result. This is true for an answer, and false for the trained weights of a
    reference. The paper says yes for prompt tuning, too, because its prompt is small. Here no answer of a reference is
    kept."""
    as_a_service: bool
    """Whether it needed forward passes alone."""
    score: float
    """Mean test score, 0 to 1."""
    training_min: float
    """Mean minutes of tuning."""
    user_mb: float | None
    """Peak memory of the submission's process, MiB; None for a reference, which has no process of its own."""
    server_host_mb: float | None
    """Peak main memory of the referee's process up to the end of the cell, MiB."""
    server_device_mb: float | None
    """Peak GPU memory in the cell, MiB, the model's weights included; None on a CPU."""
    nominal_up_b: float | None
    """Bytes to upload per query by the formula; None without queries, or if an older version did not count them."""
    nominal_down_b: float | None
    """Bytes to download per query by the formula."""
    sent_up_b: float | None
    """Bytes really received from the submission per query, declarations of texts and subspaces included."""
    sent_down_b: float | None
    """Bytes really sent in reply per query."""


def costs(ranking: Ranking) -> list[Cost]:
    """A line for each task of each entry. Ranked entries come first, entries on other devices last."""
    return [
        _cost(entry, task, [cell for cell in entry.cells if cell.task == task])
        for entry in (*ranking.entries, *ranking.elsewhere)
        for task in entry.tasks
    ]


def cost_records(found: Sequence[Cost]) -> list[dict[str, Any]]:
    """Flat records for the CSV and for JSON: rounded numbers, yes or no, None for missing values."""
    return [{name: _plain(value) for name, value in dataclasses.asdict(cost).items()} for cost in found]


def cost_table(found: Sequence[Cost], track: str) -> Table:
    """The table for 120 columns. Kilobytes are 1,024 bytes, shown as ``nominal / sent``."""
    table = Table(title=f"track {track}: cost", title_justify="left", box=None, pad_edge=False)
    for column in ("submission", "task"):
        table.add_column(column, overflow="fold")
    table.add_column("one model")
    table.add_column("service")
    for column in ("score", "min", "user MB", "host MB", "GPU MB", "up KB/query", "down KB/query"):
        table.add_column(column, justify="right")
    for cost in found:
        table.add_row(
            escape(cost.submission),
            cost.task,
            "yes" if cost.deployment_efficient else "no",
            "yes" if cost.as_a_service else "no",
            f"{cost.score * 100:.1f}",
            f"{cost.training_min:.1f}",
            *(_shown(value) for value in (cost.user_mb, cost.server_host_mb, cost.server_device_mb)),
            _kilobytes(cost.nominal_up_b, cost.sent_up_b),
            _kilobytes(cost.nominal_down_b, cost.sent_down_b),
        )
    return table


def _cost(entry: Entry, task: str, cells: list[CellScore]) -> Cost:
    records = [cell.record for cell in cells]
    black_box = not entry.white_box
    return Cost(
        entry.name,
        task,
        len(cells),
        entry.device,
        deployment_efficient=black_box,
        as_a_service=black_box,
        score=entry.task(task)[0],
        training_min=float(np.mean([each.tuning_s for each in records])) / 60,
        user_mb=_peak(each.worker_peak_mb for each in records) if black_box else None,
        server_host_mb=_peak(each.referee_peak_mb for each in records),
        server_device_mb=_peak(each.device_peak_mb for each in records),
        nominal_up_b=_per_query(records, lambda each: each.nominal_up),
        nominal_down_b=_per_query(records, lambda each: each.nominal_down),
        sent_up_b=_per_query(records, _received),
        sent_down_b=_per_query(records, lambda each: each.bytes_down),
    )


def _peak(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _received(record: CellRecord) -> int | None:
    """Bytes of queries and declarations; None if an older version did not count the declarations."""
    return None if record.declared_bytes is None else record.bytes_up + record.declared_bytes


def _per_query(records: list[CellRecord], count: Callable[[CellRecord], int | None]) -> float | None:
    """Sum of a count over all cells in which it is known, divided by the number of queries in those cells."""
    known = [(value, record.calls_spent) for record in records if (value := count(record)) is not None]
    queries = sum(calls for _, calls in known)
    return sum(value for value, _ in known) / queries if queries else None


def _plain(value: object) -> object:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return round(value, 4) if isinstance(value, float) else value


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _kilobytes(nominal: float | None, sent: float | None) -> str:
    return " / ".join("-" if value is None else f"{value / 1024:,.2f}" for value in (nominal, sent))
