"""Tasks whose answer is text: the task, what a query about text gives, and the black box that takes such queries.

A text task is tuned by the *likelihood* of reference texts, which one forward pass a text gives, and is scored by the
texts that the tuned model writes. Both read the same input, the filled template; what is said after it, reference or
generated text, is called the *output*.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from harness.contract.arrays import FloatArray, IntArray, TextMetric
from harness.contract.black_box import BlackBox

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.contract.arrays import Text
    from harness.contract.tasks import Examples
    from harness.contract.weights import Prompts


@dataclass(frozen=True)
class TextTask:
    r"""A task whose answer is text, for a causal model.

    Args:
        name: of the task.
        metric: what outputs are scored by, against the references of `Examples`.
        template: holds ``{a}``, and for pairs ``{b}``. The output follows right after its end.
        before: what stands between the template and an output, usually a space: it belongs to the output's first token.
        stop: texts that end an output; none of them is part of it. The first one ends a reference, too.
        most_tokens: longest output in tokens. A longer one is cut there.
        fields: text fields of an example, 1 or 2.

    Example:
        ``TextTask("headline", "chrf", "{a}\nHeadline:", most_tokens=24)``
    """

    name: str
    metric: TextMetric
    template: str
    before: str = " "
    stop: tuple[str, ...] = ("\n",)
    most_tokens: int = 32
    fields: int = 1

    @property
    def classes(self) -> tuple[str, ...]:
        """There are none."""
        return ()

    @property
    def words(self) -> tuple[str, ...]:
        """There are no label words."""
        return ()

    def target(self, output: str) -> str:
        r"""An output as the model would write it after the template, its end included.

        Args:
            output: such as a reference.

        Returns:
            What `TextBlackBox.score` takes as a target.

        Example:
            ``task.target("Rain returns")  # " Rain returns\n"``
        """
        return self.before + output + (self.stop[0] if self.stop else "")

    def targets(self, examples: Examples) -> tuple[str, ...]:
        """The first reference of each example as a target.

        Args:
            examples: with references.

        Returns:
            One target for each text.

        Example:
            ``lm.score(prompts, train.texts, task.targets(train))``
        """
        return tuple(self.target(each[0]) for each in examples.references)

    def output(self, written: str) -> str:
        r"""The output in what a model wrote: up to the first stop, without spaces around it.

        Args:
            written: as `TextBlackBox.generate` gives it.

        Returns:
            What the metric compares with the references.

        Example:
            ``task.output(" Rain returns\nAnd")  # "Rain returns"``
        """
        found = [written.find(stop) for stop in self.stop if stop in written]
        return written[: min(found, default=len(written))].strip()


@dataclass(frozen=True)
class Likelihoods:
    """Log-likelihoods of targets, token by token.

    Args:
        values: (candidates, texts, tokens), in nats; 0 after a target's end.
        lengths: (texts,), tokens of each target.

    Example:
        ``lm.score(prompts, texts, targets).losses().argmin()`` is the candidate under which targets are likeliest.
    """

    values: FloatArray  # (candidates, texts, tokens)
    lengths: IntArray  # (texts,)

    @property
    def totals(self) -> npt.NDArray[np.float64]:
        """Log-likelihood of each target: (candidates, texts)."""
        return np.asarray(self.values.sum(axis=-1, dtype=np.float64))

    @property
    def means(self) -> npt.NDArray[np.float64]:
        """Log-likelihood of each target by token: (candidates, texts)."""
        return self.totals / self.lengths

    def losses(self) -> npt.NDArray[np.float64]:
        """Cross-entropy by token, over all tokens of all targets: the logarithm of the perplexity.

        Returns:
            (candidates,), in nats.

        Example:
            ``losses = lm.score(space.at(zs), train.texts, task.targets(train)).losses()``
        """
        return np.asarray(-self.totals.sum(axis=-1) / self.lengths.sum())


@dataclass(frozen=True)
class Generated:
    """What the model wrote.

    Args:
        texts: of each candidate what it wrote after each text: as it is, with the stop where there was one.
        tokens: (candidates, texts), tokens written, the stop included.
        cut: whether the budget ended before all was written. What had been written until then was charged and is here.

    Example:
        ``[task.output(text) for text in lm.generate(None, shots.dev.texts).texts[0]]`` are the outputs of the bare
        template.
    """

    texts: tuple[tuple[str, ...], ...]
    tokens: IntArray  # (candidates, texts)
    cut: bool = False


class TextBlackBox(BlackBox, Protocol):
    """The language model of a text task: it also gives the likelihood of texts, and writes."""

    def score(
        self, prompts: Prompts | None, texts: Sequence[Text], targets: Sequence[str], template: str | None = None
    ) -> Likelihoods:
        """Log-likelihood of given continuations, by token, in one forward pass.

        A text costs as many rows as its own tokens and its target's fill, for each candidate; at least one.

        Args:
            prompts: candidates, soft prompts or changes of weights; None forwards the bare template (one candidate).
            texts: examples, each a tuple of its text fields.
            targets: of each text what follows it, verbatim; see `TextTask.targets`.
            template: as `TextTask.template`; None is the task's.

        Returns:
            Log-likelihoods (candidates, texts, tokens).

        Raises:
            BudgetExhausted: the query costs more rows than are left. Nothing was charged.
            QueryError: the query is malformed. Nothing was charged.

        Example:
            ``losses = lm.score(space.at(zs), train.texts, task.targets(train)).losses()``
        """
        ...

    def generate(
        self,
        prompts: Prompts | None,
        texts: Sequence[Text],
        template: str | None = None,
        most_tokens: int | None = None,
        stop: Sequence[str] | None = None,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Generated:
        """Let the model write, token by token, until a stop, the end of text, or the limit.

        A text costs as many rows as its own tokens and those written fill, for each candidate; at least one. Rows are
        charged while it writes. Where the next one does not fit into the budget, all writing ends there (`cut`).

        Args:
            prompts: candidates, soft prompts or changes of weights; None is the bare template (one candidate).
            texts: examples, each a tuple of its text fields.
            template: as `TextTask.template`; None is the task's.
            most_tokens: longest output; None is the task's.
            stop: texts that end an output; None are the task's.
            temperature: 0 takes the most likely token each time; above it, tokens are drawn from
                ``softmax(logits / temperature)``.
            seed: of the draws; the same query with the same seed gives the same texts.

        Returns:
            What was written; `TextTask.output` takes the output out of it.

        Raises:
            BudgetExhausted: not even the reading of the texts fits into what is left. Nothing was charged.
            QueryError: the query is malformed. Nothing was charged.

        Example:
            ``written = lm.generate(space.at(z), dev.texts).texts[0]``
        """
        ...
