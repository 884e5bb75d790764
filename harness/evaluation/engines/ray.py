"""Cells on a Ray cluster.

    driver (this process) ── plans, opens runs, deals ──► hosts (actors, one per GPU, or per node on CPUs)
                                                            │ referee and worker of each cell, as on one machine
                                                            ▼
                                                          store: holds all results

A host, a node or the driver may die at any moment. The same command then continues from the stored cells.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.errors import EngineError, InputError
from harness.evaluation.engines.host import Host
from harness.evaluation.engines.scheduler import Dealer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.evaluation.engines.job import Job
    from harness.evaluation.run import Plan, Progress

_OBJECTS = 256 << 20
"""Size in bytes of Ray's object store on a cluster that this process starts. Only submissions are sent through it."""


@dataclass(frozen=True)
class Cluster:
    """The cluster to use, and how many cells run on it at once."""

    address: str | None = None
    """Address of a running cluster, or ``auto`` for the one of this machine; None starts one on this machine."""
    workers: int | None = None
    """Number of cells at once, spread evenly over the devices; None means one per device."""


def run(job: Job, progress: Progress, cluster: Cluster | None = None) -> Plan:
    """Run what is missing of every submission; return what was planned.

    Raises:
        InputError: Ray is not installed, or a choice does not fit the cluster.
        HarnessError: see `Dealer.run`.
    """
    cluster = cluster or Cluster()
    if cluster.workers is not None and cluster.workers < 1:
        raise InputError(f"--workers {cluster.workers}: at least one is needed")
    job = dataclasses.replace(job, choices=job.choices.absolute())
    given = job.track, job.choices, job.store.address, os.environ.get("OMP_NUM_THREADS"), job.isolated
    with connected(cluster.address) as ray:

        def make_host(cells: int, **options: Any) -> Any:
            return ray.remote(Host).options(max_concurrency=cells, max_restarts=0, **options).remote(*given)

        return Dealer(ray, job, progress, cluster.workers, make_host).run()


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """Ray, connected to a cluster or to a new one, which listens on loopback alone. Usage reports are off.

    Raises:
        InputError: Ray is not installed.
        EngineError: the cluster cannot be reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # later releases' default; Ray warns without it
    if address is None:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # on Linux its only effect is to use 127.0.0.1
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        import ray  # noqa: PLC0415 - optional, and a second to import
        import ray.util.scheduling_strategies  # noqa: PLC0415
    except ModuleNotFoundError as problem:
        raise InputError('--engine ray needs a package that is not here; run: pip install -e ".[ray]"') from problem
    how: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        how |= {"include_dashboard": False, "object_store_memory": _OBJECTS}
    try:
        ray.init(address=address or "local", **how)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError, ray.exceptions.RayError) as problem:
        raise EngineError(
            f"no Ray cluster at {address or 'this machine'}: {problem}. Start one with: ray start --head, "
            "or leave out --address"
        ) from problem
    try:
        yield ray
    finally:
        ray.shutdown()
