"""What may be asked of a language model and what it costs. Rows are charged only here.

The order of the steps is the guarantee: check, charge, forward, commit to the ledger, reply. A query is answered only
after its row of the ledger is on disk, so every computed row is paid for. The caller, which is a worker's session or
the HTTP service, provides the meter and the ledger.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.blackbox import limits, wire
from harness.blackbox.lock import waited_s
from harness.blackbox.projection import check_space
from harness.errors import AnswerError, QueryError
from harness.results.records import LedgerRow
from harness.solving import answers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.blackbox.meter import Meter
    from harness.blackbox.model import Model
    from harness.blackbox.query import Query
    from harness.contract import Answer, Subspace, Task, Text

_TOKEN_BYTES, _FLOAT_BYTES = 3, 4
"""Bytes in the nominal formula (BBT, appendix C): a token has two of id and one of mask, and a float has four."""


@dataclass(frozen=True)
class Answered:
    """A query that was charged and answered."""

    frame: bytes
    """The reply as it is sent over a socket. The ledger row has its digest, whatever the query is sent over."""
    row: LedgerRow
    nominal_up: int
    """Bytes by the papers' formula; see `harness.results.records.Usage`."""
    nominal_down: int


@dataclass(frozen=True)
class PricedModel:
    """A language model as the solvers of one task use it. It holds no state of any solver."""

    lm: Model
    task: Task
    answer_bytes: int
    """Largest size of an answer in bytes."""
    frame_bytes: int
    """Largest size of a reply in bytes."""

    def answer(self, query: Query, body: bytes, meter: Meter, commit: Callable[[Answered], None]) -> Answered:
        """Answer a query that was received as the bytes `body`: check, charge, forward, commit.

        The caller has checked the texts of `query` by `check_texts`, because a solver declares texts once and refers to
        them many times. The budget is checked before texts are tokenised. It is charged when all checks of the query
        have passed.

        Args:
            query: the query.
            body: its bytes as they were received, for the ledger's digest and size.
            meter: the rows that the solver may still spend.
            commit: makes the answer durable. When it returns, the answer survives a crash.

        Returns:
            The answer, with its ledger row.

        Raises:
            BudgetExhausted: the query costs more rows than are left. Nothing was charged.
            QueryError: the query is malformed or too large. Nothing was charged.
            ModelError: the model failed.
            StoreError: the answer could not be made durable and must not be sent.
        """
        started, waited = time.perf_counter(), waited_s()
        template, words = query.wording(self.task)
        self.lm.check(query.prompts)
        limits.check_wording(template, words)
        rows = meter.price(query.candidates, len(query.texts))
        limits.check_size(query, len(words), self.lm.backbone.width, self.lm.max_tokens, self.frame_bytes)
        ids, encoded = self.lm.single_ids(words), self.lm.text_set(template, query.texts)
        meter.spend(rows)
        out = self.lm.forward(query.prompts, encoded, ids, query.features, query.normalize)
        features = None if out.features is None else wire.Array.of(out.features)
        lengths = None if out.lengths is None else out.lengths.tolist()
        frame = wire.encode(wire.Result(meter.budget.rows_left, wire.Array.of(out.logits), features, lengths))
        tokens = query.candidates * (encoded.tokens + query.prompt_tokens * len(query.texts))
        digest = hashlib.sha256(body)
        digest.update(frame)
        seconds = time.perf_counter() - started - (waited_s() - waited)
        row = LedgerRow(rows, tokens, len(body), len(frame), seconds, query.level, digest.hexdigest())
        nominal_up = _TOKEN_BYTES * query.candidates * encoded.tokens + _FLOAT_BYTES * query.prompt_floats
        floats_down = out.logits.size + (0 if out.features is None else out.features.size)
        answered = Answered(frame, row, nominal_up, _FLOAT_BYTES * floats_down)
        commit(answered)
        return answered

    def check_texts(self, texts: Sequence[Text], declared: int = 0) -> int:
        """Refuse texts that no query may ask about, and return their size in characters.

        `declared` is the size of the texts that the solver has declared before and may still ask about.

        Raises:
            QueryError: a limit is exceeded. The message gives the numbers.
        """
        limits.check_texts(texts, self.task.fields)
        return limits.check_characters(texts, declared)

    def check_space(self, space: Subspace) -> None:
        """Refuse a subspace that does not fit the model or is too large for the server.

        Raises:
            QueryError: the subspace is refused. The message gives the numbers.
        """
        check_space(space, self.lm.backbone.layers, self.lm.backbone.width, self.lm.prompt_tokens)

    def word_ids(self, words: Sequence[str]) -> wire.WordIds:
        """Token ids of words. Free.

        Raises:
            QueryError: there are no words, too many words, or a word is too long.
        """
        limits.check_words(words)
        return wire.WordIds(self.lm.word_ids(words))

    def vocabulary(self) -> wire.WordList:
        """Every word that can be a label word. Free."""
        return wire.WordList(self.lm.words)

    def offered(self, blob: bytes) -> Answer:
        """Read an answer that a solver hands over, and refuse one that could not be applied. Free.

        Raises:
            QueryError: the answer breaks the contract, or does not fit the task or the model.
        """
        try:
            if len(blob) > self.answer_bytes:
                raise AnswerError(f"the answer has {len(blob):,} bytes; {self.answer_bytes:,} are allowed")
            answer = answers.from_bytes(blob)
            answers.check(answer, self.task, self.lm.backbone.width)
            for member in answer.members:
                limits.check_wording(member.template, member.words)
                self.lm.check(member.prompt)
                self.lm.single_ids(member.words)
                self.lm.text_set(member.template, (("",) * self.task.fields,))
        except (AnswerError, QueryError) as problem:
            raise QueryError(f"answer refused: {problem}") from problem
        return answer
