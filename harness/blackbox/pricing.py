"""What may be asked of a language model and what it costs. Rows are charged only here.

The order of the steps is the guarantee: check, charge, forward, commit to the ledger, reply. A query is answered only
after its row of the ledger is on disk, so every computed row is paid for. The caller, which is a worker's session or
the HTTP service, provides the meter and the ledger.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from harness.blackbox import defence, limits, wire
from harness.blackbox.answer_price import check_price, price
from harness.blackbox.answered import FLOAT_BYTES, Answered, ledger_row, nominal_up
from harness.blackbox.lock import waited_s
from harness.blackbox.meter import rows_of
from harness.blackbox.projection import check_space
from harness.blackbox.query import OF_NO_WORDS
from harness.blackbox.weights import check_weights
from harness.contract import Weights
from harness.errors import AnswerError, QueryError, TextTaskError
from harness.solving import answers
from harness.tracks.defences import Defences
from harness.tracks.limits import AnswerLimits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.blackbox.meter import Meter
    from harness.blackbox.model import Model
    from harness.blackbox.query import Query
    from harness.blackbox.text_pricing import TextPricing
    from harness.contract import Answer, Prompts, Subspace, Task, Text, TextTask

_UNTIMED, _OPEN = AnswerLimits(math.inf), Defences()


@dataclass(frozen=True)
class PricedModel:
    """A language model as the solvers of one task use it. It holds no state of any solver."""

    lm: Model
    task: Task | TextTask
    answer_bytes: int
    """Largest size of an answer in bytes."""
    frame_bytes: int
    """Most bytes of a reply."""
    texts: tuple[Text, ...] = ()
    """On which the tokens of an answer are counted, the split's training texts; none counts an empty text."""
    answer_limits: AnswerLimits = _UNTIMED
    """What an answer may cost when it is applied."""
    row_tokens: int | None = None
    """Tokens of text in one row; None where a text is one row however long it is."""
    defences: Defences = _OPEN
    """What is kept back."""
    text: TextPricing | None = None
    """What a text task needs beside; None on another task."""

    def answer(
        self,
        query: Query,
        body: bytes,
        meter: Meter,
        commit: Callable[[Answered], None],
        seen: defence.Seen | None = None,
    ) -> Answered:
        """Answer a query that was received as the bytes `body`: check, charge, forward, commit.

        The texts of `query` are checked before, by `check_texts`: a solver names those that it declared, again and
        again. The budget is looked at before texts are tokenised, once more where one of them turns out to be longer
        than a row, and charged when nothing can be wrong with the query any more.

        Args:
            query: the query.
            body: its bytes as they were received, for the ledger's digest and size.
            meter: the rows that the solver may still spend.
            commit: makes the answer durable. When it returns, the answer survives a crash.
            seen: what the solver was given before; None is nothing. What it is given now is added once it is durable.

        Returns:
            The answer, with its ledger row.

        Raises:
            BudgetExhausted: it does not fit into what is left; nothing was charged.
            QueryError: it is malformed or too large; nothing was charged. Of no words on a text task, `TextTaskError`.
            ModelError: the model failed; nothing was charged.
            TimeoutError: the time ended while it was computed (`harness.blackbox.checkpoints`); nothing was charged.
            StoreError: the answer could not be made durable, and must not be sent.
        """
        started, waited = time.perf_counter(), waited_s()
        template, words = query.wording(self.task)
        if self.text is not None and not words:
            raise TextTaskError(self.task.name, OF_NO_WORDS)
        self.lm.check(query.prompts)
        self.check_weights(query.prompts)
        self.lm.check_features(query.features)
        limits.check_wording(template, words)
        rows = meter.price(query.candidates, len(query.texts))
        limits.check_size(query, len(words), self.lm.backbone.width, self.lm.max_tokens, self.frame_bytes)
        ids, encoded = self.lm.single_ids(words), self.lm.text_set(template, query.texts, query.mode)
        seen = defence.Seen() if seen is None else seen
        new = seen.new(defence.asked(query, template, ids))
        if not self.defences.none:
            width = self.lm.backbone.width
            defence.check(self.defences, query, ids, self.lm.single_ids(self.task.words), seen, new, width)
        each = self.rows_each(query, encoded)
        if each > len(query.texts):
            rows = meter.price(query.candidates, each)
        meter.spend(rows)
        try:
            out = self.lm.forward(query.prompts, encoded, ids, query.features, query.normalize)
        except BaseException:  # the time is up, or memory: no answer, no row of the ledger, no charge
            meter.give_back(rows)
            raise
        features = None if out.features is None else wire.Array.of(out.features)
        lengths = None if out.lengths is None else out.lengths.tolist()
        logits = out.logits
        if not self.defences.none:
            logits = defence.defended(self.defences, query, template, out, ids, len(self.lm.words))
        frame = wire.encode(wire.Result(meter.budget.rows_left, wire.Array.of(logits), features, lengths))
        tokens = query.candidates * (encoded.tokens + query.prompt_tokens * len(query.texts))
        seconds = time.perf_counter() - started - (waited_s() - waited)
        row = ledger_row(body, frame, rows, tokens, seconds, query.level)
        floats_down = out.logits.size + (0 if out.features is None else out.features.size)
        answered = Answered(frame, row, nominal_up(query, encoded.tokens), FLOAT_BYTES * floats_down, new)
        commit(answered)
        seen.add(new)
        return answered

    def of_text(self) -> TextPricing:
        """What answers `score` and `generate`.

        Raises:
            QueryError: the task has classes.
        """
        if self.text is None:
            raise QueryError(
                "this task has classes; likelihoods of texts and generated texts are for tasks whose answer is text"
            )
        return self.text

    def rows_each(self, query: Query, encoded: Any) -> int:
        """Rows that one candidate costs on the texts of a query: a text has as many as its tokens fill.

        A template is free, so that it may hold examples. Where the features of all tokens are asked for, what it has
        beyond the task's own template counts as text: packed into it, many texts would cost what one does.

        Args:
            query: what is asked.
            encoded: its texts as the model reads them, cut to what it can take.

        Returns:
            At least one row for each text.
        """
        if self.row_tokens is None:
            return len(query.texts)
        free = math.inf
        if query.features == "all":
            bare = self.lm.text_set(self.task.template, (("",) * self.task.fields,))
            free = bare.sizes[0][1]
        tokens = (own + max(0, template - free) for own, template in encoded.sizes)
        return sum(rows_of(each, self.row_tokens) for each in tokens)

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
        shape, most = self.lm.backbone, self.answer_limits.projection_bytes
        check_space(space, shape.layers, shape.width, self.lm.prompt_tokens, most)

    def check_weights(self, prompts: Prompts | None) -> None:
        """Refuse changes of weights that the model cannot have or that are too large for the server.

        Raises:
            QueryError: they are refused. The message gives the numbers.
        """
        if isinstance(prompts, Weights):
            check_weights(prompts, self.lm.weight_count, self.answer_limits.projection_bytes)

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
            QueryError: it breaks the contract, fits neither task nor model, or costs more than the track allows.
        """
        nothing = ("",) * self.task.fields
        try:
            if len(blob) > self.answer_bytes:
                raise AnswerError(f"the answer has {len(blob):,} bytes; {self.answer_bytes:,} are allowed")
            answer = answers.from_bytes(blob)
            if self.text is not None:
                self.text.check_offered(answer, self.texts or (nothing,), self.answer_limits)
                return answer
            for member in answer.members:
                self.lm.check_features(None if member.head is None else member.features)
            answers.check(answer, cast("Task", self.task), self.lm.backbone.width)
            for member in answer.members:
                limits.check_wording(member.template, member.words)
                self.lm.check(member.prompt)
                self.check_weights(member.prompt)
                self.lm.single_ids(member.words)
                self.lm.text_set(member.template, (nothing,))
            check_price(price(answer, self.lm, self.texts or (nothing,)), self.answer_limits)
        except (AnswerError, QueryError) as problem:
            raise QueryError(f"answer refused: {problem}") from problem
        return answer
