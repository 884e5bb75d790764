"""Load submissions by path, and run them on the fake model to the end of its budget."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from harness import Answer, BudgetExhausted, Examples, Outputs, Shots, Task
from harness.blackbox.fake import FakeLM, fake_examples, fake_shots, fake_task
from harness.solving import CmaEs
from harness.solving.answers import check, probabilities

if TYPE_CHECKING:
    from types import ModuleType

    from numpy.typing import NDArray

FOLDER = Path(__file__).resolve().parents[2] / "submissions"


@lru_cache
def load(name: str) -> ModuleType:
    """Import submissions/<name>/submission.py under a name of its own."""
    spec = importlib.util.spec_from_file_location(f"submission_{name}", FOLDER / name / "submission.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        import cma  # noqa: F401 - says once that matplotlib is not installed; nevergrad imports it late

        patch.syspath_prepend(str(FOLDER / name))  # a submission may have modules of its own
        spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Generation:
    """What a CMA-ES was told."""

    losses: NDArray[np.float64]  # (population,)
    mean: NDArray[np.float64]  # (d,) of the search, afterwards


@dataclass(frozen=True)
class Run:
    """What came out of one run on the fake."""

    answers: list[Answer]
    lm: FakeLM
    task: Task
    shots: Shots
    test: Examples
    ended_by_budget: bool

    train: list[Any]
    """What each training query asked about, in order: `Prompts` or None."""
    dev: list[Any]
    """The same for dev queries."""
    told: list[Generation]
    """What the submission's `CmaEs` were told, in order."""

    def outputs(self, prompts: Any, examples: Examples) -> Outputs:
        """What the model says of texts under a query's prompts, unmetered."""
        return self.lm.free.outputs(prompts, examples.texts, self.task.template, self.task.words)

    def accuracy(self, answer: Answer) -> float:
        """Test accuracy of an answer."""
        p = probabilities(answer, self.task, self.lm.free, self.test.texts)
        return float((p.argmax(axis=1) == self.test.labels).mean())


def overhear(patch: pytest.MonkeyPatch) -> list[Generation]:
    """Note what is told to every CMA-ES that is made."""
    told: list[Generation] = []
    tell = CmaEs.tell

    def noted(self: CmaEs, losses: Any) -> None:
        tell(self, losses)
        told.append(Generation(np.array(losses), self.mean))

    patch.setattr(CmaEs, "tell", noted)
    return told


class Bench:
    """The fake model with everything a submission needs; small subspaces keep it fast."""

    load = staticmethod(load)

    @staticmethod
    def setting(classes: int = 2, calls: int = 300, seed: int = 0, layers: int = 3) -> tuple[FakeLM, Task, Shots]:
        """A fake model, its task, and shots."""
        task = fake_task(classes)
        shots = fake_shots(task, np.random.default_rng(100 + seed))
        return FakeLM.for_task(task, shots, calls, seed, layers), task, shots

    def run(self, name: str, seed: int = 0, calls: int = 300, classes: int = 2, layers: int = 3, **options: Any) -> Run:
        """Run a submission to its end on the fake model."""
        module = load(name)
        lm, task, shots = self.setting(classes, calls, layers=layers)
        asked: dict[bool, list[Any]] = {True: [], False: []}
        outputs = lm.outputs

        def watched(prompts: Any, texts: Any, *rest: Any, **more: Any) -> Any:
            out = outputs(prompts, texts, *rest, **more)
            asked[texts == shots.train.texts].append(prompts)
            return out

        lm.outputs = watched  # type: ignore[method-assign]
        test = fake_examples(task, 1000, np.random.default_rng(999))
        if name != "manual":
            options = {"dim": 30, **options}
        answers, ended_by_budget = [], False
        with pytest.MonkeyPatch.context() as patch:
            told = overhear(patch)
            try:
                for answer in module.tune(lm, task, shots, np.random.default_rng(seed), module.Config(**options)):
                    check(answer, task, lm.info.width)
                    answers.append(answer)
            except BudgetExhausted:
                ended_by_budget = True
        return Run(answers, lm, task, shots, test, ended_by_budget, asked[True], asked[False], told)


@pytest.fixture(scope="session")
def bench() -> Bench:
    """See `Bench`."""
    return Bench()
