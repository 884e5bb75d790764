"""Soft prompts at the input of a served model: a server that takes embeddings gets those of the tokens with the prompt.

Only vLLM takes them (``prompt_embeds``, with ``--enable-prompt-embeds``). The embeddings are looked up here, so the
weights of the served model must be on this machine, too; only their embedding table is kept. A server has nothing to
put a prompt into a deeper layer.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from harness.lm.load import load_model
from harness.lm.prompts import check_prompts, prompt_layers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.contract import Mode, SoftPrompts
    from harness.tracks.track import ModelSpec, PromptSpec


@dataclass(frozen=True)
class SoftInputs:
    """The embeddings of the tokens, and where a prompt stands among them."""

    table: torch.Tensor  # (vocabulary, width), float32
    p0: tuple[int, ...]
    """The tokens whose embeddings an added prompt is added to."""
    start: int
    """Place of an added prompt: after the start token, if the tokenizer writes one."""

    @classmethod
    def of(cls, spec: ModelSpec, prompt: PromptSpec) -> SoftInputs:
        """Read the embeddings from the weights on this machine.

        Raises:
            ModelError: the weights are not here.
        """
        model = load_model(spec, prompt)
        table = model.weights().get_input_embeddings().weight.detach().float().clone()
        first = model.tokenizer("a")["input_ids"][0]
        p0 = tuple(range(prompt.first_id, prompt.first_id + prompt.tokens))
        return cls(table, p0, int(first == model.tokenizer.bos_token_id))

    @property
    def width(self) -> int:
        """Of an embedding."""
        return int(self.table.shape[1])

    def check(self, prompts: SoftPrompts) -> None:
        """Refuse prompts of a wrong shape, or for more than the input.

        Raises:
            QueryError: with the shapes.
        """
        check_prompts(prompts, 1, self.width, len(self.p0))

    def candidates(self, prompts: SoftPrompts) -> list[torch.Tensor]:
        """The values of each candidate, (tokens, width)."""
        (values,) = prompt_layers(prompts, self.width)
        return list(values.expand(len(prompts), *values.shape[1:]))

    def inputs(self, ids: Sequence[int], values: torch.Tensor | None, mode: Mode) -> bytes:
        """The embeddings of a text with a prompt, as a server takes them: a tensor as torch saves it."""
        text = self.table[list(ids)]
        if values is not None and mode == "prepend":
            text = torch.cat([values, text])
        elif values is not None:
            added = self.table[list(self.p0[: len(values)])] + values
            text = torch.cat([text[: self.start], added, text[self.start :]])
        stream = io.BytesIO()
        torch.save(text.contiguous().clone(), stream)
        return stream.getvalue()

    def widths(self, texts: Sequence[Sequence[int]]) -> tuple[float, float]:
        """Standard deviations of all embeddings, and of the inputs of some texts with p0 in them."""
        rows = [self.table[[*self.p0, *ids]].numpy() for ids in texts]
        return float(self.table.std()), float(np.concatenate(rows).std())
