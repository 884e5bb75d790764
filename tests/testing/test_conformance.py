"""Every black box of the project keeps the contract, and a box that does not is found out."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from harness import testing
from harness.blackbox.client import RemoteBlackBox
from harness.blackbox.fake import FakeLM, fake_shots, fake_task
from harness.blackbox.fake_language_model import FakeLanguageModel
from harness.blackbox.fake_text import fake_text_shots, fake_text_task
from harness.blackbox.fake_text_lm import FakeTextLM, fake_priced
from harness.blackbox.meter import Meter
from harness.blackbox.pricing import PricedModel
from harness.blackbox.session import Session
from harness.blackbox.text_client import RemoteTextBlackBox
from harness.contract import Generated, Likelihoods
from harness.testing import ConformanceError, Subject, TextSubject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.contract import BlackBox, Outputs, TextBlackBox

TASK = fake_task(3)
SHOTS = fake_shots(TASK, np.random.default_rng(0), per_class=4)
CALLS = 20


class Unkept:
    """A ledger that keeps nothing."""

    def record(self, row: object) -> None:
        """Forget the row."""


@contextmanager
def served(priced: PricedModel, meter: Meter) -> Iterator[socket.socket]:
    """The worker's end of a connection to a session that serves a model."""
    ours, theirs = socket.socketpair()
    session = Session(priced, meter, Unkept(), lambda *_: None)
    thread = threading.Thread(target=session.serve, args=(ours, time.monotonic() + 60))
    thread.start()
    try:
        yield theirs
    finally:
        theirs.close()
        thread.join()
        ours.close()


@contextmanager
def over_a_socket() -> Iterator[BlackBox]:
    """The client that a submission has in its worker, in front of a session that serves the fake."""
    meter, priced = Meter(CALLS, len(SHOTS.train)), PricedModel(FakeLanguageModel(TASK, 0), TASK, 1 << 26, 1 << 26)
    with served(priced, meter) as sock:
        box = RemoteBlackBox(sock, FakeLM.for_task(TASK, SHOTS, CALLS, 0).info, TASK, meter.budget)
        box.ready({})
        yield box


@pytest.mark.parametrize("check", testing.CHECKS, ids=lambda check: check.__name__)
def test_the_fake_keeps_the_contract(check: Callable[[Subject], None]) -> None:
    check(Subject(lambda: FakeLM.for_task(TASK, SHOTS, CALLS, 0), TASK, SHOTS.train.texts))


@pytest.mark.parametrize("check", testing.CHECKS, ids=lambda check: check.__name__)
def test_the_workers_client_keeps_the_contract(check: Callable[[Subject], None]) -> None:
    with ExitStack() as stack:
        check(Subject(lambda: stack.enter_context(over_a_socket()), TASK, SHOTS.train.texts))


TEXT, ROW_TOKENS = fake_text_task(), 4
TEXT_SHOTS = fake_text_shots(np.random.default_rng(0), 4)


@contextmanager
def text_over_a_socket() -> Iterator[TextBlackBox]:
    """The client that a submission has in its worker on a text task, in front of a session that serves the fake."""
    meter, priced = Meter(60, len(TEXT_SHOTS.train)), fake_priced(TEXT, TEXT_SHOTS, row_tokens=ROW_TOKENS)
    with served(priced, meter) as sock:
        box = RemoteTextBlackBox(sock, FakeLanguageModel(TEXT).fake.info, TEXT, meter.budget, TEXT_SHOTS)
        box.ready({})
        yield box


def fake_text(row_tokens: int | None = ROW_TOKENS, calls: int = 60) -> FakeTextLM:
    return FakeTextLM.for_task(TEXT, TEXT_SHOTS, calls, row_tokens=row_tokens)


@pytest.mark.parametrize("row_tokens", [ROW_TOKENS, None])
@pytest.mark.parametrize("check", testing.TEXT_CHECKS, ids=lambda check: check.__name__)
def test_the_fake_keeps_the_contract_of_text(check: Callable[[TextSubject], None], row_tokens: int | None) -> None:
    check(TextSubject(lambda: fake_text(row_tokens), TEXT, TEXT_SHOTS))


@pytest.mark.parametrize("check", testing.TEXT_CHECKS, ids=lambda check: check.__name__)
def test_the_workers_client_keeps_the_contract_of_text(check: Callable[[TextSubject], None]) -> None:
    with ExitStack() as stack:
        check(TextSubject(lambda: stack.enter_context(text_over_a_socket()), TEXT, TEXT_SHOTS))


class BrokenText:
    """A black box of text with one fault."""

    def __init__(self, **faults: Any) -> None:
        self.box, self.faults = fake_text(), faults

    def __getattr__(self, name: str) -> Any:
        """The fault, which is given the sound box first, or the sound box."""
        fault = self.faults.get(name)
        return getattr(self.box, name) if fault is None else partial(fault, self.box)


def test_a_black_box_of_text_with_a_fault_is_found_out() -> None:
    def wrong(**faults: Any) -> list[str]:
        found = []
        for check in testing.TEXT_CHECKS:
            try:
                check(TextSubject(lambda: BrokenText(**faults), TEXT, TEXT_SHOTS))  # type: ignore[arg-type,return-value]
            except ConformanceError:
                found.append(check.__name__)
        return found

    assert not wrong()
    other = fake_text(calls=10_000)

    def doubled(box: FakeTextLM, *given: Any, **named: Any) -> Likelihoods:
        found = box.score(*given, **named)
        return Likelihoods(found.values.astype(np.float64) * 2, found.lengths)  # type: ignore[arg-type]

    def chance(box: FakeTextLM, *given: Any, **named: Any) -> Generated:
        return box.generate(*given, **named | {"temperature": 9.0, "seed": int(box.budget.rows_left)})

    def uncut(box: FakeTextLM, *given: Any, **named: Any) -> Generated:
        return replace(box.generate(*given, **named), cut=False)

    def endless(box: FakeTextLM, *given: Any, **named: Any) -> Generated:
        return box.generate(*given, **named | {"stop": ()})

    def free(_box: FakeTextLM, *given: Any, **named: Any) -> Likelihoods:
        return other.score(*given, **named)  # charged to somebody else

    assert "likelihoods_have_one_row_per_candidate_and_text" in wrong(score=doubled)
    assert "logits_of_a_text_task_are_its_likelihoods" in wrong(score=doubled)
    assert "a_text_is_charged_by_its_tokens" in wrong(score=free)
    assert "what_is_written_ends_as_it_was_asked" in wrong(generate=chance)
    assert "what_is_written_ends_as_it_was_asked" in wrong(generate=endless)
    assert "the_budget_ends_an_output" in wrong(generate=uncut)
    assert "a_malformed_text_query_is_refused_and_costs_nothing" in wrong(generate=endless)


class Broken:
    """A black box with one fault."""

    def __init__(self, **faults: Any) -> None:
        self.box, self.faults = FakeLM.for_task(TASK, SHOTS, CALLS, 0), faults

    def __getattr__(self, name: str) -> Any:
        """The fault, or the sound box."""
        return self.faults.get(name) or getattr(self.box, name)


def double(box: FakeLM) -> Any:
    """Logits in float64."""
    return lambda *given, **named: box.logits(*given, **named).astype(np.float64)


def test_a_black_box_with_a_fault_is_found_out() -> None:
    def wrong(**faults: Any) -> list[str]:
        found = []
        for check in testing.CHECKS:
            try:
                check(Subject(lambda: Broken(**faults), TASK, SHOTS.train.texts))  # type: ignore[arg-type,return-value]
            except ConformanceError:
                found.append(check.__name__)
        return found

    assert not wrong()
    own = FakeLM.for_task(TASK, SHOTS, 10_000, 0)
    assert "logits_have_one_row_per_candidate_and_text" in wrong(logits=double(own))
    assert "a_row_costs_a_row" in wrong(logits=own.logits)  # charged to somebody else
    assert "label_words_are_single_tokens" in wrong(word_ids=lambda words: [[0, 1] for _ in words])
    assert "a_malformed_query_is_refused_and_costs_nothing" in wrong(
        logits=lambda *_, **__: np.zeros((1, 1, 1), np.float32)
    )

    def without_lengths(*given: Any, **named: Any) -> Outputs:
        out = own.outputs(*given, **named)
        return type(out)(out.logits, out.features)

    assert "hidden_states_have_the_model_s_width" in wrong(outputs=without_lengths)
