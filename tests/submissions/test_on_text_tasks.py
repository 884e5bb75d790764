"""Every black-box submission on a text task: it comes to an answer, or an error says that it needs classes."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from harness.blackbox.fake_text import fake_text_shots, fake_text_task
from harness.blackbox.fake_text_lm import FakeTextLM
from harness.contract import Answer, WeightFacts
from harness.errors import BudgetExhausted, ModelError, SubmissionError, TextTaskError
from harness.evaluation.check import check
from harness.sandbox.answering import offered
from harness.sandbox.submission import find
from harness.tracks.track import load_track

if TYPE_CHECKING:
    from conftest import Bench

FOLDER = Path(__file__).resolve().parents[2] / "submissions"
PAGE = (FOLDER.parent / "docs" / "text.md").read_text(encoding="utf-8")
NAMES = sorted(path.parent.name for path in FOLDER.glob("*/submission.py") if find(path.parent).access == "black-box")
TASK, SHOTS = fake_text_task(), fake_text_shots(np.random.default_rng(1), 8)
CALLS, SMALL = 60, {"dim": 20, "population": 4, "dev_every": 1}


def listed(beginning: str) -> set[str]:
    """The submissions that a sentence of the page names."""
    (sentence,) = re.findall(rf"{beginning}[^.]*\.", PAGE)
    return set(re.findall(r"`(\w+)`", sentence)) & set(NAMES)


RUN, REFUSED = listed("These run unchanged"), listed("These need classes")


def run(bench: Bench, name: str, lm: FakeTextLM) -> list[Answer]:
    """The answers of a submission; a query beyond the budget is an end as any other."""
    module, found = bench.load(name), list[Answer]()

    def offer(answer: Answer) -> None:
        lm.offer(answer)
        found.append(answer)

    fields = {field.name for field in dataclasses.fields(module.Config)}
    config = module.Config(**{key: value for key, value in SMALL.items() if key in fields})
    try:
        offered(module.tune(lm, TASK, SHOTS, np.random.default_rng(0), config), offer, TASK)
    except BudgetExhausted:
        assert lm.meter.spent
    return found


def test_the_page_names_each_of_them_once() -> None:
    assert set(NAMES) == RUN | REFUSED
    assert not RUN & REFUSED


@pytest.mark.parametrize("name", sorted(RUN))
def test_it_runs_on_a_text_task(bench: Bench, name: str) -> None:
    lm = FakeTextLM.for_task(TASK, SHOTS, CALLS)
    found = run(bench, name, lm)
    assert found
    assert all(TASK.output(text) == text for text in lm.written(found[-1], SHOTS.dev.texts))
    if name != "manual":
        assert 0 < lm.meter.spent <= CALLS * len(SHOTS.train)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_it_says_that_it_needs_classes(bench: Bench, name: str) -> None:
    """At most the look at dev is paid for, with which some submissions begin."""
    lm = FakeTextLM.for_task(TASK, SHOTS, CALLS)
    with pytest.raises(TextTaskError, match=f"Task {TASK.name} is a text task, without classes and label words"):
        run(bench, name, lm)
    assert lm.meter.spent <= len(SHOTS.dev)


@pytest.mark.parametrize("here", [False, True])
def test_the_check_tells_its_author(here: bool) -> None:
    """From a worker and in this process: the last line is the reason, and the solver's own error stays above it."""
    with pytest.raises(SubmissionError) as refused:
        check(FOLDER / "grips", {}, here=here, wall_s=60, calls=CALLS, track=load_track("mini-text"))
    *above, last = str(refused.value).strip().splitlines()
    assert last.startswith(
        "harness.errors.TextTaskError: The solver raised IndexError: list index out of range, perhaps for want of "
        "classes. Task fake-text is a text task, without classes and label words; docs/text.md says "
    )
    assert any("named[-1]" in line for line in above)


def test_an_error_of_another_kind_or_on_classes_stays_what_it_is(bench: Bench) -> None:
    def wrong(problem: Exception) -> Any:
        yield Answer.of(TASK)
        raise problem

    def far() -> Any:
        yield Answer.of(TASK)
        yield TASK.words[0]

    for problem in (TypeError("no such argument"), RuntimeError("a bug"), ValueError("dim 3 is too small")):
        with pytest.raises(type(problem), match=str(problem)):
            offered(wrong(problem), lambda _answer: None, TASK)
    with pytest.raises(IndexError):
        offered(far(), lambda _answer: None, bench.setting()[1])
    with pytest.raises(TextTaskError, match="The solver raised IndexError: tuple index out of range, perhaps for want"):
        offered(far(), lambda _answer: None, TASK)
    with pytest.raises(ModelError, match="no weights of group 'biases'"):  # has its own reason
        offered(_of_biases(), lambda _answer: None, TASK)


def _of_biases() -> Any:
    """A method that moves biases, on a model without: SmolLM2 is one."""
    info = FakeTextLM.for_task(TASK, SHOTS, 1).info
    lacking = dataclasses.replace(info, weights=(WeightFacts("norms", 0, 8, 1.0), WeightFacts("all", -1, 99, 1.0)))
    yield Answer.of(TASK)
    with pytest.raises(ModelError, match=r"for layers 0\. Take all or norms, or another model"):
        lacking.weight_rms("biases", (0,))
    with pytest.raises(ModelError, match=r"Take soft prompts, or another model"):
        dataclasses.replace(info, weights=()).weight_rms("biases")
    lacking.weight_rms("biases")
