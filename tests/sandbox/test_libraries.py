"""The libraries that submissions may import work in every tier, without a single writable path."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tiers import skip_where_missing

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
    states = [open(f"/proc/self/task/{n}/status").read() for n in os.listdir("/proc/self/task")]
    print("filters", sorted({line.split()[1] for text in states for line in text.splitlines() if "Seccomp:" in line}))
    print("threads", len(states))
"""


@pytest.mark.slow  # torch and scikit-learn take seconds to import
@pytest.mark.parametrize("tier", TIERS)
def test_torch_takes_an_adam_step_and_all_others_run(arena: Arena, tier: Tier) -> None:
    skip_where_missing(tier)
    run = arena.run(LIBRARIES, tier=tier)
    assert (run.status, run.record.detail) == ("ok", "")
    assert f"filters ['{0 if tier == '0' else 2}']" in run.record.output
