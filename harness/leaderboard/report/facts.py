"""The facts that the report shows: the ranking's divisions with their statistics, and the texts."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import DataError
from harness.leaderboard.anytime import load_reference
from harness.leaderboard.disclosure import Disclosure, disclosure
from harness.leaderboard.history import Outcome, history
from harness.leaderboard.private import gaps
from harness.leaderboard.rank import rank, score_cell
from harness.leaderboard.report.curves import Curves
from harness.leaderboard.report.kept import Kept
from harness.leaderboard.report.kept_cells import KeptCells
from harness.leaderboard.table import document
from harness.leaderboard.traces import Steps, grid, steps
from harness.results import observations
from harness.results.at_rest import entry_digests
from harness.results.status import COUNTS
from harness.tracks.examples import load_shots, load_test
from harness.tracks.tasks import find_task, with_metric

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.contract import Examples, IntArray
    from harness.leaderboard.anytime import Reference
    from harness.leaderboard.entries import CellScore, Division, Entry
    from harness.leaderboard.history import History
    from harness.leaderboard.private import Gap
    from harness.leaderboard.rank import Ranking
    from harness.leaderboard.standing import Standing, Standings
    from harness.leaderboard.stats import Interval
    from harness.results.forgetting import Forgotten
    from harness.results.membership import Told
    from harness.results.records import Run
    from harness.results.store import Store
    from harness.tracks.examples import Source
    from harness.tracks.tasks import TaskFile
    from harness.tracks.track import Track


@dataclass(frozen=True)
class System:
    """An entry of the ranking with everything that its pages show."""

    entry: Entry
    slug: str
    """Name of its page, made of letters, digits and hyphens only, whatever the entry is called."""
    run: Run
    record: dict[str, Any]
    """The entry's row of the CSV."""
    standing: Standing | None
    """None if cells are missing, and for references, because these are not compared."""
    by_task: dict[str, Interval]
    efficient: Standing | None = None
    """By efficiency; None where that is not known."""

    @property
    def average(self) -> Interval | None:
        """The average with its interval."""
        return self.standing.average if self.standing else None

    @property
    def behind(self) -> Interval | None:
        """Distance to the best of its division, simultaneous for all pairs; None for the best."""
        return self.standing.behind.difference if self.standing and self.standing.behind else None

    @property
    def tied(self) -> bool:
        """Whether it shares the first rank with a higher score: nobody of the rank can be told apart."""
        return self.standing is not None and self.standing.rank == 1 and self.standing.behind is not None


@dataclass(frozen=True)
class Compared:
    """A division: the entries that may be compared, and their comparison."""

    division: Division
    systems: tuple[System, ...]
    """Complete entries, best average first, then those without isolation, which have no rank, and incomplete ones. The
    main division ends with references."""
    standings: Standings | None
    curves: Curves
    """Scores over calls of its complete entries."""
    efficiency: Standings | None = None
    """The list by efficiency; None where that is not known."""

    @property
    def leader(self) -> System | None:
        """The best entry; None if no entry is complete."""
        return self.systems[0] if self.standings else None


@dataclass(frozen=True)
class TaskFacts:
    """A task with its texts, as far as they are available."""

    file: TaskFile
    labels: IntArray
    """(items,): classes of the test set on which the runs were scored."""
    test: Examples | None
    """The test texts. None if the data are not available, or are not those on which the runs were scored."""
    shots: Examples | None
    """Training examples of the first split. None if the data are not available."""

    @property
    def texts_sha256(self) -> str | None:
        """Digest of the test texts; None without them."""
        return hashlib.sha256(repr(self.test.texts).encode()).hexdigest() if self.test else None


@dataclass(frozen=True)
class Facts:
    """Everything from which a report is made."""

    track: Track
    ranking: Ranking
    lists: tuple[Compared, ...]
    """The divisions, the main one first."""
    tasks: dict[str, TaskFacts]
    document: dict[str, Any]
    """The ranking in machine-readable form (`harness.leaderboard.table.document`)."""
    reference: Reference | None
    """Frozen scores on which anytime areas and targets are based. None if there are none for these runs."""
    gaps: tuple[Gap, ...]
    """Entries that were also run on private test sets."""
    history: History
    digests: Mapping[str, str]
    """By run: the digest of all that is stored of its entry."""
    hidden: bool
    """Whether test texts are left out, whether or not they are at hand."""
    gradients: Curves
    """Scores over forward passes, in calls, of the complete references that had a budget of them."""
    forgotten: Mapping[str, tuple[Forgotten, ...]]
    """By run of the ranking: what its changes of weights do to other tasks and masked words, if it was measured."""
    told: Mapping[str, Told] = field(default_factory=dict)
    """By run: how well its answers tell members of train from others, where that was measured."""
    disclosed: tuple[Disclosure, ...] = ()
    """What each entry was given and gives away, best average first."""

    @property
    def systems(self) -> tuple[System, ...]:
        """All entries, division by division."""
        return tuple(system for compared in self.lists for system in compared.systems)

    @property
    def curves(self) -> Curves:
        """Scores over calls of the main division's complete entries."""
        return self.lists[0].curves if self.lists else Curves((), {}, None, {})

    @property
    def beside(self) -> list[tuple[str, Curves, str]]:
        """The references whose scores over forward passes are known: name, curves, and their run in the curves."""
        names = {system.entry.run: system.entry.name for system in self.systems}
        return [(names[run], self.gradients, run) for run in self.gradients.parts]

    @property
    def main(self) -> tuple[System, ...]:
        """The complete contestants of the main division, which the plots compare."""
        return tuple(system for system in self.lists[0].systems if system.standing) if self.lists else ()


def gather(store: Store, track: Track, source: Source, kept: Kept | None = None, hidden: bool = False) -> Facts:
    """Rank, compare and read the texts.

    What an entry alone decides is taken from `kept`, if it is there. If `hidden`, no test text is read.
    """
    kept = kept or Kept()
    runs = {run.id: run for run in store.runs()}
    digests = entry_digests(store, runs.values())

    def scored(run: str) -> list[CellScore]:
        decided_by = (digests[run], run)
        packed = kept.value("cells", decided_by, KeptCells, lambda: KeptCells.of(map(score_cell, store.cells(run))))
        return packed.scores()

    ranking = rank(store, track.name, track.fingerprint, track.planned, track.ranks, False, track.prices, scored)
    ranking = replace(ranking, labels=tuple(store.labels_shown(track.name)))
    written = document(ranking)
    by_run = {record["run"]: record for record in written["entries"]}
    every = (*ranking.entries, *ranking.elsewhere)

    def system(entry: Entry, found: Standings | None) -> System:
        standing, by_task = ranking.standing(entry), {}
        if standing and found:
            n = found.names.index(entry.name)
            by_task = {task: found.scores.score(n, k) for k, task in enumerate(found.tasks)}
        slug = page_name(entry.name, entry.run)
        return System(entry, slug, runs[entry.run], by_run[entry.run], standing, by_task, ranking.efficient(entry))

    lists = []
    for number, division in enumerate(ranking.divisions):
        complete = ranking.complete(division)
        here = [e for e in every if e.division == division and not e.white_box]
        unranked = [e for e in here if not e.missing and e not in complete]  # they ran without isolation
        lacking = [e for e in here if e.missing]
        references = [e for e in every if e.white_box] if number == 0 else []
        found = ranking.standings(division)
        systems = tuple(system(entry, found) for entry in (*complete, *unranked, *lacking, *references))
        curves = _curves(complete if found else (), ranking.bare, digests, kept)
        lists.append(Compared(division, systems, found, curves, ranking.efficiency(division)))
    budgeted = [e for e in every if e.white_box and not e.missing and all(c.record.rows_total for c in e.cells)]
    gradients = _curves(budgeted if lists else (), ranking.bare, digests, kept)
    labels = {cell.task: cell.labels for entry in every for cell in entry.cells}
    tasks = {task: _task(task, track, labels[task], source, hidden) for task in sorted(labels)}
    reference = load_reference(track.name, ranking.identity) if every else None
    past = _history(store, ranking, digests, kept)
    apart = tuple(gaps(store, ranking))
    disclosed = tuple(
        kept.value(
            "disclosure", (digests[each.run], each.run, track.fingerprint, source), Disclosure,
            partial(disclosure, store, each, track, source),
        )
        for each in every if not each.white_box
    )  # fmt: skip
    measured, shown = observations.forgotten(store), {each.run for each in every}
    forgotten = {run: tuple(found) for run, found in measured.items() if run in shown}
    return Facts(
        track, ranking, tuple(lists), tasks, written, reference, apart, past, digests, hidden, gradients, forgotten,
        observations.told(store), disclosed,
    )  # fmt: skip


def _history(store: Store, ranking: Ranking, digests: Mapping[str, str], kept: Kept) -> History:
    """The history; what was summed up before is taken from `kept`, and what was scored for the ranking from there."""
    scored = {entry.run: entry.cells for entry in (*ranking.entries, *ranking.elsewhere)}

    def outcome(run: Run) -> Outcome:
        if run.id in scored:
            return Outcome.of(scored[run.id])
        return kept.value(
            "outcome", (digests[run.id], run.id), Outcome,
            lambda: Outcome.of(score_cell(cell) for cell in store.cells(run.id)),
        )  # fmt: skip

    return history(store, ranking, outcome)


def _curves(
    entries: Sequence[Entry], bare: Mapping[str, float] | None, digests: Mapping[str, str], kept: Kept
) -> Curves:
    """Scores over calls of entries; the part of an entry that was computed before is taken from `kept`."""
    at = grid(entries)
    parts: dict[str, dict[str, Steps]] = {}
    for entry in entries:
        decided_by = (digests[entry.run], at, bare)
        parts[entry.run] = kept.value("steps", decided_by, dict[str, Steps], partial(steps, entry, at, bare))
    budgets = {cell.task: float(cell.record.calls_total) for entry in entries for cell in entry.cells}
    return Curves(at, parts, bare, budgets)


def page_name(name: str, run: str) -> str:
    """A file name for an entry. It is readable, safe for any name, and different for different runs."""
    readable = re.sub(r"[^a-z0-9]+", "-", name.lower())[:40].strip("-")
    return "-".join(filter(None, [readable, re.sub(r"[^a-z0-9]", "", run.lower())[:8]]))


def predictions(cells: Sequence[CellScore], task: str) -> IntArray:
    """Predictions of the cells on a task whose answer counts: (cells, items), in small integers."""
    said = [cell.predicted for cell in cells if cell.task == task and cell.status in COUNTS]
    items = next((len(cell.labels) for cell in cells if cell.task == task), 0)
    return np.stack(said) if said else np.empty((0, items), dtype=np.int64)


def confusion(said: IntArray, labels: IntArray, classes: int) -> IntArray:
    """How often a text of each class is predicted as each class: (cells, items), (items,) -> (true, predicted)."""
    pairs = labels * classes + said
    return np.bincount(pairs.ravel(), minlength=classes * classes).reshape(classes, classes)


def _task(name: str, track: Track, labels: IntArray, source: Source, hidden: bool) -> TaskFacts:
    """A task with its texts, where they are at hand without a download and are those that were scored."""
    spec = track.tasks.get(name)
    file = with_metric(find_task(name, track.tasks_folder), None if spec is None else spec.metric)
    if source.kind == "hub" or spec is None:
        return TaskFacts(file, labels, None, None)
    try:
        test = load_test(file, source)
    except DataError:
        return TaskFacts(file, labels, None, None)
    if not np.array_equal(test.labels, labels):
        return TaskFacts(file, labels, None, None)
    try:
        shots = load_shots(file, source, spec.splits[0], spec).train if spec.splits != "present" else None
    except DataError:
        shots = None
    return TaskFacts(file, labels, None if hidden else test, shots)
