"""The HTTP messages of tasks whose answer is text: likelihoods, and texts that the model writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import msgspec

from harness.blackbox.limits import check_characters
from harness.blackbox.query import Query
from harness.blackbox.text_model import Decoding
from harness.blackbox.text_query import TextQuery
from harness.blackbox.weights import soft
from harness.blackbox.wire import LARGEST, Array, WeightsPart, packed, unpacked
from harness.contract import Coordinates, Mode, Subspace
from harness.errors import QueryError
from harness.service.messages import Texts, named, texts_named

if TYPE_CHECKING:
    from harness.contract import Shots, TextTask

_Targets = Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=1 << 18)]


class _Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    texts: Literal["train", "dev"] | Texts
    """The name of the split's own training or dev texts, or texts."""
    template: str | None = None
    """Null means the task's."""
    prompt: Array | None = None
    mode: Mode = "add"
    space: Subspace | None = None
    weights: WeightsPart | msgspec.UnsetType = msgspec.UNSET
    """Left out where the candidates change no weights."""

    def _query(self, shots: Shots) -> Query:
        prompts = unpacked(self.prompt, self.mode, self.space, self.weights)
        return Query(texts_named(self.texts, shots), self.template, (), prompts)


class ScoreBody(_Asked, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Ask for the likelihood of targets after texts; prompts are as in a query."""

    targets: Literal["train", "dev"] | _Targets
    """The name of the split's own references, as the model would say them, or one target for each text."""

    @classmethod
    def of(cls, asked: TextQuery, task: TextTask, shots: Shots) -> ScoreBody:
        """Pack a query. The split's own texts and references are sent by name, because the server has them."""
        own = {"train": task.targets(shots.train), "dev": task.targets(shots.dev)}
        targets: Any = next((name for name, each in own.items() if each == asked.targets), asked.targets)
        return cls(**_common(asked, shots), targets=targets)

    def asked(self, task: TextTask, shots: Shots) -> TextQuery:
        """Unpack the query.

        Raises:
            QueryError: there is not one target for each text, they are too long, or a prompt's array is invalid.
        """
        query, targets = self._query(shots), self.targets
        if isinstance(targets, str):
            targets = task.targets({"train": shots.train, "dev": shots.dev}[targets])
        if len(targets) != len(query.texts):
            raise QueryError(f"{len(targets)} targets for {len(query.texts)} texts; one for each is needed")
        check_characters([(target,) for target in targets], 0)
        return TextQuery(query, targets)


class GenerateBody(_Asked, frozen=True, forbid_unknown_fields=True):
    """Ask for texts; prompts are as in a query."""

    most_tokens: Annotated[int, msgspec.Meta(ge=1, le=2**16)] | None = None
    """Longest output; null means the task's."""
    stop: Annotated[tuple[str, ...], msgspec.Meta(max_length=16)] | None = None
    """Texts that end an output; null means the task's."""
    temperature: Annotated[float, msgspec.Meta(ge=0, le=LARGEST)] = 0.0
    """0 takes the most likely token each time."""
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**62)] = 0

    @classmethod
    def of(cls, asked: TextQuery, how: Decoding, shots: Shots) -> GenerateBody:
        """Pack a query."""
        more = {"most_tokens": how.most_tokens, "stop": how.stop, "temperature": how.temperature, "seed": how.seed}
        return cls(**_common(asked, shots), **more)  # type: ignore[arg-type]

    def asked(self, task: TextTask, shots: Shots) -> TextQuery:
        """Unpack the query.

        Raises:
            QueryError: a prompt's array is invalid.
        """
        most = task.most_tokens if self.most_tokens is None else self.most_tokens
        how = Decoding(most, task.stop if self.stop is None else self.stop, self.temperature, self.seed)
        return TextQuery(self._query(shots), how=how)


TextBody: TypeAlias = ScoreBody | GenerateBody


def _common(asked: TextQuery, shots: Shots) -> dict[str, Any]:
    query = asked.query
    prompt, mode = packed(query.prompts)
    inner, weights = soft(query.prompts), WeightsPart.of(query.prompts)
    space = inner.space if isinstance(inner, Coordinates) else None
    return {
        "texts": named(query.texts, shots), "template": query.template, "prompt": prompt, "mode": mode, "space": space,
        "weights": weights,
    }  # fmt: skip
