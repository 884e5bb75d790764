"""What a submission yields: answers. An answer is data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from harness.contract.arrays import FeatureKind, Mix
from harness.contract.heads import Head, softmax
from harness.contract.heads import logits as head_logits
from harness.contract.prompts import Outputs
from harness.contract.weights import Prompts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.contract.tasks import Task
    from harness.contract.text import TextTask


@dataclass(frozen=True)
class Member:
    """One classifier: a cloze, its prompt, and how class probabilities follow from the label-word logits q.

    ``p1 = softmax(scale * q + shift)``. With a head, ``p = (1 - alpha) * p1 + alpha * p2``, where p2 is the head's
    softmax on the features. With k words per class (`words` lists them class by class), q is their mean.

    Args:
        template: with ``{a}``, ``{b}`` and ``{mask}``, as a task's.
        words: label words, the same number for each class, class by class.
        prompt: exactly one candidate: a soft prompt, a change of weights, or both.
        scale: one factor per class.
        shift: one offset per class.
        head: a classifier on the hidden states.
        alpha: weight of the head.
        mix: how head and words are combined.
        features: which hidden states the head reads.

    Example:
        ``Member("{a} All in all, it was {mask}.", ("bad", "good"), space.at(z))``
    """

    template: str
    words: tuple[str, ...]
    prompt: Prompts | None = None
    """Exactly one candidate, or None for the bare template."""
    scale: tuple[float, ...] | None = None
    """One factor per class; None means 1."""
    shift: tuple[float, ...] | None = None
    """One offset per class; None means 0."""
    head: Head | None = None
    alpha: float = 0.0
    mix: Mix = "probabilities"
    """How the two are combined. ``probabilities`` is the formula above; ``logits`` is
    ``softmax(scale * q + shift + alpha * s)`` with s the head's logits."""
    features: FeatureKind = "mask"

    @classmethod
    def of(
        cls,
        task: Task | TextTask,
        prompt: Prompts | None = None,
        scale: Sequence[float] | None = None,
        shift: Sequence[float] | None = None,
    ) -> Member:
        """Make a member with the task's own label words and template.

        Args:
            task: gives template and label words.
            prompt: exactly one candidate; None means the bare template.
            scale: one factor per class, as any sequence of numbers.
            shift: one offset per class, as any sequence of numbers.

        Returns:
            A member without a head; `dataclasses.replace` adds one.

        Example:
            ``Member.of(task, space.at(z), shift=Calibration.additive(q).shift)``
        """
        scale, shift = (None if values is None else tuple(map(float, values)) for values in (scale, shift))
        return cls(task.template, task.words, prompt, scale, shift)

    def probabilities(self, outs: Outputs, classes: int | None = None) -> npt.NDArray[np.float64]:
        """Class probabilities by the formula above. The referee calls this very method.

        Args:
            outs: what the model gave for this member's template, words and kind of features, under any prompts.
            classes: number of classes; None means one word per class.

        Returns:
            (candidates, texts, classes), in float64.

        Raises:
            ValueError: the words are not a multiple of the classes, or a BiLSTM head lacks the lengths of texts.

        Example:
            ``p = member.probabilities(lm.outputs(space.at(zs), texts))``
        """
        q = np.asarray(outs.logits, dtype=np.float64)
        q = q.reshape(*q.shape[:-1], len(self.words) if classes is None else classes, -1).mean(axis=-1)
        q = q * np.asarray(1.0 if self.scale is None else self.scale)
        q = q + np.asarray(0.0 if self.shift is None else self.shift)
        if self.head is None or self.alpha == 0:
            return softmax(q)
        s = head_logits(self.head, outs.features, outs.lengths)
        if self.mix == "logits":
            return softmax(q + self.alpha * s)
        return (1 - self.alpha) * softmax(q) + self.alpha * softmax(s)


@dataclass(frozen=True)
class Answer:
    """Everything that is needed to classify a text with the model. It is data and not code.

    The predicted class is the argmax of the members' mean probability.

    Args:
        members: one classifier or several.
        note: numbers by name, all finite.

    Example:
        ``yield Answer((Member.of(task, first), Member.of(task, second)), {"loss": 0.4})``
    """

    members: tuple[Member, ...]
    note: dict[str, float] = field(default_factory=dict)
    """Numbers worth keeping beside the answer (e.g. the training loss); shown, never scored. The progress line
    shows ``loss``. One that is not finite is left out, with a warning."""

    @classmethod
    def of(cls, task: Task | TextTask, prompt: Prompts | None = None, **note: float) -> Answer:
        """Make an answer of one member, with the task's own template and label words.

        Args:
            task: gives template and label words.
            prompt: exactly one candidate; None means the bare template.
            **note: numbers that are kept beside the answer.

        Returns:
            An answer of one member.

        Example:
            ``yield Answer.of(task, space.at(best), loss=float(losses.min()))``
        """
        return cls((Member.of(task, prompt),), note)
