"""Prompts against transformers' whole forward pass, edited from outside: given embeddings, and hooks on its modules.

Nothing of the harness's own forward passes is used for what is expected; one text at a time, without padding.
"""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tiny_models
import torch
from tiny_models import FAMILIES, GAPPED, LAYERS, WIDTH

from harness.contract import Prompt, Text
from harness.lm.load import load_model
from harness.tracks.track import ModelSpec, PromptSpec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.lm.model import LanguageModel

TOKENS, FIRST_ID = 4, 20
WORDS = (" bad", " great")
TEXTS: tuple[Text, ...] = (
    ("film",),
    ("a bad film , and not great",),
    ("maybe yes , maybe no , say it was a great film",),
)


@dataclass(frozen=True)
class Pair:
    """The model as the harness serves it, and the same weights as transformers runs them."""

    family: str
    lm: LanguageModel
    raw: Any
    template: str

    @property
    def layers(self) -> list[Any]:
        """The layer that runs at each depth; ALBERT's is one."""
        path = {
            "albert": "albert.encoder.albert_layer_groups.0.albert_layers", "bart": "model.encoder.layers",
            "distilbert": "distilbert.transformer.layer", "gpt2": "transformer.h", "llama": "model.layers",
            "t5": "encoder.block",
        }.get(self.family, f"{self.family}.encoder.layer")  # fmt: skip
        found = list(self.raw.get_submodule(path))
        return found * LAYERS if self.family == "albert" else found

    @property
    def embedding(self) -> Any:
        """The module whose output is the input of the first layer; None where word vectors are."""
        path = {
            "albert": "albert.encoder.embedding_hidden_mapping_in", "bart": "model.encoder.layernorm_embedding",
            "gpt2": None, "llama": None, "t5": None,
        }.get(self.family, f"{self.family}.embeddings")  # fmt: skip
        return None if path is None else self.raw.get_submodule(path)

    @property
    def start(self) -> int:
        """Where p0 stands."""
        return tiny_models.start(self.family)

    def ids(self, text: str, with_p0: bool) -> torch.Tensor:
        """Token ids of the filled template (1, tokens), with or without the fixed tokens p0."""
        filled = self.template.replace("{a}", text).replace("{mask}", tiny_models.mask(self.family))
        ids = self.lm.tokenizer(filled)["input_ids"]
        p0 = list(range(FIRST_ID, FIRST_ID + TOKENS)) if with_p0 else []
        return torch.tensor([ids[: self.start] + p0 + ids[self.start :]])

    def decoder(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        """What an encoder-decoder model's decoder is given beside `ids` (1, tokens) in front: nothing of the prompt."""
        if self.family == "t5":
            return {"decoder_input_ids": torch.tensor([[0, self.lm.tokenizer.convert_tokens_to_ids("<extra_id_0>")]])}
        if self.family == "bart":  # the text again, behind the decoder's start token
            return {"decoder_input_ids": torch.cat([torch.tensor([[2]]), ids[:, :-1]], dim=1)}
        return {}

    def read(self, logits: torch.Tensor, ids: torch.Tensor, before: int = 0) -> np.ndarray:
        """Label-word logits where they are read; `before` vectors stood in front of the input."""
        words = [self.lm.tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in WORDS]
        if self.family == "t5":
            return logits[0, 1, words].numpy()
        at = ids[0].tolist().index(self.lm.tokenizer.mask_token_id) if self.family in GAPPED else ids.shape[1] - 1
        return logits[0, at if self.family == "bart" else at + before, words].numpy()

    def served(self, prompt: Prompt | None, texts: tuple[Text, ...] = TEXTS) -> np.ndarray:
        """What a submission gets: (candidates, texts, words)."""
        return self.lm.outputs(prompt, texts, self.template, WORDS, "mask").logits


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A tiny random model of each family."""
    family: str = request.param
    folder: Path = tiny_models.save(family, tmp_path_factory.mktemp(family))
    lm = load_model(ModelSpec(str(folder), "float32", tiny_models.kind(family)), PromptSpec(TOKENS, FIRST_ID))
    raw = tiny_models.auto(family).from_pretrained(folder).eval()
    return Pair(family, lm, raw, "{a} . It was {mask} ." if family in GAPPED else "{a} . It was{mask}")


def values(layers: int, seed: int = 0) -> np.ndarray:
    """One candidate's prompt values (1, layers, tokens, width)."""
    return np.random.default_rng(seed).normal(size=(1, layers, TOKENS, WIDTH)).astype(np.float32)


def added(place: int, what: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """Hidden states (1, tokens, width) with `what` added from position `place` on."""

    def change(states: torch.Tensor) -> torch.Tensor:
        states = states.clone()
        states[:, place : place + len(what)] += what
        return states

    return change


def into_layers(pair: Pair, changes: list[Callable[[torch.Tensor], torch.Tensor]]) -> list[Any]:
    """Hooks that change what the first layers are given, for one forward; a shared layer counts its calls."""
    calls: Counter[int] = Counter()
    runs_at = {id(layer): [n for n, other in enumerate(pair.layers) if other is layer] for layer in pair.layers}

    def hook(layer: Any, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        depth = runs_at[id(layer)][calls[id(layer)]]
        calls[id(layer)] += 1
        return (changes[depth](given[0]) if depth < len(changes) else given[0], *given[1:]), named

    distinct = {id(layer): layer for layer in pair.layers}.values()
    return [layer.register_forward_pre_hook(hook, with_kwargs=True) for layer in distinct]


def run(pair: Pair, hooks: list[Any], **inputs: Any) -> torch.Tensor:
    """Logits of the whole model with the hooks in place."""
    with ExitStack() as stack, torch.no_grad():
        for handle in hooks:
            stack.callback(handle.remove)
        logits: torch.Tensor = pair.raw(**inputs).logits
        return logits


def test_adding_at_the_input_is_editing_the_embeddings(pair: Pair) -> None:
    """The output of the embedding module, where there is one; else the vectors that stand for the tokens."""
    prompt = values(1)
    assert np.abs(pair.served(Prompt(prompt)) - pair.served(Prompt(0 * prompt))).max() > 1e-2
    change = added(pair.start, torch.tensor(prompt[0, 0]))
    got = pair.served(Prompt(prompt))
    for n, (text,) in enumerate(TEXTS):
        ids = pair.ids(text, with_p0=True)
        if pair.embedding is not None:
            hook = pair.embedding.register_forward_hook(lambda *call: change(call[-1]))
            logits = run(pair, [hook], input_ids=ids, **pair.decoder(ids))
        else:
            vectors = change(pair.raw.get_input_embeddings()(ids).detach())
            logits = run(pair, [], inputs_embeds=vectors, **pair.decoder(ids))
        np.testing.assert_allclose(got[0, n], pair.read(logits, ids), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("depth", [2, LAYERS])
def test_deep_prompts_are_added_to_what_each_layer_is_given(pair: Pair, depth: int) -> None:
    """By hooks in front of the layers, at the same positions in each."""
    prompt = values(depth, seed=1)
    got = pair.served(Prompt(prompt))
    for n, (text,) in enumerate(TEXTS):
        ids = pair.ids(text, with_p0=True)
        hooks = into_layers(pair, [added(pair.start, torch.tensor(value)) for value in prompt[0]])
        logits = run(pair, hooks, input_ids=ids, **pair.decoder(ids))
        np.testing.assert_allclose(got[0, n], pair.read(logits, ids), atol=1e-5, rtol=1e-5)


def test_prepending_is_concatenating_input_vectors(pair: Pair) -> None:
    """The text keeps its positions in masked models, and is counted after the prompt in all others.

    Where an embedding module adds positions and a norm, its output is what is concatenated to.
    """
    prompt = values(1, seed=2)
    front = torch.tensor(prompt[0])  # (1, tokens, width)
    got = pair.served(Prompt(prompt, "prepend"))
    for n, (text,) in enumerate(TEXTS):
        ids = pair.ids(text, with_p0=False)
        decoder = pair.decoder(ids)
        if pair.embedding is not None:
            embedded = torch.cat([front, embeddings_of(pair, ids)], dim=1)
            hook = pair.embedding.register_forward_hook(lambda *_, given=embedded: given)
            logits = run(pair, [hook], input_ids=torch.full(embedded.shape[:2], 5), **decoder)
        else:
            vectors = pair.raw.get_input_embeddings()(ids).detach()
            own = pair.raw.base_model.wpe.weight[:TOKENS].detach() if pair.family == "gpt2" else 0
            whole = torch.cat([front - own, vectors], dim=1)  # gpt2 adds its positions
            logits = run(pair, [], inputs_embeds=whole, **decoder)
        np.testing.assert_allclose(got[0, n], pair.read(logits, ids, before=TOKENS), atol=1e-5, rtol=1e-5)


def embeddings_of(pair: Pair, ids: torch.Tensor) -> torch.Tensor:
    """What the embedding module gives for `ids`, BART's behind `TOKENS` others: (1, tokens, width)."""
    seen: list[torch.Tensor] = []
    others = torch.full((1, TOKENS if pair.family == "bart" else 0), 5)
    hook = pair.embedding.register_forward_hook(lambda *call: seen.append(call[-1]))
    run(pair, [hook], input_ids=torch.cat([others, ids], dim=1))
    return seen[0][:, others.shape[1] :]


@pytest.mark.parametrize("mode", ["none", "add", "prepend"])
def test_padding_changes_no_texts_logits(pair: Pair, mode: Any) -> None:
    """A short text next to a long one, and alone; transformers' own padded batch agrees for the bare template."""
    prompt = None if mode == "none" else Prompt(values(LAYERS, seed=3), mode)
    together = pair.served(prompt)
    for n, text in enumerate(TEXTS):
        np.testing.assert_allclose(pair.served(prompt, (text,))[0, 0], together[0, n], atol=1e-5, rtol=1e-5)
    if prompt is None:
        rows = [pair.ids(text, with_p0=False) for (text,) in TEXTS]
        longest = max(row.shape[1] for row in rows)
        pad = pair.lm.tokenizer.pad_token_id or 0
        ids = torch.cat([torch.nn.functional.pad(row, (0, longest - row.shape[1]), value=pad) for row in rows])
        lengths = torch.tensor([[row.shape[1]] for row in rows])
        decoder = (
            {} if pair.family != "t5" else {"decoder_input_ids": pair.decoder(ids)["decoder_input_ids"].tile(3, 1)}
        )
        logits = run(pair, [], input_ids=ids, attention_mask=(torch.arange(longest) < lengths).long(), **decoder)
        for n, row in enumerate(rows):
            np.testing.assert_allclose(pair.read(logits[n : n + 1], row), together[0, n], atol=1e-5, rtol=1e-5)


def test_a_zero_prompt_is_p0_alone_and_another_text_than_none(pair: Pair) -> None:
    """A zero prompt keeps the fixed tokens. A query without a prompt does not have them."""
    zero = pair.served(Prompt(np.zeros((1, LAYERS, TOKENS, WIDTH), dtype=np.float32)))
    for n, (text,) in enumerate(TEXTS):
        ids = pair.ids(text, with_p0=True)
        logits = run(pair, [], input_ids=ids, **pair.decoder(ids))
        np.testing.assert_allclose(zero[0, n], pair.read(logits, ids), atol=1e-5, rtol=1e-5)
    assert np.abs(zero - pair.served(None)).max() > 1e-3
