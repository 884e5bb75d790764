"""`harness pretrain-prompt`: a better p0 for sentence-pair tasks, trained with gradients on public data.

    P <- P - Adam(dL/dP),    L = mean cross-entropy over label words,    layer 0 is shown p0 + P

Sun et al. (ICML 2022, section 3.4) start the search for prompts of sentence-pair tasks from one that was trained on a
public set for natural-language inference, MNLI. So does a run with ``--p0 FILE``: on its pair tasks the server adds P
to layer 0 wherever there is a prompt, so that every prompt of every query is relative to it. Single-text tasks and
queries without a prompt are as they were. Such a run used data from outside; it never ranks with those that did not.

Differs from the paper's code, where the trained prompt stands before the text: here P is added to the fixed tokens p0,
the mode ``add`` of the contract. A query in the other mode, ``prepend``, is refused. Reconstructed: how many rows and
epochs, and the choice by dev score; learning rate and batch are those of the paper's prompt tuning.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
import torch
from safetensors.numpy import save

from harness.errors import InputError
from harness.evaluation.white_box import Recipe, WhiteBox
from harness.lm.device import seeded
from harness.solving.metrics import score
from harness.tracks.examples import examples_sha256, load_shots
from harness.tracks.tasks import outside_set
from harness.tracks.track import TrackTask

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.contract import FloatArray, Shots
    from harness.lm.model import LanguageModel
    from harness.tracks.examples import Source
    from harness.tracks.tasks import TaskFile

MODE = "add"
_TENSOR = "p0"
_TEXTS_FOR_INFO = 32


@dataclass(frozen=True)
class Pretraining:
    """How much is trained on what."""

    source: str = "mnli"
    """A name in `harness.tracks.tasks.outside_sets`."""
    rows: int = 1000
    """Training examples per class."""
    dev: int = 100
    """Examples per class by which the prompt is chosen."""
    epochs: int = 10
    eta: float = 5e-4
    """Adam's learning rate."""
    batch: int = 16
    """Texts per step."""
    seed: int = 0


@dataclass(frozen=True)
class PretrainedPrompt:
    """A file made by `write_p0`, read and found to fit the model."""

    values: FloatArray  # (prompt tokens, width)
    sha256: str
    """Of the whole file."""

    @property
    def name(self) -> str:
        """For `RunKey.external`."""
        return f"p0:{self.sha256[:16]}"


def load_source(how: Pretraining, source: Source) -> tuple[TaskFile, Shots]:
    """The wording of a source, and class-balanced examples drawn from its training set.

    Raises:
        InputError: an unknown source, or a number that makes no sense.
        DataError: the set cannot be had, is malformed, or has too few examples of a class.
    """
    file = outside_set(how.source)
    if min(how.rows, how.dev, how.epochs, how.batch) < 1 or not how.eta > 0:
        raise InputError("rows, dev, epochs, batch and eta must be positive")
    return file, load_shots(file, source, how.seed, TrackTask(1, (how.seed,), how.rows, how.dev))


def pretrain(
    lm: LanguageModel, profile: str, file: TaskFile, shots: Shots, how: Pretraining, say: Callable[[str], None]
) -> tuple[FloatArray, dict[str, str]]:
    """Train P (prompt tokens, width) and return the one that was best on dev, with what is known of it.

    Raises:
        TaskError, QueryError: the profile has no wording for the model, or its label words are no tokens of it.
    """
    task = file.task(profile, lm.kind, lm)
    with seeded(lm.device, how.seed):
        white = WhiteBox(lm, task, shots.train.texts[:_TEXTS_FOR_INFO])
        prompt = torch.nn.Parameter(torch.zeros(white.info.prompt_tokens, white.info.width, device=white.device))
        first = white.batch(shots.train.texts[:1], prompted=True).start
        span = slice(first, first + len(prompt))

        def add(x: torch.Tensor) -> torch.Tensor:
            """Embeddings (texts, tokens, width) with P added where p0 stands."""
            return torch.cat([x[:, :first], x[:, span] + prompt, x[:, span.stop :]], dim=1)

        white.edit_input(0, add)
        steps = how.epochs * -(-len(shots.train) // how.batch)
        recipe = Recipe(how.eta, how.batch, how.epochs, patience=steps)
        zero = white.predicted(shots.dev.texts, prompted=True).argmax(axis=1)
        before = float(score(task.metric, zero, shots.dev.labels, len(task.classes)))
        values, note = np.zeros(prompt.shape, dtype=np.float32), {"dev": before}
        for better in white.fit([prompt], shots, np.random.default_rng(how.seed), recipe, prompted=True):
            if better.note:  # the start has none
                values, note = prompt.detach().cpu().numpy().copy(), dict(better.note)
                say(f"loss {note['loss']:.4f}  dev {note['dev']:.4f}")
    about = {
        "mode": MODE,
        "model": lm.name,
        "model_sha256": lm.sha256,
        "profile": profile,
        "template": task.template,
        "source": how.source,
        "data_sha256": examples_sha256(shots.train) + examples_sha256(shots.dev),
        "dev": f"{note['dev']:.4f}",
        "dev_of_zero": f"{before:.4f}",
        "epochs": str(how.epochs),
        "eta": str(how.eta),
        "batch": str(how.batch),
        "seed": str(how.seed),
    }
    return values, about


def write_p0(path: Path, values: FloatArray, about: dict[str, str]) -> None:
    """Write a prompt as safetensors, beside its place and then there.

    Raises:
        InputError: the file cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(save({_TENSOR: np.ascontiguousarray(values, dtype=np.float32)}, about))
        beside.replace(path)
    except OSError as problem:
        raise InputError(f"{path} cannot be written: {problem}; name another with --out") from problem


def read_p0(path: Path, lm: LanguageModel) -> PretrainedPrompt:
    """Read a prompt for a model.

    Raises:
        InputError: no such file, of another kind, or trained on another model or number of prompt tokens.
    """
    try:
        content = path.read_bytes()
        with safetensors.safe_open(path, framework="np") as file:
            about: dict[str, Any] = file.metadata() or {}
            values = file.get_tensor(_TENSOR)
    except (OSError, safetensors.SafetensorError) as problem:
        raise InputError(
            f"{path}: no pre-trained prompt: {problem}; make one with harness pretrain-prompt"
        ) from problem
    wanted = (lm.prompt_tokens, lm.backbone.width)
    if values.shape != wanted or values.dtype != np.float32 or not np.isfinite(values).all():
        raise InputError(f"{path}: {values.dtype} of shape {values.shape}; finite float32 of shape {wanted} expected")
    if (about.get("mode"), about.get("model_sha256")) != (MODE, lm.sha256):
        raise InputError(
            f"{path} was trained on {about.get('model')} in mode {about.get('mode')}, with other weights than "
            f"{lm.name} here or for another mode than {MODE}; train one for this track with harness pretrain-prompt"
        )
    return PretrainedPrompt(values, hashlib.sha256(content).hexdigest())
