"""Examples of text tasks: texts with their references, from a miniature (JSONL) or a public data set.

A line is ``{"texts": ["..."], "references": ["...", ...]}`` and may hold other fields, which are notes. Few-shot splits
of a miniature are drawn from its pool, the same on every platform.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from harness.contract import Examples, Shots, Text
from harness.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from harness.tracks.text_tasks import TextHub


class _Row(msgspec.Struct, frozen=True):
    texts: Text
    references: tuple[str, ...]


def read_references(path: Path, fields: int) -> Examples:
    """Read a JSONL file of texts and references.

    Args:
        path: the file.
        fields: text fields of each example.

    Raises:
        DataError: the file is missing or empty, or a line is malformed.
    """
    try:
        content = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as problem:
        raise DataError(f"{path}: cannot be read: {problem}") from problem
    rows: list[_Row] = []
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = msgspec.json.decode(line, type=_Row)
        except msgspec.MsgspecError as problem:
            wanted = '{"texts": [...], "references": [...]}'
            raise DataError(f"{path}:{number}: expected {wanted}: {problem}") from problem
        if len(row.texts) != fields:
            raise DataError(f"{path}:{number}: {len(row.texts)} texts, {fields} strings expected")
        if not row.references or not all(each.strip() for each in row.references):
            raise DataError(f"{path}:{number}: a reference is missing or empty; at least one right answer is needed")
        rows.append(row)
    if not rows:
        raise DataError(f"{path}: no rows; at least one example is expected")
    return examples_of([(row.texts, row.references) for row in rows])


def from_table(table: Mapping[str, Sequence[Any]], where: str, hub: TextHub, test: bool) -> Examples:
    """Texts and references of a public data set. Rows of the same texts are one example with several references.

    Args:
        table: columns by their names; of a column that is named with a dot, what stands before it.
        where: what messages call them.
        hub: which columns hold what.
        test: whether it is the test set, of which `TextHub.test_texts` are taken.

    Raises:
        DataError: a column or a field in it is missing, or a text or a reference is empty or no string.
    """
    found: dict[Text, dict[str, None]] = {}
    columns = [_column(table, name, where) for name in (*hub.columns, hub.references)]
    for number, row in enumerate(zip(*columns, strict=True)):
        if not all(isinstance(value, str) and value.strip() for value in row):
            named = ", ".join((*hub.columns, hub.references))
            raise DataError(f"{where}:{number}: {row} in columns {named}; strings that are not empty expected")
        *texts, said = row
        begun, marker, end = said.rpartition(hub.after) if hub.after else ("", "", said)
        if hub.after and not marker:
            raise DataError(f"{where}:{number}: no {hub.after!r} in column {hub.references}, after which the answer is")
        if not end.strip():
            raise DataError(f"{where}:{number}: nothing follows {hub.after!r} in column {hub.references}: {begun!r}")
        found.setdefault(tuple(map(_one_form, texts)), {})[_one_form(end)] = None
    if not found:
        raise DataError(f"{where}: no rows; at least one example is expected")
    chosen = list(found)
    if test and hub.test_texts is not msgspec.UNSET and hub.test_texts < len(chosen):
        drawn = set(_drawn(chosen, f"{hub.dataset}/test")[: hub.test_texts])
        chosen = [texts for texts in chosen if texts in drawn]
    return examples_of([(texts, tuple(found[texts])) for texts in chosen])


def _column(table: Mapping[str, Sequence[Any]], name: str, where: str) -> Sequence[Any]:
    """A column; with a dot in its name, a field of each of its values."""
    outer, _, inner = name.partition(".")
    if outer not in table:
        raise DataError(f"{where}: no column {outer!r}; there are {', '.join(table)}")
    if not inner:
        return table[outer]
    for number, value in enumerate(table[outer]):
        if not isinstance(value, dict) or inner not in value:
            raise DataError(f"{where}:{number}: {str(value)[:60]!r} in column {outer}; {inner!r} expected in it")
    return [value[inner] for value in table[outer]]


def _one_form(text: str) -> str:
    """Line breaks of one kind, and no spaces at the ends."""
    return "\n".join(text.splitlines()).strip()


def _drawn(texts: Iterable[Text], key: str) -> list[Text]:
    """Texts in the order of the SHA-256 of key and text."""
    return sorted(texts, key=lambda text: hashlib.sha256(json.dumps([key, *text]).encode()).digest())


def draw_text_shots(pool: Examples, train: int, dev: int, key: str) -> Shots:
    """Draw `train` + `dev` different texts, ordered by the SHA-256 of key and text.

    Raises:
        DataError: the pool has too few.
    """
    known = dict(zip(pool.texts, pool.references, strict=True))
    order = _drawn(known, key)
    if len(order) < train + dev:
        raise DataError(f"{key}: the pool has {len(order)} different texts, {train} + {dev} are needed")
    rows = [(text, known[text]) for text in order[: train + dev]]
    return Shots(examples_of(rows[:train]), examples_of(rows[train:]))


def examples_of(rows: list[tuple[Text, tuple[str, ...]]]) -> Examples:
    """Texts and references as `Examples`, whose labels are all 0."""
    texts, references = zip(*rows, strict=True)
    return Examples(texts, np.zeros(len(rows), dtype=np.int64), references)
