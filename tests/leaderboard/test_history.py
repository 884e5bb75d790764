"""Who led when, and every run: from stored times and rulings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from made_up import key

from harness.leaderboard.history import History, history
from harness.leaderboard.rank import rank
from harness.leaderboard.report.page_history import state
from harness.results import rulings
from harness.results import store as stores
from harness.results.records import CellRecord, KeptAnswer
from harness.results.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

FACTS = CellRecord(rows_spent=32, train_rows=32, calls_total=10, rows_total=320, sandbox="A", metric="accuracy")
CELLS = [("sst2", 1), ("sst2", 2), ("qqp", 1), ("qqp", 2)]


class Clock:
    """Time goes on by a second with every look."""

    now = 1_000.0

    def time(self) -> float:
        """The next second."""
        self.now += 1
        return self.now


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    clock = Clock()
    monkeypatch.setattr(stores, "time", clock)
    monkeypatch.setattr(rulings, "time", clock)
    made = Store("sqlite://")
    yield made
    made.close()


def add(store: Store, name: str, right: float, cells: Any = CELLS, **identity: Any) -> None:
    run = store.open_run(key(name, submission_sha256=f"{name} {right}", **identity), {"packages": {}})
    labels = np.array([0, 1] * 20)
    for task, split in cells:
        said = np.where(np.arange(40) < right * 40, labels, 1 - labels)
        store.begin(run, task, split).finish("ok", FACTS, "t", labels, [KeptAnswer(1.0, 32, b"a", said)])


def withdraw(store: Store, name: str, reason: str) -> None:
    with store.changes() as connection:
        rulings.add(connection, "withdraw", "tiny", name, reason)


def found(store: Store) -> History:
    return history(store, rank(store, "tiny", planned=CELLS))


def leaders(past: History) -> list[tuple[str, float]]:
    return [(lead.tried.run.key.label, lead.tried.outcome.average or 0.0) for lead in past.leads]


def test_the_lead_goes_to_whoever_is_better(store: Store) -> None:
    """Times join without a gap, and the last leader leads now."""
    for name, right in (("a", 0.5), ("b", 0.7), ("c", 0.6), ("d", 0.8)):
        add(store, name, right)
    past = found(store)
    assert leaders(past) == [("a", 0.5), ("b", 0.7), ("d", 0.8)]
    assert [lead.until for lead in past.leads] == [lead.since for lead in past.leads[1:]] + [None]
    assert past.leads[0].since == past.runs[0].ended


def test_a_worse_new_run_of_the_leader_gives_the_lead_away(store: Store) -> None:
    """Since the newest run of an entry counts, as in the ranking."""
    for name, right in (("a", 0.8), ("b", 0.7), ("a", 0.6)):
        add(store, name, right)
    past = found(store)
    assert leaders(past) == [("a", 0.8), ("b", 0.7)]
    assert [state(each) for each in past.runs] == ["a newer run counts", "stands in the list", "stands in the list"]


def test_a_withdrawn_entry_led_until_it_was_withdrawn(store: Store) -> None:
    """It is told, with the reason; its rival leads from then on."""
    add(store, "a", 0.6)
    add(store, "cheat", 0.9)
    withdraw(store, "cheat", "texts of the test set")
    past = found(store)
    assert leaders(past) == [("a", 0.6), ("cheat", 0.9), ("a", 0.6)]
    assert past.leads[1].until == past.leads[2].since
    assert past.leads[1].tried.withdrawn is not None
    assert [state(each) for each in past.runs] == ["stands in the list", "withdrawn: texts of the test set"]


def test_what_cannot_be_compared_never_leads_and_is_listed(store: Store) -> None:
    add(store, "a", 0.6)
    add(store, "half", 0.9, CELLS[:2])
    add(store, "trial", 0.9, modified=("calls",), calls=5)
    add(store, "tuned", 0.9, access="white-box")
    add(store, "outside", 0.9, external="a prompt")
    add(store, "elsewhere", 0.9, device="a GPU")
    past = found(store)
    assert leaders(past) == [("a", 0.6)]
    assert {each.run.key.entry: state(each) for each in past.runs} == {
        "a": "stands in the list",
        "half": "stands in the list, cells missing",
        "trial": "trial: replaced calls",
        "tuned": "stands in the list",
        "outside": "stands in the list",
        "elsewhere": "stands in the list",
    }


def test_an_empty_store_has_no_history(store: Store) -> None:
    assert found(store) == History((), ())
