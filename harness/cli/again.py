"""The next command to type, complete: with the track, the database and the choices of the command before it."""

from __future__ import annotations

import shlex
from dataclasses import fields
from typing import TYPE_CHECKING

from harness.cli.console import STORE, shown
from harness.cli.options import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.evaluation.overrides import Overrides


def command_line(name: str, *words: object, track: str | None = None, store: str = STORE) -> str:
    """A command as a line for the shell.

    Args:
        name: of the command.
        *words: its arguments and options, in order.
        track: as it was given with ``--track``; None leaves it out.
        store: as it was given with ``--store``; the default database is left out, and a password is not shown.

    Returns:
        The line, quoted.
    """
    line = ["harness", name, *map(str, words)]
    line += [] if track is None else ["--track", track]
    line += ["--store", shown(store)] if store != STORE else []
    return shlex.join(line)


def given_choices(overrides: Overrides, *, leaving_out: tuple[str, ...] = ()) -> list[str]:
    """The options that give these overrides again.

    Args:
        overrides: as `harness.cli.options.overriding` made them.
        leaving_out: fields whose options the next command does not have.

    Returns:
        The words of the command line.
    """
    words: list[str] = []
    for each in fields(overrides):
        value, option = getattr(overrides, each.name), OPTIONS[each.name]
        if value == each.default or each.name in leaving_out:
            continue
        flag = str(option.annotation.__metadata__[0].default)
        for one in value if isinstance(value, tuple) else [value]:
            words += [flag] if one is True else [flag, str(one)]
    return words


def given_settings(options: Mapping[str, str]) -> list[str]:
    """The ``--config`` options that give these values again."""
    return [word for name, value in options.items() for word in ("--config", f"{name}={value}")]
