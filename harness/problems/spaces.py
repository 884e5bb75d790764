"""Search spaces: how a vector of numbers becomes a prompt, a template and label words.

A point z is a vector of floats. Its first entries are the coordinates of a soft prompt, then come choices: one number
for the template and one for the label word of each class. A choice is rounded to the nearest index and clipped, so an
optimizer for real numbers alone can search mixed spaces, too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from harness.contract import Member, Subspace, TextTask
from harness.errors import InputError, QueryError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.contract import Coordinates, ModelInfo, Task

Floats: TypeAlias = npt.NDArray[np.float64]
SpaceName: TypeAlias = Literal["input", "deep", "words", "template", "mixed"]
NAMES: tuple[SpaceName, ...] = ("input", "deep", "words", "template", "mixed")
BOUND = 5.0
"""Coordinates are searched in [-BOUND, BOUND], as in BBOB. Points outside are evaluated, too."""
WORDS = 32
"""Label words that each class may choose from, where the caller names none."""
_WORD = re.compile(r"[^\W\d_]\w{2,}")


@dataclass(frozen=True)
class Real:
    """A coordinate of the soft prompt."""

    name: str
    low: float = -BOUND
    high: float = BOUND


@dataclass(frozen=True)
class Choice:
    """A categorical variable, given by the index of one of its values."""

    name: str
    values: tuple[str, ...]

    @property
    def low(self) -> float:
        """Index of the first value."""
        return 0.0

    @property
    def high(self) -> float:
        """Index of the last value."""
        return len(self.values) - 1.0


Variable: TypeAlias = Real | Choice


@dataclass(frozen=True)
class Group:
    """Candidates of a batch that differ only in their soft prompt, so that one query can evaluate them."""

    rows: npt.NDArray[np.intp]
    prompts: Coordinates | None
    template: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class Space:
    """What is searched: soft prompts, templates and label words, each fixed or free."""

    task: Task | TextTask
    subspace: Subspace | None
    templates: tuple[str, ...]
    """One that is fixed, or several to choose from."""
    words: tuple[tuple[str, ...], ...]
    """For each class one word that is fixed, or several to choose from."""

    @property
    def variables(self) -> tuple[Variable, ...]:
        """The variables in the order of a point's entries."""
        found: list[Variable] = [Real(f"z{i}") for i in range(self._coordinates)]
        if len(self.templates) > 1:
            found.append(Choice("template", self.templates))
        for name, values in zip(self.task.classes, self.words, strict=True):
            if len(values) > 1:
                found.append(Choice(f"word of {name}", values))
        return tuple(found)

    @property
    def _coordinates(self) -> int:
        return 0 if self.subspace is None else self.subspace.layers * self.subspace.dim

    def checked(self, zs: npt.ArrayLike) -> Floats:
        """Points as an array (n, dimension).

        Raises:
            QueryError: they have another shape, or numbers that are not finite.
        """
        array = np.asarray(zs, dtype=np.float64)
        size = len(self.variables)
        if array.ndim != 2 or array.shape[1] != size or not len(array):  # noqa: PLR2004
            raise QueryError(f"points of shape {np.shape(zs)}; (n, {size}) or ({size},) is needed, n at least 1")
        if not np.isfinite(array).all():
            bad = int((~np.isfinite(array)).any(axis=1).sum())
            raise QueryError(f"{bad} of {len(array)} points have a number that is not finite; nothing was charged")
        return array

    def groups(self, zs: Floats) -> Iterator[Group]:
        """The queries that a batch of points needs, in the order of their first points."""
        worded: dict[tuple[str, tuple[str, ...]], list[int]] = {}
        for row, z in enumerate(zs):
            worded.setdefault(self._wording(z), []).append(row)
        for (template, words), rows in worded.items():
            yield Group(np.array(rows), self._prompts(zs[rows]), template, words)

    def member(self, z: Floats) -> Member:
        """The classifier that a point stands for."""
        template, words = self._wording(z)
        return Member(template, words, self._prompts(z[None]))

    def _prompts(self, zs: Floats) -> Coordinates | None:
        if self.subspace is None:
            return None
        return self.subspace.at(zs[:, : self._coordinates].reshape(len(zs), self.subspace.layers, self.subspace.dim))

    def _wording(self, z: Floats) -> tuple[str, tuple[str, ...]]:
        """Template and label words of one point."""
        choices = iter(z[self._coordinates :])

        def chosen(values: tuple[str, ...]) -> str:
            if len(values) == 1:
                return values[0]
            return values[int(np.clip(np.rint(next(choices)), 0, len(values) - 1))]

        return chosen(self.templates), tuple(chosen(values) for values in self.words)


def make_space(
    name: str,
    dim: int,
    task: Task | TextTask,
    info: ModelInfo,
    vocabulary: Sequence[str],
    rng: np.random.Generator,
    *,
    alpha: float = 1.0,
    templates: Sequence[str] | None = None,
    words: Sequence[Sequence[str]] | None = None,
) -> Space:
    """Make one of the spaces of `NAMES`; the arguments are those of `harness.problem`.

    Raises:
        InputError: there is no such space, or what it needs is missing.
    """
    if name not in NAMES:
        raise InputError(f"no space {name!r}; there are {', '.join(NAMES)}")
    if name in {"input", "deep", "mixed"} and (dim < 1 or not 0 <= alpha < np.inf):
        raise InputError(f"space {name!r} with dim={dim}, alpha={alpha}: dim is at least 1, and alpha at least 0")
    if name == "template" and not templates:
        raise InputError('space "template" needs texts to choose from: templates=("{a} It was {mask} .", ...)')
    if isinstance(task, TextTask) and (words is not None or name == "words" or (name == "mixed" and not templates)):
        raise InputError(
            f"task {task.name} is answered by text and has no label words to choose from; take space input or deep, or "
            "space template or mixed with templates=(...)"
        )
    if name in {"input", "deep", "mixed"} and not info.layers:
        words_too = "" if isinstance(task, TextTask) else 'space="words", or '
        raise InputError(
            f'space "{name}" has soft prompts, and {info.name} takes none: it is an endpoint that gives text alone. '
            f'Take {words_too}space="template" with templates'
        )
    subspace = None
    if name == "deep":
        subspace = Subspace.deep(info, dim, rng, alpha, alpha)
    elif name in {"input", "mixed"}:
        subspace = Subspace(dim, (alpha * info.hidden_std[0],), info.prompt_tokens, int(rng.integers(2**62)))
    each: tuple[tuple[str, ...], ...] = tuple((word,) for word in task.words)
    if name in {"words", "mixed"} and not isinstance(task, TextTask):
        each = tuple(tuple(some) for some in words) if words is not None else _drawn(task, vocabulary, rng)
    chosen = tuple(templates or ()) if name in {"template", "mixed"} else ()
    found = Space(task, subspace, chosen or (task.template,), each)
    if len(each) != len(task.classes) or not all(each) or not found.variables:
        raise InputError(
            f"words for {len(each)} classes with {', '.join(str(len(some)) for some in each) or 'no'} choices; "
            f"task {task.name} has {len(task.classes)} classes, and a space needs something to choose"
        )
    return found


def _drawn(task: Task, vocabulary: Sequence[str], rng: np.random.Generator) -> tuple[tuple[str, ...], ...]:
    """For each class its own word, and others of the vocabulary that no other class may choose.

    Raises:
        InputError: the vocabulary has too few words that look like label words.
    """
    named = [word for word in vocabulary if word]
    marked = 2 * sum(word.startswith(" ") for word in named) > len(named)  # a tokenizer that has the space in the word
    lead = " " if task.words[0].startswith(" ") else ""
    own = {word.strip() for word in task.words}
    known = dict.fromkeys(word.strip() for word in named if word.startswith(" ") == (marked and bool(lead)))
    fit = [word for word in known if _WORD.fullmatch(word) and word not in own]
    classes, each = len(task.words), WORDS - 1
    if len(fit) < classes * each:
        raise InputError(f"the vocabulary has {len(fit)} words for {classes} classes; give words=(('bad', ...), ...)")
    drawn = rng.choice(len(fit), size=(classes, each), replace=False)
    return tuple((first, *(lead + fit[i] for i in row)) for first, row in zip(task.words, drawn.tolist(), strict=True))
