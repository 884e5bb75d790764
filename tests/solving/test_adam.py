"""Adam, against cases computed by hand and against torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.solving import Adam


def test_first_step_of_adam_is_the_learning_rate_against_the_sign() -> None:
    p = np.array([1.0, 2.0, 3.0])
    Adam(0.1).step([p], [np.array([5.0, -0.01, 0.0])])
    np.testing.assert_allclose(p, [0.9, 2.1, 3.0], atol=1e-6)


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_steps_are_those_of_torchs_adamw_with_decay_on_matrices_alone(decay: float) -> None:
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(3, 4)), rng.normal(size=3)
    theirs = [torch.nn.Parameter(torch.tensor(p)) for p in (weight, bias)]
    groups = [{"params": [p], "weight_decay": d} for p, d in zip(theirs, (decay, 0.0), strict=True)]
    reference, adam = torch.optim.AdamW(groups, lr=0.05), Adam(0.05, decay)
    for _ in range(20):
        gradients = [rng.normal(size=p.shape) for p in (weight, bias)]
        for p, g in zip(theirs, gradients, strict=True):
            p.grad = torch.tensor(g)
        reference.step()
        adam.step([weight, bias], gradients)
    np.testing.assert_allclose(weight, theirs[0].detach().numpy(), rtol=1e-10)
    np.testing.assert_allclose(bias, theirs[1].detach().numpy(), rtol=1e-10)
    assert adam.steps == 20


def test_another_number_of_gradients_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        Adam(0.1).step([np.zeros(2), np.zeros(3)], [np.zeros(2)])


def test_importing_what_solvers_share_loads_neither_torch_nor_cma_nor_scikit_learn() -> None:
    import subprocess
    import sys

    heavy = {"torch", "cma", "sklearn", "scipy", "nevergrad", "pandas"}
    code = f"import sys, harness, harness.solving; sys.exit(bool({heavy!r} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
