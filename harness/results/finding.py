"""Finds a run of a results database by what people call it: its id, how that begins, or the name of its entry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from harness.results.records import Run
    from harness.results.store import Store


def find_run(store: Store, name: str, track: str | None = None) -> Run:
    """The newest run of this entry, or the run whose id is this name or begins with it.

    Args:
        store: the database.
        name: an entry as the leaderboard shows it, the id of a run, or how an id begins.
        track: name of a track; only its runs are looked at. None looks at all.

    Raises:
        InputError: there is no such run, or several ids begin with the name.
    """
    runs = [run for run in store.runs()[::-1] if track in {None, run.key.track}]
    for run in runs:
        if name in {run.id, run.key.label}:
            return run
    begun = [run for run in runs if name and run.id.startswith(name)]
    if len(begun) > 1:
        ids = ", ".join(sorted(run.id for run in begun))
        raise InputError(f"{len(begun)} runs of {store.url} begin with {name!r}: {ids}")
    if begun:
        return begun[0]
    where = store.url if track is None else f"track {track} in {store.url}"
    raise InputError(
        f"{where} has no run {name!r}{did_you_mean(name, (run.key.label for run in runs))}; harness runs lists them all"
    )
