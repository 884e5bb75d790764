"""The interface of a language model that writes. `harness.lm.generation.Generation` implements it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.contract import Generated, Likelihoods, Mode, Prompts, Text


@dataclass(frozen=True)
class Decoding:
    """How texts are written."""

    most_tokens: int
    """Longest output."""
    stop: tuple[str, ...] = ()
    """Texts that end an output."""
    temperature: float = 0.0
    """0 takes the most likely token each time."""
    seed: int = 0


class Encoded(Protocol):
    """Texts under one template, tokenised once."""

    def __len__(self) -> int:
        """Count the texts."""
        ...

    @property
    def tokens(self) -> int:
        """Tokens of all texts with their template."""
        ...

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Of each text, its own tokens and those of the template."""
        ...


class TextModel(Protocol):
    """What a text task needs of a language model."""

    @property
    def soft(self) -> bool:
        """Whether it takes soft prompts."""
        ...

    @property
    def scores(self) -> bool:
        """Whether it tells how likely a given text is."""
        ...

    def encode(self, template: str, texts: tuple[Text, ...], mode: Mode | None, room: int) -> Any:
        """The texts under a template (`Encoded`), cut so that a prompt and `room` more tokens have room beside them.

        Raises:
            QueryError: the template is malformed, or does not fit.
        """
        ...

    def target_ids(self, targets: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        """Token ids of each target, verbatim.

        Raises:
            QueryError: a target has no token.
        """
        ...

    def score(self, prompts: Prompts | None, texts: Any, targets: Sequence[tuple[int, ...]]) -> Likelihoods:
        """Log-likelihood of the targets, token by token."""
        ...

    def generate(
        self, prompts: Prompts | None, texts: Any, how: Decoding, go_on: Callable[[Sequence[int]], bool]
    ) -> Generated:
        """Write after each text.

        `go_on` is asked before each step, with the numbers of the sequences (``candidate * texts + text``) that would
        get one more token each. Where it says no, writing ends.
        """
        ...


@runtime_checkable
class Writes(Protocol):
    """A language model that has a text model of its own, such as one on a server."""

    def text_model(self) -> TextModel:
        """What a text task needs of it.

        Raises:
            ModelError: it does not write, or does not say how likely texts are. The message says why.
        """
        ...
