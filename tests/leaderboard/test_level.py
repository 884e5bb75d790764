"""The gate: how often equals are told apart, by simulation with stored seeds.

The whole grid is benchmarks/ranks.py, or `HARNESS_GRID=whole` here.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from types import ModuleType

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "ranks.py"
LEVEL, LADDER, SEEN = 0.06, 0.94, 0.85


@pytest.fixture(scope="module")
def ranks() -> ModuleType:
    """The benchmark, as a module."""
    spec = importlib.util.spec_from_file_location("ranks_benchmark", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def noise(share: float, count: int) -> float:
    """Two standard errors of a share of so many repetitions."""
    return 2 * float(np.sqrt(share * (1 - share) / count))


def held(ranks: ModuleType, generator: str, design: tuple[int, int], items: int, sd: float, count: int) -> None:
    """False separations, coverage of rank intervals and power, in all fields and metrics of one place of the grid."""
    found = ranks.cell(generator, *design, items, np.full(ranks.SYSTEMS, sd), count)
    for (metric, systems), each in found.items():
        where = f"{generator} {design} {items} {sd} {metric} {systems}: {each}"
        assert each.false <= LEVEL + noise(LEVEL, count), where
        assert each.ladder >= LADDER - noise(LADDER, count), where
        assert each.seen >= SEEN - 0.02, where
        assert each.score >= 0.93 - noise(0.93, count), where


@pytest.mark.parametrize("generator", ["chances", "probit"])
@pytest.mark.parametrize(("design", "items", "sd"), [((5, 3), 200, 0.03), ((5, 3), 1_000, 0.02), ((1, 3), 1_000, 0.02)])
def test_equals_are_seldom_told_apart(
    ranks: ModuleType, generator: str, design: tuple[int, int], items: int, sd: float
) -> None:
    """150 fields of 20, 300 of 10."""
    held(ranks, generator, design, items, sd, 150)


GRID = [
    (generator, design, items, sd)
    for generator in ("chances", "probit")
    for design in ((1, 3), (5, 3), (7, 3), (5, 5))
    for items in (200, 1_000, 5_000)
    for sd in (0.01, 0.02, 0.03)
]
WHOLE = os.environ.get("HARNESS_GRID") == "whole"
"""Whether test sets of 5,000 items are simulated in all places; they take most of the time."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("generator", "design", "items", "sd"),
    [place for place in GRID if WHOLE or place[2] < 5_000 or (place[0] == "chances" and place[1][0] == 5)],
)
def test_equals_are_seldom_told_apart_on_the_whole_grid(
    ranks: ModuleType, generator: str, design: tuple[int, int], items: int, sd: float
) -> None:
    """With fewer repetitions than the table of docs/statistics.md."""
    held(ranks, generator, design, items, sd, 200)


def test_the_generators_have_the_noise_that_they_claim(ranks: ModuleType) -> None:
    """Own split SD of 3 points and a level of 70 %, on so many items that these add little."""
    for generator, draw in ranks.GENERATORS.items():
        rng = np.random.default_rng(0)
        own = []
        for _ in range(60):
            said, labels = draw(np.full(10, 0.03), 5, 4_000, rng)
            right = (said == labels).mean(axis=2)  # (systems, splits)
            assert 0.6 < right.mean() < 0.8
            rest = right - right.mean(axis=0) - right.mean(axis=1, keepdims=True) + right.mean()
            own.append((rest**2).sum() / (9 * 4))
        assert np.sqrt(np.mean(own)) == pytest.approx(0.03, rel=0.12), generator
