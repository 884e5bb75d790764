"""The backend fingerprint: the logits that a machine computes for fixed texts, so that drift becomes visible.

The fingerprint is stored with every cell and compared by the leaderboard. It is not part of a run's identity: two
machines that differ in the last digits make the same run.
"""

from __future__ import annotations

import hashlib
import weakref
from typing import TYPE_CHECKING

import numpy as np

from harness.blackbox.text_model import Decoding
from harness.contract import Subspace, TextTask
from harness.results.records import Fingerprint

if TYPE_CHECKING:
    import numpy.typing as npt

    from harness.contract import Task, Text
    from harness.lm.served import Served

TEXTS = (
    "It rained in the morning, and in the afternoon the sun came out.",
    "Nobody had expected the second half of the book to be any good.",
    "The river is older than the town on its banks. " * 8,
    "Why?",
)
"""Texts of different lengths, so that padding and chunks affect the numbers."""
SAID = " It is the same every day."
"""What a text task's fingerprint asks the likelihood of."""
_DIM, _SEED = 16, 20_220_628
_DECIMALS = 2
_taken: weakref.WeakKeyDictionary[Served, dict[Task | TextTask, Fingerprint]] = weakref.WeakKeyDictionary()
"""Fingerprints computed in this process. Neither a model nor a task's wording changes while the process runs."""


def fingerprint(lm: Served, task: Task | TextTask) -> Fingerprint:
    """The result of `probe`, computed once per process and task. The cells of a task share it."""
    taken = _taken.setdefault(lm, {})
    if task not in taken:
        taken[task] = probe(lm, task)
    return taken[task]


def probe(lm: Served, task: Task | TextTask) -> Fingerprint:
    """Label-word logits of `TEXTS` in the task's template, at the zero prompt and at one random deep prompt.

    ``logits`` are 2 x texts x words numbers in that order. ``sha256`` is the digest of the logits rounded to 0.01; it
    is short enough for people to compare. For a pair task, each text is paired with the next one. The random prompt has
    the standard deviation of each layer's input and is computed by a projection, as most submissions do. A served model
    takes no prompts: its fingerprint is the texts x words log-probabilities of the bare template.
    """
    texts = tuple((TEXTS[n:] + TEXTS[:n])[: task.fields] for n in range(len(TEXTS)))
    if isinstance(task, TextTask):
        return _of_text(lm, task, texts)
    if not lm.prompt_tokens:  # a served model: its logits are up to a constant of each text
        raw = lm.forward(None, lm.text_set(task.template, texts, None), lm.single_ids(task.words), normalize=True)
        return _of(raw.logits.astype(np.float64))
    space = Subspace(_DIM, lm.info(texts, task.template).hidden_std, lm.prompt_tokens, seed=_SEED)
    z = np.random.Generator(np.random.Philox(key=[_SEED, 0])).standard_normal((lm.backbone.layers, _DIM))
    prompts = space.at(np.stack([np.zeros_like(z), z]))
    encoded = lm.text_set(task.template, texts)
    logits = lm.forward(prompts, encoded, lm.single_ids(task.words)).logits.astype(np.float64)
    return _of(logits)


def _of_text(lm: Served, task: TextTask, texts: tuple[Text, ...]) -> Fingerprint:
    """Log-likelihoods of `SAID` after the texts, under the same prompts; of a served model under the bare template.

    Of a server that tells no likelihoods, it is what it writes greedily: the digest of the texts, and their lengths.
    """
    from harness.lm.generation import text_model  # noqa: PLC0415 - torch, which planning does without

    model = text_model(lm)
    if not model.scores:
        how = Decoding(task.most_tokens, task.stop)
        encoded = model.encode(task.template, texts, None, task.most_tokens)
        written = model.generate(None, encoded, how, lambda _sequences: True).texts[0]
        digest = hashlib.sha256("\0".join(written).encode()).hexdigest()[:16]
        return Fingerprint(digest, tuple(float(len(text)) for text in written))
    ids = model.target_ids([SAID] * len(texts))
    if not model.soft:
        encoded = model.encode(task.template, texts, None, len(ids[0]))
        return _of(model.score(None, encoded, ids).values.astype(np.float64))
    space = Subspace(_DIM, lm.info(texts, f"{task.template}{{mask}}").hidden_std, lm.prompt_tokens, seed=_SEED)
    z = np.random.Generator(np.random.Philox(key=[_SEED, 0])).standard_normal((lm.backbone.layers, _DIM))
    encoded = model.encode(task.template, texts, "add", len(ids[0]))
    return _of(model.score(space.at(np.stack([np.zeros_like(z), z])), encoded, ids).values.astype(np.float64))


def _of(logits: npt.NDArray[np.float64]) -> Fingerprint:
    digest = hashlib.sha256((logits.round(_DECIMALS) + 0.0).tobytes()).hexdigest()[:16]
    return Fingerprint(digest, tuple(logits.round(6).ravel().tolist()))
