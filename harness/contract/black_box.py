"""The language model as a submission meets it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.contract.arrays import FeatureKind, FloatArray, Text
    from harness.contract.prompts import Outputs
    from harness.contract.tasks import Budget, ModelInfo
    from harness.contract.weights import Prompts


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
        """Token ids of each word as it would stand at the mask. Free.

        Args:
            words: used exactly as they are, leading spaces included.

        Returns:
            The ids of each word; a label word must have exactly one.

        Example:
            ``[word for word, ids in zip(words, lm.word_ids(words)) if len(ids) == 1]``
        """
        ...

    def vocabulary(self) -> tuple[str, ...]:
        """Every word that can be a label word. Free.

        Returns:
            Element i is the word of token id i. It is "" if a query cannot ask for that token.

        Example:
            ``words = [word for word in lm.vocabulary() if word]``
        """
        ...

    def log(self, **numbers: float) -> None:
        """Keep numbers of the search beside the run, such as the loss of a generation. Free.

        They are kept with the rows spent so far, so that convergence can be drawn; nothing is scored by them.

        Args:
            **numbers: finite numbers by name, at most 16; the convergence curves of the report show ``loss`` (the
                generation's best), ``sigma`` (the step size) and ``condition`` (the covariance's condition number).

        Raises:
            QueryError: too many numbers, or a name or number that cannot be kept.

        Example:
            ``lm.log(loss=losses.min(), **search.state)``
        """
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

        Args:
            prompts: candidates, as soft prompts, as changes of weights (`WeightSpace`), or both; None forwards the bare
                template (one candidate).
            texts: examples, each a tuple of its text fields.
            template: cloze with ``{a}``, for pairs ``{b}``, and ``{mask}``; None is the task's.
            words: label words; None are the task's.
            normalize: give log-probabilities among the whole vocabulary, not only among `words`.

        Returns:
            Logits, float32 (candidates, texts, words).

        Raises:
            BudgetExhausted: the query costs more rows than are left. Nothing was charged.
            QueryError: the query is malformed. Nothing was charged.

        Example:
            ``losses = cross_entropy(lm.logits(space.at(zs), shots.train.texts), shots.train.labels)``
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
        """Logits and final hidden states. The price and the errors are those of `logits`.

        Args:
            prompts: as in `logits`; so are `texts`, `template`, `words` and `normalize`.
            texts: examples.
            template: cloze.
            words: label words.
            features: which states: at the ``mask``, at the first token (``cls``), or at ``all`` tokens.
            normalize: whether logits are log-probabilities.

        Returns:
            Logits (candidates, texts, words) and features (candidates, texts, width). The features of all tokens are
            (candidates, texts, tokens, width), with the lengths of the texts.

        Raises:
            BudgetExhausted: the query costs more rows than are left. Nothing was charged.
            QueryError: the query is malformed. Nothing was charged.

        Example:
            ``states = lm.outputs(None, shots.train.texts, features="cls").features[0]``
        """
        ...
