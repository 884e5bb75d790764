"""Changes of weights on text tasks: what is scored and written under them, their price, and that nothing stays."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tiny_models
import torch
from test_text_pricing import EXAMPLES, TASK, TEXTS, TOKENS, WIDTH, Cell, own, prompt, rows

from harness.blackbox.text_model import Decoding
from harness.contract import Answer, Prompt, Weights, WeightSpace
from harness.errors import AnswerError, QueryError
from harness.lm.generation import text_model
from harness.lm.load import load_model
from harness.lm.tuning import Tuner
from harness.solving import answers
from harness.solving.losses import cross_entropy
from harness.tracks.track import ModelSpec, PromptSpec

if TYPE_CHECKING:
    from harness.lm.model import LanguageModel

LORA = WeightSpace("lora", 3, 2.0, seed=5, rank=2)
NORMS = WeightSpace("norms", 3, 0.7, seed=6)
ALL = WeightSpace("all", 0, 0.05, seed=7)
Z = np.random.default_rng(3).normal(size=(2, 3)).astype(np.float32)
WALK = ALL.walk([[1, 2], [1, 9]], [[1.0, -1.0], [1.0, 0.5]])


@pytest.fixture(scope="module", params=[*tiny_models.CAUSAL, "plain"])
def lm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """Two families by the fast path, and one by the plain path, which computes the whole text again at each step."""
    plain = request.param == "plain"
    folder = tiny_models.save("llama" if plain else request.param, tmp_path_factory.mktemp(request.param))
    return load_model(ModelSpec(str(folder), "float32", "causal"), PromptSpec(TOKENS, 20), plain=plain)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    folder = tiny_models.save("llama", tmp_path_factory.mktemp("llama"))
    return load_model(ModelSpec(str(folder), "float32", "causal"), PromptSpec(TOKENS, 20))


def candidates(lm: LanguageModel) -> list[Weights]:
    """Coordinates, walks, and both with soft prompts: one for all, and one for each."""
    beside = [LORA.at(Z), LORA.at(Z, prompt(1)), LORA.at(Z, prompt(2)), LORA.at(Z[0], prompt(2))]
    return [NORMS.at(Z), WALK, replace(WALK, prompts=prompt(2)), *beside]


def scored(lm: LanguageModel, asked: Any) -> Any:
    model = text_model(lm)
    ids = model.target_ids(TASK.targets(EXAMPLES))
    mode = "add" if getattr(asked, "prompts", asked) is not None else None
    return model.score(asked, model.encode(TASK.template, TEXTS, mode, max(map(len, ids))), ids)


def written(lm: LanguageModel, asked: Any, how: Decoding | None = None, texts: Any = TEXTS) -> Any:
    model = text_model(lm)
    mode = "add" if getattr(asked, "prompts", asked) is not None else None
    encoded = model.encode(TASK.template, texts, mode, TASK.most_tokens)
    return model.generate(asked, encoded, how or Decoding(TASK.most_tokens), lambda _numbers: True)


def alone(asked: Weights, k: int) -> Weights:
    """Candidate k of several."""
    weights = min(k, len(asked.z) - 1)
    beside = asked.prompts
    if beside is not None and len(beside) > 1:
        beside = type(beside)(beside.values[k : k + 1])  # type: ignore[union-attr,call-arg]
    streams = None if asked.streams is None else asked.streams[weights : weights + 1]
    return Weights(asked.space, asked.z[weights : weights + 1], streams, beside)


def test_a_likelihood_is_that_of_the_forward_pass_under_the_same_weights(lm: LanguageModel) -> None:
    """`LanguageModel.forward` is what tasks with classes use; a target's first token is one of its words."""
    ids = text_model(lm).target_ids(TASK.targets(EXAMPLES))
    for asked in candidates(lm):
        found = scored(lm, asked)
        mode = "add" if asked.prompts is not None else None
        texts = lm.text_set(f"{TASK.template}{{mask}}", TEXTS, mode)
        expected = lm.forward(asked, texts, [target[0] for target in ids], normalize=True).logits
        np.testing.assert_allclose(found.values[:, :, 0], np.diagonal(expected, axis1=1, axis2=2), atol=2e-5)
        assert not np.allclose(found.values[0], found.values[1], atol=1e-4)


def test_each_candidate_writes_and_scores_as_it_does_alone(lm: LanguageModel) -> None:
    for asked in candidates(lm):
        together, likely = written(lm, asked), scored(lm, asked)
        assert len(together.texts) == len(asked) == 2
        for k in range(2):
            assert written(lm, alone(asked, k)).texts[0] == together.texts[k]
            np.testing.assert_allclose(scored(lm, alone(asked, k)).values[0], likely.values[k], atol=1e-5)


def test_the_first_token_is_the_likeliest_under_the_changed_weights(lm: LanguageModel) -> None:
    """By `score` of every token of the vocabulary."""
    model = text_model(lm)
    for asked in candidates(lm)[:2]:
        found = written(lm, asked, Decoding(1), TEXTS[:1])
        encoded = model.encode(TASK.template, TEXTS[:1] * lm.vocabulary, None, 1)
        every = model.score(asked, encoded, [(token,) for token in range(lm.vocabulary)]).values[:, :, 0]
        for k in range(2):
            assert found.texts[k][0] == model.text([int(every[k].argmax())])  # type: ignore[attr-defined]


def test_chance_is_the_candidates_own(lm: LanguageModel) -> None:
    """The draws of a candidate go by its number, as those of soft prompts do; the change alone makes the rest."""
    nothing = ALL.walk([[1], [2]], [[0.0], [0.0]])  # two candidates that are the model as it is
    how = Decoding(6, temperature=1.5, seed=11)
    drawn = written(lm, nothing, how)
    assert drawn.texts[0] != drawn.texts[1]
    first = written(lm, None, how)
    assert drawn.texts[0] == first.texts[0]
    beside = replace(nothing, prompts=prompt(2))
    assert written(lm, beside, how).texts == written(lm, prompt(2), how).texts


def test_the_models_own_bits_return(lm: LanguageModel) -> None:
    before = {name: p.detach().clone() for name, p in lm._model.named_parameters()}
    bare = scored(lm, None).values
    for asked in candidates(lm):
        written(lm, asked)
        scored(lm, asked)
    with pytest.raises(ZeroDivisionError):
        text_model(lm).generate(
            WALK, text_model(lm).encode(TASK.template, TEXTS, None, 6), Decoding(6), lambda _n: 1 // 0 > 0
        )
    for name, p in lm._model.named_parameters():
        assert torch.equal(p, before[name]), name
    np.testing.assert_array_equal(scored(lm, None).values, bare)


def test_a_change_costs_what_a_prompt_does_and_its_level_is_w(llama: LanguageModel) -> None:
    cell = Cell(llama)
    found = cell.box.score(LORA.at(Z), TEXTS, TASK.targets(EXAMPLES))
    ids = text_model(llama).target_ids(TASK.targets(EXAMPLES))
    wanted = 2 * sum(rows(size + len(target)) for size, target in zip(own(llama), ids, strict=True))
    assert cell.meter.spent == wanted == cell.book.rows[0].rows
    np.testing.assert_array_equal(found.values, scored(llama, LORA.at(Z)).values)
    output = cell.box.generate(LORA.at(Z), TEXTS)
    more = sum(rows(own(llama)[t] + int(output.tokens[c, t])) for c in range(2) for t in range(4))
    assert cell.meter.spent == wanted + more
    assert [row.level for row in cell.book.rows] == [5, 5]
    q = cell.box.logits(LORA.at(Z), TEXTS)  # solvers for classes
    np.testing.assert_allclose(cross_entropy(q, EXAMPLES.labels), -found.means.mean(axis=1), rtol=1e-5)


@pytest.mark.parametrize("more", range(8))
def test_writing_ends_where_the_budget_does(llama: LanguageModel, more: int) -> None:
    """What a later candidate would have written is not begun, once the budget has ended."""
    read = 2 * sum(map(rows, own(llama)))
    cell = Cell(llama, rows=4 * (-(-read // 4) + more))
    whole = Cell(llama).box.generate(LORA.at(Z), TEXTS, stop=())
    cut = cell.box.generate(LORA.at(Z), TEXTS, stop=())
    spent = sum(rows(o + int(t)) for tokens in cut.tokens for o, t in zip(own(llama), tokens, strict=True))
    assert cell.meter.spent == spent <= cell.meter.budget.rows_total
    assert cut.cut == (cut.tokens.sum() < whole.tokens.sum())
    if cut.tokens[0].sum() < whole.tokens[0].sum():
        assert not cut.tokens[1].sum()


@pytest.mark.parametrize("beside", [None, prompt(1), prompt(5)], ids=["alone", "one prompt", "a prompt each"])
@pytest.mark.parametrize("steps", [0, 2, 8])
def test_no_change_is_put_in_once_writing_was_cut(
    lm: LanguageModel, monkeypatch: pytest.MonkeyPatch, steps: int, beside: Prompt | None
) -> None:
    """Whether it ends within the first candidate or the second; the three behind them have no output."""
    asked = LORA.at(np.random.default_rng(4).normal(size=(5, 3)), beside)
    put, steps_left = list[int](), iter(range(steps))
    original = Tuner._write

    def watched(*given: Any) -> None:
        put.append(1)
        original(*given)

    monkeypatch.setattr(Tuner, "_write", watched)
    model = text_model(lm)
    encoded = model.encode(TASK.template, TEXTS, None if beside is None else "add", 6)
    whole = model.generate(asked, encoded, Decoding(6), lambda _numbers: True)
    assert len(put) == 5
    put.clear()
    cut = model.generate(asked, encoded, Decoding(6), lambda _numbers: next(steps_left, None) is not None)
    assert len(put) == (2 if steps == 8 else 1)
    assert cut.cut
    assert cut.tokens.shape == whole.tokens.shape == (5, 4)
    assert [len(row) for row in cut.texts] == [4] * 5
    assert (cut.tokens[len(put) :] == 0).all()
    assert cut.texts[len(put) :] == (("",) * 4,) * (5 - len(put))
    for short, long in zip(sum(cut.texts, ()), sum(whole.texts, ()), strict=True):
        assert long.startswith(short.rstrip("\ufffd"))  # the last token may be a part of a character


def test_what_this_model_cannot_change_is_refused_for_nothing(llama: LanguageModel) -> None:
    cell = Cell(llama)
    box = cell.box
    for wrong, message in (
        (lambda: box.generate(WeightSpace("biases", 1, 0.1, 1).at([1.0]), TEXTS), "has no biases"),
        (lambda: box.logits(WeightSpace("adapter", 1, 0.1, 1, rank=1).at([1.0]), TEXTS), "no adapter"),
        (lambda: box.score(WeightSpace("all", 2**20, 0.1, 1).at(np.ones(2**20)), TEXTS, ("no",) * 4), "GiB"),
        (
            lambda: box.score(LORA.at(Z, Prompt(np.zeros((1, 1, 9, WIDTH), np.float32))), TEXTS, ("no",) * 4),
            "prompt of shape",
        ),
    ):
        with pytest.raises(QueryError, match=message):
            wrong()
    assert not cell.meter.spent
    assert not cell.book.rows


def test_a_change_that_leaves_no_finite_number_is_told_by_its_candidate(llama: LanguageModel) -> None:
    cell = Cell(llama)
    far = WeightSpace("all", 0, 1e5, 1).walk([[1], [1]], [[0.0], [1e5]])
    with pytest.raises(QueryError, match=r"1 of 2 candidates \(number 1\)"):
        cell.box.score(far, TEXTS, TASK.targets(EXAMPLES))
    assert cell.meter.spent


def test_answers_may_change_weights(llama: LanguageModel) -> None:
    cell = Cell(llama)
    box = cell.box
    for good in (LORA.at(Z[0]), LORA.at(Z[0], prompt(1)), ALL.walk([1], [1.0])):
        answer = Answer.of(TASK, good)
        box.offer(answer)
        kept = answers.from_bytes(answers.to_bytes(answer)).members[0].prompt
        assert written(llama, kept).texts == written(llama, good).texts
    for wrong, message in (
        (LORA.at(Z), "exactly 1"),
        (WeightSpace("biases", 1, 0.1, 1).at([1.0]), "has no biases"),
        (WeightSpace("all", 0, 0.1, 1).walk(np.arange(65537), np.ones(65537)), "65,536 are allowed"),
    ):
        with pytest.raises(AnswerError, match=message):
            box.offer(Answer.of(TASK, wrong))
