"""The fake model of text tasks: one distribution for likelihoods and outputs, with an optimum, in milliseconds."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.blackbox.fake_language_model import FakeLanguageModel
from harness.blackbox.fake_text import _OTHERS, fake_text_shots, fake_text_task, pieces
from harness.blackbox.fake_text_lm import FakeTextLM
from harness.contract import Answer, Member, Subspace, TextTask
from harness.errors import AnswerError, BudgetExhausted, ModelError, QueryError
from harness.solving import cross_entropy
from harness.tracks.examples import Source, load_shots
from harness.tracks.tasks import load_task
from harness.tracks.track import load_track

if TYPE_CHECKING:
    from harness.contract import Shots

TASK, SHOTS = fake_text_task(), fake_text_shots(np.random.default_rng(0), 8)
TARGETS = TASK.targets(SHOTS.train)


def box(calls: int = 200, **more: Any) -> FakeTextLM:
    return FakeTextLM.for_task(TASK, SHOTS, calls, **more)


def right(lm: FakeTextLM, prompts: Any, shots: Shots = SHOTS) -> float:
    """Share of outputs that are the reference."""
    written = lm.generate(prompts, shots.dev.texts).texts[0]
    pairs = zip(written, shots.dev.references, strict=True)
    return float(np.mean([TASK.output(text) == reference[0] for text, reference in pairs]))


def test_the_planted_prompt_says_the_references_and_the_bare_template_does_not() -> None:
    lm = box()
    best = lm.free.fake.optimum
    assert lm.quality(None) == pytest.approx(np.exp(-1))
    assert lm.quality(best) == pytest.approx(1, abs=1e-6)
    assert right(lm, None) < 0.3
    assert right(lm, best) == 1.0
    bare, planted = (lm.score(p, SHOTS.train.texts, TARGETS).losses()[0] for p in (None, best))
    assert planted < 0.1
    assert bare > 2


@given(place=st.integers(0, 7), candidate=st.integers(0, 2), length=st.integers(0, 4))
@settings(max_examples=30, deadline=None)
def test_likelihoods_are_those_of_one_distribution(place: int, candidate: int, length: int) -> None:
    """The wanted token, the common ones and the rest have a probability of 1 together."""
    lm = box()
    z = np.random.default_rng(1).standard_normal((3, 1, 4))
    prompts = Subspace(4, (lm.info.hidden_std[0],), lm.info.prompt_tokens, seed=3).at(z)
    before = "".join(pieces(TARGETS[place])[:length])
    wanted = pieces(TARGETS[place])[length]
    nexts = [*(token for token in _OTHERS if token and token != wanted), wanted, " unheard-of"]
    found = lm.score(prompts, [SHOTS.train.texts[place]] * len(nexts), [before + token for token in nexts])
    last = np.exp(found.values[candidate, :, length].astype(np.float64))
    end = 1 - last[:-1].sum() - 30_011 * last[-1]
    assert 0 < end < 1
    written = lm.generate(prompts, [SHOTS.train.texts[place]], most_tokens=8, stop=()).texts[candidate][0]
    if pieces(written)[:length] == pieces(before) and len(pieces(written)) > length:
        said = pieces(written)[length]
        assert last[nexts.index(said)] == pytest.approx(last[:-1].max())


def test_the_same_query_has_the_same_bits_alone_and_in_company() -> None:
    prompts = Subspace(4, (1.0,), 4, seed=3).at(np.random.default_rng(1).standard_normal((3, 1, 4)))
    whole = box().score(prompts, SHOTS.train.texts, TARGETS).values
    turned = box().score(prompts, SHOTS.train.texts[::-1], TARGETS[::-1]).values[:, ::-1]
    np.testing.assert_array_equal(whole, turned)
    one = box().score(Subspace(4, (1.0,), 4, seed=3).at(prompts.z[1:2]), SHOTS.train.texts, TARGETS).values
    np.testing.assert_array_equal(whole[1:2], one)
    drawn = [box().generate(prompts, SHOTS.dev.texts, temperature=1.0, seed=5).texts for _ in range(2)]
    assert drawn[0] == drawn[1] != box().generate(prompts, SHOTS.dev.texts, temperature=1.0, seed=6).texts


def test_cold_draws_are_greedy() -> None:
    lm = box()
    cold = lm.generate(None, SHOTS.dev.texts, temperature=1e-6, seed=1).texts
    assert cold == lm.generate(None, SHOTS.dev.texts).texts


@pytest.mark.parametrize("row_tokens", [None, 4])
def test_prices_and_refusals_are_those_of_the_real_model(row_tokens: int | None) -> None:
    lm = box(2, row_tokens=row_tokens)
    size = 1 if row_tokens is None else 4  # 9 words of text and 5 tokens of target
    lm.score(None, SHOTS.train.texts[:2], TARGETS[:2])
    assert lm.meter.spent == lm.ledger[0].rows == 2 * size
    with pytest.raises(BudgetExhausted):
        lm.score(Subspace(4, (1.0,), 4, seed=3).at(np.zeros((9, 1, 4))), SHOTS.train.texts, TARGETS)
    with pytest.raises(QueryError, match="1 targets for 8 texts"):
        lm.score(None, SHOTS.train.texts, TARGETS[:1])
    with pytest.raises(QueryError, match="no token"):
        lm.score(None, SHOTS.train.texts[:1], [""])
    with pytest.raises(QueryError, match="mask"):
        lm.score(None, SHOTS.train.texts[:1], TARGETS[:1], "{a} {mask}")
    with pytest.raises(AnswerError, match="words"):
        lm.offer(Answer((Member("{a}", (" no",)),)))
    assert lm.meter.spent == 2 * size


def test_a_budget_ends_in_the_midst_of_an_output() -> None:
    lm = box(3, row_tokens=4)  # 24 rows; the texts of nine words take all of them
    assert lm.budget.rows_left == 24
    cut = lm.generate(None, SHOTS.train.texts, stop=(), most_tokens=30)
    assert cut.cut
    assert cut.tokens.tolist() == [[3] * 8]
    assert lm.budget.rows_left == 0
    assert lm.meter.spent == lm.ledger[0].rows == 24


def test_a_solver_that_only_needs_a_loss_runs_on_it() -> None:
    lm = box()
    prompts = Subspace(4, (1.0,), 4, seed=3).at(np.random.default_rng(1).standard_normal((3, 1, 4)))
    losses = cross_entropy(lm.logits(prompts, SHOTS.train.texts), SHOTS.train.labels)
    means = lm.score(prompts, SHOTS.train.texts, TARGETS).means
    np.testing.assert_allclose(losses, -means.mean(axis=1), rtol=1e-5)
    lm.log(loss=float(losses.min()))
    assert lm.logged == [(lm.meter.spent, {"loss": float(losses.min())})]


def test_it_stands_in_for_a_real_text_task_too() -> None:
    """The texts of a real split want their own references."""
    task = load_task("plain").wording("harness-2026", "causal")
    assert isinstance(task, TextTask)
    spec = load_track("mini-text").tasks["plain"]
    shots = load_shots(load_task("plain"), Source("embedded"), 1, spec)
    lm = FakeTextLM.for_task(task, shots, 200)
    written = lm.generate(lm.free.fake.optimum, shots.dev.texts).texts[0]
    same = [task.output(text) == refs[0] for text, refs in zip(written, shots.dev.references, strict=True)]
    assert np.mean(same) > 0.9


def test_a_search_takes_milliseconds_a_query() -> None:
    lm = box(1000)
    space = Subspace(10, (lm.info.hidden_std[0],), lm.info.prompt_tokens, seed=1)
    rng = np.random.default_rng(0)
    lm.score(None, SHOTS.train.texts, TARGETS)
    began = time.process_time()
    for _ in range(20):
        lm.score(space.at(rng.standard_normal((10, 1, 10))), SHOTS.train.texts, TARGETS)
    assert time.process_time() - began < 20 * 0.05


def test_a_fake_model_for_classes_does_not_write() -> None:
    from harness.blackbox.fake import fake_task

    with pytest.raises(ModelError, match="made for a task with classes"):
        FakeLanguageModel(fake_task()).text_model()
