"""The local head's training: Adam on the mixture's loss, on outputs that were already paid for."""

from __future__ import annotations

import numpy as np

from harness import LinearHead, Member, Outputs, Shots
from harness.solving import Adam, minibatches, softmax


def train_head(
    head: LinearHead,
    member: Member,
    outs: Outputs,
    shots: Shots,
    adam: Adam,
    rng: np.random.Generator,
    alpha: float,
    batch: int,
    epochs: int,
) -> None:
    """Minimise -mean log p_y in V and b: dL/ds_k = r (p2_k - [k = y]), s = V h + b, r = a p2_y / p_y.

    p1, the member's probabilities, is fixed. No library's classifier knows such a mixture: the gradient is ours.
    """
    a, p1, h = alpha, member.probabilities(outs)[0], outs.features[0]
    for rows in minibatches(len(h), batch, epochs, rng):
        p2, y = softmax(head.logits(h[rows])), shots.train.labels[rows]
        own = a * p2[np.arange(len(y)), y]
        r = own / np.maximum((1 - a) * p1[rows, y] + own, 1e-12)  # the head's share of p_y
        error = r[:, None] * (p2 - np.eye(len(head.bias))[y]) / len(y)  # dL/ds (rows, classes)
        adam.step((head.weight, head.bias), (error.T @ h[rows], error.sum(axis=0)))
