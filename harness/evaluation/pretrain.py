"""`harness pretrain-prompt`: a better p0 for sentence-pair tasks, trained with gradients on public data.

    P <- P - Adam(dL/dP),    L = mean cross-entropy over label words,    layer 0 is shown p0 + P

Sun et al. (ICML 2022, section 3.4) start the prompt search of sentence-pair tasks from a prompt that was trained on
MNLI, a public data set of natural-language inference. A run with ``--p0 FILE`` does the same. On its pair tasks the
server adds P to every prompt at layer 0, so every prompt of every query is relative to P. Single-text tasks and queries
without a prompt do not change. Such a run used outside data and is never ranked with runs that did not.

P is for one mode of the contract: ``add``, to the fixed tokens p0, or ``prepend``, before the text, as in the paper.
The authors' own prompt, ``nli_base_prompt.pt``, is for ``prepend`` and can be imported (`import_p0`). A query in the
other mode is refused. As in the paper, all of MNLI's training set is used unless a size is given. The paper does not
state the number of epochs or the choice by dev score: both are ours. Learning rate and batch size are those of the
paper's prompt tuning.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import safetensors
import torch
from safetensors.numpy import save

from harness.contract import Examples, Mode, Shots
from harness.errors import InputError
from harness.evaluation.white_box import Recipe, WhiteBox
from harness.lm.device import seeded
from harness.solving.metrics import score
from harness.tracks.examples import draw_shots, examples_sha256, load_pool, load_shots
from harness.tracks.tasks import outside_set
from harness.tracks.track_task import TrackTask

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.contract import FloatArray
    from harness.lm.model import LanguageModel
    from harness.tracks.examples import Source
    from harness.tracks.tasks import TaskFile

_TENSOR = "p0"
_TEXTS_FOR_INFO = 32


@dataclass(frozen=True)
class Pretraining:
    """The data and the settings of the training."""

    source: str = "mnli"
    """A name in `harness.tracks.tasks.outside_sets`."""
    rows: int | None = None
    """Training examples per class; None means the whole training set without the examples for `dev`."""
    dev: int = 100
    """Examples per class for choosing the prompt."""
    epochs: int = 1
    eta: float = 5e-4
    """Adam's learning rate."""
    batch: int = 16
    """Texts per step."""
    seed: int = 0
    mode: Mode = "add"
    """The position of the prompt."""


@dataclass(frozen=True)
class PretrainedPrompt:
    """A file made by `write_p0`, after it was read and checked against the model."""

    values: FloatArray  # (prompt tokens, width)
    sha256: str
    """SHA-256 of the whole file."""
    mode: Mode
    """Mode of the prompts that may be relative to it."""

    @property
    def name(self) -> str:
        """The name in `RunKey.external`."""
        return f"p0:{self.sha256[:16]}"


def load_source(how: Pretraining, source: Source) -> tuple[TaskFile, Shots]:
    """The wording of a source, and examples of its training set: a class-balanced sample, or all but those for dev.

    Raises:
        InputError: the source is unknown, or a number is out of range.
        DataError: the set is not available, is malformed, or has too few examples of a class.
    """
    file = outside_set(how.source)
    if min(how.dev, how.epochs, how.batch, 1 if how.rows is None else how.rows) < 1 or not how.eta > 0:
        raise InputError("rows, dev, epochs, batch and eta must be positive")
    if how.rows is not None:
        return file, load_shots(file, source, how.seed, TrackTask(1, (how.seed,), how.rows, how.dev))
    pool = load_pool(file, source)
    dev = draw_shots(pool, len(file.classes), 1, how.dev, f"{file.name}/{how.seed}").dev
    kept = [n for n, text in enumerate(pool.texts) if text not in set(dev.texts)]
    return file, Shots(Examples(tuple(pool.texts[n] for n in kept), pool.labels[kept]), dev)


def pretrain(
    lm: LanguageModel, profile: str, file: TaskFile, shots: Shots, how: Pretraining, say: Callable[[str], None]
) -> tuple[FloatArray, dict[str, str]]:
    """Train P (prompt tokens, width) and return the P that was best on dev, with facts about its training.

    Raises:
        TaskError, QueryError: the profile has no wording for the model, or its label words are not tokens of the model.
    """
    task = file.task(profile, lm.kind, lm)
    with seeded(lm.device, how.seed):
        white = WhiteBox(lm, task, shots.train.texts[:_TEXTS_FOR_INFO])
        white.mode = how.mode
        one = white.batch(shots.train.texts[:1], prompted=True)
        first, count = one.start, white.info.prompt_tokens
        span = slice(first, first + count)
        start = torch.zeros(count, white.info.width, device=white.device)
        if how.mode == "prepend":  # start from the embeddings of p0: equal vectors without positions stay equal
            with torch.no_grad():
                start = white.module.get_input_embeddings()(one.ids[0, span]).clone()
        prompt = torch.nn.Parameter(start)

        def put_in(x: torch.Tensor) -> torch.Tensor:
            """Embeddings (texts, tokens, width) with P added to p0, or put into the space before the text."""
            there = x[:, span] + prompt if how.mode == "add" else prompt.expand(len(x), -1, -1)
            return torch.cat([x[:, :first], there, x[:, span.stop :]], dim=1)

        white.edit_input(0, put_in)
        steps = how.epochs * -(-len(shots.train) // how.batch)
        recipe = Recipe(how.eta, how.batch, how.epochs, patience=steps)
        zero = white.predicted(shots.dev.texts, prompted=True).argmax(axis=1)
        before = float(score(task.metric, zero, shots.dev.labels, len(task.classes)))
        values, note = start.cpu().numpy().astype(np.float32), {"dev": before}
        for better in white.fit([prompt], shots, np.random.default_rng(how.seed), recipe, prompted=True):
            if better.note:  # the starting point has no note
                values, note = prompt.detach().cpu().numpy().copy(), dict(better.note)
                say(f"loss {note['loss']:.4f}  dev {note['dev']:.4f}")
    about = {
        "mode": how.mode,
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
    """Write a prompt as safetensors: to a temporary file first, which is then moved to `path`.

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
        InputError: there is no such file, it is of another kind, or it was trained on another model or with another
            number of prompt tokens.
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
    if about.get("model_sha256") != lm.sha256 or about.get("mode") not in get_args(Mode):
        raise InputError(
            f"{path} was trained on {about.get('model')} in mode {about.get('mode')}, with other weights than "
            f"{lm.name} here or for a mode that is none; train one for this track with harness pretrain-prompt"
        )
    return PretrainedPrompt(values, hashlib.sha256(content).hexdigest(), about["mode"])


def import_p0(path: Path, lm: LanguageModel, mode: Mode) -> tuple[FloatArray, dict[str, str]]:
    """Read a prompt that another program saved with torch, such as the authors' ``nli_base_prompt.pt``.

    Only tensors are read: `torch.load` with ``weights_only`` runs no code from the file.

    Args:
        path: a tensor (prompt tokens, width), or a dictionary that holds one. Leading axes of length 1 are dropped.
        lm: the model that the prompt was trained for. The file does not name it.
        mode: mode of the prompts that will be relative to it. The authors' prompt is for ``prepend``.

    Returns:
        The arguments of `write_p0`: the values and the facts about them.

    Raises:
        InputError: there is no such file, it holds other things than tensors, or it has no tensor of that shape.
    """
    try:
        held: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as problem:
        raise InputError(f"{path}: no file of tensors alone that torch can read: {problem}") from problem
    wanted = (lm.prompt_tokens, lm.backbone.width)
    each = list(held.values()) if isinstance(held, dict) else [held]
    tensors = [t for t in each if isinstance(t, torch.Tensor) and t.numel() == wanted[0] * wanted[1]]
    tensors = [t for t in tensors if tuple(n for n in t.shape if n > 1) == tuple(n for n in wanted if n > 1)]
    if len(tensors) != 1 or not torch.isfinite(tensors[0]).all():
        shapes = ", ".join(str(tuple(t.shape)) for t in each if isinstance(t, torch.Tensor)) or "none"
        raise InputError(f"{path}: {len(tensors)} finite tensors of shape {wanted}, one is expected; it holds {shapes}")
    values = tensors[0].detach().to(torch.float32).reshape(wanted).numpy()
    about = {"mode": mode, "model": lm.name, "model_sha256": lm.sha256, "source": f"imported from {path.name}"}
    return values, about | {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
