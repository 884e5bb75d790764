"""BBT-RGB: BBTv2 with a second search stage, searched label words and a text before the input (Sun et al., 2023).

    R   z_l <- CMA-ES, layer by layer and round after round; then COBYLA, once from the bottom up
    G   q_k = mean of the logits of several words w_k1 .. w_km, searched on the logits of one call
    B   p0  = instruction, "For example ,", the demonstration with the least training loss

In the order B and G (`wording.py`), R (here and in `prompts.py`): the text is chosen at z = 0, the words for that text,
and then z for both. The README has the paper and its code, what is reconstructed, and what differs on purpose.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, takewhile
from typing import Literal

import numpy as np
from prompts import Floats, Prompted, polish
from wording import choose_text, choose_words

from harness import (
    Answer,
    BlackBox,
    Count,
    Member,
    NonNegative,
    Positive,
    Several,
    Share,
    Shots,
    Subspace,
    Task,
    WidthFrom,
)
from harness.solving import LayerwiseCmaEs, Loss, Selection, cross_entropy, hinge

FEWEST = 3  # evaluations of COBYLA in one direction: two for the simplex, one for a step
LOSSES: dict[str, Loss] = {"ce": cross_entropy, "hinge": hinge}


@dataclass(frozen=True)
class Config:
    """Hyper-parameters; a default is the published value unless its comment says otherwise."""

    dim: Count = 500  # d, length of each z_l
    population: Several = 20  # lambda, candidates per generation
    sigma: Positive = 1.0  # sigma_1, first step size at the input; the projections of all layers are divided by it
    sigma_deep: Positive = 0.2  # sigma_2, that of the layers above, or of the last one
    schedule: Literal["bbt2", "lin", "exp"] = "bbt2"  # to sigma_2 at once, linearly in l, or by exp(-l / 5)
    alpha: NonNegative = 0.5  # std of the first prompts at the input, in units of `width_from`
    width_from: WidthFrom = "hidden"  # what alpha is measured in, as in `bbtv2` (published: embedding)
    loss: Literal["ce", "hinge"] = "ce"  # of prompts and texts, on train and on dev; words are ranked by cross-entropy
    accept: Literal["improve", "best"] = "improve"  # what replaces a layer's prompt, as in `bbtv2` (published: best)
    instruction: bool = True  # B: try an instruction, and demonstrations after it, before the template
    demonstrations: Literal[0] | Count = 8  # B: demonstrations to try, at a call each (published: all training texts)
    demo_tokens: Count = 50  # B: longest demonstration (published: 50 with the instruction, both are cut)
    words: Literal[0] | Count = 5  # G: most words per class; 0 keeps the task's own
    pool: Count = 50  # G: candidate words per class, fewer where all combinations would be too many
    likely: Count = 1000  # G: candidates are among so many words that the model finds likeliest (ours; see README)
    polish: Share = 0.1  # R: share of the budget kept for COBYLA (ours; the code's default is 0)
    # R: most directions that COBYLA moves in, and at most half its evaluations (ours). The code has all d, 500, where
    # some 80 evaluations a layer never complete the first simplex of d + 1: it tries one coordinate after another.
    polish_dim: Count = 10
    rhobeg: Positive = 0.3  # R: COBYLA's first step, in step sizes of the layer (ours; published: 1)
    dev_every: Count = 5  # generations between two looks at dev (published: 100 calls), at 2 * len(dev) rows each
    selection: Literal["house", "faithful"] = "house"  # what dev is shown, and what wins, as in `bbtv2`
    select: Literal["metric", "loss"] = "metric"  # what dev decides by, ties by the other; only for `house`


def tune(lm: BlackBox, task: Task, shots: Shots, rng: np.random.Generator, config: Config) -> Iterator[Answer]:
    """Yield the bare template, then every choice of text, words and prompts that dev prefers to all before."""
    train, dev = shots.train, shots.dev
    ours = config.selection == "house"
    std = tuple(config.alpha * s / config.sigma for s in lm.info.widths(config.width_from))
    space = Subspace(config.dim, std, lm.info.prompt_tokens, seed=int(rng.integers(2**62)))
    selection = Selection(task, dev, config.select if ours else "metric-alone")
    yield Answer.of(task)
    if ours:
        q = lm.logits(None, dev.texts)
        selection.better(q, cross_entropy(q, dev.labels))  # the prompt to beat

    zero = np.zeros((lm.info.layers, config.dim))
    model = Prompted(lm, task, shots, space, Member.of(task), zero, LOSSES[config.loss])
    if config.instruction:  # B
        model = choose_text(model, config.demonstrations, config.demo_tokens, rng)
    if config.words:  # G
        model, q = choose_words(model, Selection(task, dev, config.select), config.words, config.pool, config.likely)
        for _, metric in selection.better(q, cross_entropy(q, dev.labels)):
            yield model.answer(model.zero, dev=metric)

    sigmas = step_sizes(config, lm.info.layers)  # R, first stage: BBTv2
    search = LayerwiseCmaEs(config.dim, config.population, rng, sigmas.tolist(), config.accept)
    layer_rows = lm.info.layers * len(train)  # an evaluation of COBYLA at every layer
    kept = int(config.polish * lm.budget.rows_total)
    kept = kept if kept >= FEWEST * layer_rows + len(dev) else 0
    needed = kept + config.population * len(train) + 2 * len(dev)
    for generation in takewhile(lambda _: lm.budget.rows_left >= needed, count(1)):
        losses = model.ask(search.ask(), train)[1]
        search.tell(losses)
        lm.log(loss=losses.min(), **search.state)
        if generation % config.dev_every == 0 or lm.budget.rows_left < needed:
            looks = np.stack([search.best, search.mean]) if ours else search.last  # (looks, layers, d)
            for k, metric in selection.better(*model.ask(looks, dev)):
                yield model.answer(looks[k], loss=search.best_loss, dev=metric)

    n = (lm.budget.rows_left - len(dev)) // layer_rows  # evaluations of COBYLA at each layer
    if config.polish and n >= FEWEST:  # R, second stage
        best, loss = polish(model, search.best, search.best_loss, config.rhobeg * sigmas, config.polish_dim, n, rng)
        for _, metric in selection.better(*model.ask(best[None], dev)):
            yield model.answer(best, loss=loss, dev=metric)


def step_sizes(config: Config, layers: int) -> Floats:
    """sigma_l of each layer, from sigma_1 to sigma_2."""
    layer = np.arange(layers)
    falls = {"bbt2": layer > 0, "lin": layer / max(1, layers - 1), "exp": 1 - np.exp(-layer / 5)}[config.schedule]
    return np.asarray(config.sigma + (config.sigma_deep - config.sigma) * falls, dtype=np.float64)
