"""The tools of a white-box reference on a text task: training on the likelihood of references, and writing.

A reference that trains by `WhiteBox.fit` runs here as it is. A step lowers the mean over texts of the negative
log-likelihood of a text's first reference by token, which is the loss that solvers for classes have on a text task
(`harness.blackbox.text_client`). Dev is judged by the same loss. The last model writes as an answer of the black box
does: greedily, with the task's stops and limit.

Forward passes are counted in the rows of a submission's queries: a text counts as many as its own tokens and those of
its target, or those that are written, fill.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from harness.blackbox.meter import rows_of
from harness.blackbox.text_model import Decoding
from harness.contract import TextTask
from harness.errors import TextTaskError
from harness.evaluation.text_cells import scored
from harness.evaluation.white_box import Edit, WhiteBox, restoring
from harness.lm.backbones import families
from harness.lm.backbones.decoder import DecoderBackbone
from harness.lm.device import memory_for
from harness.lm.generation import Generation, text_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from harness.contract import Examples, FloatArray, IntArray, Mode, Task, Text
    from harness.lm.backbones.base import Batch
    from harness.lm.model import LanguageModel
    from harness.lm.text import Encoded

_TEXTS_AT_ONCE = 32
_NOTHING_SMALLER = "Nothing smaller can be asked of a reference"


@dataclass(frozen=True)
class Writer:
    """A model that writes: a function from texts to outputs, and its note."""

    write: Callable[[Sequence[Text]], tuple[str, ...]]
    """texts -> one output each, cut by the stops."""
    note: Mapping[str, float] = field(default_factory=dict)
    """Loss on train and on dev, for people."""

    def on(self, test: Examples, task: Task | TextTask) -> tuple[IntArray, tuple[str, ...]]:
        """The scores of what is written after each text, and what it is."""
        outputs = self.write(test.texts)
        if not isinstance(task, TextTask) or len(outputs) != len(test):
            raise ValueError(f"{len(outputs)} outputs for {len(test)} texts of task {task.name}")
        return scored(task, outputs, test), outputs


class TextWhiteBox(WhiteBox):
    """A `WhiteBox` of a text task. `fit` yields writers in place of predictors."""

    task: TextTask

    def __init__(
        self,
        lm: LanguageModel,
        task: TextTask,
        texts: Sequence[Text],
        deadline: float = np.inf,
        row_tokens: int | None = None,
    ) -> None:
        """Copy the model; see `WhiteBox`. A row has `row_tokens` tokens; None where a text is one row.

        Raises:
            ModelError: the model is no causal one of this process.
        """
        text_model(lm)  # refuses a model that does not write
        super().__init__(lm, task, texts, deadline)
        self._text, self._row_tokens = Generation(lm), row_tokens
        self._targets: dict[str, tuple[int, ...]] = {}
        self._read_before: dict[Edit, torch.Tensor] | None = None
        """Of each edit the inputs of its layer so far, while texts are written; None while they are read at once."""

    def edit_input(self, layer: int, edit: Edit) -> None:
        """Apply `edit` to the input of a layer from now on; see `WhiteBox`.

        While the model writes, the edit is given the inputs of all tokens so far, and those of the new tokens are taken
        of its result. So an edit that leaves a token's input independent of later ones does what it does in training.
        """

        def growing(x: torch.Tensor) -> torch.Tensor:
            if self._read_before is None:
                return edit(x)
            before = self._read_before.get(edit)
            whole = self._read_before[edit] = x if before is None else torch.cat([before, x], dim=1)
            return edit(whole)[:, -x.shape[1] :]

        super().edit_input(layer, growing)

    def test_by(self, lm: LanguageModel) -> None:
        """See `WhiteBox`."""
        super().test_by(lm)
        self._text = Generation(lm)

    def logits(self, batch: Batch) -> torch.Tensor:  # noqa: ARG002
        """There are no label words.

        Raises:
            TextTaskError: always.
        """
        raise TextTaskError(self.task.name, "Logits of label words were asked for; train by lm.fit")

    def predicted(self, texts: Sequence[Text], prompted: bool = False) -> FloatArray:  # noqa: ARG002
        """There are no classes.

        Raises:
            TextTaskError: always.
        """
        raise TextTaskError(self.task.name, "Logits of label words were asked for; see lm.loss and lm.written")

    def loss(self, examples: Examples, prompted: bool = False) -> float:
        """Mean over texts of the negative log-likelihood by token of the first reference, without gradients.

        Args:
            examples: with references.
            prompted: whether p0's tokens stand in the texts.

        Returns:
            The loss, in nats by token.
        """
        self.module.eval()
        total, rows = 0.0, np.arange(len(examples))
        with torch.inference_mode():
            for start in range(0, len(rows), _TEXTS_AT_ONCE):
                some = rows[start : start + _TEXTS_AT_ONCE]
                batch = self._batch_of(examples, some, prompted)
                asked = f"{batch.ids.shape[0]} texts x {batch.ids.shape[1]} tokens at once, without gradients"
                with memory_for(asked, _NOTHING_SMALLER):
                    total += len(some) * self._loss(self._scores(batch), batch, examples, some).item()
        return total / len(rows)

    def written(self, texts: Sequence[Text], prompted: bool = False) -> tuple[str, ...]:
        """What the model writes after each text: greedily, with the task's stops and limit.

        Args:
            texts: examples.
            prompted: whether p0's tokens stand in the texts.

        Returns:
            One output for each text, cut by the stops.
        """
        self.module.eval()
        how, found = Decoding(self.task.most_tokens, self.task.stop), [""] * len(texts)
        with torch.inference_mode():
            for chosen in self._together(texts, prompted):
                some = [texts[i] for i in chosen]
                batch, sizes = self.batch(some, prompted), [each.text for each in self._tokens_of(some, prompted)]
                asked = f"{len(chosen)} texts x {batch.ids.shape[1]} tokens and what is written after them"
                with memory_for(asked, _NOTHING_SMALLER):
                    for i, ids in zip(chosen, self._write(batch, sizes, how), strict=True):
                        found[i] = self.task.output(self._text.text(ids))
        return tuple(found)

    def _together(self, texts: Sequence[Text], prompted: bool) -> Iterator[list[int]]:
        """Texts that are written after at once: of like length, or of one length where attention counts pad tokens.

        A new token comes behind the pad tokens of its batch. They are masked, but a window of the last n tokens counts
        them. The families of the fast path have no window that is shorter than an input.
        """
        together = isinstance(self._lm.backbone, DecoderBackbone)
        sizes = [len(each.ids) for each in self._tokens_of(texts, prompted)]
        chosen: list[int] = []
        for i in sorted(range(len(texts)), key=lambda i: (sizes[i], i)):
            if chosen and (len(chosen) == _TEXTS_AT_ONCE or not (together or sizes[i] == sizes[chosen[0]])):
                yield chosen
                chosen = []
            chosen.append(i)
        if chosen:
            yield chosen

    def _write(self, batch: Batch, sizes: list[int], how: Decoding) -> list[list[int]]:
        """The tokens that are written after each text of a batch; `sizes` are the tokens of the texts alone.

        Raises:
            OutOfForwardsError: the budget does not cover the next ones.
        """
        outputs: list[list[int]] = [[] for _ in batch.ids]
        going = list(range(len(outputs)))
        self._count(sum(map(self._rows, sizes)))
        ids, positions, mask = batch.ids, batch.positions, batch.mask.long()
        last, past, self._read_before = batch.read[:, :1], None, {}
        end = positions.gather(1, last)  # (texts, 1), the position of each last token
        try:
            while True:
                so_far = [sizes[n] + len(outputs[n]) for n in going]
                self._count(sum(self._rows(tokens + 1) - self._rows(tokens) for tokens in so_far))
                states, past = families.following(self.module, ids, positions, mask, past)
                state = states.gather(1, last[:, :, None].expand(-1, -1, states.shape[2]))[:, 0]
                token = families.head(self.module, state).argmax(dim=-1)
                chosen = token.tolist()
                for n in going:
                    outputs[n].append(chosen[n])
                going = [n for n in going if not self._text.ends(outputs[n], how)]
                if not going:
                    return outputs
                ids, end = token[:, None], end + 1
                positions, last = end, torch.zeros_like(last)
                mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
        finally:
            self._read_before = None

    def _read(self, texts: tuple[Text, ...], mode: Mode | None) -> Sequence[Encoded]:
        return self._text.encode(self.task.template, texts, mode, self.task.most_tokens).encoded

    def _ids(self, examples: Examples, rows: IntArray) -> list[tuple[int, ...]]:
        """The tokens of the first references of some examples, each with the stop behind it."""
        wanted = [self.task.target(examples.references[i][0]) for i in rows]
        for target in dict.fromkeys(wanted):
            if target not in self._targets:
                (self._targets[target],) = self._text.target_ids([target])
        return [self._targets[target] for target in wanted]

    def _rows(self, tokens: int) -> int:
        return rows_of(tokens, self._row_tokens)

    def _price(self, examples: Examples, rows: IntArray, prompted: bool) -> int:
        """Rows of one forward pass of some examples with their targets, as `TextBlackBox.score` prices them."""
        return self._filled(self._with_targets(examples, rows, prompted))

    def _filled(self, pairs: Sequence[tuple[Encoded, tuple[int, ...]]]) -> int:
        """Rows that texts with their targets fill."""
        return sum(self._rows(each.text + len(ids)) for each, ids in pairs)

    def _with_targets(
        self, examples: Examples, rows: IntArray, prompted: bool
    ) -> list[tuple[Encoded, tuple[int, ...]]]:
        """The tokens of some examples, and of their targets."""
        encoded = self._tokens_of([examples.texts[i] for i in rows], prompted)
        return list(zip(encoded, self._ids(examples, rows), strict=True))

    def _sizes(self, train: Examples, rows: IntArray, prompted: bool) -> list[int]:
        """Tokens of some training texts with their targets behind them."""
        return [len(each.ids) + len(ids) for each, ids in self._with_targets(train, rows, prompted)]

    def _batch_of(self, train: Examples, rows: IntArray, prompted: bool) -> Batch:
        """Texts with their targets behind them, counted; what is read is where each token of a target is foretold."""
        pairs = self._with_targets(train, rows, prompted)
        self._count(self._filled(pairs))
        batch = self._lm.batch(
            [replace(each, ids=(*each.ids, *ids[:-1])) for each, ids in pairs], self.mode if prompted else None
        )
        sizes = torch.tensor([len(ids) for _, ids in pairs])[:, None]
        place = torch.arange(int(sizes.max())).minimum(sizes - 1).to(batch.read.device)
        return replace(batch, read=batch.read + place)  # (texts, tokens)

    def _scores(self, batch: Batch) -> torch.Tensor:
        """Logits of the vocabulary at each token of the targets: (texts, tokens, vocabulary)."""
        return families.head(self.module, families.states(self.module, batch))

    def _loss(self, scores: torch.Tensor, _batch: Batch, train: Examples, rows: IntArray) -> torch.Tensor:
        """The mean over texts of the mean negative log-likelihood by token."""
        targets = self._ids(train, rows)
        nothing = -100
        wanted = torch.full(scores.shape[:2], nothing, device=scores.device)
        for n, ids in enumerate(targets):
            wanted[n, : len(ids)] = torch.tensor(ids)
        each = F.cross_entropy(scores.float().transpose(1, 2), wanted, reduction="none", ignore_index=nothing)
        return (each.sum(dim=1) / (wanted != nothing).sum(dim=1)).mean()

    def _judge(self, dev: Examples, prompted: bool) -> tuple[float, float]:
        return -self.loss(dev, prompted), 0.0

    def _note(
        self,
        found: tuple[float, float],
        losses: Sequence[float],  # noqa: ARG002 - of models before this one
        train: Examples,
        prompted: bool,
    ) -> dict[str, float]:
        """The losses of the model as it is now. That on train is for people, so its forward passes do not count."""
        forwards, most, self.most_forwards = self.forwards, self.most_forwards, np.inf
        loss = self.loss(train, prompted)
        self.forwards, self.most_forwards = forwards, most
        return {"loss": loss, "dev_loss": -found[0]}

    def _predictor(  # type: ignore[override]
        self, parameters: Sequence[torch.nn.Parameter], prompted: bool, note: Mapping[str, float]
    ) -> Writer:
        restore = restoring(parameters)

        def write(texts: Sequence[Text]) -> tuple[str, ...]:
            restore()
            return self.written(texts, prompted)

        return Writer(write, note)
