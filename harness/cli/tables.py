"""Tracks, tasks and scores as tables for the terminal; counts in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.contract import Task, TextTask
    from harness.evaluation.replay import Replay
    from harness.leaderboard.power import Power
    from harness.results.uploads import Scored
    from harness.tracks.tasks import TaskFile
    from harness.tracks.track import Track


def tracks_table(tracks: Iterable[Track]) -> Table:
    """A line per track."""
    table = _table("track", "model", "data", "device", "splits", "calls per task", "what it is")
    for track in tracks:
        calls = "\n".join(f"{name} {spec.calls:,}" for name, spec in track.tasks.items())
        splits = {"present" if spec.splits == "present" else str(len(spec.splits)) for spec in track.tasks.values()}
        source = (track.model.source, track.data.source, track.device_name or track.device)
        table.add_row(track.name, *map(escape, source), "/".join(sorted(splits)), calls, escape(track.title))
    return table


def tracks_rows(tracks: Iterable[Track], powers: Iterable[Power | None]) -> list[dict[str, Any]]:
    """A flat record for each task of each track, with how large a lead must be to be seen in 9 of 10 cases."""
    return [
        {
            "track": track.name,
            "title": track.title,
            "model": track.model.source,
            "data": track.data.source,
            "device": track.device_name or track.device,
            "task": name,
            "splits": "present" if spec.splits == "present" else len(spec.splits),
            "calls": spec.calls,
            "packages": ", ".join(track.packages) or None,
            "lead_seen": None if power is None else power.record()["lead_seen"]["0.9"],
        }
        for track, power in zip(tracks, powers, strict=True)
        for name, spec in track.tasks.items()
    ]


def tasks_rows(tasks: Iterable[tuple[TaskFile, Task | TextTask]]) -> list[dict[str, Any]]:
    """A flat record for each task, in the wording of one track."""
    return [
        {
            "task": file.name,
            "title": file.title,
            "metric": task.metric,
            "template": task.template,
            "classes": ", ".join(task.classes),
            "words": ", ".join(word.strip() for word in task.words),
        }
        for file, task in tasks
    ]


def tasks_table(tasks: Iterable[tuple[TaskFile, Task | TextTask]]) -> Table:
    """A line per task, in the wording of one track."""
    table = _table("task", "metric", "template", "label words")
    for file, task in tasks:
        words = (
            ", ".join(f"{name}={word.strip()}" for name, word in zip(task.classes, task.words, strict=True))
            or "answered by text"
        )
        table.add_row(file.name, task.metric, escape(task.template), escape(words))
    return table


def scores_table(scores: Iterable[Scored]) -> Table:
    """A line per prediction file."""
    table = Table(box=None, pad_edge=False)
    for column in ("task", "split", "rows", "metric", "score"):
        side: Literal["left", "right"] = "left" if column in {"task", "metric"} else "right"
        table.add_column(column, justify=side)
    for s in scores:
        table.add_row(s.task, str(s.split), f"{s.rows:,}", s.metric, f"{s.score * 100:.2f}")
    return table


def replay_table(replay: Replay) -> Table:
    """A line per cell that was looked at again."""
    table = _table(
        "cell", "verdict", "queries then/now", "predictions not given", "logits differ by", "first difference"
    )
    for cell in replay.cells:
        drift = "unknown" if cell.drift is None else f"{cell.drift:.2g}"
        queries = "{:,}/{:,}".format(*cell.queries)
        flipped = f"{cell.flipped:,} of {cell.predictions:,}"
        table.add_row(f"{cell.task}/{cell.split}", cell.verdict, queries, flipped, drift, escape(cell.difference))
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
