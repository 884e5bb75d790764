"""One task of a track: the budget, splits and metric that the track gives it, and what must hold of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import msgspec

from harness.contract import ClassMetric, Metric, TextMetric
from harness.tracks.limits import Positive  # noqa: TC001 - msgspec reads the types

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.tracks.tasks import TaskFile


class TrackTask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One task on this track."""

    calls: Positive
    splits: tuple[int, ...] | Literal["present"]
    """Split names; ``present`` means every split in the data directory."""
    shots: Positive = 16
    """Training examples per class, if the split is drawn here."""
    dev: Positive = 16
    """Dev examples per class, where the split is drawn here."""
    metric: Metric | msgspec.UnsetType = msgspec.UNSET
    """What the task is scored by on this track; unset, the task file's metric."""
    test_tokens: Positive | msgspec.UnsetType = msgspec.UNSET
    """Most tokens of a test input, prompt included, where that is less than the model takes: the kit's server cut its
    hidden test texts at 256."""
    row_tokens: Positive | msgspec.UnsetType = msgspec.UNSET
    """Tokens of text in one row; a longer text costs more rows. Every few-shot text of the track's data fits. Without
    it a text is one row however long it is."""

    @property
    def tokens_of_a_row(self) -> int | None:
        """`row_tokens`, or None where a row has no size."""
        return None if self.row_tokens is msgspec.UNSET else self.row_tokens

    def problems(self, file: TaskFile, source: str) -> Iterator[tuple[list[str], str]]:
        """Each rule that is broken, as the keys below ``[tasks.<name>]`` and a message.

        Args:
            file: the task.
            source: the track's data source.
        """
        if file.text is not msgspec.UNSET:
            yield from self._problems_of_text(file, source)
            return
        if isinstance(self.metric, str) and self.metric not in get_args(ClassMetric):
            yield ["metric"], f"metric {self.metric} compares texts, and {file.name} has classes"
        if self.metric == "f1" and len(file.classes) != 2:  # noqa: PLR2004
            yield ["metric"], "metric f1 is that of class 1 against class 0; take macro_f1"
        if self.splits == "present" and source not in {"kit", "files"}:
            yield ["splits"], 'splits = "present" needs data.source = "files" or "kit"; list the splits'
        if self.splits != "present" and (not self.splits or len(set(self.splits)) != len(self.splits)):
            yield ["splits"], f"splits {list(self.splits)} must be distinct and at least one"
        if source == "files" and file.files is None:
            yield [], f'data.source = "files" needs a [files] table in the task.toml of {file.name}'

    def _problems_of_text(self, file: TaskFile, source: str) -> Iterator[tuple[list[str], str]]:
        if source not in {"embedded", "hub"}:
            wanted = 'it needs data.source = "embedded" or "hub"'
            yield [], f"a task whose answer is text has its data in a miniature or a public data set; {wanted}"
        elif source == "hub" and file.hub is None:
            yield [], f'data.source = "hub" needs a [hub] table in the task.toml of {file.name}; take its miniature'
        if self.row_tokens is msgspec.UNSET:
            yield [], "no row_tokens; a text that is written is priced by its tokens, so a row needs a size"
        names = ", ".join(get_args(TextMetric))
        if isinstance(self.metric, str) and self.metric not in get_args(TextMetric):
            yield (["metric"], f"metric {self.metric} is that of classes; choose one of {names}")
        if not isinstance(self.splits, tuple) or not self.splits or len(set(self.splits)) != len(self.splits):
            yield ["splits"], "splits must be listed, distinct, and at least one"
