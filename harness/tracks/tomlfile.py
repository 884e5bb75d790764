"""Reads a TOML file into a typed struct. An error names the file, the line and what was expected."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from harness.errors import InputError

T = TypeVar("T")
ENCODING = "utf-8-sig"
"""UTF-8, with or without the mark that some editors put at the beginning."""


def read_toml(path: Path, kind: type[T], error: type[InputError]) -> T:
    """Decode `path` strictly into `kind` (a msgspec Struct).

    Raises:
        error: the file is missing, is not TOML, lacks a key, has an unknown key or a wrong type.
    """
    try:
        return parse_toml(path.read_bytes(), path, kind, error)
    except FileNotFoundError:
        raise error(f"{path}: no such file") from None
    except OSError as problem:
        raise error(f"{path}: cannot be read: {problem}") from problem


def parse_toml(content: bytes, path: Path, kind: type[T], error: type[InputError]) -> T:
    """Decode the bytes that were read from `path` strictly into `kind`.

    Raises:
        error: they are no TOML, lack a key, have an unknown key or a wrong type.
    """
    try:
        text = content.decode(ENCODING)
    except UnicodeDecodeError as problem:
        raise error(f"{path}: cannot be read: {problem}") from problem
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        found = re.search(r"at line (\d+)", str(problem))
        line = int(found.group(1)) if found else len(text.splitlines())
        raise error(f"{path}:{line}: not valid TOML: {problem}") from problem
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as problem:
        keys, message = _locate(data, kind, str(problem))
        raise error(f"{path}:{line_of(text, keys)}: {message}") from problem


def line_of(text: str, keys: Sequence[str]) -> int:
    """Line of a dotted key in a TOML text, or of its longest prefix that has a line; 1 if there is none."""
    table: list[str] = []
    line, depth = 1, 0
    for number, content in enumerate(text.splitlines(), start=1):
        heading = re.match(r"\s*\[+([^\[\]=]+)\]+\s*(#.*)?$", content)
        key = re.match(r"""\s*([\w."'-]+)\s*=""", content)
        if heading:
            table = found = _parts(heading.group(1))
        elif key:
            found = table + _parts(key.group(1))
        else:
            continue
        common = min(len(found), len(keys))
        if common > depth and found[:common] == list(keys[:common]):
            line, depth = number, common
    return line


def _parts(dotted: str) -> list[str]:
    return [part.strip().strip("\"'") for part in dotted.split(".")]


def _locate(data: dict[str, Any], kind: type[Any], message: str) -> tuple[list[str], str]:
    """The keys of the field that a validation message is about, and the message with those keys in it.

    Msgspec writes ``[...]`` for some entry of a table of tables. The entry is found by validating each one alone: it
    gives the same message.
    """
    path = re.search(r"at `(?:key` in `)?\$([^`]*)`", message)
    keys: list[str] = []
    table: Any = data
    for name in re.findall(r"\.([\w-]+)|\[\.\.\.\]", path.group(1)) if path else ():
        keys.append(name or _culprit(data, table, kind, message))
        table = table.get(keys[-1]) if isinstance(table, dict) else None
    for key, shown in zip(keys, re.findall(r"\.[\w-]+|\[\.\.\.\]", path.group(1)) if path else (), strict=True):
        if shown == "[...]":
            message = message.replace(shown, f".{key}", 1)
    unknown = re.search(r"unknown field `([^`]+)`", message)
    return keys + ([unknown.group(1)] if unknown else []), message


def _culprit(data: dict[str, Any], table: dict[str, Any], kind: type[Any], message: str) -> str:
    entries = dict(table)
    for name, entry in entries.items():
        table.clear()
        table[name] = entry
        try:
            msgspec.convert(data, kind)
        except msgspec.ValidationError as problem:
            if str(problem) == message:
                break
    table.clear()
    table.update(entries)
    return name
