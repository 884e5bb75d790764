"""The interface of a language model that the black box needs. `harness.lm.model.LanguageModel` implements it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.contract import FeatureKind, FloatArray, IntArray, Mode, Prompts, Text, WeightSpace


@dataclass(frozen=True)
class Forwarded:
    """The result of a forward pass."""

    logits: FloatArray  # (candidates, texts, words)
    features: FloatArray | None  # (candidates, texts, width); for all tokens (candidates, texts, tokens, width)
    lengths: IntArray | None  # (texts,) number of tokens, given with the features of all tokens


class Shape(Protocol):
    """The size of the part that computes hidden states."""

    layers: int
    width: int


class Model(Protocol):
    """A language model that answers forward passes."""

    max_tokens: int
    """Longest input in tokens, prompt included."""

    @property
    def backbone(self) -> Shape:
        """The model's layers and width."""
        ...

    @property
    def prompt_tokens(self) -> int:
        """Largest number of prompt tokens in a query."""
        ...

    @property
    def words(self) -> tuple[str, ...]:
        """The word of each token id; "" if a query cannot ask for the token."""
        ...

    def word_ids(self, words: Sequence[str]) -> list[list[int]]:
        """Token ids of each word, verbatim."""
        ...

    def single_ids(self, words: Sequence[str]) -> tuple[int, ...]:
        """One id for each label word.

        Raises:
            QueryError: a word is not a single token.
        """
        ...

    def check(self, prompts: Prompts | None) -> None:
        """Refuse prompts of a wrong shape before they are charged.

        Raises:
            QueryError: the shape is wrong. The message gives the shape found and the one expected.
        """
        ...

    def weight_count(self, space: WeightSpace) -> int:
        """How many parameters a space of weights changes.

        Raises:
            QueryError: candidates cannot change them here. The message says why.
        """
        ...

    def check_features(self, features: FeatureKind | None) -> None:
        """Refuse hidden states that the model does not give, before they are charged.

        Raises:
            QueryError: they cannot be had.
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
        """Logits and the features asked for. With `normalize`, log-probabilities among the whole vocabulary."""
        ...
