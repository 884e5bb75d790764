"""Gives cells to hosts until no cell is left, even if hosts die meanwhile.

No result is kept here. A cell is finished when the store has its outcome, and the store takes one outcome per cell.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import socket
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from harness.errors import EngineError, HarnessError, InputError, SandboxError, SubmissionError
from harness.evaluation.engines.host import Parcel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.evaluation.engines.host import Loaded
    from harness.evaluation.engines.job import Job
    from harness.evaluation.referee import Verdict
    from harness.evaluation.run import Plan, Progress

_LOOK_S = 1.0
"""Seconds between two checks of which nodes are alive."""
_PATIENCE_S = 30.0
"""Seconds to wait for a node with a suitable device when there is none, at the start or later."""
_MOST_DEATHS = 5
"""A cell is given up after this many hosts died while running it."""
_MOST_FAILED_STARTS = 5
"""The job ends after this many hosts in a row died before they had loaded the model."""

Place: TypeAlias = tuple[str, int]
"""Node id, and the number of the device on that node."""


class MakeHost(Protocol):
    """Makes the actor of a host. Simulations replace it."""

    def __call__(self, cells: int, **options: Any) -> Any:
        """Start an actor like `Host` with these Ray options that runs `cells` at once."""
        ...


@dataclass
class _Item:
    """A cell that will be run."""

    order: int
    """Position of its submission in the job."""
    entry: str
    run: str
    number: int
    """Position of the cell in the plan."""
    parcel: Any
    """Reference to the `Parcel`."""
    replaces: int | None = None
    """The attempt whose failed outcome will be replaced."""
    deaths: int = 0
    """Number of hosts that died while running it."""


@dataclass(eq=False)
class _Device:
    """A host as the driver sees it."""

    place: Place
    actor: Any
    free: int
    """Number of cells that it could take now."""
    loaded: bool = False


class Dealer:
    """Runs one job on one cluster. It is single-threaded; only the hosts run several cells at once."""

    def __init__(self, ray: Any, job: Job, progress: Progress, workers: int | None, make_host: MakeHost) -> None:
        """Deal the cells of `job`, at most `workers` at once; None means one per device."""
        self._ray, self._job, self._progress, self._make_host = ray, job, progress, make_host
        self._most = workers or math.inf
        self._devices: dict[Place, _Device] = {}
        self._per_device = 1
        self._loading: dict[Any, _Device] = {}
        self._flying: dict[Any, tuple[_Device, _Item]] = {}
        self._again: deque[_Item] = deque()
        self._more: Iterator[_Item] | None = None
        self._first: Loaded | None = None
        self._plan: Plan | None = None
        self._failed_starts, self._looked, self._seen = 0, -math.inf, time.monotonic()
        self._problems: set[int] = set()
        """Positions of the submissions whose cells are no longer dealt. The others go on."""
        self._lost: list[str] = []

    def run(self) -> Plan:
        """Deal cells until all outcomes are in the store.

        Raises:
            EngineError: there is no suitable device, devices differ, or cells were lost again and again.
            HarnessError: the error that a host returned.
        """
        try:
            while self._plan is None or self._deal(self._plan):
                self._look()
                if pending := [*self._loading, *self._flying]:
                    done, _ = self._ray.wait(pending, num_returns=1, timeout=_LOOK_S)
                    for reference in done:
                        self._take(reference)
                else:
                    time.sleep(_LOOK_S)
        finally:
            for device in self._devices.values():
                self._end(device)
        if self._lost:
            raise EngineError(
                f"{len(self._lost)} cells were given up, since {_MOST_DEATHS} hosts died under each: "
                f"{', '.join(self._lost[:5])}. Ray's logs say why; the same command tries them again"
            )
        return self._plan

    # ── devices ──────────────────────────────────────────────────────────────────────────────────────────────

    def _look(self) -> None:
        """Check which nodes are alive. Start a host for each new device, and drop the hosts of lost nodes."""
        busy = self._loading or self._flying
        if busy and time.monotonic() - self._looked < _LOOK_S:
            return
        self._looked = time.monotonic()
        places = self._places()
        for place in set(self._devices) - set(places):
            self._drop(self._devices[place])
        if places and not self._devices and self._most < math.inf:
            self._per_device = math.ceil(self._most / len(places))
        for place, options in places.items():
            if place in self._devices or len(self._devices) * self._per_device >= self._most:
                continue
            strategy = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(place[0], soft=False)
            actor = self._make_host(self._per_device, scheduling_strategy=strategy, **options)
            self._devices[place] = device = _Device(place, actor, self._per_device)
            self._loading[actor.load.remote()] = device

    def _places(self) -> dict[Place, dict[str, Any]]:
        """Every device of the live nodes, with the Ray options of its host.

        Raises:
            EngineError: there has been no device for some time.
            InputError: a node is another machine, and the store is a file of this one.
        """
        gpu = (self._job.choices.device or self._job.track.device) == "cuda"
        alive = [node for node in self._ray.nodes() if node["Alive"]]
        places: dict[Place, dict[str, Any]] = {}
        for node in alive:
            has = node["Resources"]
            for n in range(int(has.get("GPU", 0)) if gpu else int(has.get("CPU", 0) >= 1)):
                places[node["NodeID"], n] = {"num_gpus": 1, "num_cpus": 1} if gpu else {"num_cpus": int(has["CPU"])}
                self._check_machine(node["NodeManagerHostname"])
        if places:
            self._seen = time.monotonic()
        elif time.monotonic() - self._seen > _PATIENCE_S:
            raise EngineError(
                f"{len(alive)} nodes are alive, for {_PATIENCE_S:.0f} s none with a {'GPU' if gpu else 'CPU'} that Ray "
                "knows of; add one with ray start, or choose another --device"
            )
        return places

    def _check_machine(self, name: str) -> None:
        store = self._job.store
        if name != socket.gethostname() and store.address.startswith("sqlite"):
            raise InputError(
                f"node {name} is another machine, and {store.url} is a SQLite file of this one, which must not be "
                "shared over a network; use --store postgresql+psycopg://…"
            )

    def _drop(self, device: _Device) -> None:
        if self._devices.get(device.place) is device:
            del self._devices[device.place]
        self._end(device)

    def _end(self, device: _Device) -> None:
        with contextlib.suppress(Exception):  # it may be dead already, or its node may be unreachable
            self._ray.kill(device.actor)

    # ── cells ────────────────────────────────────────────────────────────────────────────────────────────────

    def _deal(self, plan: Plan) -> bool:
        """Give cells to hosts that can take more. Return False when all is done."""
        while (item := self._next(plan)) is not None:
            open_ones = [device for device in self._devices.values() if device.loaded and device.free]
            if not open_ones or len(self._flying) >= self._most:
                self._again.appendleft(item)
                return True
            device = max(open_ones, key=lambda each: each.free)
            device.free -= 1
            self._progress.began(item.entry, plan.cells[item.number])
            reference = device.actor.run_cell.remote(item.parcel, item.run, item.number, item.replaces)
            self._flying[reference] = device, item
        return bool(self._flying)

    def _next(self, plan: Plan) -> _Item | None:
        if self._more is None:
            self._more = self._items(plan)
        while True:
            item = self._again.popleft() if self._again else next(self._more, None)
            if item is None or item.order not in self._problems:
                return item

    def _items(self, plan: Plan) -> Iterator[_Item]:
        """All missing cells, submission by submission. A run is opened when its turn comes."""
        job = self._job
        numbers = {(cell.task.name, cell.split): n for n, cell in enumerate(plan.cells)}
        for order, submission in enumerate(job.submissions):
            run = plan.open(job.store, submission, job.options, again=job.again)
            self._progress.planned(run.entry, plan.cells, run.todo, run.before(job.store))
            if not run.todo:
                continue
            try:
                parcel = self._ray.put(Parcel.of(submission, job.options))
            except (SubmissionError, OSError) as problem:
                self._abandon(order, run.entry, str(problem))
                continue
            for cell in run.todo:
                number = numbers[cell.task.name, cell.split]
                yield _Item(order, run.entry, run.id, number, parcel, run.replaces(cell))

    def _abandon(self, order: int, entry: str, problem: str) -> None:
        """Deal no more cells of a submission, and report the reason once."""
        if order not in self._problems:
            self._problems.add(order)
            self._progress.abandoned(entry, problem)

    # ── what comes back ──────────────────────────────────────────────────────────────────────────────────────

    def _take(self, reference: Any) -> None:
        """Take what a host returned, or notice that it is lost."""
        if reference in self._loading:
            device, item = self._loading.pop(reference), None
        else:
            device, item = self._flying.pop(reference)
        try:
            value = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as problem:  # an error in this program's own code
            if item is None:
                raise
            device.free += 1
            self._abandon(item.order, item.entry, f"an error of this program, please report it:\n{problem}")
            return
        except self._ray.exceptions.RayError as problem:
            self._drop(device)  # `_look` starts another host if the device still exists
            self._died(item, problem)
            return
        if item is None:
            self._loaded(device, value)
            return
        device.free += 1
        if isinstance(value, SandboxError | SubmissionError):
            self._abandon(item.order, item.entry, str(value))
        elif isinstance(value, HarnessError):
            raise value
        elif value is not None:
            self._ended(item, value)

    def _ended(self, item: _Item, verdict: Verdict) -> None:
        if self._plan is not None:
            self._progress.ended(item.entry, self._plan.cells[item.number], verdict)

    def _loaded(self, device: _Device, value: Loaded | HarnessError) -> None:
        """Accept a host that is ready. It must equal the first one, so that scores are comparable."""
        if isinstance(value, HarnessError):
            raise value
        if self._first is None:
            self._first, self._plan = value, value.plan
            self._progress.noticed(value.oddities)
            if value.tier is not None:
                self._progress.isolated(value.tier)
        first = self._first
        for (name, theirs), mine in zip(_identity(first).items(), _identity(value).values(), strict=True):
            if theirs != mine:
                raise EngineError(
                    f"nodes differ in {name}: {theirs} and {mine}. One ranking needs one kind of device and one set of "
                    "versions; give Ray nodes that are alike"
                )
        device.loaded, self._failed_starts = True, 0

    def _died(self, item: _Item | None, problem: Exception) -> None:
        """A host died, while running the cell or before it had one. Its cells are dealt again."""
        if item is None:
            self._failed_starts += 1
            if self._failed_starts >= _MOST_FAILED_STARTS:
                raise EngineError(
                    f"{self._failed_starts} hosts in a row died while they loaded the model; the last: {problem}. "
                    "Too little memory is the usual reason; Ray's logs have more"
                ) from problem
            return
        item.deaths += 1
        if item.deaths < _MOST_DEATHS:
            self._again.append(item)
        elif self._plan is not None:
            cell = self._plan.cells[item.number]
            self._lost.append(f"{item.entry} {cell.task.name}/{cell.split}")


def _identity(loaded: Loaded) -> dict[str, Any]:
    """The facts that must be equal on all hosts."""
    plan = loaded.plan
    found: dict[str, Any] = {"cells": [f"{c.task.name}/{c.split}" for c in plan.cells], "sandbox": loaded.tier}
    for access, environment in plan.environments.items():
        found |= {f"{access} {name}": value for name, value in environment.items()}
    return dataclasses.asdict(plan.base) | found
