"""Feature-MLP: a two-layer perceptron on the frozen model's [CLS] ("Feature-MLP" in Sun et al., ICML 2022, Table 3).

    p(y | x) = softmax(V2 tanh(V1 h + b1) + b2),   h = final hidden state at the first token

The model is asked for features once, of train and of dev; everything else happens here. The perceptron is trained by
Adam on cross-entropy, in plain numpy with gradients written by hand, and the weights with the best dev score are kept.

The paper gives learning rate, batch size and number of epochs. Reconstructed: the hidden size (the model's width),
tanh, PyTorch's usual initial weights. Differs from the paper: the text stands in the task's template, since a query
needs one; dev loss breaks ties of the dev metric.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from harness import (
    Answer,
    BlackBox,
    Count,
    Examples,
    FeatureKind,
    Member,
    MlpHead,
    Positive,
    Shots,
    Task,
    accuracy,
    cross_entropy,
    macro_f1,
    softmax,
)

Parameters: TypeAlias = list[NDArray[np.floating]]
"""V1 (hidden, width), b1 (hidden,), V2 (classes, hidden), b2 (classes,)."""


@dataclass(frozen=True)
class Config:
    """Hyper-parameters; the published value is the default unless it says otherwise."""

    features: FeatureKind = "cls"
    """Where the hidden state is read: at the first token (``cls``), or at the ``mask``."""
    hidden: Count | None = None
    """Units of the hidden layer; None is the model's width (reconstructed)."""
    eta: Positive = 3e-4
    """Adam's learning rate."""
    batch: Count = 16
    """Texts per step."""
    epochs: Count = 1000
    """Most passes over the training texts."""
    patience: Count = 1000
    """Steps without a better dev score after which training ends: the paper's rule where it measures time."""


def tune(lm: BlackBox, task: Task, shots: Shots, rng: np.random.Generator, config: Config) -> Iterator[Answer]:
    """Yield the bare template, in case the budget is tiny, then the perceptron."""
    yield Answer.of(task)
    h_train = lm.outputs(None, shots.train.texts, features=config.features).features[0]  # (texts, width)
    h_dev = lm.outputs(None, shots.dev.texts, features=config.features).features[0]

    hidden = lm.info.width if config.hidden is None else config.hidden
    start = first_weights(lm.info.width, hidden, len(task.classes), rng)
    best, loss, dev = train(start, task, (h_train, shots.train.labels), (h_dev, shots.dev), rng, config)
    head = MlpHead(*best)
    member = Member(task.template, task.words, head=head, alpha=1.0, features=config.features)  # the head alone
    yield Answer((member,), {"loss": loss, "dev": dev})


def train(
    parameters: Parameters,
    task: Task,
    train_set: tuple[NDArray[np.floating], NDArray[np.int64]],
    dev_set: tuple[NDArray[np.floating], Examples],
    rng: np.random.Generator,
    config: Config,
) -> tuple[Parameters, float, float]:
    """Train in place, at most `epochs` epochs; return a copy of the best weights, their train loss and dev metric."""
    (h, labels), (h_dev, dev) = train_set, dev_set
    adam = Adam(parameters, config.eta)
    best, selected, since = parameters, (-np.inf, -np.inf), 0
    for _ in range(config.epochs):
        order = rng.permutation(len(labels))
        for start in range(0, len(order), config.batch):
            rows = order[start : start + config.batch]
            adam.step(gradient(parameters, h[rows], labels[rows]))
            since += 1
        score = judge(task, scores(parameters, h_dev), dev)
        if score > selected:
            best, selected, since = [p.copy() for p in parameters], score, 0
        if since >= config.patience:
            break
    return best, float(cross_entropy(scores(best, h), labels)), selected[0]


# ── the perceptron ───────────────────────────────────────────────────────────────────────────────────────────


def first_weights(width: int, hidden: int, classes: int, rng: np.random.Generator) -> Parameters:
    """Draw both layers, weights and biases, from U(+-1/sqrt(inputs)), as PyTorch's Linear does; float32."""
    shapes = ((width, (hidden, width)), (width, (hidden,)), (hidden, (classes, hidden)), (hidden, (classes,)))
    return [(rng.uniform(-1, 1, shape) / np.sqrt(inputs)).astype(np.float32) for inputs, shape in shapes]


def scores(parameters: Parameters, h: NDArray[np.floating]) -> NDArray[np.floating]:
    """V2 tanh(V1 h + b1) + b2: (texts, width) -> (texts, classes)."""
    v1, b1, v2, b2 = parameters
    return np.asarray(np.tanh(h @ v1.T + b1) @ v2.T + b2)


def gradient(parameters: Parameters, h: NDArray[np.floating], labels: NDArray[np.int64]) -> Parameters:
    """Gradient of the mean cross-entropy.

    With a = tanh(V1 h + b1) and e = (softmax(V2 a + b2) - onehot(y)) / texts:
    dL/dV2 = e^T a,  dL/dV1 = ((e V2) * (1 - a^2))^T h,  and their sums over texts for the biases.
    """
    v1, b1, v2, b2 = parameters
    a = np.tanh(h @ v1.T + b1)  # (texts, hidden)
    e = softmax(a @ v2.T + b2).astype(v1.dtype)
    e[np.arange(len(labels)), labels] -= 1
    e /= len(labels)  # (texts, classes)
    inner = (e @ v2) * (1 - a**2)  # (texts, hidden)
    return [inner.T @ h, inner.sum(axis=0), e.T @ a, e.sum(axis=0)]


class Adam:
    """Adam (beta 0.9, 0.999) that changes its parameters in place."""

    def __init__(self, parameters: Parameters, eta: float) -> None:
        """Start with zero moments."""
        self.parameters, self.eta, self.steps = parameters, eta, 0
        self.first = [np.zeros_like(p) for p in parameters]
        self.second = [np.zeros_like(p) for p in parameters]

    def step(self, gradients: Parameters) -> None:
        """Each p becomes p - eta m_hat / (sqrt(v_hat) + 1e-8)."""
        self.steps += 1
        for n, (p, g) in enumerate(zip(self.parameters, gradients, strict=True)):
            self.first[n] += 0.1 * (g - self.first[n])
            self.second[n] += 0.001 * (g**2 - self.second[n])
            m, v = self.first[n] / (1 - 0.9**self.steps), self.second[n] / (1 - 0.999**self.steps)
            np.subtract(p, self.eta * m / (np.sqrt(v) + 1e-8), out=p)


def judge(task: Task, logits: NDArray[np.floating], dev: Examples) -> tuple[float, float]:
    """Score of one classifier's logits (texts, classes): the task's metric, then minus the loss to break ties."""
    predicted, labels, classes = logits.argmax(axis=-1), dev.labels, len(task.classes)
    metric = accuracy(predicted, labels) if task.metric == "accuracy" else macro_f1(predicted, labels, classes)
    return float(metric), -float(cross_entropy(logits, labels))
