"""What the shell offers after Tab: tracks, tasks, submissions, entries and runs (`harness --install-completion`).

Nothing here raises: where a name cannot be found out, nothing is offered.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.results.records import Run

_MOST = 200


def complete_tracks(incomplete: str) -> list[str]:
    """Tracks that ship, and TOML files."""
    from harness.tracks.track import track_names  # noqa: PLC0415 - completion must be quick

    return _starting([*track_names(), *_files(incomplete, ".toml")], incomplete)


def complete_tasks(incomplete: str) -> list[str]:
    """Tasks that ship."""
    from harness.tracks.tasks import task_names  # noqa: PLC0415

    return _starting(task_names(), incomplete)


def complete_submissions(incomplete: str) -> list[str]:
    """Folders with a submission: those that lie where the name so far leads, or in ``submissions``."""
    start = Path(incomplete)
    where = start if incomplete.endswith("/") else start.parent
    found = [str(path.parent) for place in {where, Path("submissions")} for path in place.glob("*/submission.py")]
    return _starting(found, incomplete)


def complete_entries(ctx: Any, incomplete: str) -> list[str]:
    """Entries of the database that is named with ``--store``, as the leaderboard shows them."""
    return _starting((run.key.label for run in _runs(ctx)), incomplete)


def complete_runs(ctx: Any, incomplete: str) -> list[str]:
    """Entries, and the ids of runs."""
    return _starting((name for run in _runs(ctx) for name in (run.key.label, run.id)), incomplete)


def _runs(ctx: Any) -> list[Run]:
    from harness.cli.console import STORE, is_there, open_store  # noqa: PLC0415

    store = ctx.params.get("store") or STORE
    try:
        return open_store(store, create=False).runs() if is_there(store) else []
    except Exception:  # noqa: BLE001 - a message in the middle of a line that is being typed would be worse
        return []


def _files(incomplete: str, ending: str) -> list[str]:
    start = Path(incomplete)
    where = start if incomplete.endswith("/") else start.parent
    return [str(path) for path in where.glob(f"*{ending}")]


def _starting(names: Iterable[str], incomplete: str) -> list[str]:
    return sorted({name for name in names if name.startswith(incomplete)})[:_MOST]
