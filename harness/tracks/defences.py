"""What a track's black box keeps back against stealing of the model: the ``[defences]`` table, or a file of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from harness.errors import InputError
from harness.tracks.limits import Positive  # noqa: TC001 - msgspec reads the types
from harness.tracks.tomlfile import ENCODING, line_of, read_toml

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Defences(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is refused, and how logits are changed before they are given. Answers are scored with the model as it is.

    `harness.blackbox.defence` applies it to every query, whatever way it came.
    """

    words: Literal["any", "task"] = "any"
    """``task``: logits only for the task's declared label words."""
    most_words: Positive | None = None
    """Different words that one solver may ask about in a cell."""
    most_texts: Positive | None = None
    """Different texts that one solver may ask about in a cell."""
    most_rank: Positive | None = None
    """Dimensions that the returned logits of a cell may have. They have at most min(rows, words), counted without
    repetitions; a normalised query counts as a word more, and hidden states count as so many words as they are wide."""
    digits: Annotated[int, msgspec.Meta(ge=0, le=6)] | None = None
    """Decimal digits that logits are rounded to."""
    top: Positive | None = None
    """Of the words of a row, only so many of the highest logits are given. The others are given as 1 below the lowest
    of these."""
    noise: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 0.0
    """Standard deviation of normal noise on each logit. The same row and word always get the same noise, so that asking
    again averages nothing out."""
    noise_seed: Annotated[int, msgspec.Meta(ge=0)] = 0
    """From which the noise is drawn. Whoever knows it can take the noise off: keep the file private."""
    hidden_states: bool = True
    """Whether hidden states are given."""

    @property
    def none(self) -> bool:
        """Whether nothing is kept back."""
        return self == Defences()

    def problems(self) -> Iterator[tuple[list[str], str]]:
        """Each broken rule as (keys, message)."""
        changed = {
            "words": self.words == "task",
            "most_words": self.most_words is not None,
            "digits": self.digits is not None,
            "top": self.top is not None,
            "noise": self.noise > 0,
        }
        without = [name for name, given in changed.items() if given and self.hidden_states]
        if without:
            yield (
                [without[0]],
                (
                    f"{without[0]} keeps logits back, and hidden states give them away as they are; "
                    "add hidden_states = false"
                ),
            )
        if self.noise_seed and not self.noise:
            yield ["noise_seed"], f"noise_seed = {self.noise_seed} without noise; add noise, or leave it out"

    def lines(self) -> list[str]:
        """What is kept back, for people; nothing where nothing is."""
        said = {
            "logits of the task's label words alone": self.words == "task",
            f"at most {self.most_words} different words in a cell": self.most_words,
            f"at most {self.most_texts} different texts in a cell": self.most_texts,
            f"at most {self.most_rank} dimensions of logits in a cell": self.most_rank,
            f"logits are rounded to {self.digits} digits": self.digits is not None,
            f"the {self.top} highest logits of a row": self.top,
            f"noise of standard deviation {self.noise:g} on logits": self.noise,
            "no hidden states": not self.hidden_states,
        }
        return [line for line, given in said.items() if given]


def read_policy(path: Path) -> Defences:
    """Read an organiser's policy: a file with the fields of a track's ``[defences]`` table.

    Raises:
        InputError: there is no such file, or it breaks a rule. The message has the line.
    """
    try:
        found = read_toml(path, Defences, InputError)
    except InputError as problem:
        if "unknown field `defences`" not in str(problem):
            raise
        raise InputError(f"{problem}; a policy has the fields alone, so leave the heading [defences] out") from problem
    text = path.read_text(encoding=ENCODING)
    for keys, message in found.problems():
        raise InputError(f"{path}:{line_of(text, keys)}: {message}")
    return found
