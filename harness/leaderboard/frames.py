"""The stored cells and the ranking as pandas DataFrames, for notebooks and for the CSV files."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pandas as pd

from harness.leaderboard.rank import rank, score_cell
from harness.leaderboard.table import frame, records
from harness.results.store import Store
from harness.tracks.track import load_track

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def ranking(track: str, store: str | Path | Store) -> pd.DataFrame:
    """The leaderboard of a track.

    Args:
        track: a track that ships, or the path of a ``.toml`` file.
        store: a results database: its path, its SQLAlchemy URL, or a `Store`.

    Returns:
        A row per entry, best first, with the columns of ``leaderboard/<track>.csv`` (docs/leaderboard.md). Scores are
        shares, not points. Empty if nothing is stored.

    Raises:
        TrackError: there is no such track.
        StoreError: there is no such database.

    Example:
        ``harness.ranking("mini", "results/harness.db")[["submission", "average", "average_low", "average_high"]]``
    """
    chosen = load_track(track)
    with _opened(store) as results:
        found = rank(results, chosen.name, chosen.fingerprint, chosen.planned, chosen.ranks, prices=chosen.prices)
        return frame(records(found))


def cells(store: str | Path | Store) -> pd.DataFrame:
    """Every finished cell of every run.

    Args:
        store: as `ranking` takes it.

    Returns:
        A row per cell, oldest run first, with the columns ``run``, ``entry``, ``track``, ``task``, ``split``, ``seed``,
        ``repeat``, ``status``, ``score`` (by ``metric``; a failed cell as the majority class or 0), ``metric``,
        ``accuracy``, ``calls``, ``queries``, ``tokens``, ``tuning_s``, ``level`` (the highest access level used) and
        ``format`` (None is the track's own number format).

    Raises:
        StoreError: there is no such database.

    Example:
        ``harness.cells("results/harness.db").groupby(["entry", "task"]).score.mean()``
    """
    rows: list[dict[str, Any]] = []
    with _opened(store) as results:
        for run in results.runs():
            for cell in results.cells(run.id):
                scored = score_cell(cell)
                record = cell.record
                rows.append(
                    {
                        "run": run.id,
                        "entry": run.key.label,
                        "track": run.key.track,
                        "task": cell.task,
                        "split": cell.split,
                        "seed": run.key.seed,
                        "repeat": run.key.repeat,
                        "status": cell.status,
                        "score": scored.score,
                        "metric": scored.metric,
                        "accuracy": scored.accuracy,
                        "calls": record.calls_spent if record.train_rows else 0.0,
                        "queries": record.queries,
                        "tokens": record.tokens,
                        "tuning_s": record.tuning_s,
                        "level": record.level,
                        "format": record.format,
                    }
                )
    return pd.DataFrame(rows)


@contextlib.contextmanager
def _opened(store: str | Path | Store) -> Iterator[Store]:
    """A results database for the duration of a ``with``. A `Store` that was passed in stays open."""
    if isinstance(store, Store):
        yield store
        return
    own = Store(str(store), create=False)
    try:
        yield own
    finally:
        own.close()
