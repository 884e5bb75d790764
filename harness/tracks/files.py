"""Data files with named columns: CSV, TSV and JSONL, read strictly and written so that reading gives the same back.

CSV and TSV are RFC 4180: a header with the names of the columns, fields in double quotes where they hold a separator, a
quote or a line break, and a doubled quote inside quotes. JSONL is one object a line. All are UTF-8. Columns that nobody
names are notes. A number where a string is expected is taken as it is written, so labels may be numbers.
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from harness.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from harness.contract import Text

Format: TypeAlias = Literal["csv", "tsv", "jsonl"]
FORMATS: tuple[Format, ...] = ("csv", "tsv", "jsonl")
_LARGEST_FIELD = 16 << 20
"""Most characters of one field."""


@dataclass(frozen=True)
class Row:
    """One labelled example."""

    line: int
    """Where it begins in its file."""
    texts: Text
    label: str


@dataclass(frozen=True)
class Problem:
    """What is wrong in one place of a file."""

    path: Path
    line: int
    message: str

    def __str__(self) -> str:
        """Path, line and message."""
        return f"{self.path}:{self.line}: {self.message}"


def format_of(path: Path) -> Format:
    """The format of a file, by its ending.

    Raises:
        DataError: it has another one.
    """
    ending = path.suffix.lower().removeprefix(".")
    found = next((each for each in FORMATS if each == ending), None)
    if found is None:
        raise DataError(f"{path}: ends in {path.suffix or 'nothing'}; .csv, .tsv or .jsonl is needed")
    return found


def read_table(path: Path, columns: Sequence[str], label: str) -> tuple[list[Row], list[Problem]]:
    """Read all rows of a file, and all that is wrong with it.

    Args:
        path: the file; its ending says the format.
        columns: names of the columns with the texts.
        label: name of the column with the label.

    Returns:
        The rows that can be read, and the problems, both in the order of the file.

    Raises:
        DataError: the file cannot be read at all.
    """
    form, text = format_of(path), _text(path)
    names = (*columns, label)
    rows: list[Row] = []
    problems: list[Problem] = []
    for line, found in _objects(text, names) if form == "jsonl" else _records(text, names, form):
        if isinstance(found, str):
            problems.append(Problem(path, line, found))
            continue
        *texts, written = found
        empty = [name for name, value in zip(columns, texts, strict=True) if not value.strip()]
        if empty:
            problems.append(Problem(path, line, f"{empty[0]} is empty; a text is needed"))
        else:
            rows.append(Row(line, tuple(texts), written.strip()))
    return rows, problems


def column_names(path: Path) -> list[str]:
    """Names of a file's columns: of the header, or of the first object.

    Raises:
        DataError: the file cannot be read, or has neither.
    """
    form, text = format_of(path), _text(path)
    try:
        if form == "jsonl":
            return [str(name) for name in json.loads(text.lstrip().partition("\n")[0])]
        return next(_reader(text, form))
    except (ValueError, TypeError, StopIteration, csv.Error) as problem:
        raise DataError(f"{path}:1: no names of columns: {problem or 'the file is empty'}") from problem


def write_table(path: Path, columns: Sequence[str], label: str, rows: Sequence[tuple[Text, str]]) -> None:
    """Write labelled examples so that `read_table` gives the same back.

    Args:
        path: the file; its ending says the format.
        columns: names of the columns with the texts.
        label: name of the column with the label.
        rows: texts and label of each example.
    """
    form, names = format_of(path), (*columns, label)
    if form == "jsonl":
        lines = [json.dumps(dict(zip(names, (*t, k), strict=True)), ensure_ascii=False) + "\n" for t, k in rows]
        text = "".join(lines)
    else:
        stream = io.StringIO(newline="")
        lone = any("\r" in field for texts, written in rows for field in (*texts, written))  # the module leaves it bare
        how: dict[str, Any] = {"quoting": csv.QUOTE_ALL} if lone else {}
        writer = csv.writer(stream, delimiter=_delimiter(form), lineterminator="\n", **how)
        writer.writerow(names)
        writer.writerows((*texts, written) for texts, written in rows)
        text = stream.getvalue()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except UnicodeDecodeError as problem:
        line = problem.object.count(b"\n", 0, problem.start) + 1
        byte = problem.object[problem.start]
        raise DataError(f"{path}:{line}: byte 0x{byte:02x} is not UTF-8; save as UTF-8") from problem
    except OSError as problem:
        raise DataError(f"{path}: cannot be read: {problem}") from problem


def _delimiter(form: Format) -> str:
    return "\t" if form == "tsv" else ","


def _reader(text: str, form: Format) -> Any:
    csv.field_size_limit(_LARGEST_FIELD)
    return csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(form), strict=True)


def _records(text: str, names: Sequence[str], form: Format) -> Iterator[tuple[int, list[str] | str]]:
    """Line and wanted fields of each record of CSV or TSV; in place of the fields, what is wrong with it."""
    reader, line = _reader(text, form), 1
    try:
        header: list[str] = next(reader, [])
        for name in dict.fromkeys(names):
            if header.count(name) != 1:
                there = ", ".join(header) or "none"
                yield 1, f"{header.count(name)} columns are named {name!r}; one is needed. There are: {there}"
        if any(header.count(name) != 1 for name in names):
            return
        places = [header.index(name) for name in names]
        line = reader.line_num + 1
        for fields in reader:
            if not fields:
                pass  # an empty line
            elif len(fields) != len(header):
                advice = "put a field that holds a separator or a line break into double quotes"
                yield line, f"{len(fields)} fields, and the header has {len(header)}; {advice}"
            else:
                yield line, [fields[place] for place in places]
            line = reader.line_num + 1
    except csv.Error as problem:
        yield line, f"cannot be read as {form.upper()}: {problem}"


def _objects(text: str, names: Sequence[str]) -> Iterator[tuple[int, list[str] | str]]:
    """Line and wanted fields of each object of JSONL; in place of the fields, what is wrong with it."""
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        try:
            found = json.loads(content)
        except ValueError as problem:
            yield line, f"not JSON: {problem}"
            continue
        if not isinstance(found, dict):
            yield line, "not a JSON object; one with " + ", ".join(map(repr, names)) + " is needed"
            continue
        wrong = [name for name in names if not isinstance(found.get(name), str | int) or found[name] is True]
        if wrong:
            there = json.dumps(found[wrong[0]])[:40] if wrong[0] in found else "not there"
            yield line, f"{wrong[0]!r} is {there}; a string is needed"
            continue
        yield line, [str(found[name]) for name in names]
