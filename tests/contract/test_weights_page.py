"""What docs/weights.md prints runs, and its numbers are those of the program."""

from __future__ import annotations

import contextlib
import re
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import BudgetExhausted
from harness.blackbox import weights
from harness.blackbox.fake import FakeLM, fake_shots, fake_task
from harness.contract.weights import MOST_NOISE_RANK, MOST_PARTS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "weights.md").read_text(encoding="utf-8")
SOLVERS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("source", SOLVERS)
def test_the_solvers_on_the_page_run(source: str) -> None:
    names: dict[str, Any] = {}
    exec(source, names)  # noqa: S102 - our own page
    task = fake_task()
    shots = fake_shots(task, np.random.default_rng(1), 4)
    lm = FakeLM.for_task(task, shots, 50)
    answers = []
    with contextlib.suppress(BudgetExhausted):
        answers += islice(names["tune"](lm, task, shots, np.random.default_rng(0), None), 5)
    assert answers
    assert lm.meter.spent > 0


def test_the_limits_on_the_page_are_those_of_the_program() -> None:
    assert len(SOLVERS) == 3
    assert f"| changes of a sum | {MOST_PARTS};" in PAGE
    assert f"| rank of the noise of a matrix | {MOST_NOISE_RANK} |" in PAGE
    assert f"| steps of a walk | {weights.MOST_STEPS:,} |" in PAGE
    assert f"2^{weights.MOST_DRAWN.bit_length() - 1};" in PAGE
    assert weights.MOST_UNFOLDED == 1 << 30
