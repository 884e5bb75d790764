"""Queries about text over a session: what they cost, where a budget cuts them, and what is refused for nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tiny_models
from tiny_models import LAYERS, WIDTH

from harness.blackbox import wire
from harness.blackbox.in_process import in_process
from harness.blackbox.meter import Meter
from harness.blackbox.pricing import PricedModel
from harness.blackbox.session import Session
from harness.blackbox.text_pricing import TextPricing
from harness.contract import Answer, Examples, LinearHead, Member, Prompt, Shots, TextTask
from harness.errors import AnswerError, BudgetExhausted, QueryError
from harness.lm.generation import text_model
from harness.lm.load import load_model
from harness.solving import Selection, cross_entropy
from harness.tracks.limits import AnswerLimits
from harness.tracks.track import ModelSpec, PromptSpec

if TYPE_CHECKING:
    from harness.lm.model import LanguageModel
    from harness.results.records import LedgerRow

TASK = TextTask("films", "chrf", "A film : {a} Say", stop=(".",), most_tokens=6)
TEXTS = (("It was bad .",), ("yes",), ("A long story about a small village, told twice",), ("no , maybe",))
REFERENCES = (("great film",), ("no", "maybe"), ("yes ? no",), ("bad",))
EXAMPLES = Examples(TEXTS, np.zeros(4, dtype=np.int64), REFERENCES)
SHOTS = Shots(EXAMPLES, Examples((("A film",),), np.zeros(1, dtype=np.int64), (("bad",),)))
TOKENS, ROW, LARGEST = 3, 4, 1 << 20


class Book:
    """A ledger in memory."""

    def __init__(self) -> None:
        self.rows: list[LedgerRow] = []

    def record(self, row: LedgerRow) -> None:
        """Keep the row."""
        self.rows.append(row)


class Cell:
    """A session with its client, meter and ledger."""

    def __init__(self, lm: LanguageModel, rows: int = 400, row_tokens: int | None = ROW) -> None:
        self.lm, self.book, self.meter = lm, Book(), Meter(rows // 4, 4)
        pricing = TextPricing(lm, text_model(lm), TASK, LARGEST, row_tokens)
        limits = AnswerLimits(10.0, tokens=45)
        self.priced = PricedModel(lm, TASK, LARGEST, LARGEST, TEXTS, limits, row_tokens, text=pricing)
        self.session = Session(self.priced, self.meter, self.book)
        info = lm.info(TEXTS, f"{TASK.template}{{mask}}")
        self.box: Any = in_process(self.session, info, TASK, self.meter.budget, SHOTS)
        self.box.ready({})


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    folder = tiny_models.save("llama", tmp_path_factory.mktemp("llama"))
    return load_model(ModelSpec(str(folder), "float32", "causal"), PromptSpec(TOKENS, 20))


def own(lm: LanguageModel) -> list[int]:
    """Tokens of each text without its template."""
    return [size for size, _ in text_model(lm).encode(TASK.template, TEXTS, None, 6).sizes]


def rows(tokens: int) -> int:
    return max(1, -(-tokens // ROW))


def prompt(candidates: int = 2, layers: int = 1) -> Prompt:
    return Prompt(np.random.default_rng(0).normal(size=(candidates, layers, TOKENS, WIDTH)).astype(np.float32))


@pytest.mark.parametrize("layers", [1, LAYERS])
def test_a_likelihood_costs_the_tokens_of_text_and_target(lm: LanguageModel, layers: int) -> None:
    cell = Cell(lm)
    found = cell.box.score(prompt(2, layers), TEXTS, TASK.targets(EXAMPLES))
    ids = text_model(lm).target_ids(TASK.targets(EXAMPLES))
    wanted = 2 * sum(rows(size + len(target)) for size, target in zip(own(lm), ids, strict=True))
    assert cell.meter.spent == wanted == cell.book.rows[0].rows
    assert cell.box.budget.rows_left == 400 - wanted
    assert found.values.shape == (2, 4, max(map(len, ids)))
    assert cell.book.rows[0].level == min(layers, 2)
    assert found.losses().shape == (2,)
    assert (found.losses() > 0).all()


def test_a_written_text_costs_the_tokens_that_it_has(lm: LanguageModel) -> None:
    cell = Cell(lm)
    written = cell.box.generate(prompt(), TEXTS)
    wanted = sum(rows(own(lm)[t] + int(written.tokens[c, t])) for c in range(2) for t in range(4))
    assert cell.meter.spent == wanted
    assert not written.cut
    assert written.tokens.max() <= TASK.most_tokens
    assert [len(texts) for texts in written.texts] == [4, 4]
    assert cell.book.rows[0].tokens > 0


@pytest.mark.parametrize("more", range(6))
def test_writing_ends_where_the_budget_does_and_costs_what_was_written(lm: LanguageModel, more: int) -> None:
    read = sum(map(rows, own(lm)))
    whole = Cell(lm).box.generate(None, TEXTS, stop=())
    cell = Cell(lm, rows=4 * ((read + more) // 4))
    if cell.meter.budget.rows_total < read:
        with pytest.raises(BudgetExhausted):
            cell.box.generate(None, TEXTS, stop=())
        assert not cell.meter.spent
        assert not cell.book.rows
        return
    cut = cell.box.generate(None, TEXTS, stop=())
    assert cell.meter.spent == sum(rows(o + int(t)) for o, t in zip(own(lm), cut.tokens[0], strict=True))
    assert cell.meter.spent <= cell.meter.budget.rows_total
    assert cut.cut == (cut.tokens.sum() < whole.tokens.sum())
    assert all(full.startswith(part) for part, full in zip(cut.texts[0], whole.texts[0], strict=True))
    assert cell.book.rows[0].rows == cell.meter.spent


def test_where_rows_have_no_size_a_text_is_one_row(lm: LanguageModel) -> None:
    cell = Cell(lm, row_tokens=None)
    cell.box.generate(None, TEXTS)
    cell.box.score(None, TEXTS, TASK.targets(EXAMPLES))
    assert [row.rows for row in cell.book.rows] == [4, 4]


def test_replies_are_the_models_own(lm: LanguageModel) -> None:
    cell, model = Cell(lm), text_model(lm)
    ids = model.target_ids(TASK.targets(EXAMPLES))
    direct = model.score(None, model.encode(TASK.template, TEXTS, None, max(map(len, ids))), ids)
    np.testing.assert_array_equal(cell.box.score(None, TEXTS, TASK.targets(EXAMPLES)).values, direct.values)
    first, again = (cell.box.generate(None, TEXTS, temperature=1.0, seed=7) for _ in range(2))
    assert first.texts == again.texts
    digests = [row.sha256 for row in cell.book.rows]
    assert digests[1] != digests[2]  # the rows that are left are part of the reply
    assert len(digests) == 3


def test_what_is_refused_costs_nothing(lm: LanguageModel) -> None:
    cell = Cell(lm)
    box = cell.box
    for wrong, message in (
        (lambda: box.score(None, TEXTS, ("no",)), "1 targets for 4 texts"),
        (lambda: box.score(None, TEXTS[:1], ("",)), "no token"),
        (lambda: box.score(None, TEXTS, ("no",) * 4, template="{a} {mask}"), "mask"),
        (lambda: box.score(None, (("a", "b"),), ("no",)), "fields"),
        (lambda: box.score(None, TEXTS[:1], (3,)), "a string expected"),
        (lambda: box.score(None, TEXTS[:1], ("no " * 7_000,)), "a target has 21,000 characters; 20,000 are allowed"),
        (lambda: box.generate(None, TEXTS, most_tokens=4000), "tokens of output"),
        (lambda: box.generate(None, TEXTS, stop=("",)), "a stop has 0 characters"),
        (lambda: box.generate(None, TEXTS, temperature=float("nan")), "finite"),
        (lambda: box.generate(None, TEXTS, seed=-1), "cannot be sent"),
        (lambda: box.generate(None, TEXTS, most_tokens=0), "cannot be sent"),
        (lambda: box.generate(Prompt(np.zeros((1, 1, 9, WIDTH), np.float32)), TEXTS), "prompt of shape"),
        (lambda: box.logits(None, TEXTS, words=()), "at 0 label words were asked for, .* Task films is a text task"),
        (lambda: box.outputs(None, TEXTS), "at 0 label words were asked for, .* Task films is a text task"),
    ):
        with pytest.raises(QueryError, match=message):
            wrong()
    assert not cell.meter.spent
    assert not cell.book.rows


def test_targets_and_frames_that_a_worker_makes_up_are_refused(lm: LanguageModel) -> None:
    cell = Cell(lm)

    def ask(frame: wire.Request) -> wire.Reply:
        return wire.decode_reply(cell.session.reply(wire.encode(frame)[wire.PREFIX :])[wire.PREFIX :])

    first = wire.Declare(0, texts=list(TEXTS))
    assert isinstance(ask(first), wire.Done)
    assert isinstance(ask(wire.Score(0, TASK.template)), wire.Rejected)
    second = wire.Declare(0, targets=("no",))
    assert isinstance(ask(second), wire.Done)
    assert cell.session.tuning.declared_bytes == sum(len(wire.encode(each)) - wire.PREFIX for each in (first, second))
    assert isinstance(ask(wire.Score(0, TASK.template)), wire.Rejected)
    assert isinstance(ask(wire.Declare(1, targets=("no",) * 4)), wire.Done)
    assert isinstance(ask(wire.Score(0, TASK.template, targets=1)), wire.Scored)
    assert isinstance(ask(wire.Declare(2, texts=[], targets=("no",))), wire.Rejected)
    assert cell.session.tuning.rejected == 3


def test_a_loss_of_logits_is_that_of_likelihoods(lm: LanguageModel) -> None:
    """A solver that only needs a loss runs on both kinds of task."""
    cell = Cell(lm)
    q = cell.box.logits(prompt(), TEXTS)
    means = cell.box.score(prompt(), TEXTS, TASK.targets(EXAMPLES)).means
    assert q.shape == (2, 4, 2)
    np.testing.assert_allclose(cross_entropy(q, EXAMPLES.labels), -means.mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(np.exp(q).sum(axis=-1), 1, atol=1e-5)
    with pytest.raises(QueryError, match="neither of train nor of dev"):
        cell.box.logits(None, (("unheard of",),))
    selection = Selection(TASK, EXAMPLES)  # type: ignore[arg-type]
    better = selection.better(q, cross_entropy(q, EXAMPLES.labels))
    assert [k for k, _ in better][-1] == int(np.argmax(means.mean(axis=1)))


def test_an_answer_is_a_template_and_a_prompt(lm: LanguageModel) -> None:
    box = Cell(lm).box
    box.offer(Answer.of(TASK))
    box.offer(Answer((Member("{a} Say", (), prompt(1)),)))
    head = LinearHead(np.zeros((2, WIDTH)), np.zeros(2))
    for wrong, message in (
        (Answer((Member("{a}", ()), Member("{a}", ()))), "2 members"),
        (Answer((Member("{a}", (" no",)),)), "words"),
        (Answer((Member("{a}", (), head=head, alpha=0.5),)), "head, alpha"),
        (Answer((Member("{a}", (), prompt(2)),)), "exactly 1"),
        (Answer((Member("{b}", ()),)), "template"),
        (Answer((Member("bad film " * 20 + "{a}", ()),)), "tokens"),
    ):
        with pytest.raises(AnswerError, match=message):
            box.offer(wrong)


def test_a_task_with_classes_has_no_text(lm: LanguageModel) -> None:
    cell = Cell(lm)
    priced = PricedModel(lm, TASK, LARGEST, LARGEST)
    session = Session(priced, cell.meter, cell.book)
    session.tuning.config = {}
    frames = (wire.Declare(0, texts=list(TEXTS)), wire.Generate(0, TASK.template))
    replies = [wire.decode_reply(session.reply(wire.encode(f)[wire.PREFIX :])[wire.PREFIX :]) for f in frames]
    assert isinstance(replies[-1], wire.Rejected)
    assert "this task has classes" in replies[-1].message


def test_a_template_that_may_be_asked_about_may_be_answered_with(lm: LanguageModel) -> None:
    """Where a one-token target is asked about, room is kept for an output: `icl` learns from a refusal what fits."""
    cell = Cell(lm, rows=4000)
    model, most = text_model(lm), AnswerLimits(1e6, tokens=10**6)
    taken = []
    for words in range(lm.max_tokens):
        template = "bad " * words + TASK.template
        try:
            cell.box.score(None, TEXTS[:1], (".",), template=template)
        except QueryError as problem:
            assert "allowed" in str(problem)  # noqa: PT017
            break
        taken.append(template)
    assert 0 < len(taken) < lm.max_tokens
    pricing = TextPricing(lm, model, TASK, LARGEST, ROW)
    for template in (taken[0], taken[-1]):
        pricing.check_offered(Answer((Member(template, ()),)), TEXTS, most)
    with pytest.raises(QueryError):
        pricing.check_offered(Answer((Member("bad " * len(taken) + TASK.template, ()),)), TEXTS, most)
