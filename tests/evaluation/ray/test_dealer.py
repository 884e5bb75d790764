"""Scheduling of cells on a simulated cluster in this process. Hypothesis decides when hosts and nodes die."""

from __future__ import annotations

import dataclasses
import random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from made_up import key

from harness.errors import EngineError, InputError, StoreError, SubmissionError
from harness.evaluation.engines import scheduler
from harness.evaluation.engines.host import Loaded
from harness.evaluation.engines.scheduler import Dealer
from harness.evaluation.run import Plan

if TYPE_CHECKING:
    from collections.abc import Callable

CELLS = 4
IDENTITY = scheduler._identity


class RayError(Exception):
    """As Ray's."""


class RayTaskError(RayError):
    """As Ray's."""


class MadeUpRay:
    """The part of Ray that the scheduler uses. Time passes in `wait`: calls end, and hosts and nodes die at random."""

    def __init__(self, nodes: int, chance: random.Random, deaths: int, hostname: str | None = None) -> None:
        self.chance, self.deaths = chance, deaths
        self.alive = {f"node{n}": True for n in range(nodes)}
        self.hostname = hostname or scheduler.socket.gethostname()
        self.calls: dict[int, tuple[Any, Callable[[], Any]]] = {}
        self.results: dict[int, Any] = {}
        self.exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)
        strategies = SimpleNamespace(NodeAffinitySchedulingStrategy=lambda node, soft: node)  # noqa: ARG005
        self.util = SimpleNamespace(scheduling_strategies=strategies)
        self.most_at_once = 0

    def nodes(self) -> list[dict[str, Any]]:
        """As Ray's."""
        found = [
            {"NodeID": name, "Alive": alive, "Resources": {"CPU": 2.0}, "NodeManagerHostname": self.hostname}
            for name, alive in self.alive.items()
        ]
        if not any(self.alive.values()):  # seen once, they come back
            self.alive = dict.fromkeys(self.alive, True)
        return found

    def put(self, value: Any) -> Any:
        """As Ray's."""
        return value

    def kill(self, host: MadeUpHost) -> None:
        """As Ray's."""
        host.dead = True

    def call(self, host: MadeUpHost, function: Callable[[], Any]) -> int:
        """Ask a host for something; the number of the answer."""
        number = len(self.calls) + len(self.results)
        self.calls[number] = host, function
        cells = sum(1 for by, asked in self.calls.values() if asked.__name__ == "cell" and not by.dead)
        self.most_at_once = max(self.most_at_once, cells)
        return number

    def wait(self, pending: list[int], num_returns: int, timeout: float) -> tuple[list[int], list[int]]:
        """As Ray's."""
        if self.deaths and self.chance.random() < 0.3:
            self.deaths -= 1
            self.happen()
        for number in self.chance.sample(pending, len(pending)):
            host, function = self.calls[number]
            if host.dead or not self.alive[host.node]:
                late = self.chance.random() < 0.5 and function.__name__ == "cell"  # it finished, and nobody heard
                self.results[number] = RayError("died")
                if late:
                    function()
            else:
                self.results[number] = function()
            return [number], [n for n in pending if n != number]
        return [], []

    def happen(self) -> None:
        """A host dies, a node dies, or the dead nodes come back."""
        hosts = [host for host, _ in self.calls.values()]
        event = self.chance.randrange(3)
        living = [name for name, alive in self.alive.items() if alive]
        if event == 0 and hosts:
            self.chance.choice(hosts).dead = True
        elif event == 1 and living:
            self.alive[self.chance.choice(living)] = False
        else:
            self.alive = dict.fromkeys(self.alive, True)

    def get(self, number: int) -> Any:
        """As Ray's."""
        del self.calls[number]
        value = self.results[number]
        if isinstance(value, RayError):
            raise value
        return value


class MadeUpHost:
    """An actor. `outcomes` is the store, which accepts one outcome per cell."""

    def __init__(self, ray: MadeUpRay, node: str, world: World) -> None:
        self.ray, self.node, self.world, self.dead = ray, node, world, False
        self.load = SimpleNamespace(remote=lambda: ray.call(self, self.loads))
        self.run_cell = SimpleNamespace(remote=self.asked)

    def loads(self) -> Any:
        """See `harness.evaluation.engines.host.Host`."""
        return self.world.load(self)

    def asked(self, parcel: Any, run: str, number: int, replaces: int | None) -> int:
        """See `harness.evaluation.engines.host.Host`."""

        def cell() -> Any:
            return self.world.outcome(run, number)

        return self.ray.call(self, cell)


class World:
    """Plan, store and progress in one."""

    def __init__(self, submissions: int) -> None:
        cells = tuple(SimpleNamespace(task=SimpleNamespace(name="sst2"), split=n) for n in range(CELLS))
        self.plan = SimpleNamespace(cells=cells, open=self.open)
        self.outcomes: dict[tuple[str, int], int] = {}
        self.told: list[tuple[str, int]] = []
        self.broken: set[str] = set()
        self.given_up: dict[str, str] = {}
        self.submissions = tuple(SimpleNamespace(name=f"s{n}", access="black-box") for n in range(submissions))
        self.loads = 0
        self.tiers: list[str] = []

    def open(self, store: Any, submission: Any, options: Any, *, again: bool) -> Any:
        """See `harness.evaluation.run.Plan`."""
        todo = tuple(c for c in self.plan.cells if (submission.name, c.split) not in self.outcomes)
        return SimpleNamespace(
            id=submission.name, entry=submission.name, todo=todo, replaces=lambda _cell: None, before=lambda _: []
        )

    def load(self, host: MadeUpHost) -> Any:
        """Return the plan that a loaded host has."""
        self.loads += 1
        return SimpleNamespace(plan=self.plan, tier="A", oddities=())

    def outcome(self, run: str, number: int) -> Any:
        """Finish a cell, unless it is finished."""
        if run in self.broken:
            return SubmissionError(f"{run} cannot be imported")
        if (run, number) in self.outcomes:
            return None
        self.outcomes[run, number] = 1
        return SimpleNamespace(run=run, number=number)

    def isolated(self, tier: str) -> None:
        """See `harness.evaluation.run.Progress`."""
        self.tiers.append(tier)

    def noticed(self, lines: object) -> None:
        """See `harness.evaluation.run.Progress`."""

    def planned(self, entry: str, cells: Any, todo: Any, before: Any = ()) -> None:
        """See `harness.evaluation.run.Progress`."""

    def began(self, entry: str, cell: Any) -> None:
        """See `harness.evaluation.run.Progress`."""

    def ended(self, entry: str, cell: Any, verdict: Any) -> None:
        """See `harness.evaluation.run.Progress`."""
        self.told.append((entry, cell.split))

    def abandoned(self, entry: str, problem: str) -> None:
        """See `harness.evaluation.run.Progress`."""
        assert entry not in self.given_up
        self.given_up[entry] = problem


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "_LOOK_S", 0.0)
    monkeypatch.setattr(scheduler, "_PATIENCE_S", 0.1)
    monkeypatch.setattr(scheduler, "_identity", lambda loaded: {"sandbox": loaded.tier})
    monkeypatch.setattr(scheduler.Parcel, "of", lambda submission, _options: submission)


def deal(world: World, ray: MadeUpRay, workers: int | None = None, store: str = "sqlite:///results.db") -> Any:
    job: Any = SimpleNamespace(
        submissions=world.submissions,
        options={},
        again=False,
        store=SimpleNamespace(url=store, address=store),
        isolated=True,
        choices=SimpleNamespace(device=None),
        track=SimpleNamespace(device="cpu"),
    )

    def make_host(cells: int, **options: Any) -> MadeUpHost:
        return MadeUpHost(ray, options["scheduling_strategy"], world)

    return Dealer(ray, job, world, workers, make_host).run()  # type: ignore[arg-type]


@given(
    nodes=st.integers(1, 4), submissions=st.integers(1, 5), workers=st.one_of(st.none(), st.integers(1, 9)),
    deaths=st.integers(0, 4), seed=st.integers(0, 2**32),
)  # fmt: skip
@example(nodes=3, submissions=2, workers=None, deaths=3, seed=3_451_077)  # a new host while the old one's call is out
@settings(max_examples=200, deadline=None)
def test_whatever_dies_every_cell_finishes_once_and_is_reported_at_most_once(
    nodes: int, submissions: int, workers: int | None, deaths: int, seed: int
) -> None:
    """Too few hosts die to give up a cell. A cell that finished before its host died is stored, not reported."""
    world, ray = World(submissions), MadeUpRay(nodes, random.Random(seed), deaths)  # noqa: S311
    deal(world, ray, workers)
    assert set(world.outcomes) == {(f"s{s}", n) for s in range(submissions) for n in range(CELLS)}
    assert len(world.told) == len(set(world.told))
    assert set(world.told) <= set(world.outcomes)
    assert ray.most_at_once <= (workers or nodes)
    assert not any(function.__name__ == "cell" for _, function in ray.calls.values())


def test_only_missing_cells_are_dealt() -> None:
    world = World(2)
    world.outcomes = {("s0", n): 1 for n in range(CELLS)} | {("s1", 2): 1}
    deal(world, MadeUpRay(2, random.Random(0), 0))  # noqa: S311
    assert sorted(world.told) == [("s1", 0), ("s1", 1), ("s1", 3)]


def test_a_broken_submission_does_not_hold_up_the_others_and_is_reported() -> None:
    world = World(3)
    world.broken = {"s1"}
    deal(world, MadeUpRay(1, random.Random(0), 0))  # noqa: S311
    assert world.given_up == {"s1": "s1 cannot be imported"}
    assert {run for run, _ in world.outcomes} == {"s0", "s2"}
    assert len(world.outcomes) == 2 * CELLS


def test_what_a_host_cannot_do_ends_the_run_with_its_own_words() -> None:
    world = World(1)
    world.outcome = lambda _run, _number: StoreError("disk full")  # type: ignore[method-assign]
    with pytest.raises(StoreError, match="disk full"):
        deal(world, MadeUpRay(2, random.Random(0), 0))  # noqa: S311


def test_a_cell_under_which_every_host_dies_is_given_up_and_the_others_are_not() -> None:
    world, ray = World(2), MadeUpRay(2, random.Random(0), 0)  # noqa: S311
    usual = world.outcome

    def poisoned(run: str, number: int) -> Any:
        return RayError("out of memory") if (run, number) == ("s0", 1) else usual(run, number)

    world.outcome = poisoned  # type: ignore[method-assign]
    with pytest.raises(EngineError, match=r"1 cells were given up, since 5 hosts died under each: s0 sst2/1"):
        deal(world, ray)
    assert len(world.outcomes) == 2 * CELLS - 1


def test_hosts_that_never_start_end_the_run() -> None:
    world = World(1)
    world.load = lambda _host: RayError("killed")  # type: ignore[method-assign]
    with pytest.raises(EngineError, match="5 hosts in a row died while they loaded the model"):
        deal(world, MadeUpRay(1, random.Random(0), 0))  # noqa: S311


def test_nodes_that_compute_differently_are_refused() -> None:
    world = World(4)
    tiers = iter("AAB")
    world.load = lambda _host: SimpleNamespace(plan=world.plan, tier=next(tiers), oddities=())  # type: ignore[method-assign]
    with pytest.raises(EngineError, match="nodes differ in sandbox: A and B"):
        deal(world, MadeUpRay(3, random.Random(0), 0))  # noqa: S311


def test_a_sqlite_file_is_not_shared_with_other_machines() -> None:
    with pytest.raises(InputError, match=r"elsewhere is another machine.*postgresql"):
        deal(World(1), MadeUpRay(1, random.Random(0), 0, hostname="elsewhere"))  # noqa: S311
    deal(World(1), MadeUpRay(1, random.Random(0), 0, hostname="elsewhere"), store="postgresql+psycopg://db")  # noqa: S311


def test_a_cluster_without_the_device_is_an_error() -> None:
    ray = MadeUpRay(1, random.Random(0), 0)  # noqa: S311
    ray.nodes = lambda: [{"Alive": True, "NodeID": "n", "Resources": {}, "NodeManagerHostname": "n"}]  # type: ignore[method-assign]
    with pytest.raises(EngineError, match="1 nodes are alive, for 0 s none with a CPU"):
        deal(World(1), ray)


def test_hosts_must_agree_in_what_references_need_as_well() -> None:
    plan = Plan((), key(), {"black-box": {"torch": "2"}, "white-box": {"torch": "2", "peft": "0.19"}}, {}, True)
    other = dataclasses.replace(plan, environments=plan.environments | {"white-box": {"torch": "2", "peft": "0.20"}})
    assert IDENTITY(Loaded(plan, None)) != IDENTITY(Loaded(other, None))
