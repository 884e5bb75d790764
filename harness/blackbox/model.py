"""What the black box needs of a language model; `harness.lm.model.LanguageModel` is the real one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.contract import FeatureKind, FloatArray, IntArray, Mode, Prompts, Text


@dataclass(frozen=True)
class Forwarded:
    """What came of a forward pass."""

    logits: FloatArray  # (candidates, texts, words)
    features: FloatArray | None  # (candidates, texts, width), or of all tokens (candidates, texts, tokens, width)
    lengths: IntArray | None  # (texts,) tokens, with the features of all tokens


class Shape(Protocol):
    """The size of what computes hidden states."""

    layers: int
    width: int


class Model(Protocol):
    """A language model that answers forward passes."""

    max_tokens: int
    """Longest input, prompt included."""

    @property
    def backbone(self) -> Shape:
        """Its layers and width."""
        ...

    @property
    def prompt_tokens(self) -> int:
        """Most prompt tokens of a query."""
        ...

    @property
    def words(self) -> tuple[str, ...]:
        """Word of each token id, "" where it is none."""
        ...

    def word_ids(self, words: Sequence[str]) -> list[list[int]]:
        """Token ids of each word, verbatim."""
        ...

    def single_ids(self, words: Sequence[str]) -> tuple[int, ...]:
        """One id per label word.

        Raises:
            QueryError: a word is not a single token.
        """
        ...

    def check(self, prompts: Prompts | None) -> None:
        """Refuse prompts of a wrong shape before they are charged.

        Raises:
            QueryError: with the shape found and the shape expected.
        """
        ...

    def text_set(self, template: str, texts: tuple[Text, ...], mode: Mode | None = "add") -> Any:
        """The texts under a template, tokenised once: what `forward` takes.

        Its `tokens` is their number; its `sizes` are, of each text, its own tokens and those of the template. Texts are
        cut so that a prompt has room beside them; a query without one, `mode` None, takes them longer.
        """
        ...

    def forward(
        self,
        prompts: Prompts | None,
        texts: Any,
        words: Sequence[int],
        features: FeatureKind | None = None,
        normalize: bool = False,
    ) -> Forwarded:
        """Logits, with `normalize` log-probabilities among the whole vocabulary, and the features asked for."""
        ...
