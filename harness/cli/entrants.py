"""Submissions as they are named on the command line: folders, names, teams, and options."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from harness.evaluation.failures import Entrant
    from harness.sandbox.submission import Submission


def parsed(config: list[str] | None) -> dict[str, str]:
    """The options from NAME=VALUE pairs.

    Raises:
        InputError: one of them is no such pair, or a name comes twice.
    """
    options: dict[str, str] = {}
    for item in config or []:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise InputError(f"--config {item!r}: NAME=VALUE expected")
        if name in options:
            raise InputError(f"--config {name} is given twice, as {options[name]!r} and {value!r}; give it once")
        options[name] = value
    return options


def identities(paths: Sequence[Path], teams: Sequence[str] | None, names: Sequence[str] | None) -> list[Entrant]:
    """Each folder with its given name and team.

    Raises:
        InputError: there are not as many names or teams as folders.
    """
    from harness.evaluation.failures import Entrant  # noqa: PLC0415

    for option, given in (("--team", teams or ()), ("--as", names or ())):
        for_all = option == "--team" and len(given) == 1
        if given and not for_all and len(given) != len(paths):
            once = "once for all of them, or " if option == "--team" else ""
            raise InputError(
                f"{option} is given {len(given)} times for {len(paths)} folders; give it {once}once for each"
            )
    whose = [*(teams or [None])] * (len(paths) if len(teams or [None]) == 1 else 1)  # type: ignore[list-item]
    called = [*(names or [None] * len(paths))]  # type: ignore[list-item]
    return [Entrant(*each) for each in zip(paths, called, whose, strict=True)]


def submissions_in(
    paths: Sequence[Path],
    options: dict[str, str],
    teams: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
) -> list[Submission]:
    """The submissions in these folders. An option that any of them does not have is refused at once.

    Raises:
        InputError: also where one name stands for two contents, see `harness.evaluation.failures.check_names`.
    """
    from harness.evaluation.failures import check_names  # noqa: PLC0415
    from harness.sandbox.config_source import check_options  # noqa: PLC0415

    found = [each.found() for each in identities(paths, teams, names)]
    check_names(found)
    for each in found:
        check_options(each, options)
    return found
