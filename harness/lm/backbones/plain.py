"""Any supported transformers model, computed by its own forward method with a hook on every layer.

This is the plain path. It keeps padding and computes every layer at every position, so it is exact by construction. It
serves the families without a faster path, and tests compare `encoder.py`, `decoder.py` and `onnx.py` with it.
"""

from __future__ import annotations

import contextlib
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from harness.lm.backbones import families
from harness.lm.backbones.linear import AsLoaded, Linear, in_blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from harness.lm.backbones.base import Batch, Kind

_ROWS_AT_ONCE = 256
"""Rows for which all logits are held at once."""
_CLIPPINGS, _CLIPPED_AT = 5, 3.0
"""How often, and at how many standard deviations from the mean, BBTv2's code clips a layer's input."""


class PlainBackbone:
    """A transformers `*ForMaskedLM`, `*ForCausalLM` or `*ForConditionalGeneration` of a family in `families.py`."""

    bounded = together = False
    changeable = True
    """Whether changes of the model's weights change what is computed."""
    takes_edits = False
    """Whether `Batch.edits` are computed here."""
    _lay_out: Callable[[Any, type[Linear]], Any] | None = None
    """From a layer of the model and a kind of product to its weights in `layout`."""
    _block: int | None = None
    """Rows per block of equal size, if the numbers of a row must not depend on the other rows; else None."""

    def __init__(self, model: Any, zero_head_bias: bool = False) -> None:
        """Take the model as it is, in evaluation mode and frozen."""
        self.kind: Kind = families.kind(model.config)
        self._model = model.eval().requires_grad_(requires_grad=False)
        self._output = families.output(model)  # (vocabulary, width)
        self._bias = None if zero_head_bias else families.head_bias(model)
        self.layers = len(families.layers(model))
        self.layout: list[Any] = []
        """The layers' weights as they are computed from; empty where the model itself is run."""
        self._same_head = True
        self.width = int(model.config.hidden_size)

    def laid_out_anew(self, depths: Collection[int], often: bool = False) -> list[Any]:
        """The layout in which layers at these depths have the model's weights as they are now.

        With `often`, they are laid out for the processor, which takes as long as a few hundred rows and pays for more.
        """
        if self._lay_out is None:
            return self.layout
        blocks = families.layers(self._model)
        return [
            self._lay_out(blocks[depth], Linear if often else AsLoaded) if depth in depths else layer
            for depth, layer in enumerate(self.layout)
        ]

    @contextlib.contextmanager
    def laid_out(self, layout: list[Any], same_head: bool = True) -> Iterator[None]:
        """Within the block, layers are computed from this layout of their weights.

        Without `same_head`, the output embeddings may have changed, and are taken from the model as it is now.
        """
        kept, self.layout, self._same_head = (self.layout, self._same_head), layout, same_head
        try:
            yield
        finally:
            self.layout, self._same_head = kept

    def hidden(self, batch: Batch) -> torch.Tensor:
        """See `Backbone`."""
        rows = [
            self._run(batch, [layer[min(c, len(layer) - 1)] for layer in batch.prompts])
            for c in range(batch.candidates)
        ]
        return torch.stack(rows)

    def layer_std(self, batch: Batch) -> list[tuple[float, float]]:
        """See `Backbone`."""
        seen: list[tuple[float, float]] = []
        self._run(batch, [layer[0] for layer in batch.prompts], lambda x: seen.append(_spread(x[batch.mask].float())))
        return seen

    def logits(self, hidden: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """See `Backbone`."""
        head = self._head(words)
        with torch.inference_mode():
            flat = hidden.reshape(-1, self.width)
            return in_blocks(head, len(words), self._block, flat).view(*hidden.shape[:-1], -1)

    def normalizer(self, hidden: torch.Tensor) -> torch.Tensor:
        """See `Backbone`."""
        head, size = self._head(None), len(self._output)
        with torch.inference_mode():
            flat = hidden.reshape(-1, self.width)
            some = (in_blocks(head, size, self._block, rows) for rows in torch.split(flat, _ROWS_AT_ONCE))
            return torch.cat([logits.logsumexp(dim=-1) for logits in some]).reshape(hidden.shape[:-1])

    def next_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits of the whole vocabulary: (rows, width) -> float32 (rows, vocabulary)."""
        with torch.inference_mode():
            return in_blocks(self._head(None), len(self._output), self._block, hidden)

    def log_likelihood(self, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Log-probability of each row's token: (rows, width), (rows,) int64 -> float32 (rows,)."""
        found = []
        for rows, ids in zip(torch.split(hidden, _ROWS_AT_ONCE), torch.split(targets, _ROWS_AT_ONCE), strict=True):
            logits = self.next_logits(rows)
            found.append(logits.gather(1, ids[:, None])[:, 0] - logits.logsumexp(dim=-1))
        return torch.cat(found)

    @cached_property
    def _laid_out_head(self) -> Linear:
        """The product with the output embeddings of all words; they are laid out once."""
        return Linear(self._output, self._bias)

    def _head(self, words: torch.Tensor | None) -> Callable[[torch.Tensor], torch.Tensor]:
        """The function from states (rows, width) to float32 logits of `words` (rows, words), or of all words.

        It converts the matrix once.
        """
        product: Callable[[torch.Tensor], torch.Tensor]
        if words is None and self._same_head and self._output.dtype is torch.float32:
            product = self._laid_out_head
        else:
            at = slice(None) if words is None else words
            output, bias = self._output[at].float(), None if self._bias is None else self._bias[at].float()

            def product(h: torch.Tensor) -> torch.Tensor:
                return h @ output.T if bias is None else h @ output.T + bias

        def head(rows: torch.Tensor) -> torch.Tensor:
            h = families.transform(self._model, rows.to(self._output.dtype)).float()
            return families.finish(self._model.config, product(h))

        return head

    def embedding_std(self) -> float:
        """See `Backbone`."""
        std = float(self._model.get_input_embeddings().weight.float().std(correction=0))
        return std * families.embedding_scale(self._model)

    def _run(
        self, batch: Batch, prompts: list[torch.Tensor], watch: Callable[[torch.Tensor], None] | None = None
    ) -> torch.Tensor:
        """Final hidden states of one candidate at the read positions: float32 (texts, reads, width)."""

        def edit(depth: int, x: torch.Tensor) -> torch.Tensor:
            if depth < len(prompts):
                x = x.clone()
                span = slice(batch.start, batch.start + prompts[depth].shape[0])
                value = prompts[depth].to(x.dtype)
                x[:, span] = value if batch.mode == "prepend" and depth == 0 else x[:, span] + value
            if watch:
                watch(x)
            return x

        handles = families.edit_inputs(self._model, edit)
        try:
            with torch.inference_mode():
                return families.states(self._model, batch).float()
        finally:
            for handle in handles:
                handle.remove()


def _spread(x: torch.Tensor) -> tuple[float, float]:
    """Population standard deviation of all entries, as they are and clipped at three of them five times over."""
    std = float(x.std(correction=0))
    for _ in range(_CLIPPINGS):
        mean, width = float(x.mean()), float(x.std(correction=0))
        x = x.clamp(mean - _CLIPPED_AT * width, mean + _CLIPPED_AT * width)
    return std, float(x.std(correction=0))
