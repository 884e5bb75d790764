"""What one cell left in the referee's caches no other one finds: the time of a query would tell."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from harness.blackbox import cells, projection
from harness.contract import Subspace
from harness.lm import text

if TYPE_CHECKING:
    from harness.lm.model import LanguageModel

TEMPLATE, TEXTS, WORDS = "{a} . It was {mask} .", (("a film",), ("another",)), (" bad", " great")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Whatever takes time when it is not kept, in order."""
    found: list[str] = []

    def noting(name: str, real: Any) -> Any:
        return lambda *given: found.append(name) or real(*given)

    monkeypatch.setattr(projection, "generate", noting("projection", projection.generate))
    monkeypatch.setattr(text, "encode", noting("text", text.encode))
    return found


def ask(lm: LanguageModel, seed: int = 0) -> None:
    """A query with one projection and two texts."""
    space = Subspace(4, (1.0,), 2, seed)
    lm.forward(space.at(np.ones((1, 4))), lm.text_set(TEMPLATE, TEXTS), lm.single_ids(WORDS))


def test_within_a_cell_everything_is_made_once(tiny_lm: LanguageModel, made: list[str]) -> None:
    with tiny_lm.serving():
        ask(tiny_lm)
        assert sorted(made) == ["projection", "text", "text"]
        ask(tiny_lm)
        assert len(made) == 3


def test_the_next_cell_finds_nothing_and_nothing_is_kept_for_it(tiny_lm: LanguageModel, made: list[str]) -> None:
    """A byte could be passed: a projection that is there costs nothing, one that is not costs a second."""
    for _ in range(3):
        with tiny_lm.serving():
            ask(tiny_lm)
    assert made.count("projection") == 3
    assert made.count("text") == 6
    assert not [key for key in projection._kept.matrices if type(key[0]) is object]


def test_the_referee_s_own_work_is_found_by_no_cell(tiny_lm: LanguageModel, made: list[str]) -> None:
    ask(tiny_lm, seed=7)
    with tiny_lm.serving():
        ask(tiny_lm, seed=7)
    assert made.count("projection") == 2


def test_cells_that_run_at_once_find_nothing_of_each_other(tiny_lm: LanguageModel, made: list[str]) -> None:
    """Several share a device, and the process with it."""
    both = threading.Barrier(2)

    def one() -> None:
        with tiny_lm.serving():
            both.wait(30)
            ask(tiny_lm, seed=9)
            both.wait(30)
            ask(tiny_lm, seed=9)
            both.wait(30)

    threads = [threading.Thread(target=one) for _ in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert made.count("projection") == 2
    assert cells.cell() is None


def test_the_vocabulary_is_read_before_the_first_cell_can_ask(tiny_lm: LanguageModel) -> None:
    tiny_lm._tokens.__dict__.pop("words", None)
    with tiny_lm.serving():
        assert "words" in tiny_lm._tokens.__dict__
