"""Score against cost: the entries that no other entry beats in both. Pure functions.

An entry is on the Pareto front of a cost unless another entry dominates it: at least its score for at most its cost,
and better in one of the two. The costs are those of tuning, summed over cells. Fronts never affect a rank.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from harness.leaderboard.entries import Entry
    from harness.tracks.prices import Prices

COSTS = ("calls", "tokens", "bytes", "seconds")
"""Calls; tokens that the model read; bytes sent both ways; seconds of tuning, comparable on one machine only."""


def front(scores: Sequence[float], costs: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Find non-dominated entries: scores (n,), higher is better; costs (n,) or (n, kinds), lower is better -> (n,).

    Equals do not dominate each other.
    """
    points = np.column_stack([-np.asarray(scores, dtype=np.float64), np.asarray(costs, dtype=np.float64)])
    # points: (n, 1 + kinds), all lower is better
    no_worse = (points[:, None] <= points[None]).all(axis=-1)  # [a, b]: a is nowhere worse than b
    better = (points[:, None] < points[None]).any(axis=-1)
    return np.asarray(~(no_worse & better).any(axis=0), dtype=np.bool_)


def cost(entry: Entry, kind: str) -> float:
    """One kind of cost (`COSTS`) of an entry, summed over its cells."""
    if kind == "bytes":
        return float(sum(cell.record.bytes_up + cell.record.bytes_down for cell in entry.cells))
    if kind == "tokens":
        return float(sum(cell.record.tokens for cell in entry.cells))
    return entry.calls if kind == "calls" else entry.wall_s


def money(entry: Entry, prices: Prices | None) -> float | None:
    """The price of an entry's tuning by a track's price list; None without a list, and for references."""
    if prices is None or entry.white_box:
        return None
    calls, traffic, seconds = (cost(entry, kind) for kind in ("calls", "bytes", "seconds"))
    records = [cell.record for cell in entry.cells]
    bills = [each.billed for each in records if each.billed is not None]
    # a server counts its own tokens, but not in cells from before bills were kept
    tokens = sum(each.tokens if each.billed is None else each.billed.sent for each in records)
    return prices.cost(calls, float(tokens), traffic, seconds, sum(each.received for each in bills))


def fronts(entries: Sequence[Entry]) -> list[tuple[str, ...]]:
    """For each entry, the costs on whose front it is. All entries must have the same cells."""
    scores = [entry.average for entry in entries]
    on = {kind: front(scores, [cost(entry, kind) for entry in entries]) for kind in COSTS}
    return [tuple(kind for kind in COSTS if on[kind][n]) for n in range(len(entries))]
