"""A tiny random language model in hub format, a track that uses it, and submissions of a few lines, run for real."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import torch
import transformers
from made_up import key

from harness.evaluation.referee import Cell, Verdict, run_cell
from harness.lm import embedded
from harness.lm.load import load_model
from harness.results.store import Store
from harness.sandbox.submission import find
from harness.tracks.defences import Defences
from harness.tracks.examples import Source
from harness.tracks.tasks import load_task
from harness.tracks.track import Track, load_track

if TYPE_CHECKING:
    from pathlib import Path

    from harness.lm.model import LanguageModel
    from harness.results.records import CellRecord, LedgerRow, StoredCell
    from harness.tracks.tiers import Tier

WIDTH, LAYERS, CALLS, TRAIN_ROWS = 16, 2, 10, 8
ROWS = CALLS * TRAIN_ROWS

TRACK = """
name = "tiny"
title = "A random model and two splits of SST-2"
rules = 1
profile = "harness-2026"
device = "cpu"

[model]
source = "{model}"
dtype = "float32"

[data]
source = "embedded"

[prompt]
tokens = 2
first_id = 2000

[limits]
wall_s = 60
memory_gb = 3
output_kb = 8

[tasks.sst2]
calls = 10
splits = [1, 2]
shots = 4
dev = 4

[tasks.qqp]
calls = 10
splits = [1]
shots = 4
dev = 4
"""

HEADER = '''"""A submission for a test."""
from __future__ import annotations
import os, signal, socket, struct, subprocess, sys, time
from dataclasses import dataclass
import numpy as np
from harness import Answer, BudgetExhausted, Member, Prompt, QueryError, Subspace, cross_entropy


@dataclass(frozen=True)
class Config:
    step: float = 1.0


def search(lm, task, shots, rng, config):
    space = Subspace(4, (1.0,), 2, seed=int(rng.integers(2**32)))
    yield Answer.of(task)
    while True:
        z = rng.standard_normal((2, 4))
        loss = cross_entropy(lm.logits(space.at(z), shots.train.texts), shots.train.labels)
        yield Answer.of(task, space.at(z[loss.argmin()]), loss=float(loss.min()))
'''


def save_model(folder: Path) -> Path:
    """A random two-layer BERT with the embedded model's tokenizer, in hub format."""
    tokenizer = embedded.tokenizer(embedded.package_folder())
    config = transformers.BertConfig(
        vocab_size=len(tokenizer), hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=128, initializer_range=0.3,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.BertForMaskedLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_track(folder: Path, model: Path) -> Path:
    """The track above, as a file."""
    path = folder / "tiny.toml"
    path.write_text(TRACK.format(model=model), encoding="utf-8")
    return path


def write_submission(folder: Path, body: str, name: str = "entry") -> Path:
    """Write a submission: the header above, then `body`, which defines `tune`."""
    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    (place / "submission.py").write_text(HEADER + "\n\n" + textwrap.dedent(body), encoding="utf-8")
    return place


@dataclass(frozen=True)
class Run:
    """One cell that was run."""

    verdict: Verdict
    stored: StoredCell
    store: Store

    @property
    def status(self) -> str:
        """How it ended, as stored."""
        return self.stored.status

    @property
    def record(self) -> CellRecord:
        """What is known of it, as stored."""
        return self.stored.record

    @property
    def ledger(self) -> list[LedgerRow]:
        """Its answered queries."""
        return self.store.ledger(self.stored.attempt)


class Arena:
    """Runs submissions of a few lines in real worker processes."""

    def __init__(self, folder: Path, track: Path, lm: LanguageModel) -> None:
        """Write submissions and results into `folder`."""
        self.folder, self.track_file, self.lm = folder, track, lm
        self.track: Track = load_track(str(track))
        self.store = Store(str(folder / "results.db"))
        self._runs = 0

    def cell(self, task: str = "sst2", split: int = 1, seed: int = 0, calls: int = CALLS, **limits: Any) -> Cell:
        """A cell of the tiny track, with other limits or defences."""
        defences = limits.pop("defences", Defences())
        file, spec = load_task(task), msgspec.structs.replace(self.track.tasks[task], calls=calls)
        wording = file.task(self.track.profile, "masked")
        changed = msgspec.structs.replace(self.track.limits, **limits)
        return Cell(file, wording, split, spec, changed, Source("embedded"), seed, defences=defences)

    def submission(self, body: str, name: str = "entry") -> Path:
        """Write a submission."""
        return write_submission(self.folder, body, name)

    def run(self, body: str, options: dict[str, str] | None = None, tier: Tier | None = None, **changes: Any) -> Run:
        """Run one cell, in the best tier of isolation or the given one; a run of its own in the store."""
        self._runs += 1
        cell = self.cell(**changes)
        run = self.store.open_run(key(seed=self._runs), {})
        attempt = self.store.begin(run, cell.task.name, cell.split)
        verdict = run_cell(
            cell, find(self.submission(body)), options or {}, self.lm, attempt, lambda _rows, _note: None, tier
        )
        (stored,) = self.store.cells(run)
        return Run(verdict, stored, self.store)


def load_tiny(track: Path) -> LanguageModel:
    """The tiny model, loaded as a track loads it."""
    loaded = load_track(str(track))
    return load_model(loaded.model, loaded.prompt)
