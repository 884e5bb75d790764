"""Feature-BiLSTM: a BiLSTM over the frozen model's tokens ("Feature-BiLSTM" in Sun et al., ICML 2022, Table 3).

    p(y | x) = softmax(V [f; b] + c),   f, b = last states of LSTMs over h_1 .. h_T, from the left and the right

The model is asked for the hidden states of all tokens once, of train and of dev; everything else happens here. LSTMs
and the linear layer are trained by Adam on cross-entropy, with PyTorch's own gradients, and the weights with the best
dev score are kept.

The paper gives learning rate, batch size and number of epochs. Reconstructed: one layer, units (half the model's width
in each direction), the last states as what is classified, PyTorch's usual initial weights. Differs from the paper: the
text stands in the task's template, since a query needs one; training ends earlier (`patience`); dev loss breaks ties of
the dev metric.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch

from harness import Answer, BiLstmHead, BlackBox, Count, Examples, Member, Positive, Shots, Task
from harness.solving import Selection, cross_entropy

States: TypeAlias = tuple[torch.Tensor, torch.Tensor]
"""Hidden states (texts, tokens, width), zeros behind a text's end, and the texts' numbers of tokens (texts,)."""
TEXTS_AT_ONCE = 16
"""Texts per query: the states of all tokens are many bytes."""


@dataclass(frozen=True)
class Config:
    """Hyper-parameters; the published value is the default unless it says otherwise."""

    units: Count | None = None  # units of each direction; None is half the model's width (reconstructed)
    eta: Positive = 3e-4  # Adam's learning rate
    batch: Count = 16  # texts per step
    epochs: Count = 1000  # most passes over the training texts
    patience: Count = 300  # steps without a better dev score that end training (published, where time counts: 1000)


class Network(torch.nn.Module):
    """Two LSTMs and a linear layer."""

    def __init__(self, width: int, units: int, classes: int) -> None:
        """Start at PyTorch's usual weights, from torch's generator."""
        super().__init__()
        self.lstm = torch.nn.LSTM(width, units, batch_first=True, bidirectional=True)
        self.linear = torch.nn.Linear(2 * units, classes)

    def forward(self, h: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Logits of states (texts, tokens, width): (texts, classes)."""
        packed = torch.nn.utils.rnn.pack_padded_sequence(h, lengths, batch_first=True, enforce_sorted=False)
        _, (last, _) = self.lstm(packed)  # (2, texts, units)
        out: torch.Tensor = self.linear(torch.cat([last[0], last[1]], dim=-1))
        return out

    def head(self) -> BiLstmHead:
        """Weights as an answer takes them: PyTorch's two biases are added up."""
        values = {name: p.detach().clone().numpy() for name, p in self.lstm.named_parameters()}
        both = [[values[f"{name}_l0{end}"] for end in ("", "_reverse")] for name in ("weight_ih", "weight_hh")]
        bias = [values[f"bias_ih_l0{end}"] + values[f"bias_hh_l0{end}"] for end in ("", "_reverse")]
        weight, last = (p.detach().clone().numpy() for p in (self.linear.weight, self.linear.bias))
        return BiLstmHead(np.stack(both[0]), np.stack(both[1]), np.stack(bias), weight, last)


def tune(lm: BlackBox, task: Task, shots: Shots, rng: np.random.Generator, config: Config) -> Iterator[Answer]:
    """Yield the bare template, in case the budget is tiny, then the BiLSTM."""
    yield Answer.of(task)
    train_set, dev_set = states(lm, shots.train), states(lm, shots.dev)
    units = lm.info.width // 2 if config.units is None else config.units
    with torch.random.fork_rng():
        torch.manual_seed(int(rng.integers(2**62)))
        network = Network(lm.info.width, units, len(task.classes))
    head, loss, dev = train(network, task, (train_set, shots.train), (dev_set, shots.dev), rng, config)
    member = Member(task.template, task.words, head=head, alpha=1.0, features="all")  # the head alone
    yield Answer((member,), {"loss": loss, "dev": dev})


def states(lm: BlackBox, examples: Examples) -> States:
    """Hidden states of all tokens of all texts, a few texts a query."""
    texts = examples.texts
    chunks = [texts[i : i + TEXTS_AT_ONCE] for i in range(0, len(texts), TEXTS_AT_ONCE)]
    parts = [lm.outputs(None, chunk, features="all") for chunk in chunks]
    lengths = np.concatenate([np.asarray(part.lengths) for part in parts])
    h = np.zeros((len(texts), int(lengths.max()), lm.info.width), dtype=np.float32)
    for n, part in enumerate(parts):
        rows = part.features[0]  # (texts, tokens, width)
        h[n * TEXTS_AT_ONCE : n * TEXTS_AT_ONCE + len(rows), : rows.shape[1]] = rows
    return torch.from_numpy(h), torch.from_numpy(lengths)


def train(
    network: Network,
    task: Task,
    train_set: tuple[States, Examples],
    dev_set: tuple[States, Examples],
    rng: np.random.Generator,
    config: Config,
) -> tuple[BiLstmHead, float, float]:
    """Train at most `epochs` epochs; return the best weights, their train loss and their dev metric."""
    ((h, lengths), train), ((h_dev, lengths_dev), dev) = train_set, dev_set
    labels = torch.from_numpy(train.labels)
    adam = torch.optim.Adam(network.parameters(), lr=config.eta)
    selection = Selection(task, dev)
    best, loss, best_metric, since = network.head(), np.inf, -np.inf, 0
    for _ in range(config.epochs):
        order = torch.from_numpy(rng.permutation(len(train)))
        for rows in torch.split(order, config.batch):
            longest = int(lengths[rows].max())
            adam.zero_grad()
            objective = torch.nn.functional.cross_entropy(network(h[rows, :longest], lengths[rows]), labels[rows])
            objective.backward()  # type: ignore[no-untyped-call]
            adam.step()
            since += 1
        with torch.inference_mode():
            q = network(h_dev, lengths_dev).numpy()[None]  # (1, texts, classes)
            for _, metric in selection.better(q, cross_entropy(q, dev.labels)):
                best, best_metric, since = network.head(), metric, 0
                loss = float(cross_entropy(network(h, lengths).numpy(), train.labels))
        if since >= config.patience:
            break
    return best, loss, best_metric
