"""BBT-RGB: BBTv2 with a second search stage, searched label words and a text before the input (Sun et al., 2023).

    R   z_l <- CMA-ES, layer by layer and round after round; then COBYLA, once from the bottom up
    G   q_k = mean of the logits of several words w_k1 .. w_km, searched on the logits of one call
    B   p0  = instruction, "For example ,", the demonstration with the least training loss

In the order B, G, R: the text is chosen at z = 0, the words for that text, and then z for both. "Make Prompt-based
Black-Box Tuning Colorful: Boosting Model Generalization from Three Orthogonal Perspectives".

Known from the paper's code: the stages and their order, the step sizes (`schedule`), five words per class with their
mean logit, the instruction and the demonstration. **Reconstructed**: the search for words (the code has its result, not
the search).

Differs from the code: p0's tokens are fixed by the service, so instruction and demonstration are text in the template,
and the bare template may win against them; a prompt is replaced only if the training loss falls, in both stages; COBYLA
moves in a few random directions (`polish_dim`), since d coordinates take d + 1 evaluations before the first step, and
its share of the budget is not 0; the task's own words stay if dev prefers them; own instructions; looks at dev as in
`bbtv2`; every query is paid for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice, product
from typing import Any, Literal, NamedTuple

import cma
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from harness import (
    Answer,
    BlackBox,
    Coordinates,
    Count,
    Examples,
    Member,
    NonNegative,
    Positive,
    Several,
    Share,
    Shots,
    Subspace,
    Task,
    accuracy,
    cross_entropy,
    macro_f1,
)

COMBINATIONS = 1 << 16
"""Most combinations of label words that are scored; pools shrink to fit."""
COMBINATIONS_AT_ONCE = 4096
REPLY_BYTES = 48 << 20
"""Most that is asked for at once; the service allows 64 MiB."""
LONGEST_DEMONSTRATION = 1000
"""Characters. The limit in tokens is `Config.demo_tokens`."""
LONGEST_WORD = 250
FEWEST_EVALUATIONS = 3
"""COBYLA in one direction: two for the simplex, one for a step."""


@dataclass(frozen=True)
class Config:
    """Hyper-parameters; the published value is the default unless it says otherwise."""

    dim: Count = 500
    """d, length of each z_l."""
    population: Several = 20
    """Candidates per generation, lambda."""
    sigma: Positive = 1.0
    """sigma_1, first step size at the input. The projections are divided by it at every layer."""
    sigma_deep: Positive = 0.2
    """sigma_2, that of the layers above, or of the last one (`schedule`)."""
    schedule: Literal["bbt2", "lin", "exp"] = "bbt2"
    """Step size of layer l: sigma_2 above the input (``bbt2``), linear in l (``lin``), or falling by exp(-l / 5)."""
    alpha: NonNegative = 0.5
    """Standard deviation of the first prompts at the input, in standard deviations of the layer's input (published: of
    the word embeddings at layer 0)."""
    instruction: bool = True
    """B: try an instruction, and demonstrations after it, before the template."""
    demonstrations: Literal[0] | Count = 8
    """B: demonstrations to try, at one call each; 0 tries none. Published: all training texts."""
    demo_tokens: Count = 50
    """B: longest demonstration, in tokens. Published: 50 for instruction and demonstration together, which are cut."""
    words: Literal[0] | Count = 5
    """G: most words per class; 0 keeps the task's own."""
    pool: Count = 50
    """G: candidate words per class, fewer where all combinations would be too many."""
    likely: Count = 1000
    """G: candidates are among this many words that the model finds likeliest at the masks (a house choice: where all
    words may stand, rare ones fit a few texts by chance)."""
    polish: Share = 0.1
    """R: share of the budget kept for COBYLA (a house choice; the code's default is 0)."""
    polish_dim: Count = 10
    """R: most directions COBYLA moves in; never more than half its evaluations (a house choice; published: d)."""
    rhobeg: Positive = 0.3
    """R: COBYLA's first step, in step sizes of the layer (a house choice; published: 1, along coordinates)."""
    dev_every: Count = 5
    """Generations between two looks at dev (published: 100 calls), at 2 * len(dev) rows each."""
    select: Literal["metric", "loss"] = "metric"
    """What dev decides by: the task's ``metric``, ties by loss (published: the earliest stays), or the ``loss``, ties
    by metric."""


class Standing(NamedTuple):
    """What dev thinks of a candidate; the greater wins."""

    order: tuple[float, float]
    """Metric and minus loss, the deciding one first."""
    metric: float


@dataclass(frozen=True)
class Prompted:
    """The model, given a text and label words, as a function of the stack of coordinates z_0 .. z_{L-1}."""

    lm: BlackBox
    task: Task
    shots: Shots
    space: Subspace
    cloze: Member
    select: str

    def losses(self, stacks: NDArray[np.floating]) -> NDArray[np.float64]:
        """Training losses: (candidates, layers, d) -> (candidates,), at as many calls."""
        return cross_entropy(self._logits(stacks, self.shots.train), self.shots.train.labels)

    def scores(self, stacks: NDArray[np.floating]) -> list[Standing]:
        """Dev scores, see `judge`; candidates * len(dev) rows."""
        return judge(self.task, self._logits(stacks, self.shots.dev), self.shots.dev, self.select)

    def answer(self, stack: NDArray[np.floating], **note: float) -> Answer:
        """Pack one stack (layers, d)."""
        return Answer((replace(self.cloze, prompt=self.space.at(stack[None])),), note)

    def _logits(self, stacks: NDArray[np.floating], examples: Examples) -> NDArray[np.float64]:
        q = self.lm.logits(self.space.at(stacks), examples.texts, self.cloze.template, self.cloze.words)
        by_class = q.reshape(*q.shape[:2], len(self.task.classes), -1)
        return np.asarray(by_class.mean(axis=-1), dtype=np.float64)  # (candidates, texts, classes)


def tune(lm: BlackBox, task: Task, shots: Shots, rng: np.random.Generator, config: Config) -> Iterator[Answer]:
    """Yield the bare template, then every choice of text, words and prompts that dev prefers to all before."""
    space = Subspace(
        dim=config.dim,
        std=tuple(config.alpha * s / config.sigma for s in lm.info.hidden_std),
        tokens=lm.info.prompt_tokens,
        seed=int(rng.integers(2**62)),
    )
    zero = np.zeros((lm.info.layers, config.dim))

    yield Answer.of(task)
    (selected,) = judge(task, lm.logits(None, shots.dev.texts), shots.dev, config.select)  # the prompt to beat

    model = Prompted(lm, task, shots, space, Member(task.template, task.words), config.select)
    if config.instruction:  # B
        model = choose_text(model, zero, rng, config)
    if config.words:  # G
        model, score = choose_words(model, zero, config)
        if score > selected:
            selected = score
            yield model.answer(zero, dev=score.metric)

    best: NDArray[np.floating] = zero
    loss = np.inf
    for best, loss, means in evolve(model, zero, rng, config):  # R, first stage
        looks = np.stack([best, means])
        for stack, score in zip(looks, model.scores(looks), strict=True):
            if score > selected:
                selected = score
                yield model.answer(stack, loss=loss, dev=score.metric)
    evaluations = (lm.budget.rows_left - len(shots.dev)) // (lm.info.layers * len(shots.train))
    if config.polish and evaluations >= FEWEST_EVALUATIONS:  # R, second stage
        best, loss = polish(model, best, loss, evaluations, rng, config)
        (score,) = model.scores(best[None])
        if score > selected:
            yield model.answer(best, loss=loss, dev=score.metric)


def judge(task: Task, logits: NDArray[np.floating], dev: Examples, select: str) -> list[Standing]:
    """Standing of each candidate, from its dev logits (candidates, texts, classes)."""
    predicted, labels, classes = logits.argmax(axis=-1), dev.labels, len(task.classes)
    metric = accuracy(predicted, labels) if task.metric == "accuracy" else macro_f1(predicted, labels, classes)
    loss = cross_entropy(logits, labels)
    return [
        Standing((m, -x) if select == "metric" else (-x, m), m)
        for m, x in zip(metric.tolist(), loss.tolist(), strict=True)
    ]


# ── B: the text before the input ─────────────────────────────────────────────────────────────────────────────


def choose_text(model: Prompted, zero: NDArray[np.floating], rng: np.random.Generator, config: Config) -> Prompted:
    """Begin the template with what has the least training loss at z = 0: nothing, instruction, demonstration."""
    task, train = model.task, model.shots.train
    longest = min(config.demo_tokens, model.lm.info.max_tokens // 4)
    demos = (demonstration(task, train, n) for n in rng.permutation(len(train)).tolist())
    short = islice((demo for demo in demos if tokens(model.lm, demo) <= longest), config.demonstrations)
    start = instruction(task)
    texts = ["", f"{start} ", *(f"{start} For example , {demo} " for demo in short)]
    models = [replace(model, cloze=Member(text + task.template, task.words)) for text in texts]
    losses = [float(one.losses(zero[None])[0]) for one in models]  # a call each
    return models[int(np.argmin(losses))]


def instruction(task: Task) -> str:
    """Say what the task is, in its own label words."""
    *others, last = (clean(word).strip() for word in task.words)
    what = "the text" if task.fields == 1 else "the two texts"
    return f"Read {what} and choose the word that fits : {' , '.join(others)} or {last} ."


def demonstration(task: Task, train: Examples, n: int) -> str:
    """Fill the template with training text n and, at its mask, its label word."""
    before = task.template.partition("{mask}")[0]
    word = clean(task.words[train.labels[n]])
    filled = task.template.replace("{mask}", word.strip() if not before or before[-1].isspace() else word)
    for name, text in zip("ab", train.texts[n], strict=False):
        filled = filled.replace(f"{{{name}}}", clean(text).strip())  # what came before holds no braces of its own
    return filled


def clean(text: str) -> str:
    """Text without braces, which mean fields in a template."""
    return text.replace("{", "").replace("}", "")


def tokens(lm: BlackBox, text: str) -> float:
    """Tokens of a text, summed over its words, which is free; infinite if it is long in characters."""
    words = [f" {word}" for word in text.split()]
    if len(text) > LONGEST_DEMONSTRATION or max(map(len, words)) > LONGEST_WORD:
        return np.inf
    return sum(map(len, lm.word_ids(words)))


# ── G: label words ───────────────────────────────────────────────────────────────────────────────────────────


def choose_words(model: Prompted, zero: NDArray[np.floating], config: Config) -> tuple[Prompted, Standing]:
    """Search label words at z = 0, at one call and len(dev) rows; return the model that uses them and its dev score.

    Dev chooses among the task's own words and the best 1, 2, .. `words` combinations, of which a class takes its word
    in each. Fewer words win a tie.
    """
    task, (train, dev) = model.task, (model.shots.train, model.shots.dev)
    names, own = candidate_words(model.lm, task)
    prompt, template = model.space.at(zero[None]), model.cloze.template
    on_train, on_dev = (log_probabilities(model.lm, prompt, part, template, names) for part in (train, dev))
    found = pools(on_train, train.labels, own, pool_size(config, len(own)), config.likely)
    ranked = rank(on_train, train.labels, found)
    options = [np.array([own]), *(ranked[:m] for m in range(1, min(config.words, len(ranked)) + 1))]
    logits = np.stack([on_dev[:, option].mean(axis=1) for option in options])  # (options, texts, classes)
    scores = judge(task, logits, dev, config.select)
    best = max(range(len(options)), key=scores.__getitem__)  # the first of equals
    words = tuple(names[i] for i in options[best].T.ravel())  # class by class
    return replace(model, cloze=Member(template, words)), scores[best]


def pool_size(config: Config, classes: int) -> int:
    """Words per class, so that all combinations can be scored."""
    return min(config.pool, int(COMBINATIONS ** (1 / classes) + 1e-9))


def candidate_words(lm: BlackBox, task: Task) -> tuple[list[str], list[int]]:
    """Whole words of the vocabulary that begin as the label words do, and where the task's own are among them."""
    vocabulary = lm.vocabulary()
    own = [ids[0] for ids in lm.word_ids(task.words)]
    spaced = vocabulary[own[0]].startswith(" ")  # some models have each word twice, with and without
    kept = [
        i
        for i, word in enumerate(vocabulary)
        if i in own or (word.strip().isalpha() and word.startswith(" ") == spaced)
    ]
    written = dict(zip(own, task.words, strict=True))
    return [written.get(i, vocabulary[i]) for i in kept], [kept.index(i) for i in own]


def log_probabilities(
    lm: BlackBox, prompt: Coordinates, examples: Examples, template: str, words: Sequence[str]
) -> NDArray[np.floating]:
    """Log-probability of each word at the mask (texts, words), in pieces that fit a reply; costs len(texts) rows."""
    step = max(1, REPLY_BYTES // (4 * len(words)))
    parts = [examples.texts[i : i + step] for i in range(0, len(examples), step)]
    return np.concatenate([lm.logits(prompt, part, template, words, normalize=True)[0] for part in parts])


def pools(
    logp: NDArray[np.floating], labels: NDArray[np.int64], own: Sequence[int], size: int, most: int
) -> list[list[int]]:
    """Candidates of each class: its own word, then those that its texts raise most over those of the other classes.

    score_k(w) = mean over texts of class k of log p(w) - mean over all others of log p(w), among the `most` likely w
    """
    likely = np.argsort(-logp.mean(axis=0), kind="stable")[:most]
    found = []
    for k, word in enumerate(own):
        score = logp[labels == k].mean(axis=0) - logp[labels != k].mean(axis=0)
        order = likely[np.argsort(-score[likely], kind="stable")][: size + 1].tolist()
        found.append([word, *(i for i in order if i != word)][:size])
    return found


def rank(logp: NDArray[np.floating], labels: NDArray[np.int64], words: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """All combinations of one word per class (combinations, classes), by training accuracy, then by loss."""
    combinations = np.array(list(product(*words)))
    errors, losses = [], []
    for start in range(0, len(combinations), COMBINATIONS_AT_ONCE):
        q = np.moveaxis(logp[:, combinations[start : start + COMBINATIONS_AT_ONCE]], 0, 1)  # (some, texts, classes)
        errors.append((q.argmax(axis=-1) != labels).sum(axis=-1))
        losses.append(cross_entropy(q, labels))
    order = np.lexsort((np.concatenate(losses), np.concatenate(errors)))  # the last key decides first
    return np.asarray(combinations[order], dtype=np.int64)


# ── R: prompts ───────────────────────────────────────────────────────────────────────────────────────────────


def step_sizes(config: Config, layers: int) -> NDArray[np.float64]:
    """sigma_l of each layer, from sigma_1 to sigma_2."""
    layer = np.arange(layers)
    falls = {"bbt2": layer > 0, "lin": layer / max(1, layers - 1), "exp": 1 - np.exp(-layer / 5)}[config.schedule]
    return np.asarray(config.sigma + (config.sigma_deep - config.sigma) * falls, dtype=np.float64)


def evolve(
    model: Prompted, zero: NDArray[np.floating], rng: np.random.Generator, config: Config
) -> Iterator[tuple[NDArray[np.floating], float, NDArray[np.floating]]]:
    """First stage, BBTv2: whenever a look at dev is due, yield the best stack, its training loss and that of means.

    After each generation a look still fits into the budget, and what the second stage keeps.
    """
    sigmas = step_sizes(config, len(zero))
    searches = [evolution(config, float(sigma), rng) for sigma in sigmas]
    best, best_loss = zero, np.inf
    look = 2 * len(model.shots.dev)
    needed = kept_rows(model, config) + config.population * len(model.shots.train) + look
    for generation in count(1):
        if model.lm.budget.rows_left < needed:
            return
        layer = (generation - 1) % len(zero)
        zs = np.array(searches[layer].ask())  # (population, d)
        stacks = np.repeat(best[None], len(zs), axis=0)  # (population, layers, d)
        stacks[:, layer] = zs  # only the current layer differs
        losses = model.losses(stacks)
        searches[layer].tell(list(zs), losses.tolist())
        if losses.min() < best_loss:
            best, best_loss = stacks[losses.argmin()], float(losses.min())
        if searches[layer].stop():
            searches[layer] = evolution(config, float(sigmas[layer]), rng)
        if generation % config.dev_every == 0 or model.lm.budget.rows_left < needed:
            yield best, best_loss, np.stack([search.mean for search in searches])


def kept_rows(model: Prompted, config: Config) -> int:
    """Rows that the first stage leaves to the second; none if they would not take COBYLA a step at every layer."""
    rows = int(config.polish * model.lm.budget.rows_total)
    fewest = FEWEST_EVALUATIONS * model.lm.info.layers * len(model.shots.train) + len(model.shots.dev)
    return rows if rows >= fewest else 0


def evolution(config: Config, sigma: float, rng: np.random.Generator) -> Any:
    """A fresh CMA-ES at z = 0. All chance comes from `rng`; flat losses do not stop it."""
    options: dict[str, Any] = {
        "popsize": config.population,
        "randn": lambda *shape: rng.standard_normal(shape),
        "seed": np.nan,  # do not touch numpy's global generator
        "verbose": -10,  # silent, and no look for a file of signals
        "tolfun": 0,
        "tolfunhist": 0,
        "tolflatfitness": np.inf,
        "tolstagnation": np.inf,
    }
    return cma.CMAEvolutionStrategy(np.zeros(config.dim), sigma, options)


def polish(
    model: Prompted,
    best: NDArray[np.floating],
    best_loss: float,
    evaluations: int,
    rng: np.random.Generator,
    config: Config,
) -> tuple[NDArray[np.floating], float]:
    """Second stage: COBYLA at each layer, from the bottom up; a layer moves only if the training loss falls.

    z_l + U u with U (d, m) of standard normal entries, so that |u_j| = sigma_l is as far as a first sample of CMA-ES.
    """
    m = min(config.polish_dim, config.dim, evaluations // 2)  # the simplex takes m + 1 evaluations
    for layer, sigma in enumerate(step_sizes(config, len(best)).tolist()):
        directions = np.zeros((*best.shape, m))
        directions[layer] = rng.standard_normal((config.dim, m))
        stack, loss = cobyla(model, best, directions, config.rhobeg * sigma, evaluations)
        if loss < best_loss:
            best, best_loss = stack, loss
    return best, best_loss


def cobyla(
    model: Prompted, start: NDArray[np.floating], directions: NDArray[np.float64], rhobeg: float, evaluations: int
) -> tuple[NDArray[np.floating], float]:
    """Best stack that SciPy's COBYLA tries in start + directions @ u, and its training loss; a call per evaluation.

    SciPy raises fewer than m + 2 evaluations to m + 2. Exceptions of the model pass through it.
    """
    tried: list[tuple[float, NDArray[np.floating]]] = []

    def loss_at(u: NDArray[np.floating]) -> float:
        stack = start + directions @ u
        tried.append((float(model.losses(stack[None])[0]), stack))
        return tried[-1][0]

    options = {"rhobeg": rhobeg, "maxiter": evaluations}
    minimize(loss_at, np.zeros(directions.shape[-1]), method="COBYLA", options=options)
    loss, stack = min(tried, key=lambda pair: pair[0])
    return stack, loss
