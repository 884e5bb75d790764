"""The seam between what is asked of a language model and how a family of models computes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    import torch

    from harness.contract import Mode

Kind: TypeAlias = Literal["masked", "causal", "seq2seq"]
"""Label words are read at the mask, at the last token, or in the decoder of an encoder-decoder model."""


@dataclass(frozen=True)
class Batch:
    """Some texts under some candidate prompts, padded on the right to one length."""

    ids: torch.Tensor  # (texts, tokens) int64
    positions: torch.Tensor  # (texts, tokens) int64, position ids as the model counts them
    mask: torch.Tensor  # (texts, tokens) bool, True where there is a token
    read: torch.Tensor  # (texts, reads) int64, positions whose final hidden state is wanted, label words' first
    prompts: tuple[torch.Tensor, ...] = ()
    """Per prompted layer: (1, prompt tokens, width) if all candidates agree there, else (candidates, ...)."""
    start: int = 0
    """Position of the first prompt token."""
    mode: Mode = "add"
    candidates: int = 1
    decoder: torch.Tensor | None = None
    """(texts, decoder tokens) int64, what the decoder is given; the first read is a position in it. The prompts, and
    all other reads, are the encoder's."""


class Backbone(Protocol):
    """Frozen weights that map a `Batch` to hidden states and logits."""

    kind: Kind
    layers: int
    width: int
    bounded: bool
    """Whether `hidden` cuts a batch itself so that its memory stays bounded, up to what it returns."""
    together: bool
    """Whether `hidden` computes candidates together; else one after the other."""

    def hidden(self, batch: Batch) -> torch.Tensor:
        """Final hidden states at the read positions, float32 (candidates, texts, reads, width)."""
        ...

    def layer_std(self, batch: Batch) -> list[tuple[float, float]]:
        """Population standard deviation of the input of each layer over all positions that hold a token.

        As it is, and after five rounds of clipping at three standard deviations from the mean (BBTv2's code).
        """
        ...

    def logits(self, hidden: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """LM head of `hidden` (..., width) at vocabulary ids `words`: float32 (..., words)."""
        ...

    def normalizer(self, hidden: torch.Tensor) -> torch.Tensor:
        """Log of the sum of exp(logit) over the whole vocabulary: (..., width) -> float32 (...)."""
        ...

    def embedding_std(self) -> float:
        """Population standard deviation of all entries of the word-embedding matrix."""
        ...
