"""What each access level buys: the best entry of each level, and its gain over the bare template for its calls.

Text and soft prompts are metered alike, so they stand in one table. The calls are those of one cell, on average. The
gain has no interval of its own: the list up to each level has those of the averages.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from harness.leaderboard.divisions import ACCESS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.leaderboard.rank import Ranking

BARE = "manual"


@dataclass(frozen=True)
class Bought:
    """One level in one division."""

    division: str
    level: int
    """The highest access level that the entry used."""
    entry: str
    """The best complete entry of this level."""
    average: float
    gain: float | None
    """Over the bare template of the division, 0 to 1; None where that was not run."""
    calls: float
    """Of one cell, on average."""

    @property
    def per_hundred(self) -> float | None:
        """Points that 100 calls of a cell bought; None without calls or a bare template."""
        return None if self.gain is None or not self.calls else 100 * self.gain / self.calls * 100


def bought(ranking: Ranking) -> list[Bought]:
    """For each division and each level that any entry there has used, the best entry of that level."""
    found = []
    for division in ranking.divisions:
        complete = ranking.complete(division)
        bare = next((entry.average for entry in complete if entry.name == BARE), None)
        for level in sorted({entry.access for entry in complete}):
            best = next(entry for entry in complete if entry.access == level)
            calls = float(np.mean([cell.record.calls_spent for cell in best.cells]))
            gain = None if bare is None else best.average - bare
            found.append(Bought(division.title, level, best.name, best.average, gain, calls))
    return found


def level_records(found: Sequence[Bought]) -> list[dict[str, Any]]:
    """Flat records for JSON."""
    return [asdict(each) | {"points_per_100_calls": each.per_hundred} for each in found]


def level_table(found: Sequence[Bought], track: str) -> Table:
    """The table for people."""
    table = Table(title=f"track {track}: what each access level buys", title_justify="left", box=None, pad_edge=False)
    for column in ("level", "best entry", "division"):
        table.add_column(column, overflow="fold")
    for column in ("average", "over bare", "calls", "points/100 calls"):
        table.add_column(column, justify="right")
    for each in found:
        per = each.per_hundred
        table.add_row(
            ACCESS[each.level],
            escape(each.entry),
            escape(each.division),
            f"{100 * each.average:.1f}",
            "-" if each.gain is None else f"{100 * each.gain:+.1f}",
            f"{each.calls:,.0f}",
            "-" if per is None else f"{per:+.1f}",
        )
    return table
