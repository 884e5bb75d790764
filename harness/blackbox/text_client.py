"""What the client of a text task asks beside other queries, over a socket (`RemoteTextBlackBox`) or otherwise.

A text task also answers `logits`, for solvers that only need a loss. Then a text has two classes. Class 0 is that the
model says the text's reference, with p the geometric mean of its tokens' probabilities, and class 1 that it does not:
logits are log p and log(1 - p), which are probabilities already. The labels of a text task are all 0, so that the
cross-entropy of these logits is the mean over texts of the negative log-likelihood by token. A solver written for
classification that tunes a prompt by its loss thus tunes it by likelihood.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import numpy as np

from harness.blackbox import wire
from harness.blackbox.client import Asking, RemoteBlackBox, computed
from harness.blackbox.query import OF_NO_WORDS
from harness.blackbox.text_model import Decoding
from harness.blackbox.text_query import TextQuery
from harness.blackbox.weights import soft
from harness.contract import Budget, Coordinates, Generated, Likelihoods
from harness.errors import ProtocolError, QueryError, TextTaskError

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping, Sequence

    import msgspec

    from harness.blackbox.query import Query
    from harness.contract import FloatArray, Mode, ModelInfo, Prompts, Shots, Text, TextTask

_NEVER = 1e-7
"""Smallest probability that a text's reference is not said, so that its logarithm is finite."""


class AskingText(Asking):
    """What a `TextBlackBox` is asked beside other queries. A subclass defines how a query is sent."""

    _text_task: TextTask
    _said: Mapping[Text, str]
    """The references of train and dev as targets, by their texts."""

    def score(
        self, prompts: Prompts | None, texts: Sequence[Text], targets: Sequence[str], template: str | None = None
    ) -> Likelihoods:
        """See `TextBlackBox`."""
        reply = self._score(TextQuery.score(prompts, texts, targets, template))
        return Likelihoods(computed(reply.values, 3), np.array(reply.lengths, dtype=np.int64))

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
        """See `TextBlackBox`."""
        task = self._text_task
        ends = task.stop if stop is None else ((stop,) if isinstance(stop, str) else tuple(stop))
        how = Decoding(
            task.most_tokens if most_tokens is None else int(most_tokens), ends, float(temperature), int(seed)
        )
        reply = self._generate(TextQuery.generate(prompts, texts, template, how), how)
        return Generated(reply.texts, np.array(reply.tokens, dtype=np.int64), reply.cut)

    def logits(
        self,
        prompts: Prompts | None,
        texts: Sequence[Text],
        template: str | None = None,
        words: Sequence[str] | None = None,
        normalize: bool = False,
    ) -> FloatArray:
        """See `BlackBox`; without `words`, those of the two classes of this module: (candidates, texts, 2)."""
        if words is not None:
            return super().logits(prompts, texts, template, words, normalize)
        asked = TextQuery.score(prompts, texts, [""] * len(texts), template).query.texts
        unknown = [text for text in asked if text not in self._said]
        if unknown:
            raise QueryError(
                f"text {unknown[0][0][:60]!r} is neither of train nor of dev, so that no reference of it is known; "
                "ask lm.score with targets, or lm.generate"
            )
        likely = self.score(prompts, texts, [self._said[text] for text in asked], template).means
        p = np.exp(likely)
        return np.stack([likely, np.log(np.maximum(1 - p, _NEVER))], axis=-1).astype(np.float32)

    def _asked(self, query: Query) -> wire.Result:
        """See `Asking`. A text task has no label words that could be meant, so words are named, and ``{mask}``.

        Raises:
            TextTaskError: there are no words.
        """
        if not query.words:
            raise TextTaskError(self._text_task.name, OF_NO_WORDS)
        return super()._asked(query)

    @abstractmethod
    def _score(self, asked: TextQuery) -> wire.Scored:
        """Send a query and return its reply. Afterwards the budget is the one in the reply."""

    @abstractmethod
    def _generate(self, asked: TextQuery, how: Decoding) -> wire.Written:
        """Send a query that is decoded as `how` says, and return its reply; the budget is as after `_score`."""


def said(task: TextTask, shots: Shots) -> dict[Text, str]:
    """The references of train and dev as targets, by their texts."""
    found: dict[Text, str] = {}
    for examples in (shots.dev, shots.train):
        found.update(zip(examples.texts, task.targets(examples), strict=True))
    return found


class RemoteTextBlackBox(AskingText, RemoteBlackBox):
    """A `RemoteBlackBox` of a text task. Targets are sent once and then referred to by number, as texts are."""

    def __init__(self, sock: socket.socket, info: ModelInfo, task: TextTask, budget: Budget, shots: Shots) -> None:
        """Communicate over `sock`. `task` gives what a query leaves out, `shots` the references of their texts."""
        super().__init__(sock, info, task, budget)
        self._text_task, self._targets = task, dict[tuple[str, ...], int]()
        self._said = said(task, shots)

    def _score(self, asked: TextQuery) -> wire.Scored:
        reply = self._ask(wire.Score(*self._packed(asked), self._target_set(asked.targets)))
        if not isinstance(reply, wire.Scored):
            raise ProtocolError(f"unexpected reply {type(reply).__name__} to Score")
        self._budget = Budget(self._budget.rows_total, reply.rows_left, self._budget.train_rows)
        return reply

    def _generate(self, asked: TextQuery, how: Decoding) -> wire.Written:
        frame = wire.Generate(*self._packed(asked), how.most_tokens, how.stop, how.temperature, how.seed)
        reply = self._ask(frame)
        if not isinstance(reply, wire.Written):
            raise ProtocolError(f"unexpected reply {type(reply).__name__} to Generate")
        self._budget = Budget(self._budget.rows_total, reply.rows_left, self._budget.train_rows)
        return reply

    def _packed(
        self, asked: TextQuery
    ) -> tuple[int, str, wire.Array | None, Mode, int | None, wire.WeightsPart | msgspec.UnsetType]:
        query, inner = asked.query, soft(asked.query.prompts)
        prompt, mode = wire.packed(query.prompts)
        space = self._space(inner.space) if isinstance(inner, Coordinates) else None
        template = self._text_task.template if query.template is None else query.template
        return self._text_set(query.texts), template, prompt, mode, space, wire.WeightsPart.of(query.prompts)

    def _target_set(self, targets: tuple[str, ...]) -> int:
        if targets not in self._targets:
            self._ask(wire.Declare(len(self._targets), targets=targets))
            self._targets[targets] = len(self._targets)
        return self._targets[targets]
