"""In-context learning: the text that is built, its length, and its price."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from harness import Answer, BudgetExhausted, Examples, QueryError, Shots, Task
from harness.blackbox.fake import FakeLM, fake_examples
from harness.solving.answers import check, from_bytes, probabilities, to_bytes
from harness.tracks.tasks import template_problem

if TYPE_CHECKING:
    from types import ModuleType

    from .conftest import Bench


@pytest.fixture(scope="module")
def icl(bench: Bench) -> ModuleType:
    """The submission's module."""
    return bench.load("icl")


def tune(bench: Bench, lm: FakeLM, task: Task, shots: Shots, seed: int = 0, **options: Any) -> list[Answer]:
    """All answers of one run."""
    module = bench.load("icl")
    answers = []
    with contextlib.suppress(BudgetExhausted):
        for answer in module.tune(lm, task, shots, np.random.default_rng(seed), module.Config(**options)):
            check(answer, task, lm.info.width)
            answers.append(answer)
    return answers


def template_of(answer: Answer) -> str:
    """Template of the only member."""
    (member,) = answer.members
    assert member.prompt is None
    return member.template


def pairs(template: str, words: tuple[str, ...] = (" yes", " no")) -> tuple[Task, Examples]:
    """A task with two text fields, and two examples."""
    task = Task("pairs", ("a", "b"), "accuracy", template, words, 2)
    return task, Examples(((" left one ", "right one"), ("left two", "right two")), np.array([1, 0]))


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{a} ? {mask} , {b}", "left one ? no , right one"),
        ("{a} {b} Same? Answer:{mask}", "left one right one Same? Answer: no"),
        ("{mask} : {b} , {a}", "no : right one , left one"),
    ],
)
def test_mask_of_a_demonstration_is_its_label_word(icl: ModuleType, template: str, expected: str) -> None:
    """With exactly one space before it, for masked and for causal templates."""
    task, examples = pairs(template)
    assert icl.demonstration(task, examples, 0) == expected


def test_braces_in_texts_are_no_fields(icl: ModuleType) -> None:
    """Neither the service nor the filling of the template may take them for its own."""
    task, _ = pairs("{a} ? {mask} , {b}")
    examples = Examples((("see {b} and {mask}", "{a} {{x}}"),), np.array([0]))
    demo = icl.demonstration(task, examples, 0)
    assert demo == "see b and mask ? yes , a x"
    assert template_problem(f"{demo} {task.template}", 2, causal=False) is None


def test_demonstrations_stand_before_the_template(bench: Bench, icl: ModuleType) -> None:
    """All 32 training texts, each once, in an order of the seed's, and then the input."""
    lm, task, shots = bench.setting()
    bare, last = tune(bench, lm, task, shots)
    assert template_of(bare) == task.template
    text = template_of(last)
    assert text.endswith(f" {task.template}")
    demos = [icl.demonstration(task, shots.train, n) for n in range(32)]
    order = np.argsort([text.index(demo) for demo in demos]).tolist()
    assert text == " ".join([*(demos[n] for n in order), task.template])
    assert order != sorted(order)
    assert last.note == {"demonstrations": 32}


def test_seed_decides_the_order(bench: Bench) -> None:
    """Same seed, same bytes; another seed, another order."""
    lm, task, shots = bench.setting()
    first, again, other = (to_bytes(tune(bench, lm, task, shots, seed)[-1]) for seed in (3, 3, 4))
    assert first == again != other


@pytest.mark.parametrize("most", [0, 1, 5])
def test_no_more_demonstrations_than_asked_for(bench: Bench, most: int) -> None:
    """None at all is the bare template."""
    lm, task, shots = bench.setting()
    template = template_of(tune(bench, lm, task, shots, demonstrations=most)[-1])
    assert template.count("It was class") == most


@pytest.mark.parametrize("longest", [20, 40, 60, 100, 200, 512])
def test_demonstrations_leave_room_for_the_text(bench: Bench, longest: int) -> None:
    """Tokens of demonstrations, template and the longest text stay within the model's length; there is no prompt."""
    lm, task, shots = bench.setting()
    lm.free.info = replace(lm.free.info, max_tokens=longest)
    answer = tune(bench, lm, task, shots)[-1]
    filled = template_of(answer).replace("{a}", shots.train.texts[0][0])  # nine words, as all texts of the fake
    used = len(filled.split())
    demo = 9 + 5  # words of a text and of the template with its label word
    if answer.note["demonstrations"] > 0:
        assert used + 2 <= longest  # two for start and end
    if answer.note["demonstrations"] < 32:
        assert used + 2 * demo > longest  # another one would not have fitted, or would have been tight


def test_a_long_text_is_passed_over(icl: ModuleType) -> None:
    """What comes after it in the order may still fit, in tokens and in characters."""
    assert icl.fill([2, 0, 1, 3], [10, 10, 90, 10], [40] * 4, room=25, most=32, template="") == [0, 1]
    assert icl.fill([2, 0, 1, 3], [10] * 4, [40, 40, 5000, 40], room=25, most=32, template="") == [0, 1]
    assert icl.fill([2, 0, 1, 3], [10] * 4, [2000] * 4, room=1000, most=32, template="x" * 97) == [2]


def test_one_long_text_does_not_take_all_the_room(bench: Bench, icl: ModuleType) -> None:
    """At most half of what there is stays free for the input."""
    lm, task, shots = bench.setting()
    long = Examples(((" ".join(["word"] * 1000),), *shots.dev.texts[1:]), shots.dev.labels)
    room = icl.room_for_demonstrations(lm, task, Shots(shots.train, long))
    assert 0.4 * lm.info.max_tokens < room < 0.5 * lm.info.max_tokens


def test_tokens_are_counted_word_by_word_and_for_free(bench: Bench, icl: ModuleType) -> None:
    """Words that are too long for the service are asked for in parts."""
    lm, _, _ = bench.setting()
    assert icl.token_counts(lm, ["one two  three", "", "x" * 600]) == [3, 0, 3]
    assert lm.meter.spent == 0


def test_a_refused_template_is_shortened_at_no_cost(bench: Bench) -> None:
    """Lengths are estimates: the service has the last word."""
    lm, task, shots = bench.setting()
    outputs = lm.outputs

    def strict(prompts: Any, texts: Any, template: str, *rest: Any, **more: Any) -> Any:
        if template.count("It was class") > 7:
            raise QueryError("too long")
        return outputs(prompts, texts, template, *rest, **more)

    lm.outputs = strict  # type: ignore[method-assign]
    answers = tune(bench, lm, task, shots)
    assert template_of(answers[-1]).count("It was class") == 7
    assert lm.meter.spent == 1


@pytest.mark.parametrize(("options", "rows"), [({}, 1), ({"sets": 2}, 64), ({"sets": 10}, 320)])
def test_budget_is_as_predicted(bench: Bench, options: dict[str, int], rows: int) -> None:
    """One row to see that the template is taken, or dev for each set."""
    lm, task, shots = bench.setting()
    tune(bench, lm, task, shots, **options)
    assert lm.meter.spent == rows


@pytest.mark.parametrize("calls", [1, 2, 3])
def test_a_tiny_budget_still_gives_an_answer(bench: Bench, calls: int) -> None:
    """Sets that cannot be paid for are not tried."""
    lm, task, shots = bench.setting(calls=calls)
    answers = tune(bench, lm, task, shots, sets=5)
    assert len(answers) >= 2
    assert lm.budget.rows_left == 0


def test_the_set_that_dev_prefers_is_kept(bench: Bench) -> None:
    """The last answer has the best dev accuracy of all templates that were tried."""
    lm, task, shots = bench.setting()
    tried: list[str] = []
    outputs = lm.outputs

    def watched(prompts: Any, texts: Any, template: str, *rest: Any, **more: Any) -> Any:
        tried.append(template)
        return outputs(prompts, texts, template, *rest, **more)

    lm.outputs = watched  # type: ignore[method-assign]
    last = tune(bench, lm, task, shots, sets=12)[-1]
    scores = []
    for template in tried:
        q = lm.free.outputs(None, shots.dev.texts, template, task.words).logits[0]
        scores.append(float((q.argmax(axis=1) == shots.dev.labels).mean()))
    assert len(set(tried)) == 12
    assert last.note["dev"] == max(scores)


def test_choosing_on_dev_finds_a_better_template(bench: Bench) -> None:
    """To the fake a demonstration is only another template, some of which suit it better: averages over models."""
    gains = []
    for seed in range(4):
        lm, task, shots = bench.setting(seed=seed)
        test = fake_examples(task, 1000, np.random.default_rng(999))
        answers = tune(bench, lm, task, shots, seed, sets=16)
        p = [probabilities(a, task, lm.free, test.texts) for a in (answers[0], from_bytes(to_bytes(answers[-1])))]
        bare, chosen = ((one.argmax(axis=1) == test.labels).mean() for one in p)
        gains.append(chosen - bare)
    assert np.mean(gains) > 0.04
