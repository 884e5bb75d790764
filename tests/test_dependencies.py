"""What is installed is what `constraints.txt` says: every package, one version each."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PINS = {
    canonicalize_name(name): pinned
    for name, pinned in re.findall(r"(?m)^([A-Za-z0-9._-]+)==(\S+)$", (ROOT / "constraints.txt").read_text("utf-8"))
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
NOT_OURS = {"gradient-free-harness"}


def wanted(*extras: str) -> dict[str, set[str]]:
    """Everything that ``pip install .[extras]`` takes here, and what asks for it."""
    found: dict[str, set[str]] = {}
    todo = [(text, "harness") for text in PROJECT["dependencies"]]
    todo += [(text, f"harness[{extra}]") for extra in extras for text in PROJECT["optional-dependencies"][extra]]
    seen = set()
    while todo:
        text, why = todo.pop()
        need = Requirement(text)
        name = canonicalize_name(need.name)
        if name in NOT_OURS:
            todo += [(text, why) for extra in need.extras for text in PROJECT["optional-dependencies"][extra]]
            continue
        environments = [{"extra": extra} for extra in ("", *need.extras)]
        found.setdefault(name, set()).add(f"{why}: {text}")
        if (name, *sorted(need.extras)) in seen:
            continue
        seen.add((name, *sorted(need.extras)))
        try:
            below = requires(name) or []
        except PackageNotFoundError:  # an optional one that this environment lacks; its own pin is looked at
            continue
        for line in below:
            marker = Requirement(line).marker
            if marker is None or any(marker.evaluate(environment) for environment in environments):
                todo.append((line, name))
    return found


def here(found: dict[str, set[str]]) -> dict[str, set[str]]:
    """Those whose own markers hold on this machine."""
    kept = {}
    for name, reasons in found.items():
        markers = [Requirement(reason.partition(": ")[2]).marker for reason in reasons]
        if any(marker is None or "extra" in str(marker) or marker.evaluate() for marker in markers):
            kept[name] = reasons
    return kept


def test_every_package_of_a_development_install_is_pinned() -> None:
    loose = {name: reasons for name, reasons in here(wanted("dev")).items() if name not in PINS}
    # the CUDA builds of torch bring packages that a CPU build does not have; which ones is torch's own pin
    loose = {name: reasons for name, reasons in loose.items() if not name.startswith(("nvidia-", "triton", "cuda-"))}
    assert loose == {}, "add them to constraints.txt, as pip freeze shows them"


def test_every_pin_satisfies_what_asks_for_it() -> None:
    for name, reasons in here(wanted("dev")).items():
        for reason in reasons:
            if name in PINS:
                assert Requirement(reason.partition(": ")[2]).specifier.contains(PINS[name], prereleases=True), reason


def test_a_package_is_pinned_once() -> None:
    names = re.findall(r"(?m)^([A-Za-z0-9._-]+)==", (ROOT / "constraints.txt").read_text("utf-8"))
    assert len({canonicalize_name(name) for name in names}) == len(names)


def test_what_is_installed_is_what_is_pinned() -> None:
    """As after `make setup`; a machine that took other versions is told which."""
    differ = {}
    for name in here(wanted("dev")).keys() & PINS.keys():
        try:
            installed = version(name).partition("+")[0]
        except PackageNotFoundError:
            installed = "nothing"
        if installed != PINS[name]:
            differ[name] = (installed, PINS[name])
    if differ:
        pytest.skip(f"this environment was not made by make setup: (installed, pinned) {differ}")
