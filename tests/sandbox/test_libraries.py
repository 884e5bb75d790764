"""The libraries that submissions may import work in every tier, without a single writable path."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tiers import skip_where_missing

from harness.sandbox import launch
from harness.tracks.tiers import TIERS, Tier

if TYPE_CHECKING:
    from outer_models import Arena

LIBRARIES = """
def tune(lm, task, shots, rng, config):
    import cma, nevergrad, scipy.optimize, sklearn.linear_model, torch
    yield Answer.of(task)
    weight = torch.nn.Linear(8, 2)
    optimizer = torch.optim.Adam(weight.parameters(), lr=0.1)
    before = weight.weight.detach().clone()
    for _ in range(2):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(weight(torch.ones(4, 8)), torch.zeros(4, dtype=torch.long)).backward()
        optimizer.step()
    assert not torch.equal(before, weight.weight)
    torch.nn.LSTM(8, 4, bidirectional=True)(torch.ones(2, 3, 8))
    x, y = rng.standard_normal((20, 3)), np.arange(20) % 2
    sklearn.linear_model.LogisticRegression().fit(x, y)
    search = cma.CMAEvolutionStrategy(np.ones(3), 0.5, {"verbose": -9, "seed": 1})
    found = search.ask()
    search.tell(found, [float(z @ z) for z in found])
    optimizer = nevergrad.optimizers.registry["NGOpt"](parametrization=3, budget=10)
    optimizer.minimize(lambda z: float(z @ z))
    scipy.optimize.minimize(lambda z: float(z @ z), np.ones(3), method="COBYLA")
    print("threads", len(os.listdir("/proc/self/task")))
    time.sleep(1)
"""


@pytest.mark.slow  # torch and scikit-learn take seconds to import
@pytest.mark.parametrize("tier", TIERS)
def test_torch_takes_an_adam_step_and_all_others_run(arena: Arena, tier: Tier, monkeypatch: pytest.MonkeyPatch) -> None:
    skip_where_missing(tier)
    filters: set[str] = set()
    threads: list[int] = []
    start = launch.start

    def started(*given: Any) -> launch.Worker:
        worker = start(*given)
        threading.Thread(target=look, args=(worker,), daemon=True).start()
        return worker

    def look(worker: launch.Worker) -> None:
        """From outside: a worker cannot read what the kernel says of each of its threads."""
        while True:
            states = [_read(path) for path in Path(f"/proc/{worker.pid}/task").glob("*/status")]
            if not states:
                return
            threads.append(len(states))
            filters.update(re.findall(r"^Seccomp:\t(\d)", "\n".join(states), re.MULTILINE))
            time.sleep(0.05)

    monkeypatch.setattr(launch, "start", started)
    run = arena.run(LIBRARIES, tier=tier)
    assert (run.status, run.record.detail) == ("ok", "")
    assert filters == {"0" if tier == "0" else "2"}
    assert f"threads {threads[-1]}" in run.record.output


def _read(path: Path) -> str:
    """What a thread's file says; nothing if the thread has ended."""
    with contextlib.suppress(OSError):
        return path.read_text(encoding="ascii")
    return ""
