"""The language model as a submission meets it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.contract.arrays import FeatureKind, FloatArray, Text
    from harness.contract.prompts import Outputs, Prompts
    from harness.contract.tasks import Budget, ModelInfo


class BlackBox(Protocol):
    """The language model as a service: forward passes and nothing else."""

    @property
    def info(self) -> ModelInfo:
        """What is published about the model. Free."""
        ...

    @property
    def budget(self) -> Budget:
        """What is left. Free."""
        ...

    def word_ids(self, words: Sequence[str]) -> list[list[int]]:
        """Token ids of each word as it would stand at the mask; a label word must have exactly one. Free."""
        ...

    def vocabulary(self) -> tuple[str, ...]:
        """Every label word there is: element i is the word of token id i, "" where a query cannot ask for it. Free."""
        ...

    def logits(
        self,
        prompts: Prompts | None,
        texts: Sequence[Text],
        template: str | None = None,
        words: Sequence[str] | None = None,
        normalize: bool = False,
    ) -> FloatArray:
        """Label-word logits, float32 (candidates, texts, words). Costs candidates * texts rows.

        `prompts` None forwards the bare template (one candidate). `template` and `words` default to the task's. With
        `normalize` they are log-probabilities among the whole vocabulary: what softmax over `words` cannot tell.

        Raises:
            BudgetExhausted: the query does not fit into what is left; nothing was charged.
            QueryError: the query is malformed; nothing was charged.
        """
        ...

    def outputs(
        self,
        prompts: Prompts | None,
        texts: Sequence[Text],
        template: str | None = None,
        words: Sequence[str] | None = None,
        features: FeatureKind = "mask",
        normalize: bool = False,
    ) -> Outputs:
        """Logits, and final hidden states: at the mask, at the first token, or at all. Same price, same errors."""
        ...
