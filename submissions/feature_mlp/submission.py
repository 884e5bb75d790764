"""Feature-MLP: a two-layer perceptron on the frozen model's [CLS] ("Feature-MLP" in Sun et al., ICML 2022, Table 3).

    p(y | x) = softmax(V2 tanh(V1 h + b1) + b2),   h = final hidden state at the first token

The model is asked for features once, of train and of dev; everything else happens here. The perceptron is
scikit-learn's, trained by Adam on cross-entropy, and the weights with the best dev score are kept.

The paper gives learning rate, batch size and number of epochs. Reconstructed: the hidden size (the model's width),
tanh, scikit-learn's initial weights (Glorot & Bengio, AISTATS 2010). Differs from the paper: the text stands in the
task's template, since a query needs one; of two classes the first one's logit is fixed at 0; dev loss breaks ties of
the dev metric.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from sklearn.neural_network import MLPClassifier

from harness import Answer, BlackBox, Count, FeatureKind, Member, MlpHead, Positive, Shots, Task
from harness.solving import Selection, cross_entropy


@dataclass(frozen=True)
class Config:
    """Hyper-parameters; a default is the published value unless its comment says otherwise."""

    features: FeatureKind = "cls"  # where the hidden state is read: at the first token, or at the `mask`
    hidden: Count | None = None  # units of the hidden layer; None is the model's width (reconstructed)
    eta: Positive = 3e-4  # Adam's learning rate
    batch: Count = 16  # texts per step
    epochs: Count = 1000  # most passes over the training texts
    patience: Count = 1000  # steps without a better dev score that end training (the paper's where it measures time)


def tune(lm: BlackBox, task: Task, shots: Shots, rng: np.random.Generator, config: Config) -> Iterator[Answer]:
    """Yield the bare template, in case the budget is tiny, then the perceptron."""
    train, dev = shots.train, shots.dev
    yield Answer.of(task)
    h = lm.outputs(None, train.texts, features=config.features).features[0]  # (texts, width)
    h_dev = lm.outputs(None, dev.texts, features=config.features).features  # (1, texts, width)

    batch = min(config.batch, len(train))
    perceptron = MLPClassifier(
        hidden_layer_sizes=(lm.info.width if config.hidden is None else config.hidden,),
        activation="tanh",
        alpha=0.0,  # no penalty
        batch_size=batch,
        learning_rate_init=config.eta,
        random_state=int(rng.integers(2**32)),
    )
    selection, since = Selection(task, dev), 0
    for _ in range(config.epochs):
        perceptron.partial_fit(h, train.labels, classes=range(len(task.classes)))  # one epoch
        since += -(-len(train) // batch)
        q = head_of(perceptron).logits(h_dev)
        for _, metric in selection.better(q, cross_entropy(q, dev.labels)):
            best, best_metric, since = head_of(perceptron), metric, 0
        if since >= config.patience:
            break
    member = Member(task.template, task.words, head=best, alpha=1.0, features=config.features)  # the head alone
    loss = float(cross_entropy(best.logits(h), train.labels))
    yield Answer((member,), {"loss": loss, "dev": best_metric})


def head_of(perceptron: MLPClassifier) -> MlpHead:
    """Copy the weights. Of two classes scikit-learn has one logit, that of class 1 against 0."""
    (v1, v2), (b1, b2) = perceptron.coefs_, perceptron.intercepts_
    if len(b2) == 1:
        v2, b2 = np.pad(v2, ((0, 0), (1, 0))), np.pad(b2, (1, 0))
    return MlpHead(v1.T.copy(), b1.copy(), v2.T.copy(), b2.copy())
