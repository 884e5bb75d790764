"""One query to the model. It stays the same object from a submission's call to the model's answer, on every way."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from harness.blackbox.weights import LEVEL, parts_of, soft
from harness.contract import Coordinates, Prompt, Weights
from harness.errors import QueryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.contract import FeatureKind, FloatArray, Mode, Prompts, Task, Text, TextTask

OF_NO_WORDS = "Logits or hidden states at 0 label words were asked for, so name words and a template with {mask}"
"""What is wrong with a query without words on a text task: such a task has none of its own."""


@dataclass(frozen=True)
class Query:
    """What a `BlackBox` is asked: `logits` if `features` is None, and `outputs` otherwise."""

    texts: tuple[Text, ...]
    template: str | None = None
    """None means the task's."""
    words: tuple[str, ...] | None = None
    """None means the task's."""
    prompts: Prompts | None = None
    features: FeatureKind | None = None
    normalize: bool = False

    @classmethod
    def of(
        cls,
        prompts: Prompts | None,
        texts: Sequence[Text | str],
        template: str | None,
        words: Sequence[str] | None,
        features: FeatureKind | None,
        normalize: bool,
    ) -> Self:
        """Make a query from the arguments of a `BlackBox` method.

        Raises:
            QueryError: a text, the template or a word is no string, or the prompts are no prompts. It is looked at
                here, so that the author's traceback shows the call.
        """
        inner = soft(prompts)
        if isinstance(inner, Prompt):
            if np.ndim(inner.values) != 4:  # noqa: PLR2004
                shape = np.shape(inner.values)
                raise QueryError(f"prompt values of shape {shape}; (candidates, layers, tokens, width) expected")
        elif not isinstance(inner, Coordinates | None):
            raise QueryError(f"prompts are {type(prompts).__name__}; Prompt, space.at(z) or None expected")
        return cls(
            texts_of(texts),
            None if template is None else string_of(template),
            None if words is None else words_of(words),
            prompts,
            features,
            bool(normalize),
        )

    def wording(self, task: Task | TextTask) -> tuple[str, tuple[str, ...]]:
        """Template and words of the query, or the task's where the query has none."""
        return (
            task.template if self.template is None else self.template,
            task.words if self.words is None else self.words,
        )

    @property
    def candidates(self) -> int:
        """Number of candidates; the bare template counts as one."""
        return 1 if self.prompts is None else len(self.prompts)

    @property
    def prompt_layers(self) -> int:
        """Number of layers that get a prompt."""
        prompts = soft(self.prompts)
        if prompts is None:
            return 0
        return int(prompts.values.shape[1]) if isinstance(prompts, Prompt) else prompts.space.layers

    @property
    def prompt_tokens(self) -> int:
        """Number of prompt tokens of one candidate."""
        prompts = soft(self.prompts)
        if prompts is None:
            return 0
        return int(prompts.values.shape[2]) if isinstance(prompts, Prompt) else prompts.space.tokens

    @property
    def mode(self) -> Mode | None:
        """How the prompts are put in; None without any."""
        prompts = soft(self.prompts)
        if prompts is None:
            return None
        return prompts.mode if isinstance(prompts, Prompt) else prompts.space.mode

    @property
    def prompt_floats(self) -> int:
        """How many numbers are sent for the candidates: values, coordinates, and the streams of walks."""
        prompts = soft(self.prompts)
        sent = sum(part.z.size * (1 if part.streams is None else 2) for part in parts_of(self.prompts))
        if prompts is None:
            return sent
        array: FloatArray = prompts.values if isinstance(prompts, Prompt) else prompts.z
        return sent + array.size

    @property
    def level(self) -> int:
        """Access level: 0 is text and logits, 1 input prompts, 2 deep prompts, 3 hidden states, 5 weights."""
        if isinstance(self.prompts, Weights):
            return LEVEL
        return 3 if self.features is not None else min(self.prompt_layers, 2)


def texts_of(texts: Sequence[Text | str]) -> tuple[Text, ...]:
    """Texts as they travel; one that is a plain string is a text of one field.

    Raises:
        QueryError: they are no sequence of texts.
    """
    if isinstance(texts, str) or not isinstance(texts, Iterable):
        raise QueryError(f"texts are {type(texts).__name__}; a sequence of texts expected, each a string or several")
    return tuple(map(_text, texts))


def _text(text: Text | str) -> Text:
    if isinstance(text, str):
        return (str(text),)
    if not isinstance(text, Iterable):
        raise QueryError(f"{text!r} is {type(text).__name__}; a text is a string, or a sequence of them")
    return tuple(map(string_of, text))


def words_of(words: Sequence[str]) -> tuple[str, ...]:
    """Words as they travel; a plain string is one word.

    Raises:
        QueryError: a word is no string.
    """
    return (str(words),) if isinstance(words, str) else tuple(map(string_of, words))


def string_of(value: str) -> str:
    """Check that a value is a string, and convert numpy's strings, because only Python's can be sent."""
    if not isinstance(value, str):
        raise QueryError(f"{value!r} is {type(value).__name__}; a string expected")
    return str(value)
