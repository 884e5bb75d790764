"""Searches for text: `random_template_search`, `grips`, `bdpl` and `instruction_search` ask with text alone."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import Answer, BudgetExhausted, Examples, QueryError, Shots, Task
from harness.solving.answers import check, probabilities, to_bytes
from harness.tracks.tasks import template_problem

if TYPE_CHECKING:
    from types import ModuleType

    from .conftest import Bench

TEXT = ("random_template_search", "grips", "bdpl", "instruction_search")


def run(bench: Bench, name: str, calls: int = 60, seed: int = 0, classes: int = 2, **options: Any) -> Any:
    """All answers of one run, the black box, and the (prompts, texts, template, words, features) of each query."""
    module = bench.load(name)
    lm, task, shots = bench.setting(classes, calls)
    asked: list[tuple[Any, ...]] = []
    outputs = lm.outputs

    def watched(prompts: Any, texts: Any, template: Any = None, words: Any = None, **more: Any) -> Any:
        out = outputs(prompts, texts, template, words, **more)
        asked.append((prompts, texts, template, words))
        return out

    lm.outputs = watched  # type: ignore[method-assign]
    answers = []
    with contextlib.suppress(BudgetExhausted):
        for answer in module.tune(lm, task, shots, np.random.default_rng(seed), module.Config(**options)):
            check(answer, task, lm.info.width)
            answers.append(answer)
    return answers, lm, task, shots, asked


@pytest.mark.parametrize("name", TEXT)
def test_text_is_all_that_is_asked_and_answered(bench: Bench, name: str) -> None:
    """No prompt, no head; templates of the contract; the bare template first."""
    answers, _, task, _, asked = run(bench, name)
    assert answers[0] == Answer.of(task)
    assert all(prompts is None for prompts, *_ in asked)
    for answer in answers:
        (member,) = answer.members
        assert member.prompt is None
        assert member.head is None
        assert template_problem(member.template, 1, causal=False) is None
        assert member.template.endswith(task.template)


@pytest.mark.parametrize("name", TEXT)
def test_the_same_seed_gives_the_same_bytes(bench: Bench, name: str) -> None:
    """All chance is the generator's."""
    first, again, other = (
        ([to_bytes(a) for a in answers], asked)
        for answers, _, _, _, asked in (run(bench, name, seed=seed) for seed in (3, 3, 4))
    )
    assert first == again
    assert first[1] != other[1]


@pytest.mark.parametrize("name", ["random_template_search", "bdpl", "instruction_search"])
def test_the_budget_is_spent_and_an_answer_is_better_on_dev(bench: Bench, name: str) -> None:
    answers, lm, task, shots, _ = run(bench, name, calls=120)
    assert lm.budget.calls_left < 22
    assert len(answers) > 1
    found = [
        float((probabilities(a, task, lm.free, shots.dev.texts).argmax(axis=1) == shots.dev.labels).mean())
        for a in answers
    ]
    assert found == sorted(found)
    assert answers[-1].note["dev"] == pytest.approx(found[-1])


@pytest.mark.parametrize("name", TEXT)
@pytest.mark.parametrize("classes", [2, 3])
def test_a_tiny_budget_and_pairs_of_texts_are_no_trouble(bench: Bench, name: str, classes: int) -> None:
    answers, lm, *_ = run(bench, name, calls=1, classes=classes)
    assert len(answers) == 1
    assert lm.budget.rows_left >= 0


# ── random template search ───────────────────────────────────────────────────────────────────────────────────


def test_templates_have_random_words_demonstrations_and_spellings(bench: Bench) -> None:
    _, lm, task, shots, asked = run(bench, "random_template_search", calls=80)
    on_train = [(template, words) for _, texts, template, words in asked if texts == shots.train.texts]
    before = [template.removesuffix(task.template).split() for template, _ in on_train]
    assert min(map(len, before)) == 0
    assert len(set(map(len, before))) > 3
    assert len({words for _, words in on_train}) > 1
    assert all(len(lm.word_ids(words)[0]) == 1 for _, words in on_train)


def test_a_template_that_is_too_long_is_drawn_anew_and_in_the_end_the_bare_one_is_taken(bench: Bench) -> None:
    module = bench.load("random_template_search")
    lm, task, shots = bench.setting(calls=30)
    outputs, longest = lm.outputs, len(task.template)

    def strict(prompts: Any, texts: Any, template: Any = None, *rest: Any, **more: Any) -> Any:
        if template is not None and len(template) > longest:
            raise QueryError("too long")
        return outputs(prompts, texts, template, *rest, **more)

    lm.outputs = strict  # type: ignore[method-assign]
    with contextlib.suppress(BudgetExhausted):
        for answer in module.tune(lm, task, shots, np.random.default_rng(0), module.Config()):
            assert answer.members[0].template == task.template
    assert lm.budget.calls_left < 2
    lm, task, shots = bench.setting(calls=30)
    lm.outputs = lambda *_a, **_k: (_ for _ in ()).throw(QueryError("too long"))  # type: ignore[method-assign]
    with pytest.raises(QueryError):
        list(module.tune(lm, task, shots, np.random.default_rng(0), module.Config()))


# ── GrIPS ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def grips(bench: Bench) -> ModuleType:
    return bench.load("grips")


def test_the_agnostic_instruction_is_the_papers_and_is_cut_into_phrases(grips: ModuleType) -> None:
    task = Task("made-up", ("negative", "positive"), "accuracy", "{a} It was {mask}", (" bad", " great"))
    text = grips.instruction(task, True)
    assert text == (
        "You will be given a task. Read and understand the task carefully, and appropriately answer 'bad' or 'great'."
    )
    cut = grips.phrases(text)
    assert " ".join(cut) == text
    assert len(cut) > 5
    assert "negative" in grips.instruction(task, False)
    three = replace(task, words=(" bad", " fine", " great"))
    assert grips.instruction(three, True).endswith("answer 'bad', 'fine' or 'great'.")


@given(seed=st.integers(0, 2**32), edits=st.integers(1, 5))
def test_edits_lose_no_phrase(grips: ModuleType, seed: int, edits: int) -> None:
    """What is not there any more was deleted; what is new was deleted before."""
    base, deleted = tuple("abcd"), ["x", "y"]
    copy, gone, back = grips.edited(base, deleted, edits, np.random.default_rng(seed))
    assert sorted([*copy, *gone]) == sorted([*base, *back])
    assert set(back) <= set(deleted)
    assert base == tuple("abcd")


def test_edits_of_nothing_end(grips: ModuleType) -> None:
    assert grips.edited((), [], 5, np.random.default_rng(0)) == ((), [], [])
    copy, gone, back = grips.edited(("a",), [], 1, np.random.default_rng(0))
    assert [*copy, *gone] == ["a"]
    assert back == []


def test_the_score_is_that_of_the_authors_code(grips: ModuleType) -> None:
    """Balanced accuracy in points, and ten times the entropy: one that says one class alone has none."""
    task = Task("made-up", ("a", "b"), "accuracy", "{a} {mask}", (" a", " b"))
    labels = np.array([0, 0, 0, 1])
    examples = Examples((("x",),) * 4, labels)

    class Says:
        def __init__(self, predicted: list[int]) -> None:
            self.predicted = predicted

        def logits(self, *_: Any) -> Any:
            return np.eye(2)[self.predicted][None]

    assert grips.score(Says([0, 0, 0, 0]), task, examples, (), 10.0) == 50
    shares = np.array([0.5, 0.5])
    expected = round(100 * (2 / 3 + 1) / 2, 2) - 10 * float((shares * np.log(shares)).sum())
    assert grips.score(Says([0, 0, 1, 1]), task, examples, (), 10.0) == pytest.approx(expected)


def test_patience_ends_the_search_and_its_price_is_known(bench: Bench) -> None:
    answers, lm, _, shots, asked = run(bench, "grips", calls=300)
    each = len(shots.train) + len(shots.dev)
    assert lm.meter.spent == each * len(asked)
    assert (len(asked) - 1) % 5 == 0
    assert len(asked) <= 51
    scores = [answer.note["score"] for answer in answers[1:]]
    assert scores == sorted(scores)
    longer, *_ = run(bench, "grips", calls=300, patience=30, iterations=3)
    assert len(longer) <= 5


# ── BDPL ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def bdpl(bench: Bench) -> ModuleType:
    return bench.load("bdpl")


@given(values=st.lists(st.floats(-10, 10), min_size=1, max_size=30))
def test_the_projection_is_the_nearest_point_of_the_simplex(bdpl: ModuleType, values: list[float]) -> None:
    """By its optimality condition: every component above 0 was moved by the same amount, the others by no more."""
    given_values = np.array(values)
    p = bdpl.onto_simplex(given_values)
    assert p.min() >= 0
    assert p.sum() == pytest.approx(1)
    moved = given_values - p
    assert np.ptp(moved[p > 1e-9]) < 1e-6
    assert (moved[p <= 1e-9] <= moved[p > 1e-9].min() + 1e-6).all()


def test_words_that_belong_together_are_one_candidate(bdpl: ModuleType) -> None:
    texts = tuple((f"new york is {word}",) for word in ("a and big", "b and big", "c and big", "old and new"))
    found = bdpl.ngrams(texts, 0.0, 5)
    assert any("york is" in gram for gram in found)
    assert bdpl.ngrams(texts, 0.0, 1) == sorted(
        bdpl.ngrams(texts, 0.0, 1), key=lambda gram: (-sum(t[0].split().count(gram) for t in texts), gram)
    )
    assert bdpl.ngrams((("?!",),), 1.0, 5) == ["the"]
    assert all("{" not in gram for gram in bdpl.ngrams((("{a} b",),), 1.0, 5))


def test_the_distribution_goes_where_the_loss_is_low(bench: Bench, bdpl: ModuleType) -> None:
    """A black box that likes one word: after some steps the answer has it at most places."""
    _, task, shots = bench.setting()
    liked = bdpl.ngrams(shots.train.texts + shots.dev.texts, 50.0, 5)[7]

    class Likes:
        def __init__(self) -> None:
            self.left = 4000

        def logits(self, _prompts: Any, texts: Any, template: str | None = None) -> Any:
            self.left -= 1
            if self.left < 0:
                raise BudgetExhausted(1, 0, 1)
            labels = shots.train.labels if texts == shots.train.texts else shots.dev.labels
            share = 0.0 if template is None else template.removesuffix(task.template).split().count(liked) / 4
            return (4 * share - 1) * np.eye(2)[labels][None]

        def log(self, **_: float) -> None:
            pass

    last: Any = None
    config = bdpl.Config(length=4, candidates=20, rate=0.02, least_pmi=50.0)
    box: Any = Likes()
    with contextlib.suppress(BudgetExhausted):
        for answer in bdpl.tune(box, task, Shots(shots.train, shots.dev), np.random.default_rng(0), config):
            last = answer
    assert last.members[0].template.split().count(liked) >= 2
