"""Defences refuse before anything is charged, change logits the same way each time, and count what was given."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.blackbox.defence import MOST_ROWS, Seen, asked, asked_of_texts, check, defended
from harness.blackbox.model import Forwarded
from harness.blackbox.query import Query
from harness.contract import Prompt, Subspace, WeightSpace
from harness.errors import QueryError
from harness.results.asked import Asked
from harness.tracks.defences import Defences

TEXTS = (("good film",), ("bad film",), ("a film",))
WIDTH, TASK = 8, (3, 5)


def given_for(query: Query, ids: tuple[int, ...] = TASK, template: str = "{a} {mask}") -> Seen:
    return Seen().new(asked(query, template, ids))


def refused(defences: Defences, query: Query, ids: tuple[int, ...], before: Seen | None = None) -> str:
    seen = before or Seen()
    with pytest.raises(QueryError) as found:
        check(defences, query, ids, TASK, seen, seen.new(asked(query, "{a} {mask}", ids)), WIDTH)
    return str(found.value)


def passes(defences: Defences, query: Query, ids: tuple[int, ...], before: Seen | None = None) -> None:
    seen = before or Seen()
    check(defences, query, ids, TASK, seen, seen.new(asked(query, "{a} {mask}", ids)), WIDTH)


def test_only_the_task_s_words() -> None:
    closed = Defences(words="task", hidden_states=False)
    passes(closed, Query(TEXTS), (5,))
    assert "1 of 2 words are none of the task's 2 label words" in refused(closed, Query(TEXTS), (3, 4))
    assert "no hidden states" in refused(closed, Query(TEXTS, features="mask"), (3,))


def test_caps_count_without_repetitions() -> None:
    two = Defences(most_texts=2)
    assert "3 different texts" in refused(two, Query(TEXTS), TASK)
    before = given_for(Query(TEXTS[:2]))
    passes(two, Query((TEXTS[0], TEXTS[0], TEXTS[1])), TASK, before)
    assert "2 were asked about before" in refused(two, Query(TEXTS[2:]), TASK, before)
    words = Defences(most_words=3, hidden_states=False)
    assert "4 different words" in refused(words, Query(TEXTS), (7, 8), given_for(Query(TEXTS)))
    passes(words, Query(TEXTS, normalize=True), (3,), Seen())


def test_the_rank_is_at_most_rows_or_words() -> None:
    """Many words on few rows, or few words on many rows, and hidden states count as so many words as they are wide."""
    two = Defences(most_rank=2)
    passes(two, Query(TEXTS), TASK)
    passes(two, Query(TEXTS[:2]), tuple(range(50)))
    assert "shows 3 dimensions" in refused(two, Query(TEXTS), (3, 5, 6))
    before = given_for(Query(TEXTS[:2]), tuple(range(50)))
    assert "3 different rows" in refused(two, Query(TEXTS[2:]), (1,), before)
    passes(two, Query(TEXTS[:2], features="mask"), TASK)
    assert "shows 3 dimensions" in refused(two, Query(TEXTS, features="mask"), TASK)
    assert "shows 3 dimensions" in refused(two, Query(TEXTS, normalize=True), TASK)


def test_a_row_is_template_text_and_prompt() -> None:
    prompts = Prompt(np.ones((2, 1, 2, WIDTH), dtype=np.float32) * np.arange(2, dtype=np.float32)[:, None, None, None])
    assert len(given_for(Query(TEXTS, prompts=prompts)).rows) == 6
    space = Subspace(2, (1.0,), 2, seed=1)
    assert len(given_for(Query(TEXTS, prompts=space.at(np.eye(2)))).rows) == 6
    assert len(given_for(Query(TEXTS, prompts=space.at(np.ones((2, 2))))).rows) == 3
    both = given_for(Query(TEXTS))
    both.add(both.new(asked(Query(TEXTS), "other {a} {mask}", TASK)))
    assert len(both.rows) == 6
    assert both.counts.texts == 3


def test_a_row_is_the_whole_candidate_where_weights_change() -> None:
    """Its coordinates, the streams of its walk and the prompt beside it; a step of coefficient 0 is none."""
    prompts = Prompt(np.ones((2, 1, 2, WIDTH), dtype=np.float32) * np.arange(2, dtype=np.float32)[:, None, None, None])
    space = WeightSpace("biases", 2, 0.1, seed=1)
    for candidates in (
        space.at(np.eye(2)),
        space.at(np.ones(2), prompts),
        space.at(np.eye(2), Prompt(prompts.values[:1])),
        space.at(np.ones((2, 2)), Subspace(2, (1.0,), 2, seed=1).at(np.eye(2))),
        space.walk([[1, 2], [1, 3]], np.ones((2, 2))),
        space.walk([[1, 2], [1, 2]], [[1, 2], [1, 0]]),
        space.walk([1], [1.0], prompts),
    ):
        assert len(given_for(Query(TEXTS, prompts=candidates)).rows) == 6
    for same in (
        space.at(np.ones((2, 2))),
        space.walk([[1, 2], [1, 3]], [[1, 0], [1, 0]]),
        space.at(np.ones((2, 2)), Prompt(prompts.values[:1])),
    ):
        assert len(given_for(Query(TEXTS, prompts=same)).rows) == 3


def test_counting_rows_ends() -> None:
    seen = Seen(rows={str(i) for i in range(MOST_ROWS - 1)})
    seen.add(seen.new(asked(Query(TEXTS), "{a}", TASK)))
    assert len(seen.rows) == MOST_ROWS


def test_what_is_counted_gives_the_rank() -> None:
    counts = given_for(Query(TEXTS, features="mask", normalize=True)).counts
    assert (counts.words, counts.texts, counts.rows, counts.normalised, counts.states) == (2, 3, 3, True, True)
    assert counts.rank(WIDTH) == 3
    assert given_for(Query(TEXTS)).counts.rank(WIDTH) == 2


def test_each_token_of_a_target_is_a_row_of_its_own() -> None:
    seen = asked_of_texts(Query(TEXTS), "{a}", [[5, 6], [5], [7]])
    assert seen.counts == Asked(words=3, texts=3, rows=4, normalised=True)
    same = asked_of_texts(Query(TEXTS[:1]), "{a}", [[5, 8]])  # what is read before each token is the same
    assert (len(seen.new(same).rows), seen.new(same).words) == (0, {"8"})
    assert len(asked_of_texts(Query(TEXTS), "{a}", None).texts) == 3
    assert asked_of_texts(Query(TEXTS), "{a}", None).counts.rank(WIDTH) == 0, "text comes without numbers"


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 3), st.integers(1, 6), st.integers(0, 100))
def test_logits_are_rounded_and_cut(digits: int, top: int, seed: int) -> None:
    logits = np.random.default_rng(seed).standard_normal((2, 3, 5)).astype(np.float32)
    out = Forwarded(logits, None, None)
    rounded = defended(Defences(digits=digits, hidden_states=False), Query(TEXTS), "", out, range(5), 9)
    assert np.abs(rounded - logits).max() <= 0.5 * 10.0**-digits + 1e-6
    cut = defended(Defences(top=top, hidden_states=False), Query(TEXTS), "", out, range(5), 9)
    assert (cut.argmax(axis=-1) == logits.argmax(axis=-1)).all()
    assert ((cut == logits).sum(axis=-1) == min(top, 5)).all()
    assert all(len(set(row)) == min(top + 1, 5) for row in cut.reshape(-1, 5).tolist())


def test_noise_is_that_of_the_row_and_the_word() -> None:
    noisy = Defences(noise=0.5, noise_seed=4, hidden_states=False)

    def noise(defences: Defences, texts: tuple[tuple[str], ...], ids: tuple[int, ...]) -> np.ndarray:
        zeros = Forwarded(np.zeros((1, len(texts), len(ids)), dtype=np.float32), None, None)
        return defended(defences, Query(texts), "{a} {mask}", zeros, ids, 100)[0]

    whole = noise(noisy, TEXTS, (3, 5, 7))
    assert (noise(noisy, TEXTS, (3, 5, 7)) == whole).all()
    assert (noise(noisy, TEXTS[1:], (7, 3))[0] == whole[1, [2, 0]]).all()
    assert (noise(Defences(noise=0.5, noise_seed=5, hidden_states=False), TEXTS, (3, 5, 7)) != whole).all()
    many = noise(noisy, tuple((str(i),) for i in range(200)), tuple(range(50)))
    assert many.std() == pytest.approx(0.5, rel=0.05)
    assert many.mean() == pytest.approx(0, abs=0.02)
