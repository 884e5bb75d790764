"""From stored facts to a ranking: cell scores, means over splits, average over tasks.

Only runs that are comparable are ranked together: same track file, rules, model, data, device and seed. A cell that
failed scores as the majority class would; a run that lacks cells is listed without a rank. White-box references are
listed after all others, never ranked, and change nothing about those that are.
"""

from __future__ import annotations

import dataclasses
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
    """1 is best; equal averages share a rank; None where cells are missing, and for white-box references."""
    name: str
    run: str
    cells: tuple[CellScore, ...]
    missing: int
    environment: dict[str, Any]
    white_box: bool = False
    """Whether it is a reference that trained with the model's weights."""

    @property
    def access(self) -> int:
        """Highest access level used: 0 logits, 1 input prompts, 2 deep prompts, 3 hidden states, 4 the weights."""
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
    other ranked run has. White-box references follow, best average first; they have a say in nothing of this, unless
    there is nobody else.
    """
    runs = [
        (run, identity, environment) for run, identity, environment, _ in store.runs() if identity["track"] == track
    ]
    plain = [item for item in runs if not item[1]["modified"]]
    version = fingerprint or (_deciding(plain)[-1]["track_fingerprint"] if plain else "")
    plain = [item for item in plain if item[1]["track_fingerprint"] == version]
    if not plain:
        return Ranking(track, (), (), len(runs))
    group = _largest_group(_deciding(plain))
    same = [item for item in plain if _group(item[1]) == group]
    newest = {(identity["entry"], _white_box(identity)): (run, environment) for run, identity, environment in same}
    scored = {entry: tuple(map(score_cell, store.cells(run))) for entry, (run, _) in newest.items()}
    places = {entry: {(cell.task, cell.split) for cell in cells} for entry, cells in scored.items()}
    wanted = set(planned).union(*(cells for (_, white_box), cells in places.items() if not white_box))
    found = [
        Entry(None, entry[0], run, scored[entry], len(wanted - places[entry]), environment, white_box=entry[1])
        for entry, (run, environment) in newest.items()
        if scored[entry]
    ]
    tasks = tuple(sorted({task for task, _ in wanted.union(*places.values())}))
    return Ranking(track, tasks, tuple(_ranked(found)), len(runs) - len(same))


def score_cell(cell: StoredCell) -> CellScore:
    """Score a stored cell with its task's metric."""
    file = load_task(cell.task)
    fallback = majority_prediction(cell.labels)

    def of(mark: float) -> float:
        predicted = cell.predictions.get(mark, fallback) if cell.status in COUNTS else fallback
        return float(score(file.metric, predicted, cell.labels, len(file.classes)))

    return CellScore(cell.task, cell.split, cell.status, of(1.0), {mark: of(mark) for mark in MARKS}, cell.facts)


def _white_box(identity: dict[str, Any]) -> bool:
    return bool(identity.get("access") == "white-box")  # older runs do not say: they are black-box


def _deciding(runs: list[tuple[str, dict[str, Any], dict[str, Any]]]) -> list[dict[str, Any]]:
    """Identities of the runs that decide what is compared: those to be ranked; references where there are no others."""
    identities = [identity for _, identity, _ in runs]
    return [identity for identity in identities if not _white_box(identity)] or identities


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
    references = sorted((e for e in entries if e.white_box), key=lambda e: (-e.average, e.name))
    contestants = [e for e in entries if not e.white_box]
    complete = sorted((e for e in contestants if not e.missing), key=lambda e: (-e.average, e.name))
    ranked: list[Entry] = []
    for place, entry in enumerate(complete, start=1):
        tied = bool(ranked) and ranked[-1].average == entry.average
        ranked.append(dataclasses.replace(entry, rank=ranked[-1].rank if tied else place))
    return ranked + sorted((e for e in contestants if e.missing), key=lambda e: e.name) + references
