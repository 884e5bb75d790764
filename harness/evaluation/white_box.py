"""The tools of a white-box reference: the model's weights in float32, gradients, and a common training loop.

The papers compare gradient-free methods with prompt tuning, fine-tuning and the like, which need gradients. Such a
*reference* is a folder like any other submission, with ``access = "white-box"`` at the top of its source and

    def tune(lm: WhiteBox, task: Task, shots: Shots, rng: Generator, config: Config) -> Iterator[Predictor]

It runs in the referee's own process, without a sandbox, and without a budget unless it is given one of forward passes.
It is listed but never ranked. The last predictor that it yields is scored. The test set is loaded after `tune` has
ended. On a text task `lm` is a `harness.evaluation.text_white_box.TextWhiteBox`, so that a reference that trains by
`fit` runs there, too.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from harness.blackbox.projection import generate
from harness.contract.heads import softmax
from harness.evaluation.text_cells import read_as
from harness.lm.backbones import families
from harness.lm.chunks import cut_by_padding
from harness.lm.device import memory_for
from harness.solving import cross_entropy, score

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from harness.contract import Examples, FloatArray, IntArray, Mode, Shots, Subspace, Task, Text, TextTask
    from harness.lm.backbones.base import Batch
    from harness.lm.model import LanguageModel
    from harness.lm.text import Encoded

WHITE_BOX_LEVEL = 4
"""Access level of a reference. The levels of the black box are 0 to 3."""
PUBLISHED_LAYERS = 24
"""Number of layers of RoBERTa-large, the model for which the papers state epochs and patience."""
_MOST_LOGGED = 4000
_STEPS_BETWEEN_LOOKS = 10
_TEXTS_AT_ONCE = 32
_PART_PRICE = 256
"""What a part of a step costs by itself, in tokens; measured with `benchmarks/bench_training.py`."""
BACKWARD = 3
"""Forward passes that a row costs where gradients are computed: its forward pass, and a backward pass of two."""

Edit: TypeAlias = "Callable[[torch.Tensor], torch.Tensor]"
"""A function that changes the input of a layer, (texts, tokens, width)."""


class OutOfForwardsError(Exception):
    """The budget of forward passes does not cover the next ones. The last predictor counts."""


class OutOfTimeError(Exception):
    """The cell's wall-clock limit has passed. The last predictor counts."""


@dataclass(frozen=True)
class Predictor:
    """A classifier: a function from texts to probabilities, and its note."""

    classify: Callable[[Sequence[Text]], FloatArray]
    """texts -> (texts, classes)"""
    note: Mapping[str, float] = field(default_factory=dict)
    """Train loss and dev metric, for people."""

    def __call__(self, texts: Sequence[Text]) -> FloatArray:
        """Probabilities (texts, classes)."""
        return self.classify(texts)

    def on(self, test: Examples, task: Task | TextTask) -> tuple[IntArray, tuple[str, ...] | None]:
        """The most probable class of each text, and no outputs; ValueError unless all probabilities are finite."""
        p, shape = np.asarray(self(test.texts)), (len(test), len(task.classes))
        if p.shape != shape or not np.isfinite(p).all():
            raise ValueError(f"probabilities of shape {p.shape}; finite ones, {shape}, are expected")
        return np.asarray(p.argmax(axis=1)), None


@dataclass(frozen=True)
class Recipe:
    """The training settings: Adam on the mean cross-entropy over label words, with shuffled batches."""

    eta: float
    """Adam's learning rate."""
    batch: int
    """Texts per step."""
    epochs: int
    """Largest number of passes over the training texts."""
    patience: int
    """Number of steps without a better dev score after which training ends."""


class WhiteBox:
    """The model of one cell with its weights: a new float32 copy, frozen except for the parameters given to `fit`."""

    def __init__(
        self, lm: LanguageModel, task: Task | TextTask, texts: Sequence[Text], deadline: float = np.inf
    ) -> None:
        """Copy the model. `info` is measured on `texts`, and `deadline` is in `time.monotonic` seconds."""
        self.info = lm.info(texts, read_as(task))
        with memory_for("a second copy of the weights, in float32, to be trained", "Nothing smaller can be asked"):
            self.module: Any = lm.weights()
        self.device = lm.device
        self.task = task
        self.deadline = deadline
        self._lm = lm
        self._words = list(lm.single_ids(task.words)) if task.words else []
        self.mode: Mode = "add"
        """The position of a prompt: on p0's tokens, or before the text."""
        self._encoded: dict[tuple[Mode | None, Text], Encoded] = {}
        self.forwards = 0
        """Rows that were forwarded; one whose gradient was taken counts as `BACKWARD`. A text is one row, however long;
        `TextWhiteBox` says what it is on a text task."""
        self.most_forwards: float = np.inf
        """The budget of them."""
        self.logged: list[tuple[int, dict[str, float]]] = []
        """For each epoch, the number of training texts processed by its end, and its mean loss."""

    @property
    def layers(self) -> list[Any]:
        """The transformer layers, first to last. In ALBERT they are the same module many times."""
        return families.layers(self.module)

    def scaled(self, published: int, given: int | None = None) -> int:
        """Epochs or steps for this model: `given`, or a paper's for 24 layers scaled to its depth, at least 1."""
        return max(1, round(published * self.info.layers / PUBLISHED_LAYERS)) if given is None else given

    def edit_input(self, layer: int, edit: Edit) -> None:
        """Apply `edit` to the input of a layer, (texts, tokens, width), in every forward pass from now on."""
        edited = range(self.info.layers)[layer]
        families.edit_inputs(self.module, lambda depth, x: edit(x) if depth == edited else x)

    def test_by(self, lm: LanguageModel) -> None:
        """Read texts from now on as `lm` does, without a budget. It shares the weights, but cuts texts elsewhere."""
        self._lm, self._encoded, self.most_forwards = lm, {}, np.inf

    def projection(self, space: Subspace) -> torch.Tensor:
        """The matrix A of a subspace at the input, equal to the server's: (tokens * width, dim)."""
        return torch.from_numpy(generate(space, 0, self.info.width)).to(self.device)

    def batch(self, texts: Sequence[Text], prompted: bool = False) -> Batch:
        """Texts in the task's template as tensors, padded to the longest; with p0's tokens if `prompted`."""
        return self._lm.batch(self._tokens_of(texts, prompted), self.mode if prompted else None)

    def _tokens_of(self, texts: Sequence[Text], prompted: bool) -> list[Encoded]:
        """Texts in the task's template, each tokenised once."""
        mode = self.mode if prompted else None
        new = tuple(dict.fromkeys(text for text in texts if (mode, text) not in self._encoded))
        if new:
            self._encoded |= {(mode, text): each for text, each in zip(new, self._read(new, mode), strict=True)}
        return [self._encoded[mode, text] for text in texts]

    def _read(self, texts: tuple[Text, ...], mode: Mode | None) -> Sequence[Encoded]:
        """Texts in the task's template, tokenised, with room for a prompt of `mode`."""
        return self._lm.text_set(self.task.template, texts, mode).encoded

    def logits(self, batch: Batch) -> torch.Tensor:
        """Logits of the label words at the mask, with gradients: (texts, words).

        Raises:
            OutOfForwardsError: the budget of forward passes is smaller; nothing was computed.
        """
        self._count(len(batch.ids))
        return families.head(self.module, families.states(self.module, batch)[:, 0])[:, self._words]

    def _count(self, rows: int) -> None:
        """Count the forward passes of the rows of a batch before it is computed.

        Raises:
            OutOfForwardsError: the budget does not cover them.
        """
        forwards = rows * (BACKWARD if torch.is_grad_enabled() else 1)
        if self.forwards + forwards > self.most_forwards:
            raise OutOfForwardsError
        self.forwards += forwards

    def _price(self, _examples: Examples, rows: IntArray, _prompted: bool) -> int:
        """Rows of one forward pass of some examples: one for each."""
        return len(rows)

    def predicted(self, texts: Sequence[Text], prompted: bool = False) -> FloatArray:
        """Label-word logits (texts, words) in evaluation mode, without gradients; similar lengths share a batch."""
        self.module.eval()
        parts, order = [], sorted(range(len(texts)), key=lambda i: sum(map(len, texts[i])))
        with torch.inference_mode():
            for start in range(0, len(order), _TEXTS_AT_ONCE):
                chosen = [texts[i] for i in order[start : start + _TEXTS_AT_ONCE]]
                batch = self.batch(chosen, prompted)
                asked = f"{batch.ids.shape[0]} texts x {batch.ids.shape[1]} tokens at once, without gradients"
                with memory_for(asked, "Nothing smaller can be asked of a reference"):
                    parts.append(self.logits(batch).cpu().numpy())
        logits = np.concatenate(parts)
        out = np.empty_like(logits)
        out[order] = logits
        return out

    def fit(
        self,
        parameters: Sequence[torch.nn.Parameter],
        shots: Shots,
        rng: np.random.Generator,
        recipe: Recipe,
        prompted: bool = False,
    ) -> Iterator[Predictor]:
        """Train `parameters`. Yield the untrained model, then a predictor whenever the dev score is the best so far.

        Dev is scored after an epoch, if at least ten steps have passed since it was last scored. A better score is a
        higher task metric, or the same metric with a lower loss. The untrained model counts only until dev is first
        scored. Dropout is the model's own. Before a budget of forward passes ends, dev is scored once more.

        Raises:
            OutOfTimeError: the cell's time has passed; raised between two steps.
            OutOfForwardsError: the budget of forward passes does not cover another step and a look at dev.
        """
        for parameter in parameters:
            parameter.requires_grad_()
        adam = torch.optim.Adam(parameters, lr=recipe.eta)
        yield self._predictor(parameters, prompted, {})
        best, steps, looked, better = (-np.inf, -np.inf), 0, 0, 0
        look = self._price(shots.dev, np.arange(len(shots.dev)), prompted)
        for epoch in range(recipe.epochs):
            losses = []
            order = rng.permutation(len(shots.train))
            for start in range(0, len(order), recipe.batch):
                if time.monotonic() > self.deadline:
                    raise OutOfTimeError
                rows = order[start : start + recipe.batch]
                step = BACKWARD * self._price(shots.train, rows, prompted)
                if self.forwards + step + look > self.most_forwards:
                    yield from self._last_look(parameters, shots, prompted, best if steps > looked else None)
                    raise OutOfForwardsError
                losses.append(self._step(adam, shots.train, rows, prompted))
                steps += 1
            if len(self.logged) < _MOST_LOGGED:
                self.logged.append(((epoch + 1) * len(shots.train), {"loss": float(np.mean(losses))}))
            if steps - looked < _STEPS_BETWEEN_LOOKS and epoch + 1 < recipe.epochs:
                continue
            looked = steps
            found = self._judge(shots.dev, prompted)
            if found > best:
                best, better = found, steps
                yield self._predictor(parameters, prompted, self._note(found, losses, shots.train, prompted))
            if steps - better >= recipe.patience:
                return

    def _step(self, adam: torch.optim.Adam, train: Examples, rows: IntArray, prompted: bool) -> float:
        """Take one step of Adam on the training texts `rows`, and return their loss before it.

        On a CPU the gradient is the sum of those of parts of like length, so that few pad tokens are computed.
        A bfloat16 track uses mixed precision: products are in bfloat16, the weights and their updates in float32.
        """
        self.module.train()
        adam.zero_grad()
        whole = 0.0
        for part in self._parts(train, rows, prompted):
            batch = self._batch_of(train, part, prompted)
            asked = f"a step on {batch.ids.shape[0]} texts x {batch.ids.shape[1]} tokens, with gradients"
            with memory_for(
                asked, "Train on fewer texts per step, with the reference's --config batch=N if it has one"
            ):
                with torch.autocast(self.device, torch.bfloat16, enabled=self._lm.dtype == torch.bfloat16):
                    scores = self._scores(batch)
                loss = self._loss(scores, batch, train, part) * (len(part) / len(rows))
                loss.backward()  # type: ignore[no-untyped-call]
                whole += loss.item()
        trained = sum(each.numel() for group in adam.param_groups for each in group["params"])
        with memory_for(f"Adam's two averages of {trained:,} parameters", "Train fewer, as the reference bitfit does"):
            adam.step()
        return whole

    def _parts(self, train: Examples, rows: IntArray, prompted: bool) -> list[IntArray]:
        """Training texts that a step computes together: of like length, longest first; all in their order on a GPU."""
        if self.device != "cpu":
            return [rows]
        tokens = np.array(self._sizes(train, rows, prompted))
        order = np.argsort(-tokens, kind="stable")
        return [rows[order[part]] for part in cut_by_padding(tokens[order].tolist(), _PART_PRICE)]

    def _sizes(self, train: Examples, rows: IntArray, prompted: bool) -> list[int]:
        """Tokens of some training texts, as a step forwards them."""
        return [len(each.ids) for each in self._tokens_of([train.texts[i] for i in rows], prompted)]

    def _batch_of(self, train: Examples, rows: IntArray, prompted: bool) -> Batch:
        """What a step forwards."""
        return self.batch([train.texts[i] for i in rows], prompted)

    def _scores(self, batch: Batch) -> torch.Tensor:
        """Of what a step takes the loss."""
        return self.logits(batch)

    def _loss(self, scores: torch.Tensor, _batch: Batch, train: Examples, rows: IntArray) -> torch.Tensor:
        """The mean cross-entropy of the label words."""
        return F.cross_entropy(scores.float(), torch.from_numpy(train.labels[rows]).to(self.device))

    def _judge(self, dev: Examples, prompted: bool) -> tuple[float, float]:
        """Dev score of the model in its current state: the task's metric, then minus the loss."""
        logits = self.predicted(dev.texts, prompted)
        metric = score(self.task.metric, logits.argmax(axis=1), dev.labels, len(self.task.classes))
        return float(metric), -float(cross_entropy(logits, dev.labels))

    def _last_look(
        self,
        parameters: Sequence[torch.nn.Parameter],
        shots: Shots,
        prompted: bool,
        best: tuple[float, float] | None,
    ) -> Iterator[Predictor]:
        """The present model, if dev prefers it to the best one; None for the best says that dev has seen it."""
        if best is not None and (found := self._judge(shots.dev, prompted)) > best:
            yield self._predictor(parameters, prompted, self._note(found, (), shots.train, prompted))

    def _note(
        self,
        found: tuple[float, float],
        losses: Sequence[float],
        train: Examples,  # noqa: ARG002 - `TextWhiteBox` asks for its loss
        prompted: bool,  # noqa: ARG002
    ) -> dict[str, float]:
        """What is kept of a model whose dev score is `found`, after an epoch with these losses of its steps."""
        loss = {"loss": float(np.mean(losses))} if losses else {}
        return loss | {"dev": found[0]}

    def _predictor(
        self, parameters: Sequence[torch.nn.Parameter], prompted: bool, note: Mapping[str, float]
    ) -> Predictor:
        """The model in its current state. Its values are restored whenever the predictor is called."""
        restore = restoring(parameters)

        def classify(texts: Sequence[Text]) -> FloatArray:
            restore()
            return softmax(self.predicted(texts, prompted))

        return Predictor(classify, note)


def restoring(parameters: Sequence[torch.nn.Parameter]) -> Callable[[], None]:
    """A function that puts the present values of some parameters back."""
    kept = [parameter.detach().clone() for parameter in parameters]

    def restore() -> None:
        with torch.no_grad():
            for parameter, value in zip(parameters, kept, strict=True):
                parameter.copy_(value)

    return restore
