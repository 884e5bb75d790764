"""Applies a track's defences to a query: what it may ask, and how the logits are changed that it is given.

`harness.blackbox.pricing` calls this for every query, so that a worker's session, an optimizer in the referee's process
and the HTTP service are answered by the same code.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from harness.contract import Prompt, Weights
from harness.errors import QueryError
from harness.results.asked import Asked

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.blackbox.model import Forwarded
    from harness.blackbox.query import Query
    from harness.contract import FloatArray, Prompts
    from harness.tracks.defences import Defences

MOST_ROWS = 1 << 14
"""Different rows that are told apart; more than any hidden width, which is where counting ends."""
_NORMALISED, _STATES = "normalised", "states"


@dataclass
class Seen:
    """What one solver has been given in one cell, without repetitions."""

    words: set[str] = field(default_factory=set)
    """Ids of words; `normalised` and `states` if such were given."""
    texts: set[str] = field(default_factory=set)
    rows: set[str] = field(default_factory=set)
    """Digests of template, text and prompt; the first `MOST_ROWS`."""

    def add(self, more: Seen) -> None:
        """Count what a query was given."""
        self.words |= more.words
        self.texts |= more.texts
        self.rows |= more.rows

    def __or__(self, more: Seen) -> Seen:
        """What it is after a query that was given `more`."""
        return Seen(self.words | more.words, self.texts | more.texts, self.rows | more.rows)

    def new(self, more: Seen) -> Seen:
        """What a query would be given for the first time."""
        rows = sorted(more.rows - self.rows)[: max(0, MOST_ROWS - len(self.rows))]
        return Seen(more.words - self.words, more.texts - self.texts, set(rows))

    @property
    def counts(self) -> Asked:
        """The numbers that are stored with a cell."""
        normalised, states = _NORMALISED in self.words, _STATES in self.words
        words = len(self.words) - normalised - states
        return Asked(words, len(self.texts), len(self.rows), normalised, states)


def asked(query: Query, template: str, ids: Sequence[int]) -> Seen:
    """What a query asks for.

    Args:
        query: with texts and prompts.
        template: in which its texts are read.
        ids: of the words that it asks about.
    """
    words = set(map(str, ids))
    if query.normalize:
        words.add(_NORMALISED)
    if query.features is not None:
        words.add(_STATES)
    texts = {_digest(json.dumps(text).encode()) for text in set(query.texts)}
    return Seen(words, texts, {_digest(row) for row in _rows(query, template)})


def asked_of_texts(query: Query, template: str, targets: Sequence[Sequence[int]] | None) -> Seen:
    """What a query about text asks for.

    The log-likelihood of a target has a number for each of its tokens. Each number is of a row of its own: what was
    read before differs. A text that is written comes without numbers.

    Args:
        query: with texts and prompts.
        template: in which its texts are read.
        targets: token ids of the target of each text; None where texts are written.
    """
    texts = {_digest(json.dumps(text).encode()) for text in set(query.texts)}
    if targets is None:
        return Seen(texts=texts)
    words = {_NORMALISED, *(str(each) for target in targets for each in target)}
    rows: set[str] = set()
    for n, row in enumerate(_rows(query, template)):
        read = hashlib.sha256(row)
        for each in targets[n % len(targets)]:
            rows.add(read.hexdigest()[:24])
            read.update(repr(each).encode())
    return Seen(words, texts, rows)


def check(
    defences: Defences, query: Query, ids: Sequence[int], task_ids: Sequence[int], before: Seen, new: Seen, width: int
) -> None:
    """Refuse what the defences do not allow, before it is charged.

    Args:
        defences: of the track.
        query: what is asked.
        ids: of its words.
        task_ids: of the task's label words.
        before: what the solver was given before.
        new: what it would be given for the first time.
        width: the model's hidden width.

    Raises:
        QueryError: the message says which defence, and the numbers.
    """
    if query.features is not None and not defences.hidden_states:
        raise QueryError("this track gives no hidden states (hidden_states = false); ask for logits")
    others = len(set(ids) - set(task_ids))
    if defences.words == "task" and others:
        raise QueryError(
            f"{others:,} of {len(ids):,} words are none of the task's {len(task_ids)} label words, and the track gives "
            'logits of these alone (words = "task"); leave words out'
        )
    _check_most("words", len(before.words | new.words), defences.most_words, len(before.words))
    _check_most("texts", len(before.texts | new.texts), defences.most_texts, len(before.texts))
    if defences.most_rank is not None and new.words | new.rows:
        together = (before | new).counts
        dimensions = together.dimensions(width)
        rank = min(together.rows, dimensions)
        if rank > defences.most_rank:
            raise QueryError(
                f"with this query {together.rows:,} different rows would have been asked about "
                f"{dimensions:,} different words, which shows {rank:,} dimensions of logits; "
                f"{defences.most_rank:,} are allowed in a cell (most_rank). Ask about fewer words or fewer rows"
            )


def _check_most(what: str, then: int, most: int | None, now: int) -> None:
    if most is not None and then > most:
        raise QueryError(
            f"with this query {then:,} different {what} would have been asked about in this cell; {most:,} are allowed "
            f"(most_{what}), and {now:,} were asked about before. Use these again"
        )


def defended(
    defences: Defences, query: Query, template: str, out: Forwarded, ids: Sequence[int], size: int
) -> FloatArray:
    """The logits as they are given.

    Args:
        defences: of the track.
        query: what was asked.
        template: in which its texts were read.
        out: what the model computed.
        ids: of the words.
        size: of the vocabulary.

    Returns:
        (candidates, texts, words), float32.
    """
    logits = out.logits
    if defences.noise:
        seed = str(defences.noise_seed).encode()
        noise = [_noise(seed + row, size, ids) for row in _rows(query, template)]
        logits = logits + defences.noise * np.reshape(noise, logits.shape)
    if defences.digits is not None:
        logits = np.round(logits, defences.digits)
    if defences.top is not None and defences.top < logits.shape[-1]:
        last = np.sort(logits, axis=-1)[..., -defences.top, None]
        logits = np.where(logits >= last, logits, last - 1)
    return np.asarray(logits, dtype=np.float32)


def _noise(row: bytes, size: int, ids: Sequence[int]) -> FloatArray:
    seed = int.from_bytes(hashlib.sha256(row).digest()[:16], "little")
    return np.asarray(np.random.default_rng(seed).standard_normal(size)[list(ids)])


def _rows(query: Query, template: str) -> Iterator[bytes]:
    """What tells each row of a query from others, candidate by candidate."""
    about, texts = json.dumps(template).encode(), [json.dumps(text).encode() for text in query.texts]
    for i in range(query.candidates):
        own = _candidate(query.prompts, i)
        head = hashlib.sha256(about + own).digest()
        for text in texts:
            yield head + text


def _candidate(prompts: Prompts | None, i: int) -> bytes:
    """What tells a candidate from others. One that stands beside several is the same for each of them."""
    if prompts is None:
        return b""
    if isinstance(prompts, Prompt):
        return prompts.mode.encode() + np.ascontiguousarray(prompts.values[min(i, len(prompts) - 1)]).tobytes()
    if not isinstance(prompts, Weights):
        return repr(prompts.space).encode() + np.ascontiguousarray(prompts.z[min(i, len(prompts) - 1)]).tobytes()
    changed = _changed(prompts, i)
    for part in prompts.more:
        changed = hashlib.sha256(changed).digest() + _changed(part, i)
    if prompts.prompts is None:
        return changed
    return hashlib.sha256(changed).digest() + _candidate(prompts.prompts, i)


def _changed(part: Weights, i: int) -> bytes:
    """What tells a candidate's change of one space from others."""
    n = min(i, len(part.z) - 1)
    z, walked = part.z[n], b""
    if part.streams is not None:  # a step of coefficient 0 changes nothing, so it makes no other row
        streams, z = part.streams[n][z != 0], z[z != 0]
        walked = b"walk" + np.ascontiguousarray(streams, dtype="<u4").tobytes()
    return repr(part.space).encode() + np.ascontiguousarray(z).tobytes() + walked


def _digest(value: bytes) -> str:
    return hashlib.sha256(value).hexdigest()[:24]
