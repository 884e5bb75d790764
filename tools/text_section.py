"""What a results page of text tasks has beside scores: losses and similarity by cell, and whether less loss is better.

The rows are written by `tools/text_losses.py`. Pure: rows in, Markdown out.
"""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, dataclass, fields
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import spearmanr

from harness.errors import InputError
from harness.leaderboard.table import write_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

SEED, DRAWS = 0, 2000
APART = ((0.0, 0.1), (0.1, 0.3), (0.3, 1.0), (1.0, np.inf))
"""How far the losses of a pair are apart, in nats: the rows of the table of pairs."""


@dataclass(frozen=True)
class Row:
    """One cell of one entry."""

    run: str
    entry: str
    task: str
    split: int
    train_loss: float
    """Mean over the training texts of the negative log-likelihood by token of the first reference, in nats."""
    dev_loss: float
    score: float
    """Test score, 0 to 1."""
    similarity: float
    """Mean cosine of outputs and references."""


def write(path: Path, rows: Iterable[Row]) -> None:
    """Write the rows as CSV, in the order of task, split and entry."""
    ordered = sorted(rows, key=lambda row: (row.task, row.split, row.entry, row.run))
    stream = io.StringIO()
    out = csv.DictWriter(stream, [field.name for field in fields(Row)], lineterminator="\n")
    out.writeheader()
    for row in ordered:
        out.writerow({k: f"{v:.4f}" if isinstance(v, float) else v for k, v in asdict(row).items()})
    write_text(stream.getvalue(), path)


def read(path: Path) -> list[Row]:
    """The rows of a file of `write`.

    Raises:
        InputError: it is none.
    """
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            return [
                Row(
                    each["run"],
                    each["entry"],
                    each["task"],
                    int(each["split"]),
                    *(float(each[name]) for name in ("train_loss", "dev_loss", "score", "similarity")),
                )
                for each in csv.DictReader(stream)
            ]
    except (OSError, csv.Error, KeyError, TypeError, ValueError) as problem:
        raise InputError(
            f"{path} is no table of tools/text_losses.py: {type(problem).__name__}: {problem}"
        ) from problem


def section(rows: Sequence[Row], table: Callable[[Sequence[str], Iterable[Sequence[object]]], str]) -> str:
    """The section of a page; `table` makes a Markdown table."""
    parts = [
        """## Loss and text

A solver sees likelihoods, and is scored by what the model writes. The tables have, for each entry and task, the loss of
its last answer on train and on dev (the mean over texts of the negative log-likelihood by token of the first reference,
in nats), its score, and the mean cosine of outputs and references by the sentence encoder, times 100. The cosine is a
diagnostic: it is never ranked, and says little of facts. All are means over splits."""
    ]
    for task in sorted({row.task for row in rows}):
        own = [row for row in rows if row.task == task]
        entries = sorted({row.entry for row in own}, key=lambda name: _mean(own, name, "dev_loss"))
        lines = [
            (
                f"`{name}`",
                f"{_mean(own, name, 'train_loss'):.2f}",
                f"{_mean(own, name, 'dev_loss'):.2f}",
                f"{100 * _mean(own, name, 'score'):.1f}",
                f"{100 * _mean(own, name, 'similarity'):.1f}",
                sum(row.entry == name for row in own),
            )
            for name in entries
        ]
        columns = ("entry", "loss on train", "loss on dev", "score", "similarity", "splits")
        parts.append(f"### {task}\n\n{table(columns, lines)}")
    parts.append(_answer(rows, table))
    return "\n\n".join(parts)


def _answer(rows: Sequence[Row], table: Callable[[Sequence[str], Iterable[Sequence[object]]], str]) -> str:
    cells = _cells(rows)
    lines = []
    for name, what in (("train_loss", "loss on train"), ("dev_loss", "loss on dev")):
        found = np.array([_rank_correlation(cell, name) for cell in cells])
        found = found[np.isfinite(found)]
        if len(found):
            drawn = found[np.random.default_rng(SEED).integers(len(found), size=(DRAWS, len(found)))].mean(axis=1)
            low, high = np.quantile(drawn, [0.025, 0.975])
            interval = f" [{low:.2f}, {high:.2f}]" if len(found) > 2 else ""  # noqa: PLR2004 - of two, it says nothing
            lines.append((what, len(found), f"{found.mean():.2f}{interval}"))
    pairs = [_pairs(cells, low, high) for low, high in APART]
    shares = [
        (f"{low:g} to {high:g}" if np.isfinite(high) else f"{low:g} or more", count, f"{better / count:.1%}")
        for (low, high), (count, better) in zip(APART, pairs, strict=True)
        if count
    ]
    return f"""### Does less loss give better text?

Within a cell (one task on one split), the rank correlation (Spearman) of minus the loss and the score over all entries
that have the cell: 1 if the order by loss is the order by score, 0 if they have nothing to do with each other. Mean
over cells, with a 95 % bootstrap interval over cells where there are more than two.

{table(("", "cells", "rank correlation"), lines)}

All pairs of entries in a cell, by how far their losses on train are apart, in nats: in which share of them the one with
less loss has the higher score. Half would be chance.

{table(("apart", "pairs", "less loss is better"), shares)}"""


def _mean(rows: Sequence[Row], entry: str, name: str) -> float:
    return float(np.mean([getattr(row, name) for row in rows if row.entry == entry]))


def _cells(rows: Sequence[Row]) -> list[list[Row]]:
    places = sorted({(row.task, row.split) for row in rows})
    return [[row for row in rows if (row.task, row.split) == place] for place in places]


def _rank_correlation(cell: Sequence[Row], name: str) -> float:
    """NaN where there are fewer than three entries, or all are alike."""
    losses, scores = [getattr(row, name) for row in cell], [row.score for row in cell]
    if len(cell) < 3 or len(set(losses)) == 1 or len(set(scores)) == 1:  # noqa: PLR2004
        return float("nan")
    return -float(spearmanr(losses, scores).statistic)


def _pairs(cells: Sequence[Sequence[Row]], low: float, high: float) -> tuple[int, float]:
    """Pairs whose losses on train are so far apart, and those where less loss goes with more score; a tie is half."""
    count, better = 0, 0.0
    for cell in cells:
        for one, other in combinations(sorted(cell, key=lambda row: row.train_loss), 2):
            apart = other.train_loss - one.train_loss
            if apart > 0 and low <= apart < high:
                count += 1
                better += 0.5 if one.score == other.score else float(one.score > other.score)
    return count, better
