"""Prompts against transformers' whole forward pass, edited from outside: given embeddings, and hooks on its modules.

Nothing of the harness's own forward passes is used for what is expected; one text at a time, without padding.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tiny_models
import torch
import transformers
from tiny_models import FAMILIES, LAYERS, MASKED, WIDTH

from harness.contract import Prompt, Text
from harness.lm.load import load_model
from harness.track import ModelSpec, PromptSpec

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
    def layers(self) -> Any:
        """The stack of layers."""
        body = self.raw.base_model
        return body.encoder.layer if self.family in MASKED else body.h if self.family == "gpt2" else body.layers

    @property
    def start(self) -> int:
        """Where p0 stands: after the start token, where there is one."""
        return 0 if self.family == "gpt2" else 1

    def ids(self, text: str, with_p0: bool) -> torch.Tensor:
        """Token ids of the filled template (1, tokens), with or without the fixed tokens p0."""
        mask = self.lm.tokenizer.mask_token if self.family in MASKED else ""
        ids = self.lm.tokenizer(self.template.replace("{a}", text).replace("{mask}", mask))["input_ids"]
        p0 = list(range(FIRST_ID, FIRST_ID + TOKENS)) if with_p0 else []
        return torch.tensor([ids[: self.start] + p0 + ids[self.start :]])

    def read(self, logits: torch.Tensor, ids: torch.Tensor, before: int = 0) -> np.ndarray:
        """Label-word logits at the mask, or at the last token; `before` vectors stood in front."""
        at = ids[0].tolist().index(self.lm.tokenizer.mask_token_id) if self.family in MASKED else ids.shape[1] - 1
        words = [self.lm.tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in WORDS]
        return logits[0, at + before, words].numpy()

    def served(self, prompt: Prompt | None, texts: tuple[Text, ...] = TEXTS) -> np.ndarray:
        """What a submission gets: (candidates, texts, words)."""
        return self.lm.outputs(prompt, texts, self.template, WORDS, "mask").logits


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A tiny random model of each family."""
    family: str = request.param
    folder: Path = tiny_models.save(family, tmp_path_factory.mktemp(family))
    masked = family in MASKED
    auto = transformers.AutoModelForMaskedLM if masked else transformers.AutoModelForCausalLM
    spec = ModelSpec(str(folder), "float32", "masked" if masked else "causal")
    lm = load_model(spec, PromptSpec(TOKENS, FIRST_ID))
    return Pair(
        family, lm, auto.from_pretrained(folder).eval(), "{a} . It was {mask} ." if masked else "{a} . It was{mask}"
    )


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


def into_layer(layer: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Hook that changes what a layer is given."""

    def hook(_: Any, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (change(given[0]), *given[1:]), named

    return layer.register_forward_pre_hook(hook, with_kwargs=True)


def run(pair: Pair, hooks: list[Any], **inputs: Any) -> torch.Tensor:
    """Logits of the whole model with the hooks in place."""
    with ExitStack() as stack, torch.no_grad():
        for handle in hooks:
            stack.callback(handle.remove)
        logits: torch.Tensor = pair.raw(**inputs).logits
        return logits


def test_adding_at_the_input_is_editing_the_embeddings(pair: Pair) -> None:
    """Masked models: the output of the embedding module; causal ones: the vectors that stand for the tokens."""
    prompt = values(1)
    assert np.abs(pair.served(Prompt(prompt)) - pair.served(Prompt(0 * prompt))).max() > 1e-2
    change = added(pair.start, torch.tensor(prompt[0, 0]))
    got = pair.served(Prompt(prompt))
    for n, (text,) in enumerate(TEXTS):
        ids = pair.ids(text, with_p0=True)
        if pair.family in MASKED:
            hook = pair.raw.base_model.embeddings.register_forward_hook(lambda *call: change(call[-1]))
            logits = run(pair, [hook], input_ids=ids)
        else:
            logits = run(pair, [], inputs_embeds=change(pair.raw.get_input_embeddings()(ids).detach()))
        np.testing.assert_allclose(got[0, n], pair.read(logits, ids), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("depth", [2, LAYERS])
def test_deep_prompts_are_added_to_what_each_layer_is_given(pair: Pair, depth: int) -> None:
    """By hooks in front of the layers, at the same positions in each."""
    prompt = values(depth, seed=1)
    got = pair.served(Prompt(prompt))
    for n, (text,) in enumerate(TEXTS):
        ids = pair.ids(text, with_p0=True)
        hooks = [
            into_layer(layer, added(pair.start, torch.tensor(prompt[0, at])))
            for at, layer in enumerate(pair.layers[:depth])
        ]
        np.testing.assert_allclose(got[0, n], pair.read(run(pair, hooks, input_ids=ids), ids), atol=1e-5, rtol=1e-5)


def test_prepending_is_concatenating_input_vectors(pair: Pair) -> None:
    """The text keeps its positions in masked models, and is counted after the prompt in causal ones.

    A masked model's embedding module adds positions and a norm, so there its output is what is concatenated to.
    """
    prompt = values(1, seed=2)
    front = torch.tensor(prompt[0])  # (1, tokens, width)
    got = pair.served(Prompt(prompt, "prepend"))
    for n, (text,) in enumerate(TEXTS):
        ids = pair.ids(text, with_p0=False)
        if pair.family in MASKED:
            whole = torch.ones(1, TOKENS + ids.shape[1], dtype=torch.int64)
            with torch.no_grad():
                embedded = torch.cat([front, pair.raw.base_model.embeddings(ids)], dim=1)
            hook = pair.raw.base_model.embeddings.register_forward_hook(lambda *_, given=embedded: given)
            logits = run(pair, [hook], inputs_embeds=torch.zeros_like(embedded), attention_mask=whole)
        else:
            vectors = pair.raw.get_input_embeddings()(ids).detach()
            own = pair.raw.base_model.wpe.weight[:TOKENS].detach() if pair.family == "gpt2" else 0
            logits = run(pair, [], inputs_embeds=torch.cat([front - own, vectors], dim=1))  # gpt2 adds its positions
        np.testing.assert_allclose(got[0, n], pair.read(logits, ids, before=TOKENS), atol=1e-5, rtol=1e-5)


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
        logits = run(pair, [], input_ids=ids, attention_mask=(torch.arange(longest) < lengths).long())
        for n, row in enumerate(rows):
            np.testing.assert_allclose(pair.read(logits[n : n + 1], row), together[0, n], atol=1e-5, rtol=1e-5)


def test_a_zero_prompt_is_p0_alone_and_another_text_than_none(pair: Pair) -> None:
    """Adding nothing leaves the fixed tokens standing; no prompt has none."""
    zero = pair.served(Prompt(np.zeros((1, LAYERS, TOKENS, WIDTH), dtype=np.float32)))
    for n, (text,) in enumerate(TEXTS):
        ids = pair.ids(text, with_p0=True)
        np.testing.assert_allclose(zero[0, n], pair.read(run(pair, [], input_ids=ids), ids), atol=1e-5, rtol=1e-5)
    assert np.abs(zero - pair.served(None)).max() > 1e-3
