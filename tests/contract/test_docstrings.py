"""What an author calls is documented where it is called: arguments, results, and an example."""

from __future__ import annotations

import inspect
from dataclasses import is_dataclass
from typing import Any

import pytest

import harness
from harness.contract import Budget, Coordinates, Examples, ModelInfo, Outputs, Shots, Task

GIVEN = (Budget, Coordinates, Examples, ModelInfo, Outputs, Shots, Task)
"""What an author is handed and never makes: their fields are documented one by one."""


def called() -> list[tuple[str, Any, str]]:
    """(name, function or method, docstring that must say how to call it) of everything in ``harness.__all__``."""
    found = []
    for name in harness.__all__:
        thing = getattr(harness, name)
        if inspect.isfunction(thing):
            found.append((name, thing, inspect.getdoc(thing) or ""))
        if not inspect.isclass(thing) or issubclass(thing, Exception) or thing.__module__.startswith("typing"):
            continue
        if thing not in GIVEN and (is_dataclass(thing) or hasattr(thing, "__struct_fields__")):
            found.append((name, thing, inspect.getdoc(thing) or ""))
        for own, value in vars(thing).items():
            method = value.__func__ if isinstance(value, classmethod) else value
            if inspect.isfunction(method) and not own.startswith("_"):
                found.append((f"{name}.{own}", method, inspect.getdoc(method) or ""))
    return found


@pytest.mark.parametrize(("name", "thing", "text"), called(), ids=[name for name, _, _ in called()])
def test_whatever_an_author_calls_says_how(name: str, thing: Any, text: str) -> None:
    assert "Example:" in text, name
    parameters = [p for p in inspect.signature(thing).parameters if p not in {"self", "cls"}]
    if parameters:
        assert "Args:" in text, name
    for parameter in parameters:
        assert f"{parameter}:" in text, f"{name} does not say what {parameter} is"
    if not inspect.isclass(thing) and inspect.signature(thing).return_annotation != "None":
        assert "Returns:" in text, name
