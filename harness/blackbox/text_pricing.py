"""What a query about text may ask and what it costs: the part of `harness.blackbox.pricing` that text tasks need.

The steps are those of every query: check, charge, compute, commit to the ledger, reply. A text that is written is
charged while it grows, and where its next row does not fit into the budget, writing ends: what was written until then
is charged, kept in the ledger and sent.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.blackbox import limits, wire
from harness.blackbox.answer_price import AnswerPrice, check_price, drawn_for, projection_bytes
from harness.blackbox.answered import FLOAT_BYTES, TOKEN_BYTES, Answered, ledger_row, nominal_up
from harness.blackbox.defence import Seen, asked_of_texts
from harness.blackbox.lock import waited_s
from harness.blackbox.meter import rows_of
from harness.blackbox.projection import LARGEST_BYTES
from harness.blackbox.weights import check_weights, soft
from harness.contract import Prompt, Weights
from harness.errors import AnswerError, QueryError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.blackbox.meter import Meter
    from harness.blackbox.model import Model
    from harness.blackbox.query import Query
    from harness.blackbox.text_model import Decoding, Encoded, TextModel
    from harness.blackbox.text_query import TextQuery
    from harness.contract import Answer, Member, Mode, Prompts, Text, TextTask
    from harness.tracks.limits import AnswerLimits

LONGEST_STOP = 64
MOST_STOPS = 16


@dataclass(frozen=True)
class TextPricing:
    """The model of a text task as its solvers use it."""

    lm: Model
    text_lm: TextModel
    task: TextTask
    frame_bytes: int
    row_tokens: int | None
    direction_bytes: int = LARGEST_BYTES
    """Most bytes of the directions in which a query's candidates change weights."""

    def answer(
        self, asked: TextQuery, body: bytes, meter: Meter, commit: Callable[[Answered], None], seen: Seen | None = None
    ) -> Answered:
        """Answer a query that was received as the bytes `body`; arguments and errors are those of `PricedModel`."""
        started, waited, before = time.perf_counter(), waited_s(), meter.spent
        query = asked.query
        template = self.task.template if query.template is None else query.template
        self.lm.check(query.prompts)
        self._check_weights(query.prompts)
        limits.check_template(template)
        limits.check_targets(asked.targets)
        meter.price(query.candidates, len(query.texts))
        written: int
        reply: wire.Scored | wire.Written
        targets: tuple[tuple[int, ...], ...] | None = None
        try:
            if asked.how is None:
                targets = self.text_lm.target_ids(asked.targets)
                reply, encoded, written = self._scored(query, targets, template, meter)
            else:
                reply, encoded, written = self._written(query, asked.how, template, meter)
        except BaseException:  # the time is up, or memory: no answer, no row of the ledger, no charge
            meter.give_back(meter.spent - before)
            raise
        frame = wire.encode(reply)
        tokens = query.candidates * (encoded.tokens + query.prompt_tokens * len(query.texts)) + written
        seconds = time.perf_counter() - started - (waited_s() - waited)
        row = ledger_row(body, frame, meter.spent - before, tokens, seconds, query.level)
        up, down = nominal_up(query, encoded.tokens), TOKEN_BYTES * written
        if isinstance(reply, wire.Scored):
            up, down = up + down, FLOAT_BYTES * math.prod(reply.values.shape)
        seen = Seen() if seen is None else seen
        answered = Answered(frame, row, up, down, seen.new(asked_of_texts(query, template, targets)))
        commit(answered)
        seen.add(answered.new)
        return answered

    def score_rows(self, texts: Sequence[Text], targets: Sequence[str]) -> list[int]:
        """Rows that one candidate costs on each text with its target, under the task's template. Free.

        Raises:
            QueryError: they do not fit, or the model tells no likelihoods.
        """
        limits.check_targets(targets)
        ids = self.text_lm.target_ids(targets)
        encoded: Encoded = self.text_lm.encode(self.task.template, tuple(texts), None, self._room(ids))
        return self._score_rows(encoded, ids)

    def _room(self, targets: Sequence[tuple[int, ...]]) -> int:
        """Tokens that are kept free behind a text: those of an output, so that what is asked about can be answered."""
        return max(self.task.most_tokens, *map(len, targets))

    def _score_rows(self, encoded: Encoded, targets: Sequence[tuple[int, ...]]) -> list[int]:
        return [self._rows(own + len(target)) for (own, _), target in zip(encoded.sizes, targets, strict=True)]

    def _scored(
        self, query: Query, targets: tuple[tuple[int, ...], ...], template: str, meter: Meter
    ) -> tuple[wire.Scored, Encoded, int]:
        longest = max(map(len, targets))
        reply = 4 * query.candidates * len(targets) * longest
        if reply > self.frame_bytes:
            raise QueryError(
                f"the reply would have {reply:,} bytes; {self.frame_bytes:,} are allowed. Ask for fewer rows at once"
            )
        encoded: Encoded = self.text_lm.encode(template, query.texts, query.mode, self._room(targets))
        meter.charge(query.candidates, sum(self._score_rows(encoded, targets)))
        found = self.text_lm.score(query.prompts, encoded, targets)
        written = query.candidates * sum(map(len, targets))
        values = wire.Array.of(found.values)
        return wire.Scored(meter.budget.rows_left, values, found.lengths.tolist()), encoded, written

    def _written(self, query: Query, how: Decoding, template: str, meter: Meter) -> tuple[wire.Written, Encoded, int]:
        check_stops(how.stop)
        reply = 8 * how.most_tokens * query.candidates * len(query.texts)
        if reply > self.frame_bytes:
            raise QueryError(
                f"the reply could have {reply:,} bytes; {self.frame_bytes:,} are allowed. Ask for fewer rows at once"
            )
        encoded: Encoded = self.text_lm.encode(template, query.texts, query.mode, how.most_tokens)
        read = [own for own, _ in encoded.sizes]
        meter.charge(query.candidates, sum(map(self._rows, read)))
        sizes = read * query.candidates  # tokens of each sequence, text and output

        def go_on(sequences: Sequence[int]) -> bool:
            rows = sum(self._rows(sizes[n] + 1) - self._rows(sizes[n]) for n in sequences)
            if rows > meter.budget.rows_left:
                return False
            meter.spend(rows)
            for n in sequences:
                sizes[n] += 1
            return True

        found = self.text_lm.generate(query.prompts, encoded, how, go_on)
        written = wire.Written(meter.budget.rows_left, found.texts, found.tokens.tolist(), found.cut)
        return written, encoded, int(found.tokens.sum())

    def _check_weights(self, prompts: Prompts | None) -> None:
        if isinstance(prompts, Weights):
            check_weights(prompts, self.lm.weight_count, self.direction_bytes)

    def _rows(self, tokens: int) -> int:
        return rows_of(tokens, self.row_tokens)

    def check_offered(self, answer: Answer, texts: Sequence[Text], most: AnswerLimits) -> None:
        """Refuse an answer that could not be applied.

        Raises:
            AnswerError: it breaks the contract, fits neither task nor model, or costs more than the track allows.
            QueryError: a template is malformed or does not fit.
        """
        member = only_member(answer)
        limits.check_template(member.template)
        self.lm.check(member.prompt)
        self._check_weights(member.prompt)
        encoded = self.text_lm.encode(member.template, tuple(texts), mode_of(member), self.task.most_tokens)
        tokens = math.ceil(encoded.tokens / len(texts)) + self.task.most_tokens
        prompt = soft(member.prompt)
        if prompt is not None:
            tokens += int(prompt.values.shape[2]) if isinstance(prompt, Prompt) else prompt.space.tokens
        check_price(AnswerPrice(tokens, projection_bytes(answer, self.lm), 0, drawn_for(answer, self.lm)), most)


def check_stops(stop: Sequence[str]) -> None:
    """Few and short texts end an output.

    Raises:
        QueryError: with the numbers.
    """
    if len(stop) > MOST_STOPS:
        raise QueryError(f"{len(stop)} stops; at most {MOST_STOPS} are allowed")
    for each in stop:
        if not 1 <= len(each) <= LONGEST_STOP:
            raise QueryError(f"a stop has {len(each)} characters; 1 to {LONGEST_STOP} are allowed")


def only_member(answer: Answer) -> Member:
    """The one member of an answer to a text task: a template and a prompt.

    Raises:
        AnswerError: there are several, or it has what only classes are computed with.
    """
    if len(answer.members) != 1:
        raise AnswerError(f"{len(answer.members)} members; a text task takes one, since texts cannot be averaged")
    member = answer.members[0]
    more = {
        "words": member.words,
        "scale": member.scale,
        "shift": member.shift,
        "head": member.head,
        "alpha": member.alpha,
    }
    given = [name for name, value in more.items() if value]
    if given:
        raise AnswerError(f"member 0 has {', '.join(given)}; on a text task it is a template and a prompt")
    if member.prompt is not None and len(member.prompt) != 1:
        raise AnswerError(f"member 0: {len(member.prompt)} candidate prompts; exactly 1 is needed")
    return member


def mode_of(member: Member) -> Mode | None:
    """How the prompt of a member is put in; None without one."""
    prompt = soft(member.prompt)
    if prompt is None:
        return None
    return prompt.mode if isinstance(prompt, Prompt) else prompt.space.mode
