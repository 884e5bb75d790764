"""nevergrad: the same seed gives the same answers, whatever numpy's global generator has done before."""

from __future__ import annotations

import gc
import re
from pathlib import Path
from typing import TYPE_CHECKING

import nevergrad as ng
import numpy as np
import pytest

from harness.solving.answers import to_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import Bench

FOLDER = Path(__file__).resolve().parents[2] / "submissions" / "nevergrad"
AHEAD = ("NGOpt", "CMA", "DiagonalCMA", "TwoPointsDE", "PSO", "TBPSA", "OnePlusOne", "LognormalDiscreteOnePlusOne")
ONE_BY_ONE = ("SPSA", "Cobyla", "NelderMead", "Powell", "DS9")


@pytest.fixture(autouse=True)
def _numpys_generator_as_it_was() -> Iterator[None]:
    before = np.random.get_state()  # noqa: NPY002 - what these tests are about
    yield
    np.random.set_state(before)  # noqa: NPY002


def global_state() -> bytes:
    """Numpy's global generator, as bytes."""
    return repr(np.random.get_state(legacy=False)).encode()  # noqa: NPY002


@pytest.mark.parametrize("optimizer", AHEAD)
def test_nevergrads_optimisers_are_asked_for_populations(bench: Bench, optimizer: str) -> None:
    """Eight of as many families spend the budget and do better than the bare template."""
    run = bench.run("nevergrad", optimizer=optimizer)
    assert run.ended_by_budget
    assert max(len(prompts.z) for prompts in run.train) == 20
    assert run.accuracy(run.answers[-1]) > run.accuracy(run.answers[0]) + 0.15


@pytest.mark.filterwarnings("ignore:COBYLA. Invalid")  # SciPy's, of so few calls
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # DS9 is half built when it refuses
@pytest.mark.parametrize("optimizer", [*AHEAD, *ONE_BY_ONE])
def test_the_same_seed_gives_the_same_bytes(bench: Bench, optimizer: str) -> None:
    """Some draw from numpy's global generator, which stands elsewhere before each run, and stands there after it."""
    answers = []
    for elsewhere in (1, 2):
        np.random.seed(elsewhere)  # noqa: NPY002 - to show that it does not matter
        before = global_state()
        run = bench.run("nevergrad", seed=3, calls=63, optimizer=optimizer)
        assert run.ended_by_budget
        assert global_state() == before
        answers.append([to_bytes(answer) for answer in run.answers])
    gc.collect()  # so that what was half built is deleted here
    assert answers[0] == answers[1]
    assert len(answers[0]) > 1


def test_a_search_that_is_broken_off_leaves_numpys_generator_as_it_was(bench: Bench) -> None:
    """The generator may be closed after any answer."""
    module = bench.load("nevergrad")
    lm, task, shots = bench.setting()
    before = global_state()
    answers = module.tune(lm, task, shots, np.random.default_rng(0), module.Config(optimizer="NGOpt", dim=30))
    assert len([next(answers), next(answers)]) == 2
    assert global_state() != before
    answers.close()
    assert global_state() == before


def test_every_optimiser_that_the_page_names_is_among_those_tested() -> None:
    """In the two lists of `Implementation details`."""
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    (tested,) = re.findall(r"asked for populations: (.+?)\.", page, re.DOTALL)
    (single,) = re.findall(r"cannot be asked ahead \((.+?), \.\.\.\)", page, re.DOTALL)
    assert re.split(r",\s+", tested) == list(AHEAD)
    assert re.split(r",\s+", single) == list(ONE_BY_ONE)


def test_what_is_refused_by_name_is_known_to_nevergrad(bench: Bench) -> None:
    """All but `HyperOpt`, for which a package has to be installed."""
    assert set(bench.load("nevergrad").REFUSED) - set(ng.optimizers.registry) <= {"HyperOpt"}
