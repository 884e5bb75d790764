"""The option ``--format`` of commands that print a table: the same records as CSV, JSON, Markdown, LaTeX or HTML."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.leaderboard.formats import Format

if TYPE_CHECKING:
    from collections.abc import Sequence

Form = Annotated[
    Format | None, typer.Option("--format", help="Print the table in this format and nothing else.", metavar="FORMAT")
]


def export(title: str, rows: Sequence[dict[str, Any]], form: Format, key: str) -> None:
    """Print flat records in a format.

    Args:
        title: of the table, where the format has one.
        rows: the records, all with the same names.
        form: the format.
        key: name under which the records stand in a JSON document.
    """
    from harness.leaderboard.exports import exported_rows  # noqa: PLC0415 - pandas

    typer.echo(exported_rows(title, rows, form, key), nl=False)
