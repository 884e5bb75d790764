"""From stored facts to a ranking: cell scores, means over splits, average over tasks.

Only runs that are comparable are ranked together: same track file, rules, model, data, device and seed. A cell that
failed scores as the majority class would; a run that lacks cells is listed without a rank.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.metrics import majority_prediction, score
from harness.status import COUNTS, MARKS
from harness.tasks import load_task

if TYPE_CHECKING:
    from collections.abc import Collection

    from harness.store import Store, StoredCell

_COMPARABLE = ("track", "track_fingerprint", "rules", "model_sha256", "data_sha256", "device", "seed")


@dataclass(frozen=True)
class CellScore:
    """One finished cell with its scores."""

    task: str
    split: int
    status: str
    score: float
    anytime: dict[float, float]
    """Score of the incumbent per fraction of the budget; the majority class where there was none."""
    facts: dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """One line of the leaderboard."""

    rank: int | None
    """1 is best; equal averages share a rank; None where cells are missing."""
    name: str
    run: str
    cells: tuple[CellScore, ...]
    missing: int
    environment: dict[str, Any]

    @property
    def access(self) -> int:
        """Highest access level used: 0 logits, 1 input prompts, 2 deep prompts, 3 hidden states."""
        return max((int(cell.facts["level"]) for cell in self.cells), default=0)

    @property
    def average(self) -> float:
        """Mean over tasks of the mean over splits."""
        return float(np.mean([self.task(task)[0] for task in self.tasks])) if self.cells else float("nan")

    @property
    def tasks(self) -> list[str]:
        """Tasks with at least one finished cell, in the order of the store."""
        return list(dict.fromkeys(cell.task for cell in self.cells))

    def task(self, name: str) -> tuple[float, float, int]:
        """Mean and sample standard deviation over splits, and the number of splits."""
        values = [cell.score for cell in self.cells if cell.task == name]
        std = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        return float(np.mean(values)), std, len(values)

    def at(self, mark: float) -> float:
        """Average score of the incumbents at a fraction of the budget, averaged as `average` is."""
        means = [np.mean([c.anytime[mark] for c in self.cells if c.task == task]) for task in self.tasks]
        return float(np.mean(means))

    @property
    def calls(self) -> float:
        """Calls used, summed over cells."""
        return float(sum(cell.facts["rows_spent"] / cell.facts["train_rows"] for cell in self.cells))

    @property
    def wall_s(self) -> float:
        """Seconds of tuning, summed over cells."""
        return float(sum(cell.facts["tuning_s"] for cell in self.cells))

    @property
    def statuses(self) -> dict[str, int]:
        """How many cells ended how."""
        return dict(sorted(Counter(cell.status for cell in self.cells).items()))


@dataclass(frozen=True)
class Ranking:
    """The leaderboard of one track."""

    track: str
    tasks: tuple[str, ...]
    entries: tuple[Entry, ...]
    left_out: int
    """Runs on this track that are not comparable with those ranked (other data, model or track version)."""


def rank(
    store: Store, track: str, fingerprint: str | None = None, planned: Collection[tuple[str, int]] = ()
) -> Ranking:
    """Rank the newest run of each entry on a track.

    `fingerprint` keeps runs of one version of the track file; by default the newest run's. Of runs that differ in
    data, model or seed, the kind with the most entries is ranked (the newest where equal). Runs with choices replaced
    on the command line are left out. A complete run has all `planned` cells (task, split), and every cell that any
    other ranked run has.
    """
    runs = [
        (run, identity, environment) for run, identity, environment, _ in store.runs() if identity["track"] == track
    ]
    plain = [item for item in runs if not item[1]["modified"]]
    version = fingerprint or (plain[-1][1]["track_fingerprint"] if plain else "")
    plain = [item for item in plain if item[1]["track_fingerprint"] == version]
    if not plain:
        return Ranking(track, (), (), len(runs))
    group = _largest_group([identity for _, identity, _ in plain])
    newest = {
        identity["entry"]: (run, environment) for run, identity, environment in plain if _group(identity) == group
    }
    scored = {name: tuple(map(score_cell, store.cells(run))) for name, (run, _) in newest.items()}
    wanted = {(cell.task, cell.split) for cells in scored.values() for cell in cells} | set(planned)
    found = [
        Entry(None, name, newest[name][0], cells, len(wanted) - len(cells), newest[name][1])
        for name, cells in scored.items()
        if cells
    ]
    same = sum(_group(identity) == group for _, identity, _ in plain)
    tasks = tuple(sorted({task for task, _ in wanted}))
    return Ranking(track, tasks, tuple(_ranked(found)), len(runs) - same)


def score_cell(cell: StoredCell) -> CellScore:
    """Score a stored cell with its task's metric."""
    file = load_task(cell.task)
    fallback = majority_prediction(cell.labels)

    def of(mark: float) -> float:
        predicted = cell.predictions.get(mark, fallback) if cell.status in COUNTS else fallback
        return float(score(file.metric, predicted, cell.labels, len(file.classes)))

    return CellScore(cell.task, cell.split, cell.status, of(1.0), {mark: of(mark) for mark in MARKS}, cell.facts)


def _group(identity: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(identity[name] for name in _COMPARABLE)


def _largest_group(identities: list[dict[str, Any]]) -> tuple[Any, ...]:
    """The comparable runs with the most entries; the later ones where equal. Identities come oldest first."""
    entries: dict[tuple[Any, ...], set[str]] = {}
    for identity in identities:
        group = _group(identity)
        entries[group] = entries.pop(group, set()) | {identity["entry"]}
    return max(reversed(entries), key=lambda group: len(entries[group]))


def _ranked(entries: list[Entry]) -> list[Entry]:
    complete = sorted((e for e in entries if not e.missing), key=lambda e: (-e.average, e.name))
    ranked: list[Entry] = []
    for place, entry in enumerate(complete, start=1):
        tied = bool(ranked) and ranked[-1].average == entry.average
        ranked.append(_with_rank(entry, ranked[-1].rank if tied else place))
    return ranked + sorted((e for e in entries if e.missing), key=lambda e: e.name)


def _with_rank(entry: Entry, place: int | None) -> Entry:
    return Entry(place, entry.name, entry.run, entry.cells, entry.missing, entry.environment)
