"""What an organiser's policy costs in points and how much of the model it keeps: a policy is evaluated like an entry.

Submissions are run twice on the same cells, with the track as it is and behind the policy's defences; and so is the
attack on the last layer. Submissions are run as they are: one that crashes because its query is refused scores as a
failed cell does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from harness.errors import InputError
from harness.evaluation.engines import local
from harness.evaluation.engines.job import Job
from harness.evaluation.run import Evaluation
from harness.leaderboard.ablation import Variant, Varied, variants
from harness.leaks.extraction import Extraction, extract
from harness.tracks.defences import read_policy

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    from harness.evaluation.overrides import Overrides
    from harness.evaluation.run import Progress
    from harness.leaks.solvers import Solver
    from harness.results.records import Run, StoredCell
    from harness.results.rulings import Ruling
    from harness.results.store import Store
    from harness.tracks.track import Track

AS_IT_IS = "none"
SOLVERS = ("manual", "dect", "house:search=false")
"""Submissions whose points are compared by default: seconds a cell."""


@dataclass(frozen=True)
class Guarded:
    """What a policy does."""

    policy: str
    """Name of its file; `none` for the track as it is."""
    stolen: tuple[Extraction, ...]
    """The attack on the last layer, on the first chosen split of each task."""
    points: dict[str, Variant]
    """By solver; the difference to the track as it is has its interval."""
    failed: dict[str, int]
    """By solver, cells that failed."""

    @property
    def share(self) -> float:
        """Share of the last layer that the attack knows in the end, averaged over tasks."""
        return sum(each.last.share if each.last else 0.0 for each in self.stolen) / len(self.stolen)


def weigh(
    track: Track,
    overrides: Overrides,
    store: Store,
    policies: Sequence[Path],
    solvers: Sequence[Solver],
    progress: Progress,
    stealing: Callable[[str, int, int], None] = lambda _policy, _rows, _of: None,
) -> list[Guarded]:
    """Run solvers and the attack with the track as it is, then behind each policy.

    Args:
        track: its own defences are left away.
        overrides: which cells, and how they run.
        store: keeps the runs; finished cells are never run again.
        policies: files with the fields of a ``[defences]`` table.
        solvers: whose points are compared.
        progress: of the solvers' cells.
        stealing: of the attack: the policy, rows spent and to spend.

    Returns:
        The track as it is, then each policy in its order.

    Raises:
        InputError: a policy breaks a rule, or two have the same name.
    """
    names = [AS_IT_IS, *(path.stem for path in policies)]
    if len(set(names)) < len(names):
        raise InputError(
            f"policies {', '.join(names[1:])}: each needs a file name of its own, and none is {AS_IT_IS!r}"
        )
    kept_back = [msgspec.UNSET, *map(read_policy, policies)]
    tracks = [msgspec.structs.replace(track, given_defences=each) for each in kept_back]
    runs: dict[tuple[str, str], str] = {}
    places: set[tuple[str, int]] = set()
    stolen: dict[str, tuple[Extraction, ...]] = {}
    for name, guarded in zip(names, tracks, strict=True):
        for each in solvers:
            plan = local.run(Job(guarded, overrides, store, (each.submission,), each.options), progress)
            places |= {(cell.task.name, cell.split) for cell in plan.cells}
            runs[name, each.name] = plan.peek(store, each.submission, each.options).id
        stolen[name] = _steal(guarded, overrides, store, lambda n, of, name=name: stealing(name, n, of))  # type: ignore[misc]
    varied = [Varied(each.name, name, (runs[name, each.name],)) for each in solvers for name in names]
    points = {(each.option, each.value): each for each in variants(_Chosen(store, places), varied)}
    return [
        Guarded(
            name, stolen[name], {each.name: points[each.name, name] for each in solvers},
            {each.name: len(places & set(store.failed(runs[name, each.name]))) for each in solvers},
        )
        for name in names
    ]  # fmt: skip


class _Chosen:
    """The chosen cells of a database, which may have others of the same runs."""

    def __init__(self, store: Store, places: Collection[tuple[str, int]]) -> None:
        self._store, self._places = store, places

    def runs(self) -> list[Run]:
        """See `Store`."""
        return self._store.runs()

    def cells(self, run: str) -> list[StoredCell]:
        """See `Store`."""
        return [cell for cell in self._store.cells(run) if (cell.task, cell.split) in self._places]

    def rulings(self) -> list[Ruling]:
        """See `Store`."""
        return self._store.rulings()


def _steal(
    track: Track, overrides: Overrides, store: Store, progress: Callable[[int, int], None]
) -> tuple[Extraction, ...]:
    evaluation = Evaluation(track, overrides, store)
    cells = list({cell.task.name: cell for cell in reversed(evaluation.cells)}.values())[::-1]
    return tuple(extract(evaluation, cell, store, seed=overrides.seed, progress=progress) for cell in cells)


def records(found: Sequence[Guarded]) -> list[dict[str, Any]]:
    """A flat record for each policy and solver; scores and shares are from 0 to 1."""
    rows = []
    open_share = found[0].share
    for each in found:
        for name, variant in each.points.items():
            lost = variant.against_first
            rows.append(
                {
                    "policy": each.policy, "solver": name, "average": round(variant.entry.average, 4),
                    "lost": None if lost is None else round(0.0 - lost.value, 4) + 0.0,
                    "lost_low": None if lost is None else round(0.0 - lost.high, 4) + 0.0,
                    "lost_high": None if lost is None else round(0.0 - lost.low, 4) + 0.0,
                    "failed_cells": each.failed[name], "cells": len(variant.entry.cells),
                    "share_of_last_layer": round(each.share, 6),
                    "prevented": round(1 - each.share / open_share, 6) if open_share else None,
                    "refused": next((e.refused for e in each.stolen if e.refused), ""),
                }
            )  # fmt: skip
    return rows
