"""What must hold of each task of a track: `harness.tracks.track` refuses a file in which it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import msgspec

from harness.contract import ClassMetric, TextMetric
from harness.errors import TaskError
from harness.tracks.tasks import find_task

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.tracks.track import Track, TrackTask


def task_problems(track: Track, task: str, spec: TrackTask) -> Iterator[tuple[list[str], str]]:
    """Each rule that a task of a track breaks, as the keys below ``[tasks.<name>]`` and a message."""
    try:
        file = find_task(task, track.tasks_folder)
        file.wording(track.profile, track.model.kind)
    except TaskError as problem:
        yield [], str(problem)
        return
    if file.text is not msgspec.UNSET:
        yield from _text_task_problems(track, spec)
        return
    if isinstance(spec.metric, str) and spec.metric not in get_args(ClassMetric):
        yield ["metric"], f"metric {spec.metric} compares texts, and {task} has classes"
    if spec.metric == "f1" and len(file.classes) != 2:  # noqa: PLR2004
        yield ["metric"], "metric f1 is that of class 1 against class 0; take macro_f1"
    if spec.splits == "present" and track.data.source not in {"kit", "files"}:
        yield ["splits"], 'splits = "present" needs data.source = "files" or "kit"; list the splits'
    if spec.splits != "present" and (not spec.splits or len(set(spec.splits)) != len(spec.splits)):
        yield ["splits"], f"splits {list(spec.splits)} must be distinct and at least one"
    if track.data.source == "files" and file.files is None:
        yield [], f'data.source = "files" needs a [files] table in the task.toml of {task}'


def _text_task_problems(track: Track, spec: TrackTask) -> Iterator[tuple[list[str], str]]:
    if track.data.source != "embedded":
        yield [], 'a task whose answer is text has its data in a miniature; it needs data.source = "embedded"'
    if spec.row_tokens is msgspec.UNSET:
        yield [], "no row_tokens; a text that is written is priced by its tokens, so a row needs a size"
    if isinstance(spec.metric, str) and spec.metric not in get_args(TextMetric):
        yield ["metric"], f"metric {spec.metric} is that of classes; choose one of {', '.join(get_args(TextMetric))}"
    if not isinstance(spec.splits, tuple) or not spec.splits or len(set(spec.splits)) != len(spec.splits):
        yield ["splits"], "splits must be listed, distinct, and at least one"
