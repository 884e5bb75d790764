"""A served model as text tasks use it: what a given text has for a likelihood there, and what the server writes.

A server writes a whole output in one request. Its tokens are then counted here, one step after the other over all
texts, as a model in this process writes them; so a query costs the same rows, and where the budget ends, so do the
outputs. What the server has written beyond that is not given to anybody.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.blackbox.checkpoints import checkpoint
from harness.contract import Generated, Likelihoods
from harness.errors import QueryError
from harness.lm.endpoint.requests import Traffic
from harness.lm.text import VERBATIM, Vocabulary, continued

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.blackbox.text_model import Decoding
    from harness.contract import Mode, SoftPrompts, Text
    from harness.lm.endpoint.requests import Endpoint
    from harness.lm.endpoint.text_probe import TextFound
    from harness.lm.endpoint.text_ways import Wrote
    from harness.lm.endpoint.ways import Said
    from harness.lm.text import TextSet


@dataclass(frozen=True)
class _Output:
    """What was written after one text."""

    text: str
    ids: tuple[int, ...]
    ended: bool
    """Whether one more token ended it, which is not in the text."""

    @property
    def tokens(self) -> int:
        return len(self.ids) + self.ended


class EndpointWriter:
    """A served model that writes; implements `harness.blackbox.text_model.TextModel`."""

    soft = False

    def __init__(
        self,
        name: str,
        endpoint: Endpoint,
        found: TextFound,
        tokenizer: Any,
        max_tokens: int,
        said: Callable[[Sequence[int]], Said],
    ) -> None:
        """Ask a server.

        Args:
            name: of the model.
            endpoint: the connection.
            found: the ways that the server gives.
            tokenizer: of the model, with which everything is counted.
            max_tokens: longest input.
            said: a prompt as the server takes it.
        """
        self._name, self._endpoint, self._found, self._said = name, endpoint, found, said
        self._tokenizer, self._max_tokens = tokenizer, max_tokens
        self._tokens = Vocabulary(name, tokenizer, len(tokenizer))

    @property
    def scores(self) -> bool:
        """Whether the server tells how likely a given text is."""
        return self._found.scores is not None

    def encode(self, template: str, texts: tuple[Text, ...], mode: Mode | None, room: int) -> TextSet:
        """See `TextModel`.

        Raises:
            QueryError: there is a soft prompt, or the template is malformed or does not fit.
        """
        if mode is not None:
            raise QueryError(
                f"{self._name} is an endpoint, and on a text task it takes text and no soft prompts. Ask with "
                "prompts=None, and change the template"
            )
        if self._max_tokens - room < 1:
            raise QueryError(f"{room:,} tokens of output; {self._name} takes {self._max_tokens:,} with the text")
        return continued(self._tokenizer, template, texts, self._max_tokens - room)

    def target_ids(self, targets: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        """See `TextModel`.

        Raises:
            QueryError: a target has no token or a special one, or the server tells no likelihoods.
        """
        if self._found.scores is None:
            raise QueryError(
                f"{self._name} is an endpoint that does not tell how likely a given text is "
                f"({self._found.why_no_scores}). Ask lm.generate, and compare outputs"
            )
        special, found = set(self._tokenizer.all_special_ids), self._tokens.word_ids(targets)
        for target, ids in zip(targets, found, strict=True):
            if not ids:
                raise QueryError(f"the target {target!r} has no token; a target is the text whose likelihood is asked")
            if special & set(ids):
                raise QueryError(
                    f"the target {target!r} has a special token, which an endpoint does not take in a target"
                )
        return tuple(map(tuple, found))

    def score(self, prompts: SoftPrompts | None, texts: TextSet, targets: Sequence[tuple[int, ...]]) -> Likelihoods:
        """See `TextModel`. Each text with its target is one request."""
        del prompts  # `encode` has refused them
        assert self._found.scores is not None  # noqa: S101 - `target_ids` has refused
        ask, pairs = self._found.scores.ask, zip(texts.encoded, targets, strict=True)
        found = self._endpoint.each([partial(ask, prompt=e.ids, target=target) for e, target in pairs])
        self._count(sum(each.sent for each in found), sum(each.received for each in found), len(found))
        lengths = np.array([len(target) for target in targets], dtype=np.int64)
        values = np.zeros((1, len(targets), int(lengths.max())), dtype=np.float32)
        for n, each in enumerate(found):
            values[0, n, : lengths[n]] = each.values
        return Likelihoods(values, lengths)

    def generate(
        self, prompts: SoftPrompts | None, texts: TextSet, how: Decoding, go_on: Callable[[Sequence[int]], bool]
    ) -> Generated:
        """See `TextModel`. Each text is one request."""
        del prompts  # `encode` has refused them
        going, step = list(range(len(texts))), 1
        if not go_on(going):
            return Generated((("",) * len(texts),), np.zeros((1, len(texts)), dtype=np.int64), True)
        wrote = self._endpoint.each(
            [partial(self._write, ids=e.ids, number=n, how=how) for n, e in enumerate(texts.encoded)]
        )
        self._count(sum(each.sent for each in wrote), sum(each.received for each in wrote), len(wrote))
        outputs, cut = [self._output(each, how) for each in wrote], False
        while going := [n for n in going if outputs[n].tokens > step]:
            checkpoint()
            if not go_on(going):
                cut = True
                break
            step += 1
        written = tuple(
            self._decoded(each.ids[:step]) if each.tokens > step and len(each.ids) > step else each.text
            for each in outputs
        )
        tokens = np.array([[min(each.tokens, step) for each in outputs]], dtype=np.int64)
        return Generated((written,), tokens, cut)

    def _write(self, post: Any, *, ids: tuple[int, ...], number: int, how: Decoding) -> Wrote:
        seed = int(np.random.SeedSequence([how.seed, number]).generate_state(1)[0]) >> 1 if how.temperature else 0
        return self._found.writes.ask(post, self._said(ids), how.most_tokens, how.stop, how.temperature, seed)

    def _output(self, wrote: Wrote, how: Decoding) -> _Output:
        """The tokens of an output, at most as many as were asked for, and no further than its first stop."""
        text, ids, ended = wrote.text, wrote.ids, wrote.ended
        if ids is None:
            ends = [text.find(stop) + len(stop) for stop in how.stop if stop in text]
            if ends and min(ends) < len(text):
                text, ended = text[: min(ends)], False
            ids = tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])
        else:
            special = {self._tokenizer.eos_token_id, self._tokenizer.bos_token_id}
            kept = next((n for n, each in enumerate(ids) if each in special), len(ids))
            ids, ended = ids[:kept], ended or kept < len(ids)
            stopped = self._stopped(ids, how.stop)
            ids, ended = ids[:stopped], ended and stopped == len(ids)
            text = self._decoded(ids)
        if len(ids) > how.most_tokens:
            ids, ended = ids[: how.most_tokens], False
            text = self._decoded(ids)
        return _Output(text, ids, (ended and len(ids) < how.most_tokens) or not ids)

    def _stopped(self, ids: tuple[int, ...], stops: tuple[str, ...]) -> int:
        """How many tokens there are up to that with which the first stop is complete."""
        if not any(stop in self._decoded(ids) for stop in stops):
            return len(ids)
        return next(n for n in range(1, len(ids) + 1) if any(stop in self._decoded(ids[:n]) for stop in stops))

    def _decoded(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), **VERBATIM)) if ids else ""

    def _count(self, sent: int, received: int, requests: int) -> None:
        self._endpoint.count(Traffic(requests, 0, sent, received))
