"""Instruction search: what the model proposes, what is edited, and what decides."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import Budget, BudgetExhausted, Examples, Generated, Shots, TextTask

if TYPE_CHECKING:
    from types import ModuleType

    from .conftest import Bench

TASK = TextTask("plain", "chrf", "Formal: {a}\nPlain:")
GOOD = "Say it in plain words"


class Writer:
    """A black box that likes one instruction, and writes it now and then."""

    def __init__(self, rows: int, says: tuple[str, ...]) -> None:
        self.left, self.says, self.asked, self.scored = rows, says, [], []  # type: ignore[var-annotated]

    @property
    def budget(self) -> Budget:
        """What is left."""
        return Budget(10**6, self.left, 4)

    def log(self, **numbers: float) -> None:
        """Not looked at."""

    def logits(self, prompts: Any, texts: Any, template: str | None = None) -> Any:
        """Likelier under the good instruction; a longer template is a little worse."""
        if len(texts) > self.left:
            raise BudgetExhausted(len(texts), self.left, 10**6)
        self.left -= len(texts)
        assert prompts is None
        self.scored.append(template)
        p = 0.9 if GOOD in (template or "") else 0.2 + 0.3 / (1 + len(template or ""))
        return np.log(np.array([[[p, 1 - p]] * len(texts)]))

    def generate(
        self, prompts: Any, texts: Any, template: str, most: int, stop: Any, temperature: float, seed: int
    ) -> Generated:
        """Say one thing after the other."""
        assert (prompts, most, stop) == (None, 32, ("\n",))
        assert temperature == 0.9
        assert template.count("{a}") == 1
        self.asked.append((tuple(texts), template, seed))
        found = tuple(self.says[n % len(self.says)] for n in range(len(texts)))
        return Generated((found,), np.ones((1, len(texts)), dtype=np.int64))


def shots() -> Shots:
    def some(name: str) -> Examples:
        texts = tuple((f"{name} text {n}",) for n in range(4))
        return Examples(texts, np.zeros(4, dtype=np.int64), tuple((f"{name} answer {n}",) for n in range(4)))

    return Shots(some("train"), some("dev"))


@pytest.fixture(scope="module")
def module(bench: Bench) -> ModuleType:
    return bench.load("instruction_search")


def run(module: ModuleType, lm: Writer, **options: Any) -> list[Any]:
    found = []
    with contextlib.suppress(BudgetExhausted):
        for answer in module.tune(lm, TASK, shots(), np.random.default_rng(0), module.Config(**options)):
            found.append(answer)  # noqa: PERF402 - what came before the budget's end is wanted
    return found


def test_an_instruction_that_the_model_writes_is_found_and_kept(module: ModuleType) -> None:
    lm = Writer(400, (" the friend", f' "{GOOD.lower()}"\nInput:', " x"))
    answers = run(module, lm)
    assert answers[0].members[0].template == TASK.template
    assert GOOD in answers[-1].members[0].template
    assert answers[-1].members[0].template.endswith(f"\n{TASK.template}")
    assert answers[-1].note["loss"] == pytest.approx(-np.log(0.9))
    first, later = lm.asked[0], lm.asked[1:]
    assert len(first[0]) == 8
    assert "Input: train text" in first[0][0][0]
    assert "Output: train answer" in first[0][0][0]
    assert "dev" not in "".join(text for (text,) in first[0])
    assert all(GOOD in text for texts, template, _ in later for (text,) in texts if template == module.VARY)
    assert later
    assert lm.left < 60


def test_no_instruction_is_scored_twice_on_train(module: ModuleType) -> None:
    lm = Writer(400, (" the same again",))
    run(module, lm, dev_every=1000)
    templates = [each for each in lm.scored if each is not None]
    assert len(templates) - len(set(templates)) <= 1  # a look at dev


def test_what_is_no_instruction_is_left_out_and_braces_are_taken_away(module: ModuleType) -> None:
    lm = Writer(400, ("", "\n", "word", " {a} {mask} what is this"))
    found = module.proposed(lm, TASK, shots(), np.random.default_rng(0), module.Config())
    assert len(set(found)) == 1
    assert "{" not in found[0]
    assert found[0][0].isupper() or not found[0][0].isalpha()


def test_a_pair_has_a_second_field_that_stays_empty(module: ModuleType) -> None:
    lm = Writer(400, (" a b",))
    pairs = TextTask("pairs", "chrf", "{a} {b}", fields=2)
    module.proposed(lm, pairs, shots(), np.random.default_rng(0), module.Config())
    ((texts, template, _),) = lm.asked
    assert template.endswith("{b}")
    assert all(len(text) == 2 and not text[1] for text in texts)


@given(seed=st.integers(0, 2**32))
def test_an_edit_is_new_and_its_phrases_were_there(module: ModuleType, seed: int) -> None:
    best, other = "Read the text carefully, and answer in one word", "Say what it is about. Use plain words"
    copy = module.edited(best, {best: 0.0, other: 1.0, "": 2.0}, np.random.default_rng(seed))
    assert copy not in {best, other, ""}
    assert set(copy.split()) <= {*best.split(), *other.split()}
    assert " ".join(module.phrases(best)) == best


def test_where_no_edit_is_new_the_search_ends(module: ModuleType) -> None:
    assert module.edited("word", {"word": 0.0, "": 1.0}, np.random.default_rng(0)) == "word"
    assert module.edited("", {"": 0.0}, np.random.default_rng(0)) == ""
