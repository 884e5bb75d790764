"""The causal fast path against the plain one, in float32: what is shared, left out and packed changes nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import LONGEST, WIDTH

from harness.lm.backbones import decoder
from harness.lm.backbones.base import Batch
from harness.lm.backbones.decoder import DecoderBackbone
from harness.lm.backbones.plain import PlainBackbone

if TYPE_CHECKING:
    from collections.abc import Callable

VOCABULARY, LAYERS = 40, 3


def llama(family: str = "Llama", **options: Any) -> Any:
    """A tiny random Llama, or a model of its kin."""
    shape = {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True} | options
    config = getattr(transformers, f"{family}Config")(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        intermediate_size=32,
        max_position_embeddings=LONGEST,
        initializer_range=0.3,
        **shape,
    )
    return seeded(lambda: getattr(transformers, f"{family}ForCausalLM")(config))


def gpt2(**options: Any) -> Any:
    """A tiny random GPT-2."""
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_embd=WIDTH, n_layer=LAYERS, n_head=2, n_positions=LONGEST, initializer_range=0.3,
        bos_token_id=0, eos_token_id=0, **options,
    )  # fmt: skip
    return seeded(lambda: transformers.GPT2LMHeadModel(config))


def seeded(make: Callable[[], Any]) -> Any:
    """A model with random biases and norms, which otherwise start at 0 and 1 and have no effect."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make()
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.data += 0.2 * torch.randn_like(parameter)
    return model.eval()


MODELS: dict[str, Callable[[], Any]] = {
    "llama": llama,
    "llama, every head its keys, with biases": lambda: llama(
        num_key_value_heads=4, attention_bias=True, mlp_bias=True, tie_word_embeddings=False
    ),
    "llama, one head of keys, wide heads": lambda: llama(num_key_value_heads=1, head_dim=6),
    "llama, linear": lambda: llama(rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}),
    "llama, llama3": lambda: llama(
        rope_parameters={
            "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        }
    ),
    "llama, yarn": lambda: llama(
        rope_parameters={
            "rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16
        }
    ),
    "qwen2": lambda: llama("Qwen2"),
    "qwen2, a window that no input fills": lambda: llama(
        "Qwen2", use_sliding_window=True, max_window_layers=1, sliding_window=512
    ),
    "qwen3, with wide heads": lambda: llama("Qwen3", head_dim=8),
    "mistral": lambda: llama("Mistral", sliding_window=None),
    "gpt2": gpt2,
    "gpt2, scaled by layer": lambda: gpt2(scale_attn_by_inverse_layer_idx=True),
}  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """Both paths over the same weights."""

    fast: DecoderBackbone
    plain: PlainBackbone

    def differ(self, batch: Batch) -> float:
        """Largest difference of the states read where there is a token, in units of the plain path's largest."""
        mine, theirs = self.fast.hidden(batch), self.plain.hidden(batch)
        assert mine.shape == theirs.shape
        assert bool(mine.isfinite().all())
        real = batch.mask.gather(1, batch.read.clamp(max=batch.mask.shape[1] - 1))[None, :, :, None]
        return float(((mine - theirs) * real).abs().max() / theirs.abs().max())


@pytest.fixture(scope="module", params=MODELS)
def pair(request: pytest.FixtureRequest) -> Pair:
    """Each model; its chunk is small, so that candidates are computed in several parts."""
    model = MODELS[request.param]()
    assert DecoderBackbone.fits(model)
    return Pair(DecoderBackbone(model, chunk_tokens=100), PlainBackbone(model))


def made(
    lengths: list[int],
    candidates: int,
    deep: tuple[bool, ...],
    *,
    tokens: int = 3,
    common: int = 0,
    mode: Any = "add",
    features: str = "mask",
    seed: int = 0,
) -> Batch:
    """Random texts of `lengths` tokens behind one token and `tokens` of a prompt; the first `common` are the same.

    `deep` says of each prompted layer whether candidates differ there.
    """
    rng = torch.Generator().manual_seed(seed)
    start, texts = 0 if mode == "prepend" else 1, len(lengths)
    longest = start + tokens + max(lengths)
    ids = torch.randint(0, VOCABULARY, (texts, longest), generator=rng)
    ids[:, : start + tokens + common] = ids[:1, : start + tokens + common].clone()
    ends = torch.tensor([start + tokens + length for length in lengths])
    mask = torch.arange(longest) < ends[:, None]
    more = {"mask": [], "cls": [0], "all": list(range(longest))}[features]
    read = torch.tensor([[end - 1, *more] for end in ends.tolist()])
    prompts = tuple(torch.randn(candidates if own else 1, tokens, WIDTH, generator=rng) for own in deep)
    positions = torch.arange(longest).expand(texts, longest)
    return Batch(ids * mask, positions, mask, read, prompts, start, mode, candidates)


# ── exact ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("features", ["mask", "cls", "all"])
@pytest.mark.parametrize(
    "deep", [(), (True,), (False, True), (False, False, True), (True, False, True), (False, False)]
)
def test_states_are_the_plain_paths(pair: Pair, features: str, deep: tuple[bool, ...]) -> None:
    """Without a prompt, at the input, deep, and for candidates that agree below a layer or everywhere."""
    for mode in ("add", "prepend"):
        batch = made([1, 5, 13, 4, 5, 12, 29], 3 if deep else 1, deep, mode=mode, features=features)
        assert pair.differ(batch) < 1e-5


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=6),
    candidates=st.integers(1, 5),
    deep=st.lists(st.booleans(), max_size=LAYERS),
    tokens=st.integers(1, 20),
    common=st.integers(0, 20),
    mode=st.sampled_from(["add", "prepend"]),
    seed=st.integers(0, 9),
)
def test_lengths_prompts_and_common_beginnings_do_not_matter(
    pair: Pair,
    lengths: list[int],
    candidates: int,
    deep: list[bool],
    tokens: int,
    common: int,
    mode: Any,
    seed: int,
) -> None:
    """This includes texts that are beginnings of others, and texts without a token of their own."""
    lengths = [min(length + common, LONGEST - 1 - tokens) for length in lengths]
    common = min(common, *lengths)
    batch = made(lengths, candidates if deep else 1, tuple(deep), tokens=tokens, common=common, mode=mode, seed=seed)
    assert pair.differ(batch) < 1e-5


def test_texts_that_differ_in_the_prompts_tokens_use_the_plain_path(pair: Pair) -> None:
    """Only equal tokens are shared, whatever the batch says is the prompt."""
    batch = made([5, 7], 2, (True,))
    ids = batch.ids.clone()
    ids[1, 2] = (ids[1, 2] + 1) % VOCABULARY
    assert pair.differ(replace(batch, ids=ids)) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("make", [llama, gpt2, lambda: llama("Qwen3")])
def test_a_rows_numbers_do_not_depend_on_the_rows_it_is_asked_with(make: Callable[[], Any], dtype: torch.dtype) -> None:
    """A single text gives the same bits as in a larger query, cut into parts or not."""
    lengths, deep = [5, 9, 30, 2, 17, 17, 8, 40], (True, False, True)
    model = make().to(dtype)
    fast = DecoderBackbone(model, chunk_tokens=300, batch_invariant=True)
    batch = made(lengths, 4, deep, common=2, features="cls")
    words = torch.tensor([3, 7])
    together = fast.logits(fast.hidden(batch), words)
    for text, candidate in ((0, 0), (2, 1), (4, 3), (7, 2)):
        room = int(batch.mask[text].sum())
        alone = Batch(
            batch.ids[text : text + 1, :room],
            batch.positions[text : text + 1, :room],
            batch.mask[text : text + 1, :room],
            batch.read[text : text + 1],
            tuple(values[candidate : candidate + 1] if len(values) > 1 else values for values in batch.prompts),
            batch.start,
        )
        assert torch.equal(fast.logits(fast.hidden(alone), words)[0, 0], together[candidate, text])


# ── what is left out ─────────────────────────────────────────────────────────────────────────────────────────


def rows_of(backbone: DecoderBackbone, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows that each layer was given, one number for each of its calls."""
    counted: list[int] = []
    inner = decoder._Layer.projected

    def counting(layer: Any, x: torch.Tensor, *how: Any) -> torch.Tensor:
        counted.append(x.shape[0] * x.shape[1])
        return inner(layer, x, *how)

    monkeypatch.setattr(decoder._Layer, "projected", counting)
    backbone.hidden(batch)
    return counted


def test_a_prompt_is_computed_once_a_candidate_and_no_pad_token_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """One start token and three of the prompt, then each text's own."""
    lengths = [5, 9, 30, 2]
    rows = rows_of(DecoderBackbone(llama()), made(lengths, 6, (True,)), monkeypatch)
    assert rows == [6 * (4 + sum(lengths))] * LAYERS


def test_a_query_without_a_prompt_shares_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The beginning that texts share depends on the query. Numbers must not depend on the query."""
    batch = made([5, 9], 1, (), common=5)
    assert rows_of(DecoderBackbone(llama()), batch, monkeypatch) == [4 + 5 + 4 + 9] * LAYERS


def test_candidates_are_one_below_the_layer_where_they_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """If they differ at no layer, they are computed once at all layers."""
    row = 4 + 5 + 9
    for deep, expected in (((False, False, True), [row, row, 7 * row]), ((False, False, False), [row] * LAYERS)):
        with monkeypatch.context() as patch:
            assert rows_of(DecoderBackbone(gpt2()), made([5, 9], 7, deep), patch) == expected


def test_at_most_a_chunk_is_attended_to_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or one candidate, where that is more: 18 tokens, and 36 keys, as each text has those of the 4 shared tokens."""
    batch, keys = made([5, 9], 7, (False, True)), []
    inner = decoder._attention

    def counting(layer: Any, q: torch.Tensor, kv: torch.Tensor, *how: Any, **more: Any) -> torch.Tensor:
        keys.append(kv.shape[0] * kv.shape[1])
        return inner(layer, q, kv, *how, **more)

    monkeypatch.setattr(decoder, "_attention", counting)
    for chunk, expected in ((120, [18, 54, 54, 54, 54, 18, 18]), (10, [18] + [18] * 14), (10_000, [18, 126, 126])):
        keys.clear()
        with monkeypatch.context() as patch:
            assert rows_of(DecoderBackbone(llama(), chunk_tokens=chunk), batch, patch) == expected
        assert max(keys) <= max(chunk, 36)


def test_of_the_last_layer_only_what_is_read_is_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    """One position a text here: no other goes through the last layer's output and feed-forward products."""
    finished: list[int] = []
    inner = decoder._Layer._finished

    def counting(layer: Any, x: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        finished.append(len(x))
        return inner(layer, x, attended)

    monkeypatch.setattr(decoder._Layer, "_finished", counting)
    DecoderBackbone(gpt2()).hidden(made([5, 9], 7, (True,)))
    assert finished == [7 * 18] * (LAYERS - 1) + [7 * 2]


# ── what is not computed here ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "make",
    [
        lambda: llama(hidden_act="gelu"),
        lambda: llama(rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}),
        lambda: llama("Mistral", sliding_window=511),
        lambda: llama("Qwen2", use_sliding_window=True, max_window_layers=1, sliding_window=8),
        lambda: llama("Gemma"),
        lambda: gpt2(activation_function="relu"),
        lambda: gpt2(add_cross_attention=True),
    ],
)
def test_an_unsupported_configuration_uses_the_plain_path(make: Callable[[], Any]) -> None:
    """Another activation, a window shorter than an input, another family, angles that depend on the batch's length."""
    assert not DecoderBackbone.fits(make())
