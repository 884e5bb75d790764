"""What an answer will cost the referee, known when it is offered: tokens, projections and heads.

The price does not depend on the test set, which nobody has loaded yet: the limit on tokens is for each test text. They
are counted on the training texts of the split, which the solver knows, so that it can compute the price, too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from harness.blackbox.weights import MOST_DRAWN, drawn, soft
from harness.contract import Coordinates, Prompt, Weights
from harness.errors import AnswerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.blackbox.model import Model
    from harness.contract import Answer, Member, Text
    from harness.tracks.limits import AnswerLimits


@dataclass(frozen=True)
class AnswerPrice:
    """What it takes to apply an answer."""

    tokens: int
    """For each text, over all members: those of the filled template, on average, and of the prompt."""
    projection_bytes: int
    """Of the matrices of all its subspaces, those of weights included; one that several members use counts once."""
    head_bytes: int
    drawn: int = 0
    """Numbers that are drawn for the walks of its weights."""


def price(answer: Answer, lm: Model, texts: Sequence[Text]) -> AnswerPrice:
    """The price of an answer that was found to fit the task and the model.

    Args:
        answer: what was offered.
        lm: the model that will apply it.
        texts: on which tokens are counted; at least one.

    Raises:
        QueryError: a template does not fit.
    """
    tokens = sum(_tokens(member, lm, tuple(texts)) for member in answer.members)
    heads = [member.head for member in answer.members if member.head is not None]
    head_bytes = sum(getattr(head, field.name).nbytes for head in heads for field in fields(head))
    return AnswerPrice(tokens, projection_bytes(answer, lm), head_bytes, drawn_for(answer, lm))


def projection_bytes(answer: Answer, lm: Model) -> int:
    """Bytes of the matrices of all subspaces of an answer, those of weights included."""
    prompts = [soft(member.prompt) for member in answer.members]
    spaces = {prompt.space for prompt in prompts if isinstance(prompt, Coordinates)}
    found = sum(4 * space.layers * space.dim * space.tokens * lm.backbone.width for space in spaces)
    weights = [member.prompt for member in answer.members if isinstance(member.prompt, Weights)]
    directions = {part.space for each in weights for part in each.parts if part.streams is None}
    return found + sum(4 * space.dim * lm.weight_count(space) for space in directions)


def drawn_for(answer: Answer, lm: Model) -> int:
    """Numbers that are drawn for the walks of an answer."""
    weights = [member.prompt for member in answer.members if isinstance(member.prompt, Weights)]
    return sum(drawn(each, lm.weight_count) for each in weights)


def check_price(found: AnswerPrice, limits: AnswerLimits) -> None:
    """Refuse an answer that costs more than the track allows.

    Raises:
        AnswerError: with the numbers.
    """
    if found.tokens > limits.tokens:
        raise AnswerError(
            f"its members read {found.tokens:,} tokens for each test text; {limits.tokens:,} are allowed on "
            "this track. Take fewer members, or shorter templates"
        )
    if found.drawn > MOST_DRAWN:
        raise AnswerError(
            f"its walks draw {found.drawn:,} numbers; {MOST_DRAWN:,} are allowed. Take fewer steps, or fewer weights"
        )
    for what, size, most, remedy in (
        ("projections", found.projection_bytes, limits.projection_bytes, "Lower dim, or share a subspace"),
        ("heads", found.head_bytes, limits.head_bytes, "Make them smaller"),
    ):
        if size > most:
            raise AnswerError(f"its {what} take {size:,} bytes; {most:,} are allowed on this track. {remedy}")


def _tokens(member: Member, lm: Model, texts: tuple[Text, ...]) -> int:
    filled = math.ceil(int(lm.text_set(member.template, texts).tokens) / len(texts))
    prompt = soft(member.prompt)
    if prompt is None:
        return filled
    return filled + (int(prompt.values.shape[2]) if isinstance(prompt, Prompt) else prompt.space.tokens)
