"""`FakeTextLM`: the fake model of a text task as a submission sees it, for an author's tests. Milliseconds a query.

    task = fake_text_task()
    shots = fake_text_shots(np.random.default_rng(0))
    lm = FakeTextLM.for_task(task, shots, calls=50)
    for answer in submission.tune(lm, task, shots, np.random.default_rng(0), submission.Config()): ...
    assert lm.quality(answer.members[0].prompt) > lm.quality(None)

What a query may ask and what it costs is decided by the code that decides it for the real model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.blackbox.fake_language_model import FakeLanguageModel
from harness.blackbox.in_process import InProcessTextBlackBox
from harness.blackbox.meter import Meter
from harness.blackbox.pricing import PricedModel
from harness.blackbox.session import Session
from harness.blackbox.text_model import Decoding
from harness.blackbox.text_pricing import TextPricing, mode_of, only_member

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.contract import Answer, Prompts, Shots, Text, TextTask
    from harness.results.records import LedgerRow

_LARGEST = 64 << 20


class _Rows:
    """A ledger in memory."""

    def __init__(self) -> None:
        self.rows: list[LedgerRow] = []

    def record(self, row: LedgerRow) -> None:
        """Keep the row."""
        self.rows.append(row)


def fake_priced(task: TextTask, shots: Shots, seed: int = 0, row_tokens: int | None = None) -> PricedModel:
    """The fake model of a text task with prices.

    Args:
        task: of its own (`harness.blackbox.fake_text.fake_text_task`), or any other.
        shots: whose references its texts want.
        seed: of everything that is drawn.
        row_tokens: tokens in one row; None where a text is one row however long it is.
    """
    lm: Any = FakeLanguageModel(task, seed, shots=shots)  # whose "token ids" are words
    text = TextPricing(lm, lm.text_model(), task, _LARGEST, row_tokens)
    return PricedModel(lm, task, _LARGEST, _LARGEST, shots.train.texts, row_tokens=row_tokens, text=text)


class FakeTextLM(InProcessTextBlackBox):
    """The fake as the solver of a text task sees it."""

    def __init__(self, priced: PricedModel, task: TextTask, shots: Shots, calls: int) -> None:
        """Use `for_task`."""
        self.meter, ledger = Meter(calls, len(shots.train)), _Rows()
        self.ledger = ledger.rows
        """One row for each answered query."""
        self.free: FakeLanguageModel = priced.lm  # type: ignore[assignment]
        super().__init__(Session(priced, self.meter, ledger), self.free.fake.info, task, self.meter.budget, shots)
        self.ready({})

    @classmethod
    def for_task(
        cls, task: TextTask, shots: Shots, calls: int, seed: int = 0, row_tokens: int | None = None
    ) -> FakeTextLM:
        """A fake model whose texts want the references of `shots`.

        Args:
            task: `harness.blackbox.fake_text.fake_text_task()`, or any other.
            shots: the few-shot examples.
            calls: the budget, of len(shots.train) rows each.
            seed: of the planted optimum and all noise.
            row_tokens: tokens in one row, as the track's; None where a text is one row however long it is.

        Returns:
            The black box, with its whole budget.

        Example:
            ``FakeTextLM.for_task(task, shots, calls=50).generate(None, shots.dev.texts)``
        """
        return cls(fake_priced(task, shots, seed, row_tokens), task, shots, calls)

    @property
    def logged(self) -> list[tuple[int, dict[str, float]]]:
        """Rows spent when something was logged, and the numbers."""
        return self._session.tuning.log

    def quality(self, prompts: Prompts | None, template: str | None = None) -> float:
        """How well the best of some candidates suits the task: 0.37 for the bare template, 1 for the planted optimum.

        Args:
            prompts: soft prompts; None is the bare template.
            template: None is the task's.

        Returns:
            From 0 to 1. Free.

        Example:
            ``assert lm.quality(answer.members[0].prompt) > lm.quality(None)``
        """
        own = self._text_task.template if template is None else template
        return float(self.free.fake.quality(prompts, f"{own}{{mask}}").max())

    def written(self, answer: Answer, texts: Sequence[Text]) -> list[str]:
        """What an answer writes after texts, as the referee lets it write. Free.

        Args:
            answer: a template and a prompt.
            texts: such as those of dev.

        Returns:
            One output for each text.

        Example:
            ``lm.written(answer, shots.dev.texts)[0] == shots.dev.references[0][0]``
        """
        return written(self.free, self._text_task, answer, texts)


def written(lm: FakeLanguageModel, task: TextTask, answer: Answer, texts: Sequence[Text]) -> list[str]:
    """What an answer to a text task writes after texts, on the fake model."""
    member, model, how = only_member(answer), lm.text_model(), Decoding(task.most_tokens, task.stop)
    encoded = model.encode(member.template, tuple(texts), mode_of(member), task.most_tokens)
    found = model.generate(member.prompt, encoded, how, lambda _sequences: True)
    return [task.output(text) for text in found.texts[0]]
