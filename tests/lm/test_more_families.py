"""Each family against transformers' own forward pass: one text at a time, unpadded, with hooks on its layers.

Nothing of the harness is used for what is expected. `test_model.py`, `test_injection.py` and `test_families.py` ask
more of the families that have been here for longer.
"""

from __future__ import annotations

import itertools
import re
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import more_families
import numpy as np
import pytest
import tiny_models
import torch
import transformers
from tiny_models import LAYERS, WIDTH

from harness.contract import Mode, Prompt, Task, Text
from harness.evaluation.white_box import WhiteBox
from harness.lm.backbones import decoder, encoder, families
from harness.lm.backbones.decoder import DecoderBackbone
from harness.lm.backbones.encoder import EncoderBackbone
from harness.lm.backbones.plain import PlainBackbone
from harness.lm.kinds import KINDS
from harness.lm.load import load_model
from harness.tracks.track import ModelSpec, PromptSpec

if TYPE_CHECKING:
    from harness.lm.model import LanguageModel

TOKENS, FIRST_ID = 4, 20
WORDS = (" bad", " great", " film")
TEXTS: tuple[Text, ...] = (
    ("film",),
    ("a bad film , and not great",),
    ("maybe yes , maybe no , say it was a great film",),
)
CASES: dict[str, tuple[int, Mode] | None] = {
    "none": None,
    "add": (1, "add"),
    "add deep": (LAYERS, "add"),
    "prepend": (1, "prepend"),
    "prepend deep": (LAYERS, "prepend"),
}


@dataclass(frozen=True)
class Pair:
    """The model as the harness serves it, by its plain path too, and the same weights as transformers runs them."""

    name: str
    lm: LanguageModel
    plain: LanguageModel
    raw: Any

    @property
    def masked(self) -> bool:
        """Whether its text has a gap."""
        return more_families.MODELS[self.name].kind == "masked"

    @property
    def template(self) -> str:
        """With the mask inside where there is one."""
        return "{a} . It was {mask} ." if self.masked else "{a} . It was{mask}"

    def ids(self, text: str) -> list[int]:
        """Token ids of the filled template, without p0."""
        filled = self.template.replace("{a}", text).replace("{mask}", "<mask>" * self.masked)
        return list(self.lm.tokenizer(filled)["input_ids"])

    def read(self, ids: list[int]) -> int:
        """Where label words are read in a text without a prompt."""
        return ids.index(self.lm.tokenizer.mask_token_id) if self.masked else len(ids) - 1

    def positions(self, tokens: int, before: int) -> dict[str, torch.Tensor]:
        """Position ids of a text behind `before` prepended vectors, where the text must keep its own."""
        places = getattr(getattr(self.raw.base_model, "embeddings", None), "position_embeddings", None)
        if not before or places is None:
            return {}
        first = 2 if self.name.split(",")[0] in {"xlm-roberta", "camembert", "mpnet"} else 0
        own = torch.cat([torch.zeros(before, dtype=torch.int64), torch.arange(tokens)])
        return {"position_ids": (own + first)[None]}

    def expected(self, values: torch.Tensor | None, mode: Mode, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Logits of the label words, and the final states of all tokens, for one text: (words,), (tokens, width)."""
        tokenizer, ids = self.lm.tokenizer, self.ids(text)
        count = 0 if values is None else TOKENS
        start = 1 if self.masked and mode == "add" else 0
        before = count if mode == "prepend" else 0
        at = self.read(ids) + count
        positions = self.positions(len(ids), before)
        ids = [*ids[:start], *range(FIRST_ID, FIRST_ID + count), *ids[start:]]
        span = slice(start, start + count)

        def changed(depth: int, x: torch.Tensor) -> torch.Tensor:
            x = x.clone()
            if values is not None and depth < len(values):
                x[:, span] = values[depth] if mode == "prepend" and depth == 0 else x[:, span] + values[depth]
            return x

        layers = self.raw.get_submodule(more_families.MODELS[self.name].layers)
        body = self.raw.base_model
        final: list[torch.Tensor] = []
        with ExitStack() as stack, torch.no_grad():
            if self.name.startswith("deberta"):  # v2's convolution reads the embeddings beside the first layer
                hook = body.embeddings.register_forward_hook(lambda *call: changed(0, call[-1]))
                stack.callback(hook.remove)
            for depth, layer in enumerate(layers):
                if depth == 0 and self.name.startswith("deberta"):
                    continue

                def hook_of(_layer: Any, given: Any, named: Any, depth: int = depth) -> Any:
                    if given:
                        return (changed(depth, given[0]), *given[1:]), named
                    return given, named | {"hidden_states": changed(depth, named["hidden_states"])}

                stack.callback(layer.register_forward_pre_hook(hook_of, with_kwargs=True).remove)
            body = body.decoder if self.name.startswith("opt") else body
            out_of = getattr(body, "project_out", None)
            if out_of is not None:
                stack.callback(out_of.register_forward_pre_hook(lambda _, given: final.append(given[0])).remove)
            else:
                stack.callback(body.register_forward_hook(lambda *call: final.append(call[-1][0])).remove)
            logits = self.raw(input_ids=torch.tensor([ids]), **positions).logits
        words = [tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in WORDS]
        return logits[0, at, words].numpy(), final[0][0].numpy()


@pytest.fixture(scope="module", params=more_families.MODELS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A tiny random model of each family, as both load it from its files."""
    name: str = request.param
    folder = more_families.save(name, tmp_path_factory.mktemp("model"))
    kind: Any = more_families.MODELS[name].kind
    spec, p0 = ModelSpec(str(folder), "float32", kind), PromptSpec(TOKENS, FIRST_ID)
    lm, plain = load_model(spec, p0), load_model(spec, p0, plain=True)
    auto: Any = transformers.AutoModelForMaskedLM if kind == "masked" else transformers.AutoModelForCausalLM
    return Pair(name, lm, plain, auto.from_pretrained(folder).eval())


def prompt_of(case: str) -> Prompt | None:
    """Two candidates of random values, or no prompt."""
    made = CASES[case]
    if made is None:
        return None
    layers, mode = made
    values = np.random.default_rng(list(CASES).index(case)).normal(size=(2, layers, TOKENS, WIDTH))
    return Prompt(values.astype(np.float32), mode)


def test_families_with_a_fast_path_take_it(pair: Pair) -> None:
    """A family that should have one, and silently has none, is slow."""
    family = pair.raw.config.model_type
    fast = EncoderBackbone if family in encoder.FAMILIES else DecoderBackbone if family in decoder.FAMILIES else None
    assert type(pair.lm.backbone) is (PlainBackbone if fast is None or "window" in pair.name else fast)
    assert type(pair.plain.backbone) is PlainBackbone


@pytest.mark.parametrize("case", CASES)
def test_logits_and_features_are_transformers_own(pair: Pair, case: str) -> None:
    """The harness's come from a padded batch of two candidates."""
    prompt = prompt_of(case)
    mode: Mode = "add" if prompt is None else prompt.mode
    before = TOKENS if mode == "prepend" else 0
    expected = [
        [pair.expected(values, mode, text) for (text,) in TEXTS]
        for values in ([None] if prompt is None else torch.tensor(prompt.values))
    ]
    for lm in (pair.lm, pair.plain):
        outputs = {kind: lm.outputs(prompt, TEXTS, pair.template, WORDS, kind) for kind in ("mask", "cls", "all")}
        lengths = outputs["all"].lengths
        assert lengths is not None
        for (candidate, of_texts), n in itertools.product(enumerate(expected), range(len(TEXTS))):
            logits, states = of_texts[n]
            assert lengths[n] == len(states)
            close(outputs["all"].features[candidate, n, : len(states)], states)
            close(outputs["cls"].features[candidate, n], states[before])
            read = pair.read(pair.ids(TEXTS[n][0])) + (0 if prompt is None else TOKENS)
            close(outputs["mask"].features[candidate, n], states[read])
            for out in outputs.values():
                close(out.logits[candidate, n], logits)


def close(found: np.ndarray, expected: np.ndarray) -> None:
    """Equal but for the last digits."""
    np.testing.assert_allclose(found, expected, atol=2e-5, rtol=2e-5)


def test_every_prompt_moves_the_logits(pair: Pair) -> None:
    """In each mode and at each depth; otherwise the comparison above would say nothing."""
    for mode in ("add", "prepend"):
        zero = pair.lm.outputs(
            Prompt(np.zeros((1, LAYERS, TOKENS, WIDTH), dtype=np.float32), mode), TEXTS, pair.template, WORDS, "mask"
        ).logits
        for depth in range(LAYERS):
            values = np.zeros((1, LAYERS, TOKENS, WIDTH), dtype=np.float32)
            values[:, depth] = np.random.default_rng(depth).normal(size=(TOKENS, WIDTH))
            got = pair.lm.outputs(Prompt(values, mode), TEXTS, pair.template, WORDS, "mask").logits
            assert np.abs(got - zero).max() > 1e-4


def test_the_white_box_answers_as_the_black_box(pair: Pair) -> None:
    """References that train the weights run the same computation."""
    white = WhiteBox(pair.lm, Task("made-up", ("a", "b", "c"), "accuracy", pair.template, WORDS), TEXTS)
    got = pair.lm.outputs(None, TEXTS, pair.template, WORDS, "mask").logits[0]
    np.testing.assert_allclose(white.predicted(TEXTS), got, atol=2e-5)
    added = [torch.zeros(WIDTH, requires_grad=True) for _ in white.layers]
    assert len(added) == LAYERS
    for layer, value in enumerate(added):
        white.edit_input(layer, lambda x, v=value: x + v)  # type: ignore[misc]
    white.logits(white.batch(TEXTS))[:, 0].sum().backward()  # type: ignore[no-untyped-call]
    assert all(value.grad is not None and bool(value.grad.any()) for value in added)


def test_log_probabilities_are_those_of_the_whole_vocabulary(pair: Pair) -> None:
    """The head's last step, a cap or a division, comes before the sum."""
    encoded, words = pair.lm.text_set(pair.template, TEXTS), pair.lm.single_ids(WORDS)
    every = range(pair.lm.vocabulary)
    whole = torch.from_numpy(pair.lm.forward(None, encoded, every).logits)
    got = pair.lm.forward(None, encoded, words, normalize=True).logits
    np.testing.assert_allclose(got, whole.log_softmax(-1)[..., list(words)].numpy(), atol=2e-5)


@pytest.mark.parametrize("name", ["qwen2", "gemma3_text", "modernbert", "phi"])
def test_rotary_frequencies_stay_in_float32(name: str, tmp_path: Path) -> None:
    """As transformers keeps them: in bfloat16 the angles of late positions would be off by a radian."""
    made = more_families.MODELS[name]
    folder, kind = more_families.save(name, tmp_path), made.kind
    lm = load_model(ModelSpec(str(folder), "bfloat16", kind), PromptSpec(TOKENS, FIRST_ID))  # type: ignore[arg-type]
    auto: Any = transformers.AutoModelForMaskedLM if kind == "masked" else transformers.AutoModelForCausalLM
    raw = auto.from_pretrained(folder, dtype=torch.float32)
    served, whole = (dict(model.named_buffers()) for model in (lm._model, lm.weights()))
    frequencies = {place: buffer for place, buffer in raw.named_buffers() if place.endswith("inv_freq")}
    assert frequencies
    for place, expected in frequencies.items():
        assert torch.equal(served[place], expected)
        assert torch.equal(whole[place], expected)
    assert lm.weights().get_input_embeddings().weight.dtype is torch.float32


def test_the_spread_of_the_embeddings_is_that_of_what_the_model_adds_up(pair: Pair) -> None:
    """Prompts are scaled by it. Gemma and Granite multiply their word embeddings."""
    vectors = pair.raw.get_input_embeddings()(torch.arange(pair.lm.vocabulary)).detach()
    factor = getattr(pair.raw.config, "embedding_multiplier", 1.0)
    assert pair.lm.embedding_std == pytest.approx(float(vectors.std(correction=0)) * factor, rel=1e-5)


def rows_of_the_table() -> dict[str, list[str]]:
    """Cells of the table of families in docs/models.md, by model type."""
    text = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    lines = text[text.index("| family |") :].split("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {name.strip("` "): row for row in rows for name in row[1].split(",")}


def test_the_table_of_families_is_the_code() -> None:
    """Kinds, and which path computes a family."""
    rows = rows_of_the_table()
    assert {name: row[2].strip("`") for name, row in rows.items()} == KINDS
    fast = {name for name, row in rows.items() if row[3] == "fast path"}
    assert fast == {*encoder.FAMILIES, *decoder.FAMILIES}
    assert {row[3] for row in rows.values()} == {"fast path", "plain path"}


def test_the_table_names_the_heads_bias(pair: Pair) -> None:
    """The parameter that `zero_head_bias` leaves out."""
    told = re.findall(r"`([\w.]+)`", rows_of_the_table()[pair.raw.config.model_type][4])
    bias = families.head_bias(pair.raw)
    found = {name for name, each in pair.raw.named_parameters(remove_duplicate=False) if each is bias}
    assert bool(found & set(told)) is bool(told)
    assert (bias is not None) is bool(told)


def test_every_family_is_tested() -> None:
    """Here, or in `test_model.py` and its neighbours."""
    here = {name.split(",")[0] for name in more_families.MODELS}
    assert here | set(tiny_models.FAMILIES) == set(KINDS)
