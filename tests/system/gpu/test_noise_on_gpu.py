"""The noise of weights has the same bits on a GPU as on a CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from harness.contract import WeightSpace
from harness.lm import noise
from harness.lm.backbones.groups import Slot


@pytest.mark.parametrize("distribution", ["normal", "rademacher"])
@pytest.mark.parametrize("rank", [0, 1, 64])
def test_noise_has_the_bits_of_the_cpu(distribution: Any, rank: int) -> None:
    slots = [Slot(0, (1000, 77)), Slot(0, (130,)), Slot(1, (64, 9), "A")]
    space = WeightSpace("all", 0, 1.0, 2**62, rank=rank, distribution=distribution)
    streams = [0, 7, 2**32 - 1]
    assert torch.equal(noise.draw(slots, space, streams, "cuda").cpu(), noise.draw(slots, space, streams, "cpu"))
    assert torch.equal(noise.start(slots, space, "cuda").cpu(), noise.start(slots, space, "cpu"))
