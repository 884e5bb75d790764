"""The language model against transformers' own layers, one text and one candidate at a time, unpadded."""

import itertools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import tiny_models
import torch
import transformers
from tiny_models import CAUSAL, FAMILIES, FAST, GAPPED, LAYERS, MASKED, SEQ2SEQ, WIDTH

from harness.blackbox.projection import matrix
from harness.contract import Prompt, Prompts, Subspace, Text
from harness.errors import ModelError, QueryError
from harness.lm.backbones.base import Batch
from harness.lm.backbones.decoder import DecoderBackbone
from harness.lm.backbones.encoder import EncoderBackbone
from harness.lm.backbones.plain import PlainBackbone
from harness.lm.kinds import kind_of
from harness.lm.load import load_model
from harness.lm.model import LanguageModel
from harness.tracks.track import ModelSpec, PromptSpec

P0 = PromptSpec(tokens=4, first_id=20)
WORDS = (" bad", " great", " film")
TEXTS: tuple[Text, ...] = tuple(
    (" ".join(tiny_models.WORDS[(n * k + k) % len(tiny_models.WORDS)] for k in range(n % 11 + 1)),) for n in range(32)
)
SAME_LENGTH: tuple[Text, ...] = tuple((f"{word} film",) for word in tiny_models.WORDS)
CASES = {
    "none": None,
    "add": Prompt(np.random.default_rng(0).normal(size=(2, 1, 4, WIDTH)).astype(np.float32)),
    "add deep": Prompt(np.random.default_rng(1).normal(size=(2, LAYERS, 4, WIDTH)).astype(np.float32)),
    "add two tokens": Prompt(np.random.default_rng(2).normal(size=(2, 2, 2, WIDTH)).astype(np.float32)),
    "prepend": Prompt(np.random.default_rng(3).normal(size=(2, 1, 4, WIDTH)).astype(np.float32), "prepend"),
    "prepend deep": Prompt(np.random.default_rng(4).normal(size=(2, LAYERS, 4, WIDTH)).astype(np.float32), "prepend"),
}


@dataclass(frozen=True)
class Tiny:
    """A model loaded by the harness, and the same weights as transformers loads them."""

    family: str
    folder: Path
    lm: LanguageModel
    plain: LanguageModel
    raw: Any
    template: str

    @property
    def spec(self) -> ModelSpec:
        """As a track would name it."""
        return ModelSpec(str(self.folder), "float32", tiny_models.kind(self.family))


@pytest.fixture(scope="module", params=FAMILIES)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    family: str = request.param
    folder = tiny_models.save(family, tmp_path_factory.mktemp(family))
    spec = ModelSpec(str(folder), "float32", tiny_models.kind(family))
    template = "{a} . It was {mask} ." if family in GAPPED else "{a} . It was{mask}"
    lm, plain = load_model(spec, P0), load_model(spec, P0, plain=True)
    return Tiny(family, folder, lm, plain, tiny_models.auto(family).from_pretrained(folder).eval(), template)


@pytest.fixture(scope="module")
def expected(tiny: Tiny) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Logits (candidates, 32, words), states at the mask and at the first token, by hand, for every case."""
    return {name: by_hand(tiny, prompt, TEXTS) for name, prompt in CASES.items()}


def by_hand(tiny: Tiny, prompt: Prompt | None, texts: tuple[Text, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    words = [tiny.lm.tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in WORDS]
    out = []
    for values in [None] if prompt is None else torch.tensor(prompt.values):
        for text in texts:
            with torch.no_grad():
                read, first = one_by_hand(tiny, values, prompt.mode if prompt else "add", text[0])
                out.append((head_by_hand(tiny, read)[words], read, first))
    shape = (1 if prompt is None else len(prompt.values), len(texts), -1)
    logits, mask, first_token = (torch.stack(part).reshape(shape).numpy() for part in zip(*out, strict=True))
    return logits, mask, first_token


def one_by_hand(
    tiny: Tiny, values: torch.Tensor | None, mode: str, text: str, seen: list[torch.Tensor] | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Final states where label words are read and at the first token, through the model's own layers.

    What each layer is given is added to `seen`.
    """
    tokenizer, mask = tiny.lm.tokenizer, tiny_models.mask(tiny.family)
    ids = tokenizer(tiny.template.replace("{a}", text).replace("{mask}", mask))["input_ids"]
    count = 0 if values is None else values.shape[1]
    start = 0 if mode == "prepend" else tiny_models.start(tiny.family)
    if mode == "add":
        ids = [*ids[:start], *range(20, 20 + count), *ids[start:]]
    before = count if mode == "prepend" else 0
    read = ids.index(tokenizer.convert_tokens_to_ids(mask)) if mask else len(ids) - 1
    x = embed_by_hand(tiny, torch.tensor([ids]), before)
    if values is not None and mode == "prepend":
        x = torch.cat([values[0][None], x], dim=1)
    extra: dict[str, Any] = {}
    if tiny.family == "llama":
        extra["position_embeddings"] = tiny.raw.model.rotary_emb(x, position_ids=torch.arange(x.shape[1])[None])
    for depth, layer in enumerate(layers_by_hand(tiny)):
        if values is not None and depth < len(values) and not (mode == "prepend" and depth == 0):
            x = x.clone()
            x[:, start : start + count] += values[depth]
        if seen is not None:
            seen.append(x[0])
        out = layer(x, attention_mask=None, **extra)
        x = out[0] if isinstance(out, tuple) else out
        if tiny.family == "t5":
            extra["position_bias"] = out[1]
    last = {"gpt2": "transformer.ln_f", "llama": "model.norm", "t5": "encoder.final_layer_norm"}.get(tiny.family, "")
    x = tiny.raw.get_submodule(last)(x) if last else x
    if tiny.family not in SEQ2SEQ:
        return x[0, read + before], x[0, before]
    given, at = ([0, ids[read]], 1) if tiny.family == "t5" else ([2, *ids[:-1]], read)  # BART's whole text, shifted
    decoded = tiny.raw.get_decoder()(input_ids=torch.tensor([given]), encoder_hidden_states=x).last_hidden_state
    return decoded[0, at], x[0, before]


def layers_by_hand(tiny: Tiny) -> Any:
    """The layers in the order in which they run."""
    body = tiny.raw.base_model
    if tiny.family == "albert":
        return [body.encoder.albert_layer_groups[0].albert_layers[0]] * LAYERS
    path = {"distilbert": "transformer.layer", "gpt2": "h", "llama": "layers", "t5": "encoder.block"}
    return body.get_submodule(path.get(tiny.family, "encoder.layers" if tiny.family == "bart" else "encoder.layer"))


def embed_by_hand(tiny: Tiny, ids: torch.Tensor, before: int) -> Any:
    """Input of the first layer; `before` vectors will stand in front (all but masked models count their positions)."""
    body, words = tiny.raw.base_model, tiny.raw.get_input_embeddings()(ids)
    after = torch.arange(before, before + ids.shape[1])
    if tiny.family in {"llama", "t5"}:
        return words
    if tiny.family == "gpt2":
        return words + body.wpe(after)
    if tiny.family == "bart":
        return body.encoder.layernorm_embedding(words + body.encoder.embed_positions.weight[after + 2])
    e = body.embeddings
    x = words + e.position_embeddings(torch.arange(ids.shape[1]) + (2 if tiny.family == "roberta" else 0))
    if tiny.family != "distilbert":
        x = x + e.token_type_embeddings(torch.zeros_like(ids))
    x = e.LayerNorm(x)
    return body.encoder.embedding_hidden_mapping_in(x) if tiny.family == "albert" else x


def head_by_hand(tiny: Tiny, state: torch.Tensor) -> Any:
    raw = tiny.raw
    if tiny.family == "distilbert":
        return raw.vocab_projector(raw.vocab_layer_norm(torch.nn.functional.gelu(raw.vocab_transform(state))))
    if tiny.family == "t5":
        return raw.lm_head(state / WIDTH**0.5)
    if tiny.family == "bart":
        return raw.lm_head(state) + raw.final_logits_bias[0]
    return raw.get_submodule({"bert": "cls", "albert": "predictions"}.get(tiny.family, "lm_head"))(state)


def whole(tiny: Tiny, ids: list[int]) -> Any:
    """Logits of the whole vocabulary where label words are read, by transformers' own forward of unprompted ids."""
    if tiny.family == "t5":
        given = torch.tensor([[0, tiny.lm.tokenizer.convert_tokens_to_ids("<extra_id_0>")]])
        return tiny.raw(torch.tensor([ids]), decoder_input_ids=given).logits[0, 1]
    read = ids.index(tiny.lm.tokenizer.mask_token_id) if tiny.family in GAPPED else -1
    return tiny.raw(torch.tensor([ids])).logits[0, read]  # BART is given the text itself, shifted, by transformers


def forward(lm: LanguageModel, tiny: Tiny, prompt: Prompts | None, texts: tuple[Text, ...], **options: Any) -> Any:
    out = lm.forward(prompt, lm.text_set(tiny.template, texts), lm.single_ids(WORDS), **options)
    return out.logits, out.features


# ── exactness ────────────────────────────────────────────────────────────────────────────────────────────────


def test_by_hand_without_a_prompt_is_the_models_own_forward(tiny: Tiny) -> None:
    """What the other tests compare with is itself held to transformers' whole forward."""
    logits, _, _ = by_hand(tiny, None, TEXTS[:4])
    for n, text in enumerate(TEXTS[:4]):
        filled = tiny.template.replace("{a}", text[0]).replace("{mask}", tiny_models.mask(tiny.family))
        with torch.no_grad():
            own = whole(tiny, tiny.lm.tokenizer(filled)["input_ids"])[list(tiny.lm.single_ids(WORDS))]
        np.testing.assert_allclose(logits[0, n], own.numpy(), atol=1e-5)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("batch", [1, 7, 32])
def test_logits_and_states_are_those_computed_by_hand(
    tiny: Tiny, expected: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]], case: str, batch: int
) -> None:
    """By the fast path where there is one, and by the plain path."""
    wanted = expected[case]
    fast = type(tiny.lm.backbone) is not type(tiny.plain.backbone)
    paths = (tiny.lm, tiny.plain) if fast else (tiny.lm,)
    for lm, start in itertools.product(paths, range(0, len(TEXTS), batch)):
        some = slice(start, start + batch)
        for kind, states in (("mask", wanted[1]), ("cls", wanted[2])):
            logits, features = forward(lm, tiny, CASES[case], TEXTS[some], features=kind)
            np.testing.assert_allclose(logits, wanted[0][:, some], atol=1e-5, rtol=1e-5)
            np.testing.assert_allclose(features, states[:, some], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_texts_of_one_length_need_no_padding_and_give_the_same(tiny: Tiny, case: str) -> None:
    wanted = by_hand(tiny, CASES[case], SAME_LENGTH)[0]
    np.testing.assert_allclose(forward(tiny.lm, tiny, CASES[case], SAME_LENGTH)[0], wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shared", [(), (0,), (0, 1), (0, 1, 2), (1,)])
def test_layers_all_candidates_agree_on_give_the_same_as_one_candidate_at_a_time(
    tiny: Tiny, shared: tuple[int, ...]
) -> None:
    values = np.random.default_rng(5).normal(size=(5, LAYERS, 4, WIDTH)).astype(np.float32)
    for layer in shared:
        values[:, layer] = values[0, layer]
    together, _ = forward(tiny.lm, tiny, Prompt(values), TEXTS[:9])
    assert together.shape == (5, 9, len(WORDS))
    for c in range(5):
        alone, _ = forward(tiny.lm, tiny, Prompt(values[c : c + 1]), TEXTS[:9])
        np.testing.assert_allclose(together[c], alone[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("tokens", [1, 60, 300])
def test_the_size_of_a_chunk_changes_nothing(tiny: Tiny, tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = forward(tiny.lm, tiny, CASES["add deep"], TEXTS, features="cls")
    monkeypatch.setattr(tiny.lm, "chunk_tokens", tokens)
    for got, whole in zip(forward(tiny.lm, tiny, CASES["add deep"], TEXTS, features="cls"), wanted, strict=True):
        np.testing.assert_allclose(got, whole, atol=1e-5, rtol=1e-5)


def test_coordinates_are_shown_as_their_projected_values(tiny: Tiny) -> None:
    space = Subspace(dim=6, std=(0.5, 1.0), tokens=3, seed=9)
    z = np.random.default_rng(6).normal(size=(2, 2, 6))
    shown = np.stack([[(matrix(space, k, WIDTH) @ c[k]).reshape(3, WIDTH) for k in range(2)] for c in z])
    got, _ = forward(tiny.lm, tiny, space.at(z), TEXTS[:5])
    wanted, _ = forward(tiny.lm, tiny, Prompt(shown.astype(np.float32)), TEXTS[:5])
    np.testing.assert_allclose(got, wanted, atol=1e-4, rtol=1e-4)


def test_the_same_query_gives_the_same_bits(tiny: Tiny) -> None:
    first, second = (forward(tiny.lm, tiny, CASES["add deep"], TEXTS)[0] for _ in range(2))
    assert first.tobytes() == second.tobytes()
    assert first.dtype == np.float32


def test_bfloat16_stays_near_float32(tiny: Tiny) -> None:
    half = load_model(ModelSpec(tiny.spec.source, "bfloat16", tiny.spec.kind), P0)
    got, _ = forward(half, tiny, CASES["add"], TEXTS[:8])
    wanted, _ = forward(tiny.lm, tiny, CASES["add"], TEXTS[:8])
    assert np.abs(got - wanted).mean() < 0.1 * wanted.std()
    assert half.sha256 == tiny.lm.sha256


def test_a_zero_head_bias_is_taken_off_the_logits(tiny: Tiny) -> None:
    spec = ModelSpec(tiny.spec.source, "float32", tiny.spec.kind, zero_head_bias=True)
    got, _ = forward(load_model(spec, P0), tiny, None, TEXTS[:3])
    wanted, _ = forward(tiny.lm, tiny, None, TEXTS[:3])
    bias = tiny.raw.final_logits_bias[0] if tiny.family == "bart" else tiny.raw.get_output_embeddings().bias
    taken = torch.zeros(len(WORDS)) if bias is None else bias[list(tiny.lm.single_ids(WORDS))].detach()
    np.testing.assert_allclose(wanted - got, np.broadcast_to(taken.numpy(), got.shape), atol=1e-5)
    assert (tiny.family in {*MASKED, "bart"}) == bool(taken.any())


# ── what is published ────────────────────────────────────────────────────────────────────────────────────────


def test_published_statistics_are_those_of_the_layers_inputs_at_the_zero_prompt(tiny: Tiny) -> None:
    info = tiny.lm.info(TEXTS, tiny.template)
    assert (info.kind, info.layers, info.width) == (tiny.lm.kind, LAYERS, WIDTH)
    assert (info.max_tokens, info.prompt_tokens) == (512 if tiny.family == "t5" else tiny_models.LONGEST, 4)
    weight = tiny.raw.get_input_embeddings().weight
    assert info.vocabulary == len(weight)
    assert info.embedding_std == pytest.approx(weight.std(correction=0).item(), rel=1e-5)
    seen: list[list[torch.Tensor]] = [[] for _ in TEXTS]
    for inputs, text in zip(seen, TEXTS, strict=True):
        with torch.no_grad():
            one_by_hand(tiny, torch.zeros(1, 4, WIDTH), "add", text[0], inputs)
    stds = [torch.cat(inputs).std(correction=0).item() for inputs in zip(*seen, strict=True)]
    np.testing.assert_allclose(info.hidden_std, stds, rtol=1e-5)


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_word_of_several_tokens_is_refused_with_its_pieces(tiny: Tiny) -> None:
    with pytest.raises(QueryError, match=r"' villages twice' is \d+ tokens of .* \(.*, .*\); choose a single-token"):
        tiny.lm.single_ids([" bad", " villages twice"])
    with pytest.raises(QueryError, match=r"'' is 0 tokens of .* \(nothing\)"):
        tiny.lm.single_ids([""])
    with pytest.raises(QueryError, match="no label words"):
        tiny.lm.single_ids([])
    assert tiny.lm.word_ids([" bad"]) == [[tiny.lm.single_ids([" bad"])[0]]]


def test_an_unknown_word_is_refused(tiny: Tiny) -> None:
    """Byte-level tokenizers know every word, as several tokens."""
    with pytest.raises(QueryError, match="tokens of" if tiny.family in {"gpt2", "roberta"} else "unknown|tokens of"):
        tiny.lm.single_ids(["\u4e2d"])


@pytest.mark.parametrize(
    "shape",
    [(0, 1, 4, WIDTH), (1, 0, 4, WIDTH), (1, LAYERS + 1, 4, WIDTH), (1, 1, 0, WIDTH), (1, 1, 5, WIDTH),
     (1, 1, 4, WIDTH + 1), (1, 1, 4, WIDTH - 1), (1, 4, WIDTH), (1, 1, 1, 4, WIDTH)],
)  # fmt: skip
def test_a_prompt_of_a_wrong_shape_is_refused(tiny: Tiny, shape: tuple[int, ...]) -> None:
    with pytest.raises(QueryError, match=r"\(candidates, 1..3 layers, 1..4 tokens, 16\) expected"):
        tiny.lm.check(Prompt(np.zeros(shape, dtype=np.float32)))


def test_a_good_prompt_is_not_refused_and_a_bad_subspace_is(tiny: Tiny) -> None:
    for prompt in CASES.values():
        tiny.lm.check(prompt)
    space = Subspace(dim=6, std=(0.5, 1.0), tokens=3, seed=9)
    good = space.at(np.zeros((2, 2, 6)))
    tiny.lm.check(good)
    for z in (np.zeros((2, 1, 6)), np.zeros((2, 2, 5)), np.zeros((2, 6)), np.zeros((0, 2, 6))):
        with pytest.raises(QueryError, match=r"\(candidates, 2, 6\) expected"):
            tiny.lm.check(replace(good, z=z.astype(np.float32)))
    for bad in (msgspec.structs.replace(space, tokens=5), msgspec.structs.replace(space, std=(1.0,) * 4)):
        with pytest.raises(QueryError, match="subspace has"):
            tiny.lm.check(bad.at(np.zeros((1, bad.layers, 6))))


def test_outputs_for_the_referee_are_forward_by_words(tiny: Tiny) -> None:
    out = tiny.lm.outputs(CASES["add"], TEXTS[:3], tiny.template, WORDS, "cls")
    logits, features = forward(tiny.lm, tiny, CASES["add"], TEXTS[:3], features="cls")
    np.testing.assert_array_equal(out.logits, logits)
    np.testing.assert_array_equal(out.features, features)
    with pytest.raises(QueryError):
        tiny.lm.outputs(CASES["add"], TEXTS[:3], "{a}", WORDS, "mask")


@pytest.mark.parametrize("case", ["none", "add", "add deep", "prepend"])
def test_features_of_all_tokens_hold_those_of_the_mask_and_of_the_first(tiny: Tiny, case: str) -> None:
    """The states in all places are the same computation as the states in one; behind the end there are zeros."""
    prompt = CASES.get(case)
    out = tiny.lm.outputs(prompt, TEXTS[:7], tiny.template, WORDS, "all")
    mask = tiny.lm.outputs(prompt, TEXTS[:7], tiny.template, WORDS, "mask")
    first = tiny.lm.outputs(prompt, TEXTS[:7], tiny.template, WORDS, "cls").features
    encoded = tiny.lm.text_set(tiny.template, TEXTS[:7]).encoded
    count = 0 if prompt is None else 4
    assert out.lengths is not None
    assert out.lengths.tolist() == [len(e.ids) + count for e in encoded]
    np.testing.assert_allclose(out.logits, mask.logits, atol=1e-5)
    for n, (e, length) in enumerate(zip(encoded, out.lengths, strict=True)):
        if tiny.family not in SEQ2SEQ:  # there, the state at the mask is the decoder's, the others are the encoder's
            np.testing.assert_allclose(out.features[:, n, e.read + count], mask.features[:, n], atol=1e-5)
        at = count if case == "prepend" else 0
        np.testing.assert_allclose(out.features[:, n, at], first[:, n], atol=1e-5)
        assert not out.features[:, n, length:].any()
        assert out.features[:, n, :length].any(axis=-1).all()


def test_normalized_logits_are_log_probabilities_among_the_whole_vocabulary(tiny: Tiny) -> None:
    """They sum to one over all token ids, and differ from the logits by one number a text."""
    encoded = tiny.lm.text_set(tiny.template, TEXTS[:5])
    every = tuple(range(tiny.lm.vocabulary))
    p = tiny.lm.forward(CASES["add"], encoded, every, normalize=True).logits
    np.testing.assert_allclose(np.exp(p.astype(np.float64)).sum(axis=-1), 1, atol=1e-4)
    q = tiny.lm.forward(CASES["add"], encoded, every).logits
    assert np.ptp(q - p, axis=-1).max() < 1e-4


def test_each_word_of_the_vocabulary_is_the_token_it_stands_for(tiny: Tiny) -> None:
    words = tiny.lm.words
    assert len(words) == tiny.lm.vocabulary
    some = [(i, word) for i, word in enumerate(words) if word]
    assert {word.strip() for _, word in some} >= set(tiny_models.WORDS)
    assert tiny.lm.single_ids([word for _, word in some]) == tuple(i for i, _ in some)
    assert not any(words[i] for i in tiny.lm.tokenizer.all_special_ids)


def test_a_long_text_leaves_room_for_the_prompt(tiny: Tiny) -> None:
    encoded = tiny.lm.text_set(tiny.template, (("bad film " * 400,),))
    assert encoded.tokens == tiny.lm.max_tokens - P0.tokens
    for case in CASES.values():
        assert np.isfinite(tiny.lm.forward(case, encoded, tiny.lm.single_ids(WORDS)).logits).all()


# ── loading ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_families_with_a_fast_path_take_it(tiny: Tiny) -> None:
    fast = EncoderBackbone if tiny.family in FAST else DecoderBackbone if tiny.family in CAUSAL else PlainBackbone
    assert type(tiny.lm.backbone) is fast
    assert type(tiny.plain.backbone) is PlainBackbone


def test_the_plain_path_takes_as_many_texts_at_once_as_fit(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """It computes candidates one after the other, so that its chunks do not grow with their number."""
    seen = []
    own = PlainBackbone._run

    def run(backbone: PlainBackbone, batch: Batch, *how: Any) -> torch.Tensor:
        seen.append(batch.ids.numel())
        return own(backbone, batch, *how)

    monkeypatch.setattr(PlainBackbone, "_run", run)
    values, texts = np.random.default_rng(0).normal(size=(9, 1, 4, WIDTH)).astype(np.float32), (("great film",),) * 6
    forward(tiny.plain, tiny, Prompt(values), texts)
    tokens = sum(len(e.ids) + 4 for e in tiny.plain.text_set(tiny.template, texts).encoded)
    assert seen == [tokens] * 9
    seen.clear()
    monkeypatch.setattr(tiny.plain, "chunk_tokens", tokens // 3)
    forward(tiny.plain, tiny, Prompt(values), texts)
    assert seen == [tokens // 3] * 27


def test_a_model_of_the_other_kind_is_refused(tiny: Tiny) -> None:
    kinds: tuple[Any, ...] = ("masked", "causal", "seq2seq")
    for kind in kinds:
        if kind != tiny.spec.kind:
            with pytest.raises(ModelError):
                load_model(ModelSpec(tiny.spec.source, "float32", kind), P0)


def test_prompt_ids_outside_the_vocabulary_are_refused(tiny: Tiny) -> None:
    with pytest.raises(ModelError, match=r"prompt ids 100000..100003; .* vocabulary ids"):
        load_model(tiny.spec, PromptSpec(tokens=4, first_id=100_000))


def test_what_is_not_there_is_told_with_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such directory"):
        load_model(ModelSpec(str(tmp_path / "none"), "float32"), P0)
    with pytest.raises(ModelError, match=r"no tokenizer there\. Copy tokenizer\.json"):
        load_model(ModelSpec(str(tmp_path), "float32"), P0)


def test_a_family_without_support_is_told_those_with_and_how_to_add_it(tmp_path: Path) -> None:
    folder = tiny_models.save("bert", tmp_path)
    config = transformers.MegatronBertConfig(
        vocab_size=400, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    transformers.MegatronBertForMaskedLM(config).save_pretrained(folder)
    told = r"'megatron-bert' are not supported; supported: albert, bart, .*, xlm-roberta\. .*\"Add a family\" in docs/"
    with pytest.raises(ModelError, match=told):
        load_model(ModelSpec(str(folder), "float32"), P0)
    with pytest.raises(ModelError, match=told):
        kind_of(str(folder))


def test_the_kind_of_a_model_is_read_from_its_configuration(tiny: Tiny) -> None:
    assert kind_of(tiny.spec.source) == tiny.spec.kind


def test_a_directory_without_a_model_has_no_kind(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model can be loaded"):
        kind_of(str(tmp_path))
