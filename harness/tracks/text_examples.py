"""Examples of text tasks: texts with their references, from a miniature or from files of one's own (JSONL).

A line is ``{"texts": ["..."], "references": ["...", ...]}`` and may hold other fields, which are notes. Few-shot splits
of a miniature are drawn from its pool, the same on every platform.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from harness.contract import Examples, Shots, Text
from harness.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path


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


def draw_text_shots(pool: Examples, train: int, dev: int, key: str) -> Shots:
    """Draw `train` + `dev` different texts, ordered by the SHA-256 of key and text.

    Raises:
        DataError: the pool has too few.
    """
    known = dict(zip(pool.texts, pool.references, strict=True))
    order = sorted(known, key=lambda text: hashlib.sha256(json.dumps([key, *text]).encode()).digest())
    if len(order) < train + dev:
        raise DataError(f"{key}: the pool has {len(order)} different texts, {train} + {dev} are needed")
    rows = [(text, known[text]) for text in order[: train + dev]]
    return Shots(examples_of(rows[:train]), examples_of(rows[train:]))


def examples_of(rows: list[tuple[Text, tuple[str, ...]]]) -> Examples:
    """Texts and references as `Examples`, whose labels are all 0."""
    texts, references = zip(*rows, strict=True)
    return Examples(texts, np.zeros(len(rows), dtype=np.int64), references)
