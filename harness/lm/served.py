"""What the referee needs of a language model, whether it is computed in this process or by a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

from harness.blackbox.model import Model

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from harness.contract import FeatureKind, ModelInfo, Outputs, Prompts, Text
    from harness.lm.endpoint.requests import Traffic


class Served(Model, Protocol):
    """A model with which cells are run: `LanguageModel` or `EndpointModel`."""

    name: str
    sha256: str
    """Digest of what computes: of the weights, or of what a server says of itself."""
    tokenizer: Any

    @property
    def kind(self) -> Literal["masked", "causal", "seq2seq"]:
        """Where label words are read."""
        ...

    @property
    def lacks(self) -> str:
        """What a submission cannot have of this model; empty where it has everything."""
        ...

    @property
    def traffic(self) -> Traffic | None:
        """What this thread has exchanged with the model's server so far; None where there is no server."""
        ...

    @property
    def format(self) -> str:
        """The number format; ``served`` where a server chose it."""
        ...

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        """The device of this process."""
        ...

    def info(self, texts: Sequence[Text], template: str) -> ModelInfo:
        """What is published about the model."""
        ...

    def serving(self) -> AbstractContextManager[None]:
        """Serve one cell."""
        ...

    def cut_at(self, tokens: int) -> Self:
        """The same model, with texts cut so that no input is longer."""
        ...

    def outputs(
        self, prompts: Prompts | None, texts: Sequence[Text], template: str, words: Sequence[str], features: FeatureKind
    ) -> Outputs:
        """Logits and features, without a meter."""
        ...
