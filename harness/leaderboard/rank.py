"""Computes a ranking from stored facts: cell scores, means over splits, averages over tasks.

Only comparable runs are ranked together: same track file, rules, model, data, device and seed. A failed cell has the
score of the majority class, or 0 where the answer is text. A run with missing cells is listed without a rank. White-box
references are listed after all others, are never ranked, and do not affect the ranking. Runs that differ only in the
device, or that used outside data, are listed apart from the ranking, with that device or data. Each division
(`harness.leaderboard.divisions`) has its own places, intervals and shared ranks, by average and by efficiency.
Intervals and shared ranks are computed when they are first used.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from harness.leaderboard.anytime import bare_scores, load_reference
from harness.leaderboard.divisions import divisions
from harness.leaderboard.efficiency import efficiency_standings
from harness.leaderboard.entries import CellScore, Division, Entry
from harness.leaderboard.repeats import averaged, repeats_of
from harness.leaderboard.standing import Standing, Standings, standings
from harness.results.measure import classes_of, metric_of
from harness.results.records import ENDPOINT
from harness.results.rulings import in_force, tries
from harness.results.status import COUNTS, MARKS
from harness.solving.metrics import failed_prediction, score

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from harness.contract import IntArray, Metric
    from harness.results.records import Run, RunKey, StoredCell
    from harness.results.rulings import Ruling
    from harness.tracks.prices import Prices

_ALIKE = ("track", "track_fingerprint", "rules", "model_sha256", "data_sha256", "seed")
_COMPARABLE = (*_ALIKE, "device")


class Results(Protocol):
    """The runs to rank: those of one results database, as `harness.results.store.Store` reads them, or of several."""

    def runs(self) -> list[Run]:
        """All runs, oldest first."""
        ...

    def cells(self, run: str) -> Iterable[StoredCell]:
        """Finished cells of a run, in order of task and split."""
        ...

    def rulings(self) -> list[Ruling]:
        """The organiser's rulings about entries, oldest first."""
        ...


@dataclass(frozen=True)
class Withdrawn:
    """An entry that was taken out of the ranking."""

    name: str
    run: str
    """Its newest run."""
    reason: str
    made: float
    """Time of the ruling in Unix seconds."""


@dataclass(frozen=True)
class Replaced:
    """A run that replaces older runs of the same name with other content."""

    name: str
    run: str
    sha256: str
    older: tuple[str, ...]
    """Digests of the earlier content under that name, oldest first."""


@dataclass(frozen=True)
class Ranking:
    """The leaderboard of one track."""

    track: str
    tasks: tuple[str, ...]
    entries: tuple[Entry, ...]
    left_out: int
    """Runs on this track that are not comparable with those ranked (other data, model or track version)."""
    elsewhere: tuple[Entry, ...] = ()
    """The newest run of each entry on each other device or with outside data: without a rank, by device and name."""
    identity: dict[str, Any] = field(default_factory=dict)
    """The facts that all ranked runs share: versions, model, data, device, seed."""
    allow_unsandboxed: bool = False
    """Whether runs without isolation are ranked, in a separate division."""
    bare: Mapping[str, float] | None = None
    """Score of the bare template on each task, which counts before the first answer; None if it is not known."""
    prices: Prices | None = None
    """The track's price list, if it has one."""
    withdrawn: tuple[Withdrawn, ...] = ()
    """Withdrawn entries, by name. Their runs do not affect anything else."""
    replaced: tuple[Replaced, ...] = ()
    """Runs that replaced other content, by name."""
    labels: tuple[str, ...] = ()
    """With which labels scores are computed, in lines; empty where no label was ever corrected."""

    @property
    def unsandboxed(self) -> int:
        """Entries that have no rank because they ran without isolation."""
        return 0 if self.allow_unsandboxed else len([e for e in self.entries if _unranked(e)])

    @property
    def divisions(self) -> tuple[Division, ...]:
        """The divisions, main one first, those of `elsewhere` last."""
        here = divisions(self.entries)
        return (*here, *(division for division in divisions(self.elsewhere) if division not in here))

    def complete(self, division: Division, ceiling: int | None = None) -> tuple[Entry, ...]:
        """Complete entries of a division, best average first. With `ceiling`, none is above that access level."""
        if division.unsandboxed and not self.allow_unsandboxed:
            return ()
        own = [e for e in (*self.entries, *self.elsewhere) if e.division == division and not (e.missing or e.white_box)]
        return tuple(sorted((e for e in own if ceiling is None or e.access <= ceiling), key=_best_first))

    @cached_property
    def _standings(self) -> dict[Division, Standings]:
        found = {division: standings(self.complete(division)) for division in self.divisions}
        return {division: each for division, each in found.items() if each is not None}

    @cached_property
    def _narrower(self) -> dict[tuple[Division, int], Standings | None]:
        """Cache of lists up to an access level. The table, the files and the site use the same ones."""
        return {}

    def standings(self, division: Division, ceiling: int | None = None) -> Standings | None:
        """Intervals and shared ranks of a division, or of its list up to an access level; None if that list is empty.

        A list up to an access level is ranked once more, from the same variances. The result is kept.
        """
        whole = self._standings.get(division)
        if whole is None or ceiling is None:
            return whole
        if (division, ceiling) not in self._narrower:
            names = tuple(entry.name for entry in self.complete(division, ceiling))
            self._narrower[division, ceiling] = whole.among(names) if names else None
        return self._narrower[division, ceiling]

    @cached_property
    def _efficiencies(self) -> dict[Division, Standings]:
        found = {each: efficiency_standings(self.complete(each), self.bare) for each in self._standings}
        return {division: each for division, each in found.items() if each is not None}

    def efficiency(self, division: Division) -> Standings | None:
        """The second list of a division, by efficiency; None if efficiency is not known."""
        return self._efficiencies.get(division)

    def standing(self, entry: Entry) -> Standing | None:
        """The standing of an entry in its division; None if cells are missing, and for white-box references."""
        if entry.missing or entry.white_box or entry.division not in self._standings:
            return None
        return self._standings[entry.division].entries[entry.name]

    def efficient(self, entry: Entry) -> Standing | None:
        """The standing of an entry by efficiency; None if that is not known."""
        if entry.missing or entry.white_box:
            return None
        found = self.efficiency(entry.division)
        return found.entries[entry.name] if found else None


def rank(
    store: Results,
    track: str,
    fingerprint: str | None = None,
    planned: Collection[tuple[str, int]] = (),
    ranks: Callable[[str], bool] = lambda _device: True,
    allow_unsandboxed: bool = False,
    prices: Prices | None = None,
    scored_cells: Callable[[str], Iterable[CellScore]] | None = None,
) -> Ranking:
    """Rank the newest run of each entry on a track.

    `fingerprint` keeps runs of one version of the track file; by default the newest run's. Only runs on a device
    that `ranks` are ranked (see `Track.ranks`). Of those that differ in data, model, seed or device, the kind with the
    most entries is ranked (the newest where equal). Runs with choices replaced on the command line are left out. A
    complete run has all `planned` cells (task, split), and every cell that any other run has which had the same device
    and outside data. White-box references follow, best average first; they have a say in nothing of this, unless there
    is nobody else. Runs without isolation are listed like those that lack cells, unless `allow_unsandboxed`. `prices`
    is the track's price list. Entries that an organiser has withdrawn are told and have a part in nothing.
    `scored_cells` gives the cells of a run where they were scored before.
    """
    own = [run for run in store.runs() if run.key.track == track]
    counts, rulings = tries(run.key for run in own), store.rulings()
    runs = [run for run in own if run.key.access != "predictions"]  # see `harness.leaderboard.uploads`
    taken = _withdrawn(runs, rulings)
    runs = [run for run in runs if run.key.label not in taken]
    withdrawn = tuple(taken[name] for name in sorted(taken))
    plain = [run for run in runs if not run.key.modified]
    version = fingerprint or (_deciding(plain)[-1].track_fingerprint if plain else "")
    plain = [run for run in plain if run.key.track_fingerprint == version]
    if not plain:
        return Ranking(track, (), (), len(runs), withdrawn=withdrawn)
    decide = _deciding(plain)
    chosen = _largest_group([key for key in decide if ranks(key.device)] or decide)
    alike = [run for run in plain if _alike(run.key, chosen)]
    newest = {_contestant(run.key): run for run in alike if not run.key.repeat}
    again = repeats_of(newest.values(), alike)
    scores = scored_cells or (lambda run: map(score_cell, store.cells(run)))
    scored = {who: averaged(*map(scores, (run.id, *again[run.id]))) for who, run in newest.items()}
    places = {who: {(cell.task, cell.split) for cell in cells} for who, cells in scored.items()}
    here = {who for who in newest if who.device == chosen["device"] and ranks(who.device) and not who.external}
    wanted = {who.means: set(planned) for who in newest}
    for who in newest:
        if not who.white_box:
            wanted[who.means] |= places[who]
    found = {
        who: Entry(
            None,
            who.name,
            run.id,
            scored[who],
            len(wanted[who.means] - places[who]),
            run.environment,
            *who[1:],
            runs=counts[run.key.tried],
        )
        for who, run in newest.items()
        if scored[who]
    }
    bare = bare_scores(load_reference(track, chosen), (entry for who, entry in found.items() if who in here))
    if bare is not None:
        found = {who: _before_answers(entry, bare) for who, entry in found.items()}
    ranked = _ranked([entry for who, entry in found.items() if who in here], allow_unsandboxed)
    elsewhere = sorted((entry for who, entry in found.items() if who not in here), key=lambda e: (e.device, e.name))
    tasks = tuple(sorted({task for task, _ in set(planned).union(*places.values())}))
    left_out = len(runs) - len(alike)
    replaced = _replaced(alike, newest)
    listed = tuple(ranked), left_out, tuple(elsewhere)
    return Ranking(track, tasks, *listed, chosen, allow_unsandboxed, bare, prices, withdrawn, replaced)


def _alike(key: RunKey, chosen: Mapping[str, Any]) -> bool:
    """Whether a run is of the chosen kind. What a server computes with is not known: its runs are a division anyway."""
    blind = key.served or chosen["device"].startswith(ENDPOINT)
    names = tuple(name for name in _ALIKE if not (blind and name == "model_sha256"))
    return _values(key, names) == tuple(chosen[name] for name in names)


def _withdrawn(runs: list[Run], rulings: list[Ruling]) -> dict[str, Withdrawn]:
    """Entries that are withdrawn, by name."""
    found: dict[str, Withdrawn] = {}
    for run in runs:
        ruling = in_force(rulings, "withdraw", run.key.track, run.key.label)
        if ruling is not None:
            found[run.key.label] = Withdrawn(run.key.label, run.id, ruling.reason, ruling.made)
    return found


def _replaced(runs: list[Run], newest: Mapping[_Contestant, Run]) -> tuple[Replaced, ...]:
    """The cases in which the newest run of a name replaced other content."""
    older: dict[_Contestant, list[str]] = {}
    for run in runs:
        older.setdefault(_contestant(run.key), []).append(run.key.submission_sha256)
    found = []
    for who, run in newest.items():
        sha256 = run.key.submission_sha256
        others = tuple(each for each in dict.fromkeys(older[who]) if each != sha256)
        if others:
            found.append(Replaced(who.name, run.id, sha256, others))
    return tuple(sorted(found, key=lambda each: (each.name, each.run)))


def _before_answers(entry: Entry, bare: Mapping[str, float]) -> Entry:
    """The same entry with the bare template's score before the first answer."""
    cells = (cell.before_answers(bare[cell.task]) if cell.task in bare else cell for cell in entry.cells)
    return dataclasses.replace(entry, cells=tuple(cells))


def score_cell(cell: StoredCell) -> CellScore:
    """Score a stored cell with its task's metric."""
    metric, classes = metric_of(cell.task, cell.record), classes_of(cell.task, cell.record)
    labels, failed = _test_set(metric, np.asarray(cell.labels, dtype=np.int64).tobytes())
    said = _incumbents(cell, failed) if cell.status in COUNTS else dict.fromkeys(MARKS, failed)
    there = {mark: each for mark, each in said.items() if each is not None}
    scores = score(metric, np.stack(list(there.values())), labels, classes).tolist()
    anytime = dict.fromkeys(said) | dict(zip(there, scores, strict=True))
    small = np.min_scalar_type(classes)
    by_rows = {rows: cell.predictions[mark].astype(small) for mark, rows in cell.rows.items()}
    kept = {mark: by_rows[rows] for mark, rows in cell.rows.items()} if cell.status in COUNTS else {}
    final = there[1.0].astype(small)
    where = (cell.task, cell.split, cell.status, scores[-1], anytime, cell.record, cell.rows)
    return CellScore(*where, final, labels, kept, metric)


def _incumbents(cell: StoredCell, failed: IntArray) -> dict[float, IntArray | None]:
    """Predictions of the incumbent at each mark, None if there was none. Marks with unknown incumbents are missing.

    An older cell kept no incumbent at the first marks. There, the incumbent is that of the next mark if it had been
    offered by then. If no answer had been offered by then, there was none. At the end, no answer predicts `failed`.
    """
    kept = cell.record.marks
    known: dict[float, IntArray | None] = {mark: cell.predictions.get(mark) for mark in kept}
    for mark in (mark for mark in MARKS if mark not in known):
        following = min(later for later in kept if later > mark)
        rows, offers = mark * cell.record.rows_total, cell.record.history
        if cell.rows.get(following, np.inf) <= rows:
            known[mark] = cell.predictions[following]
        elif following not in cell.predictions or (offers and offers[0][0] > rows):
            known[mark] = None
    known[1.0] = cell.predictions.get(1.0, failed)
    return dict(sorted(known.items()))


@cache
def _test_set(metric: Metric, labels: bytes) -> tuple[IntArray, IntArray]:
    """Labels of a test set from their bytes, and a failed cell's predictions. Cached, because a set has many cells."""
    values = np.frombuffer(labels, dtype=np.int64)
    return values, failed_prediction(metric, values)


def _deciding(runs: list[Run]) -> list[RunKey]:
    """Identities of the runs that decide what is compared: the ranked ones, or references if there are no others."""
    keys = [run.key for run in runs if not run.key.repeat] or [run.key for run in runs]
    pure = [key for key in keys if not key.external] or keys
    return [key for key in pure if key.access != "white-box"] or pure


class _Contestant(NamedTuple):
    """The key of a contestant, of which only the newest run counts."""

    name: str
    """Name with its team."""
    white_box: bool
    device: str
    external: str

    @property
    def means(self) -> tuple[str, str]:
        """The device and the outside data. Runs with the same ones must have the same cells."""
        return self.device, self.external


def _contestant(key: RunKey) -> _Contestant:
    return _Contestant(key.label, key.access == "white-box", key.device, key.external)


def _values(key: RunKey, names: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(getattr(key, name) for name in names)


def _largest_group(keys: list[RunKey]) -> dict[str, Any]:
    """The facts shared by the comparable runs with the most entries; if equal, by the later ones. Oldest come first."""
    entries: dict[tuple[Any, ...], set[str]] = {}
    for key in keys:
        group = _values(key, _COMPARABLE)
        entries[group] = entries.pop(group, set()) | {key.label}
    largest = max(reversed(entries), key=lambda group: len(entries[group]))
    return dict(zip(_COMPARABLE, largest, strict=True))


def _unranked(entry: Entry) -> bool:
    """Whether it has no rank only because it ran without isolation."""
    return entry.division.unsandboxed and not entry.white_box and not entry.missing


def _ranked(entries: list[Entry], allow_unsandboxed: bool) -> list[Entry]:
    """Complete contestants by division, then those that lack isolation or cells, then references, complete first."""
    references = sorted((e for e in entries if e.white_box), key=_best_first)
    contestants = [e for e in entries if not e.white_box]
    apart = [e for e in contestants if _unranked(e) and not allow_unsandboxed]
    complete = [e for e in contestants if not (e.missing or (_unranked(e) and not allow_unsandboxed))]
    ranked = [e for d in divisions(contestants) for e in _placed([e for e in complete if e.division == d])]
    lacking = [e for e in contestants if e.missing]
    return ranked + sorted(apart, key=_best_first) + sorted(lacking, key=lambda e: e.name) + references


def _placed(entries: list[Entry]) -> list[Entry]:
    """Best average first, with their places."""
    placed: list[Entry] = []
    for place, entry in enumerate(sorted(entries, key=_best_first), start=1):
        tied = bool(placed) and placed[-1].average == entry.average
        placed.append(dataclasses.replace(entry, rank=placed[-1].rank if tied else place))
    return placed


def _best_first(entry: Entry) -> tuple[bool, float, str]:
    """Sort key: entries that lack cells come last, because their average is over fewer cells."""
    return entry.missing > 0, -entry.average, entry.name
