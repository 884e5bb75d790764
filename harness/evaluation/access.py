"""Which submissions may run at all: refused before a run is recorded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import InputError, SubmissionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.evaluation.referee import Cell
    from harness.sandbox.submission import Submission


def check_access(submission: Submission, white_box: bool) -> None:
    """Refuse a white-box reference unless the choices allow it.

    Raises:
        InputError: the submission is a white-box reference. The message says how to allow it.
    """
    if submission.access == "white-box" and not white_box:
        raise InputError(
            f"{submission.path} is a white-box reference: it trains with the model's weights and gradients, in the "
            "referee's own process and without a sandbox, and is listed but never ranked. "
            "If you trust its code, allow that with --white-box"
        )


def check_cells(submission: Submission, cells: Sequence[Cell], external: str) -> None:
    """Refuse a submission that these cells are not for, or whose folder holds their data.

    Args:
        submission: of either access.
        cells: those that it would run on.
        external: name of the pre-trained p0; empty where there is none.

    Raises:
        InputError: it is a white-box reference, and there is a p0.
        SubmissionError: data of the track lie in its folder.
    """
    if submission.access == "white-box" and external:
        raise InputError(f"{submission.path} is a white-box reference, which starts from p0 as it is; leave out --p0")
    inside = [place for cell in cells for place in _places(cell) if place.is_relative_to(submission.path)]
    if inside:
        raise SubmissionError(
            f"{submission.path} holds data of the track, {inside[0]}, and a submission may read all of its own "
            "folder; move one of them elsewhere"
        )


def _places(cell: Cell) -> list[Path]:
    """Folders with labelled texts of a cell that are not in the package."""
    known = (cell.file.folder, cell.source.directory, cell.source.test)
    return [Path(each).resolve() for each in known if isinstance(each, str | Path)]
