"""The output functions of all commands, and the opening of results databases."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.markup import escape

from harness.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.table import Table

    from harness.results.store import Store

STORE = "results/harness.db"
CORRECTED = "corrected"
"""The test labels with which scores are computed unless others are asked for (`harness.results.corrections`)."""
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def say(text: str) -> None:
    """Print a line unchanged: without markup, and without breaking paths."""
    out.print(escape(text), soft_wrap=True)


def note(text: str) -> None:
    """Print a line unchanged on standard error, where it does not mix with results."""
    err.print(text, markup=False, soft_wrap=True)


def whole(table: Table) -> None:
    """Print a table with all its columns whole. A terminal that is narrower breaks the lines and cuts nothing."""
    needed = out.measure(table, options=out.options.update(width=1000)).maximum
    (out if needed <= out.width else Console(file=out.file, width=needed)).print(table)


@contextlib.contextmanager
def status(begun: str, *, keep: bool = False) -> Iterator[Callable[[str], None]]:
    """Say what is being done: in a terminal in one line that changes, and elsewhere nothing.

    Args:
        begun: what the line says first.
        keep: whether that stays in front of what is said later.
    """
    if not err.is_terminal:
        yield lambda _said: None
        return
    with err.status(escape(begun)) as line:
        yield lambda said: line.update(escape(f"{begun}: {said}" if keep else said))


def check_folder(folder: Path | None) -> None:
    """Refuse a folder to write to, before long work, where a file is in its way.

    Raises:
        InputError: it is no folder.
    """
    if folder is not None and folder.exists() and not folder.is_dir():
        raise InputError(f"--out {folder}: this is a file, and a folder is needed; name another one")


def print_json(value: Any) -> None:
    """Print a value as JSON; a number that JSON lacks, as NaN, is null."""
    from harness.leaderboard.table import finite  # noqa: PLC0415 - numpy

    typer.echo(json.dumps(finite(value), indent=2, allow_nan=False))


def existing_store(store: str, labels: str = CORRECTED) -> Store:
    """A results database that must exist, read with the test labels that `--labels` names.

    Raises:
        InputError: it does not exist.
    """
    if not is_there(store):
        where = "" if store == STORE else f" --store {shown(store)}"
        raise InputError(
            f"{store}: no such results database; run: harness evaluate submissions/ajo{where}, or name another "
            "one with --store"
        )
    found = open_store(store, create=False)
    found.labels = labels
    return found


def open_store(url: str, *, create: bool = True) -> Store:
    """A results database. SQLAlchemy is imported only now, because it would double the time of `--help`."""
    from harness.results.store import Store  # noqa: PLC0415

    return Store(url, create=create)


def shown(url: str) -> str:
    """The address of a database without its password."""
    from harness.results.database import shown  # noqa: PLC0415 - as `_store`

    return shown(url)


def is_there(database: str) -> bool:
    """Whether a SQLite file exists, named by its path or a URL. A database server is checked later."""
    file = re.sub(r"^sqlite[^:]*:///", "", database)
    return "://" in file or Path(file).is_file()
