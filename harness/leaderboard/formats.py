"""The formats in which a ranking is written, and the names of its files."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from harness.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path


class Format(StrEnum):
    """The format of a written ranking."""

    CSV = "csv"
    JSON = "json"
    MARKDOWN = "md"
    LATEX = "latex"
    HTML = "html"


_ENDINGS = {
    ".csv": Format.CSV,
    ".json": Format.JSON,
    ".md": Format.MARKDOWN,
    ".tex": Format.LATEX,
    ".html": Format.HTML,
}


def format_of(path: Path) -> Format:
    """The format that a file's name ends with.

    Raises:
        InputError: the name ends with no known format.
    """
    found = _ENDINGS.get(path.suffix.lower())
    if found is None:
        raise InputError(f"{path}: the name says no format; end it with one of {', '.join(_ENDINGS)}, or give --format")
    return found


def beside(path: Path, what: str) -> Path:
    """The path of another table of the same ranking: the cells of ``x.csv`` are in ``x-cells.csv``."""
    return path if path.stem.endswith(f"-{what}") else path.with_stem(f"{path.stem}-{what}")
