"""Finds out whether a server tells how likely a given text is, and how it is let write, before a text task is run.

What it writes needs no trust: it is cut and counted here. Likelihoods are believed if they depend on what stands before
the target, and if they are those that the server gives of a next token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.errors import ModelError
from harness.lm.endpoint.probe import AGREE, TEXTS, Refused
from harness.lm.endpoint.requests import RefusedError, UnreadableError
from harness.lm.endpoint.text_ways import Completes, Echoed, LlamaForced, LlamaWrites
from harness.lm.endpoint.ways import LABELS, TOP

if TYPE_CHECKING:
    from harness.lm.endpoint.probe import Found
    from harness.lm.endpoint.requests import Endpoint
    from harness.lm.endpoint.text_ways import Scores, Writes

_TARGET = 3
_WRITTEN = 4


@dataclass(frozen=True)
class TextFound:
    """What a server gives of text."""

    writes: Writes
    scores: Scores | None
    """None where it does not tell how likely a given text is."""
    refused: tuple[Refused, ...] = ()

    @property
    def why_no_scores(self) -> str:
        """The reasons, way by way."""
        return "; ".join(f"{each.way}: {each.why}" for each in self.refused)

    def lines(self) -> list[str]:
        """All of it, for people."""
        scored = "no likelihoods of given texts" if self.scores is None else f"likelihoods by {self.scores.name}"
        found = [f"text tasks: {scored}; texts are written by {self.writes.name}"]
        return found + [f"not here: {each.way} ({each.why})" for each in self.refused]


def probe_text(endpoint: Endpoint, found: Found, tokenizer: Any) -> TextFound:
    """Find the ways that an endpoint really gives.

    Args:
        endpoint: the connection.
        found: what it gives of label words.
        tokenizer: of the served model.

    Raises:
        ModelError: the server does not answer, or does not write.
    """
    ids = [tuple(tokenizer(text)["input_ids"]) for text in TEXTS]
    refused: list[Refused] = []
    scores: Scores | None = None
    for way in (LlamaForced(), Echoed(found.model)) if found.takes_ids else ():
        try:
            _check_scores(endpoint, found, way, ids, tokenizer)
        except (RefusedError, UnreadableError, _NotBelievedError) as problem:
            if isinstance(problem, RefusedError) and problem.about_the_key:
                raise
            refused.append(Refused(way.name, str(problem).removeprefix(endpoint.url)))
            continue
        scores = way
        break
    if not found.takes_ids:
        refused.append(Refused("likelihoods", "prompts are sent as text, so it is not known which tokens a target has"))
    return TextFound(_writes(endpoint, found, ids), scores, tuple(refused))


class _NotBelievedError(Exception):
    """The numbers of a way are not what they should be, with the reason."""


def _check_scores(endpoint: Endpoint, found: Found, way: Scores, ids: list[tuple[int, ...]], tokenizer: Any) -> None:
    prompt, target = ids[0][:-_TARGET], ids[0][-_TARGET:]
    told = way.ask(endpoint.post, prompt, target)
    other = way.ask(endpoint.post, ids[1], target)
    if max(abs(a - b) for a, b in zip(told.values, other.values, strict=True)) < AGREE:
        raise _NotBelievedError("two texts give the same likelihoods: what stands before the target is not read")
    for place, token in enumerate(target):
        word = str(tokenizer.decode([token], clean_up_tokenization_spaces=False))
        known = _next(endpoint, found, (*prompt, *target[:place]), {token: word})
        if known is not None and abs(known - told.values[place]) > AGREE:
            raise _NotBelievedError(
                f"token {place + 1} of a target has log-probability {told.values[place]:.3f}, and as a next token "
                f"{known:.3f}"
            )


def _next(endpoint: Endpoint, found: Found, prompt: tuple[int, ...], word: dict[int, str]) -> float | None:
    """Log-probability of a token as the next one, if the way for label words tells it."""
    if found.way.gives not in {LABELS, TOP}:
        return None
    read = found.way.ask(endpoint.post, prompt, word, True)
    return None if read.bounded else read.values[0]


def _writes(endpoint: Endpoint, found: Found, ids: list[tuple[int, ...]]) -> Writes:
    """The way in which the server writes.

    Raises:
        ModelError: it writes in none.
    """
    chat = getattr(found.way, "chat", False)
    ways: list[Writes] = [] if chat else [LlamaWrites()]
    ways.append(Completes(found.model, chat, found.server.startswith("vLLM")))
    problems = []
    for way in ways:
        try:
            said = [ids[n] if found.takes_ids else text for n, text in enumerate(TEXTS)]
            if any(way.ask(endpoint.post, each, _WRITTEN, (), 0.0, 0).text for each in said):
                return way
            problems.append(f"{way.name}: it wrote nothing")
        except (RefusedError, UnreadableError) as problem:
            if isinstance(problem, RefusedError) and problem.about_the_key:
                raise
            problems.append(f"{way.name}: {problem}")
    raise ModelError(f"{endpoint.url} writes no text: {'; '.join(problems)}")
