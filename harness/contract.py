"""The contract between the harness and a submission: all an author must know.

A submission is one function, a generator::

    def tune(lm: BlackBox, task: Task, shots: Shots, rng: Generator, config: Config) -> Iterator[Answer]

It asks `lm` for label-word logits, which costs budget, and yields better and better `Answer`s. When the
budget or the time is used up the last yielded answer is scored on test texts the submission never sees.

The price of everything is the *row*: one candidate prompt x one text forwarded once. A *call* is one
prompt over the whole few-shot training set, as in Sun et al., ICML 2022: `calls = rows / len(train)`.
A population of 20 prompts costs 20 calls, however it is batched.

Shapes are written as comments, e.g. ``(candidates, texts, words)``. Nothing here needs torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import index
from typing import TYPE_CHECKING, Annotated, Literal, Protocol, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from harness import heads
from harness.heads import Head, softmax

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.random import Generator

FloatArray: TypeAlias = npt.NDArray[np.floating]
IntArray: TypeAlias = npt.NDArray[np.int64]
Text: TypeAlias = tuple[str, ...]
"""One example's text fields: one for SST-2 and DBPedia, two for the pair tasks."""

Mode: TypeAlias = Literal["add", "prepend"]
Metric: TypeAlias = Literal["accuracy", "macro_f1", "f1"]
"""``f1`` is that of class 1, for tasks of two classes."""
Mix: TypeAlias = Literal["probabilities", "logits"]
FeatureKind: TypeAlias = Literal["mask", "cls", "all"]
Distribution: TypeAlias = Literal["normal", "uniform"]

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]
"""An option of at least 1. Options of a Config are held to the bounds of their types before `tune` starts."""
Several: TypeAlias = Annotated[int, msgspec.Meta(ge=2)]
"""An option of at least 2, as the population of an evolution strategy."""
Positive: TypeAlias = Annotated[float, msgspec.Meta(gt=0)]
"""An option above 0. Numbers are always finite."""
NonNegative: TypeAlias = Annotated[float, msgspec.Meta(ge=0)]
"""An option of at least 0."""
Share: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=1)]
"""An option from 0 to 1."""


@dataclass(frozen=True)
class Task:
    """A classification task as a cloze.

    `template` holds ``{a}`` (first text), for pairs ``{b}`` (second text), and ``{mask}``. For a causal model
    ``{mask}`` ends the template, and the logits are those of the next token.
    """

    name: str
    classes: tuple[str, ...]
    """Class names, in the label order of the original data set: label k is `classes[k]`."""
    metric: Metric
    template: str
    words: tuple[str, ...]
    """One label word (verbalizer) per class, in class order; each a single token of the model."""
    fields: int = 1
    """Text fields per example: 1 or 2."""


@dataclass(frozen=True)
class Examples:
    """Texts with their labels."""

    texts: tuple[Text, ...]
    labels: IntArray  # (texts,)

    def __len__(self) -> int:
        """Count the examples."""
        return len(self.texts)


@dataclass(frozen=True)
class Shots:
    """The few-shot data of one split. Forwarding either set costs the same per row."""

    train: Examples
    dev: Examples


@dataclass(frozen=True)
class ModelInfo:
    """What is published about the language model. Reading it is free."""

    name: str
    kind: Literal["masked", "causal", "seq2seq"]
    """Where label words are read: at the mask, after the last token, or (encoder-decoder) in the decoder, where it
    fills the mask. There, prompts, layers and all features but those at the mask are the encoder's."""
    layers: int
    width: int
    vocabulary: int
    max_tokens: int
    """Longest input in tokens, prompt included; longer texts are cut, the template never is."""
    prompt_tokens: int
    """Most prompt tokens a query may use, and the usual number."""
    embedding_std: float
    """sigma-hat of the word embeddings: standard deviation of all entries."""
    hidden_std: tuple[float, ...]
    """(layers,) standard deviation of the input of each layer: at the zero prompt, on the training
    texts, over all positions that hold a token."""


@dataclass(frozen=True)
class Budget:
    """What may be spent and what is left."""

    rows_total: int
    rows_left: int
    train_rows: int
    """Rows of one call: the size of the training set."""

    @property
    def calls_total(self) -> float:
        """Budget in calls."""
        return self.rows_total / self.train_rows

    @property
    def calls_left(self) -> float:
        """Calls left; may be fractional, since dev queries are charged by the row too."""
        return self.rows_left / self.train_rows


@dataclass(frozen=True)
class Prompt:
    """Candidate soft prompts, as values.

    Mode ``add``: `tokens` fixed vocabulary tokens stand right after the start token, and ``values[c, l]`` is added
    to their hidden states before layer l (layer 0: to the embedding output), as the reference code of BBT and
    BBTv2 does. Mode ``prepend``: ``values[c, 0]`` stands before the text as extra input vectors, as the BBT paper
    says; deeper layers then add, too. `layers` = 1 is the input alone.
    """

    values: FloatArray  # (candidates, layers, tokens, width)
    mode: Mode = "add"

    def __len__(self) -> int:
        """Candidates."""
        return len(self.values)


class Subspace(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Random projections A_l, declared here and generated by the server from the seed.

    A submission sends coordinates z and the model is shown ``A_l @ z_l`` at layer l. With ``normal``, entries
    of A_l are N(0, std_l^2 / dim), so that z ~ N(0, I) gives prompt values of standard deviation std_l. With
    ``uniform`` entries are U(-1/sqrt(dim), 1/sqrt(dim)) * std_l (PyTorch's Linear default, the projection of
    the first BBT code, at std 1).
    """

    dim: Annotated[int, msgspec.Meta(ge=0, le=2**31)]
    std: Annotated[tuple[float, ...], msgspec.Meta(max_length=4096)]
    """One width per layer. Its length is the number of layers that get a prompt; 1 is the input alone."""
    tokens: Annotated[int, msgspec.Meta(ge=0, le=2**31)]
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**62)]
    distribution: Distribution = "normal"
    mode: Mode = "add"

    def __post_init__(self) -> None:
        """Make numpy's numbers plain: it is sent, stored in answers and compared as it is."""
        for name in ("dim", "tokens", "seed"):
            msgspec.structs.force_setattr(self, name, index(getattr(self, name)))
        msgspec.structs.force_setattr(self, "std", tuple(map(float, self.std)))

    @classmethod
    def deep(cls, info: ModelInfo, dim: int, rng: Generator, alpha: float, alpha_deep: float) -> Subspace:
        """One normal projection for each layer, as BBTv2 has them (Sun et al., EMNLP 2022).

        Args:
            info: of the model: layers, width of each one's input, length of the prompt.
            dim: d, the number of coordinates per layer.
            rng: draws the seed.
            alpha: width of the prompts at the input where z ~ N(0, I), in standard deviations of that layer's input.
            alpha_deep: the same for every layer above.

        Returns:
            A subspace that takes coordinates (candidates, layers, dim).
        """
        alphas = [alpha] + [alpha_deep] * (info.layers - 1)
        std = tuple(a * s for a, s in zip(alphas, info.hidden_std, strict=True))
        return cls(dim, std, info.prompt_tokens, seed=int(rng.integers(2**62)))

    @property
    def layers(self) -> int:
        """Number of layers that get a prompt."""
        return len(self.std)

    def at(self, z: npt.ArrayLike) -> Coordinates:
        """Candidates at coordinates z: (dim,), (candidates, dim) or (candidates, layers, dim).

        The two short forms are for one layer. Raises ValueError on any other shape.
        """
        array = np.asarray(z, dtype=np.float32)
        if array.ndim == 1:
            array = array[None, :]
        if array.ndim == 2:  # noqa: PLR2004 - (candidates, dim)
            array = array[:, None, :]
        if array.ndim != 3 or array.shape[1:] != (self.layers, self.dim):  # noqa: PLR2004
            found = np.shape(z)
            raise ValueError(
                f"coordinates of shape {found}; this subspace takes (candidates, {self.layers}, {self.dim})"
            )
        return Coordinates(self, array)


@dataclass(frozen=True)
class Coordinates:
    """Candidates as points of a `Subspace`; accepted wherever a `Prompt` is."""

    space: Subspace
    z: FloatArray  # (candidates, layers, dim)

    def __len__(self) -> int:
        """Candidates."""
        return len(self.z)


Prompts: TypeAlias = Prompt | Coordinates


@dataclass(frozen=True)
class Outputs:
    """Logits and hidden states of one query."""

    logits: FloatArray  # (candidates, texts, words)
    features: FloatArray  # (candidates, texts, width); of all tokens: (candidates, texts, tokens, width)
    lengths: IntArray | None = None  # (texts,)
    """Tokens of each text, where the features of all tokens were asked for; behind them features are 0."""

    def __getitem__(self, k: int) -> Outputs:
        """Keep one candidate, as the outputs of a query of one.

        Args:
            k: the candidate's number, from 0.

        Returns:
            Its logits (1, texts, words) and features (1, texts, width).

        Raises:
            IndexError: there is no such candidate.
        """
        return Outputs(self.logits[[k]], self.features[[k]], self.lengths)


@dataclass(frozen=True)
class Member:
    """One classifier: a cloze, its prompt, and what is done with the label-word logits q.

    ``p1 = softmax(scale * q + shift)``; with a head, ``p = (1 - alpha) * p1 + alpha * p2`` where p2 is the head
    on the features. With k words per class (`words` lists them class by class) q is their mean.
    """

    template: str
    words: tuple[str, ...]
    prompt: Prompts | None = None
    """Exactly one candidate, or None for the bare template."""
    scale: tuple[float, ...] | None = None
    """One factor per class; None is 1."""
    shift: tuple[float, ...] | None = None
    """One offset per class; None is 0."""
    head: Head | None = None
    alpha: float = 0.0
    mix: Mix = "probabilities"
    """How the two are joined: ``probabilities`` as above, or ``logits``, which is
    ``softmax(scale * q + shift + alpha * s)`` with s the head's logits."""
    features: FeatureKind = "mask"

    @classmethod
    def of(
        cls,
        task: Task,
        prompt: Prompts | None = None,
        scale: Sequence[float] | None = None,
        shift: Sequence[float] | None = None,
    ) -> Member:
        """Read the task's own label words in its own template.

        Args:
            task: gives template and label words.
            prompt: as the field; so are `scale` and `shift`, which may be any sequence of numbers.
            scale: one factor per class.
            shift: one offset per class.

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
            classes: number of classes; None says that each class has one word.

        Returns:
            (candidates, texts, classes), in float64.

        Raises:
            ValueError: the words are no multiple of the classes, or a BiLSTM head lacks the lengths of the texts.

        Example:
            ``p = member.probabilities(lm.outputs(space.at(zs), texts))``
        """
        q = np.asarray(outs.logits, dtype=np.float64)
        q = q.reshape(*q.shape[:-1], len(self.words) if classes is None else classes, -1).mean(axis=-1)
        q = q * np.asarray(1.0 if self.scale is None else self.scale)
        q = q + np.asarray(0.0 if self.shift is None else self.shift)
        if self.head is None or self.alpha == 0:
            return softmax(q)
        s = heads.logits(self.head, outs.features, outs.lengths)
        if self.mix == "logits":
            return softmax(q + self.alpha * s)
        return (1 - self.alpha) * softmax(q) + self.alpha * softmax(s)


@dataclass(frozen=True)
class Answer:
    """All that is needed to classify a text with the model: data, not code.

    The predicted class is the argmax of the members' mean probability.
    """

    members: tuple[Member, ...]
    note: dict[str, float] = field(default_factory=dict)
    """Numbers worth keeping beside the answer (e.g. the training loss); shown, never scored. The progress line
    shows ``loss``."""

    @classmethod
    def of(cls, task: Task, prompt: Prompts | None = None, **note: float) -> Answer:
        """Answer with the task's own template and label words, and one prompt."""
        return cls((Member.of(task, prompt),), note)


class BlackBox(Protocol):
    """The language model as a service: forward passes and nothing else."""

    @property
    def info(self) -> ModelInfo:
        """What is published about the model. Free."""
        ...

    @property
    def budget(self) -> Budget:
        """What is left. Free."""
        ...

    def word_ids(self, words: Sequence[str]) -> list[list[int]]:
        """Token ids of each word as it would stand at the mask; a label word must have exactly one. Free."""
        ...

    def vocabulary(self) -> tuple[str, ...]:
        """Every label word there is: element i is the word of token id i, "" where a query cannot ask for it. Free."""
        ...

    def logits(
        self,
        prompts: Prompts | None,
        texts: Sequence[Text],
        template: str | None = None,
        words: Sequence[str] | None = None,
        normalize: bool = False,
    ) -> FloatArray:
        """Label-word logits, float32 (candidates, texts, words). Costs candidates * texts rows.

        `prompts` None forwards the bare template (one candidate). `template` and `words` default to the task's. With
        `normalize` they are log-probabilities among the whole vocabulary: what softmax over `words` cannot tell.

        Raises:
            BudgetExhausted: the query does not fit into what is left; nothing was charged.
            QueryError: the query is malformed; nothing was charged.
        """
        ...

    def outputs(
        self,
        prompts: Prompts | None,
        texts: Sequence[Text],
        template: str | None = None,
        words: Sequence[str] | None = None,
        features: FeatureKind = "mask",
        normalize: bool = False,
    ) -> Outputs:
        """Logits, and final hidden states: at the mask, at the first token, or at all. Same price, same errors."""
        ...
