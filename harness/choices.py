"""What the command line may replace of a track, and which part of it to run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from harness.sandbox.tiers import Tier


@dataclass(frozen=True)
class Choices:
    """Plain data that travels to wherever a model is loaded."""

    model: str | None = None
    data: Path | None = None
    tasks: tuple[str, ...] = ()
    splits: tuple[int, ...] = ()
    present_splits: bool = False
    calls: int | None = None
    """Budget of every task instead of the track's; such a run is never ranked with the track."""
    seed: int = 0
    white_box: bool = False
    """Whether references may run: code with the model's weights, in this process."""
    staged: Path | None = None
    """Directory that `harness fetch` filled; by default `harness.fetch.default_directory` is looked into."""
    p0: Path | None = None
    """A pre-trained prompt for the pair tasks, from `harness pretrain-prompt`; such a run has outside data in it."""
    device: str | None = None
    """``cpu`` or ``cuda`` instead of the track's; what was used is stored, and only the track's is ranked."""
    test_data: Path | None = None
    """Directory of test sets that stand in for the data's own; such a run is compared with the public one."""
    sandbox: Tier | None = None
    """Tier of isolation instead of the best that this machine gives; stored with each cell."""
    backend: str | None = None
    """``torch`` or ``onnxruntime`` instead of the track's; a run with another one is never ranked with the track."""
