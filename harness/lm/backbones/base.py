"""The interface between a query to a language model and the way in which a family of models computes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    import torch

    from harness.contract import Mode
    from harness.lm.backbones.edited import LayerEdit

LONGEST = 512
"""Largest number of tokens of an input, even if the model could take more."""
Kind: TypeAlias = Literal["masked", "causal", "seq2seq"]
"""Where label words are read: at the mask, at the last token, or in the decoder of an encoder-decoder model."""


@dataclass(frozen=True)
class Batch:
    """Some texts under some candidate prompts, padded on the right to one length."""

    ids: torch.Tensor  # (texts, tokens) int64
    positions: torch.Tensor  # (texts, tokens) int64, the model's position ids
    mask: torch.Tensor  # (texts, tokens) bool, True where there is a token
    read: torch.Tensor  # (texts, reads) int64, positions whose final hidden state is read, the label words' first
    prompts: tuple[torch.Tensor, ...] = ()
    """For each prompted layer: (1, prompt tokens, width) if all candidates agree there, else (candidates, ...)."""
    start: int = 0
    """Position of the first prompt token."""
    mode: Mode = "add"
    candidates: int = 1
    decoder: torch.Tensor | None = None
    """(texts, decoder tokens) int64, the decoder's input. The first read is a position in the decoder; the prompts and
    all other reads belong to the encoder."""
    edits: tuple[LayerEdit | None, ...] = ()
    """What candidates change in each layer; empty where nothing is changed."""
    prefix: int = 0
    """How many of the first tokens, which all texts share, may be computed once for all of them. A row's last digits
    then depend on the texts beside it."""


class Backbone(Protocol):
    """Frozen weights that map a `Batch` to hidden states and logits."""

    kind: Kind
    layers: int
    width: int
    bounded: bool
    """Whether `hidden` itself cuts a batch so that its memory is bounded, apart from the result."""
    together: bool
    """Whether `hidden` computes candidates together, and not one after the other."""

    def hidden(self, batch: Batch) -> torch.Tensor:
        """Final hidden states at the read positions, float32 (candidates, texts, reads, width)."""
        ...

    def layer_std(self, batch: Batch) -> list[tuple[float, float]]:
        """Population standard deviation of the input of each layer over all positions that hold a token.

        As it is, and after five rounds of clipping at three standard deviations from the mean (BBTv2's code).
        """
        ...

    def logits(self, hidden: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """LM-head logits of `hidden` (..., width) for the vocabulary ids `words`: float32 (..., words)."""
        ...

    def normalizer(self, hidden: torch.Tensor) -> torch.Tensor:
        """The logarithm of the sum of exp(logit) over the whole vocabulary: (..., width) -> float32 (...)."""
        ...

    def embedding_std(self) -> float:
        """Population standard deviation of all entries of the word-embedding matrix, scaled as the model scales it."""
        ...
