"""What a submission is given: the task, its few-shot examples, the published facts about the model, and the budget."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from harness.contract.arrays import IntArray, Metric, Text, WeightGroup, WidthFrom
from harness.errors import NoWeightsError


@dataclass(frozen=True)
class Task:
    """A classification task as a cloze.

    `template` holds ``{a}`` (first text), for pairs ``{b}`` (second text), and ``{mask}``. For a causal model the
    template ends with ``{mask}``, and the logits are those of the next token.
    """

    name: str
    classes: tuple[str, ...]
    """Class names, in the label order of the original data set: label k is `classes[k]`."""
    metric: Metric
    template: str
    words: tuple[str, ...]
    """One label word (verbalizer) per class, in class order. Each must be a single token of the model."""
    fields: int = 1
    """Text fields per example: 1 or 2."""


@dataclass(frozen=True)
class Examples:
    """Texts with their labels."""

    texts: tuple[Text, ...]
    labels: IntArray  # (texts,); all 0 where a task's answers are texts
    references: tuple[tuple[str, ...], ...] = ()
    """Of each text the answers that are right, at least one, where a task's answers are texts; else empty."""

    def __len__(self) -> int:
        """Count the examples."""
        return len(self.texts)


@dataclass(frozen=True)
class Shots:
    """The few-shot data of one split. A row of either set costs the same."""

    train: Examples
    dev: Examples


@dataclass(frozen=True)
class WeightFacts:
    """What is published about one group of the model's parameters in one layer."""

    group: WeightGroup
    layer: int
    """Number of the layer, from 0; -1 is the whole model, with group ``all``."""
    parameters: int
    rms: float
    """Root mean square of the parameters."""


@dataclass(frozen=True)
class ModelInfo:
    """What is published about the language model. Reading it is free."""

    name: str
    kind: Literal["masked", "causal", "seq2seq"]
    """Where label words are read: at the mask, after the last token, or (encoder-decoder) in the decoder, where the
    next token fills the mask. In an encoder-decoder model, prompts, layers and all features but those at the mask are
    the encoder's."""
    layers: int
    width: int
    vocabulary: int
    max_tokens: int
    """Longest input in tokens, prompt included. Longer texts are cut; the template is never cut."""
    prompt_tokens: int
    """Largest number of prompt tokens that a query may use, which is also the usual number."""
    embedding_std: float
    """Standard deviation of all entries of the word embeddings (sigma-hat)."""
    hidden_std: tuple[float, ...]
    """(layers,) standard deviation of the input of each layer: at the zero prompt, on the training
    texts, over all positions that hold a token."""
    hidden_std_clipped: tuple[float, ...] = ()
    """(layers,) the same after five rounds of clipping at three standard deviations from the mean, as BBTv2's code
    measures the widths of deep prompts; empty where a service of an older version does not say."""

    weights: tuple[WeightFacts, ...] = ()
    """The groups of weights that candidates can change, by layer; empty where they cannot, as on an endpoint."""

    def weight_count(self, group: WeightGroup, layers: tuple[int, ...] = ()) -> int:
        """How many parameters a group has.

        Args:
            group: ``biases``, ``norms``, ``attention``, ``feed_forward`` or ``all``.
            layers: numbers of the layers; none means all.

        Returns:
            The number of parameters that a candidate can change.

        Raises:
            NoWeightsError: nothing is published about the group in these layers. It is a `ValueError`.

        Example:
            ``lm.info.weight_count("biases", (3, 4, 5))``
        """
        return sum(facts.parameters for facts in self._facts(group, layers))

    def weight_rms(self, group: WeightGroup, layers: tuple[int, ...] = ()) -> float:
        """Root mean square of the parameters of a group, in which the width of changes may be measured.

        Args:
            group: as in `weight_count`.
            layers: numbers of the layers; none means all.

        Returns:
            The root mean square, over all layers together.

        Raises:
            NoWeightsError: nothing is published about the group in these layers. It is a `ValueError`.

        Example:
            ``WeightSpace("norms", 50, 0.1 * lm.info.weight_rms("norms"), seed=1)``
        """
        found = self._facts(group, layers)
        squares = sum(facts.parameters * facts.rms**2 for facts in found)
        return math.sqrt(squares / sum(facts.parameters for facts in found))

    def _facts(self, group: WeightGroup, layers: tuple[int, ...]) -> list[WeightFacts]:
        wanted = layers or ((-1,) if group == "all" else tuple(range(self.layers)))
        found = [facts for facts in self.weights if facts.group == group and facts.layer in wanted]
        if len(found) < len(wanted) or not any(facts.parameters for facts in found):
            others = {facts.group for facts in self.weights if facts.parameters and facts.layer in (*wanted, -1)}
            raise NoWeightsError(
                f"{self.name}: no weights of group {group!r} are published for layers "
                f"{', '.join(map(str, layers)) or 'all'}. Take {' or '.join(sorted(others)) or 'soft prompts'}, or "
                "another model"
            )
        return found

    def widths(self, width_from: WidthFrom = "hidden") -> tuple[float, ...]:
        """What the width of each layer's prompts may be measured in.

        Args:
            width_from: ``hidden`` is the standard deviation of each layer's input (this project's choice);
                ``embedding`` that of the word embeddings at the input, and above it that of each layer's input, clipped
                (the published codes of BBT and BBTv2); ``unit`` is 1 (for their uniform projection).

        Returns:
            (layers,), all positive.

        Raises:
            ValueError: a service of an older version does not publish the clipped widths.

        Example:
            ``Subspace(500, (lm.info.widths("embedding")[0],), lm.info.prompt_tokens, seed=1)``
        """
        if width_from == "unit":
            return (1.0,) * self.layers
        if width_from == "hidden":
            return self.hidden_std
        if self.layers > 1 and len(self.hidden_std_clipped) != self.layers:
            raise ValueError(f"{self.name}: no clipped widths are published here; take width_from='hidden'")
        return (self.embedding_std, *self.hidden_std_clipped[1:])


@dataclass(frozen=True)
class Budget:
    """What may be spent and what is left."""

    rows_total: int
    rows_left: int
    train_rows: int
    """Rows of one call, which is the size of the training set."""

    @property
    def calls_total(self) -> float:
        """Budget in calls."""
        return self.rows_total / self.train_rows

    @property
    def calls_left(self) -> float:
        """Calls left. The number may be fractional, because queries on dev are charged by the row, too."""
        return self.rows_left / self.train_rows
