"""Options that cannot work are refused before anything runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, get_args, get_origin, get_type_hints

import pytest

from harness.errors import SubmissionError
from harness.sandbox.submission import loaded

FOLDER = Path(__file__).resolve().parents[2] / "submissions"
SUBMISSIONS = sorted(path.parent.name for path in FOLDER.glob("*/submission.py"))
OWN_CHECK = {("projection_free_es", "population")}
"""Held to more than a bound, by the Config itself."""


def numbers(name: str) -> dict[str, tuple[object, ...]]:
    """Numeric options with the kinds they may be of."""
    with loaded(FOLDER / name, {}) as solver:
        config = type(solver.config)
        hints = get_type_hints(config, include_extras=True)
        kinds = {
            f.name: get_args(hints[f.name]) if _union(hints[f.name]) else (hints[f.name],)
            for f in dataclasses.fields(config)
        }
    return {option: found for option, found in kinds.items() if any(_plain(kind) in {int, float} for kind in found)}


def _union(kind: object) -> bool:
    return get_origin(kind) not in {None, Annotated} and not isinstance(kind, type)


def _plain(kind: object) -> object:
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


@pytest.mark.parametrize("name", SUBMISSIONS)
def test_every_number_has_bounds_and_is_held_to_them(name: str) -> None:
    """For each of them, -1 and values that are not numbers are refused."""
    for option, kinds in numbers(name).items():
        assert (name, option) in OWN_CHECK or all(k not in {int, float} for k in kinds), f"{option} has no bounds"
        for value in ("-1", "nan", "inf", "1e400"):
            with (
                pytest.raises(SubmissionError, match=f"{option}(=| )"),
                loaded(FOLDER / name, {option: value}),
            ):
                pass
