"""Finds out what an endpoint really gives. A status of 200 proves nothing: only numbers that agree do.

Servers ignore fields that they do not know. So each way (`harness.lm.endpoint.ways`) is tried with two sets of words
and two prompts, and its numbers are compared with each other and with the server's own most probable tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.contract import Prompt
from harness.errors import InputError, ModelError
from harness.lm.endpoint.requests import RefusedError, UnreadableError
from harness.lm.endpoint.ways import LABELS, TEXT, TOP, LlamaLabels, TextOnly, TopK, VllmLabels

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.lm.endpoint.requests import Endpoint
    from harness.lm.endpoint.soft import SoftInputs
    from harness.lm.endpoint.ways import Read, Said, Way

TEXTS = ("The river was wide and deep, and the boat was", "She opened the old book and began to")
SOFT = "soft prompts at the input"
AGREE = 0.05
"""Largest difference between two log-probabilities that counts as the same number; servers vary with their load."""
_KS = (20, 5)
"""Numbers of tokens that are asked for; the protocol's two usual limits."""


@dataclass(frozen=True)
class Refused:
    """A way that the endpoint does not give."""

    way: str
    why: str


@dataclass(frozen=True)
class Found:
    """What an endpoint gives."""

    url: str
    server: str
    """Name and version, as far as the server says."""
    model: str
    """Name by which the server knows the model."""
    context: int | None
    """Most tokens of a prompt; None where the server does not say."""
    way: Way
    takes_ids: bool
    """Whether prompts are sent as token ids, so that they are read exactly as they are counted here."""
    varies: float
    """Largest difference between two answers to the same request."""
    refused: tuple[Refused, ...] = ()
    soft: SoftInputs | None = None
    """Embeddings for soft prompts at the input, where the server takes them."""

    @property
    def gives(self) -> str:
        """The access level in words."""
        return self.way.gives if self.soft is None else f"{self.way.gives} and {SOFT}"

    def lines(self) -> list[str]:
        """All of it, for people."""
        means = {
            LABELS: "exact, among all label words (level L0)",
            TOP: "of the most probable tokens alone; the others count with an upper bound (level L0)",
            TEXT: "the label that the generated text begins with, right or wrong (level L0)",
        }
        context = "" if self.context is None else f", {self.context:,} tokens"
        form = "token ids" if self.takes_ids else "text"
        found = [
            f"{self.url}: {self.server}, model {self.model}{context}",
            f"gives {self.way.gives}: {means[self.way.gives]}",
            *([] if self.soft is None else [f"gives {SOFT}, added or prepended (level L1)"]),
            f"prompts are sent as {form}; the same request answered twice differs by {self.varies:.2g}",
        ]
        return found + [f"not here: {each.way} ({each.why})" for each in self.refused]


def probe(
    endpoint: Endpoint, tokenizer: Any, served: str | None, soft: Callable[[], SoftInputs] | None = None
) -> Found:
    """Find the strongest way that an endpoint really gives.

    Args:
        endpoint: the connection.
        tokenizer: transformers' tokenizer of the model that the server is said to have.
        served: name of the model on the server; None takes the only one that there is.
        soft: reads the embeddings of the model from this machine, for servers that may take soft prompts; None if no
            soft prompts are wanted.

    Raises:
        InputError: the server has no such model, or several and none was named.
        ModelError: the server does not answer, has another tokenizer, or gives nothing that can be used.
    """
    listed = endpoint.get("/v1/models")
    entry = _entry(listed, served, endpoint.url)
    model, props = str(entry.get("id", served)), endpoint.get("/props") or {}
    server, context = _server(endpoint, entry, props)
    ids = [tuple(tokenizer(text)["input_ids"]) for text in TEXTS]
    ways: list[tuple[str, Way]] = [
        ("llama.cpp's /completion", LlamaLabels()),
        ("vLLM's logprob_token_ids", VllmLabels(model)),
    ]
    ways += [(f"the {k} most probable tokens", TopK(model, k)) for k in _KS]
    ways += [("generated text", TextOnly(model))]
    ways += [(f"the {k} most probable tokens of a chat", TopK(model, k, chat=True)) for k in _KS]
    ways += [("generated text of a chat", TextOnly(model, chat=True))]
    refused: list[Refused] = []
    for name, way in ways:
        try:
            takes_ids, varies = _tried(endpoint, way, tokenizer, ids)
        except _NotThereError as why:
            refused.append(Refused(name, str(why)))
            continue
        inputs, limit = _soft(endpoint, way, ids, soft)
        refused.append(Refused("soft prompts at the input" if inputs is None else "deep soft prompts", limit))
        refused.append(Refused("hidden states", "no server of this protocol returns them"))
        return Found(endpoint.url, server, model, context, way, takes_ids, varies, tuple(refused), inputs)
    reasons = "; ".join(f"{each.way}: {each.why}" for each in refused)
    raise ModelError(f"{endpoint.url}: nothing that can be used: {reasons}")


def _soft(
    endpoint: Endpoint, way: Way, ids: Sequence[tuple[int, ...]], soft: Callable[[], SoftInputs] | None
) -> tuple[SoftInputs | None, str]:
    """The embeddings with which soft prompts can be sent, if they can; and why they, or deeper ones, cannot."""
    if not isinstance(way, VllmLabels):
        return None, "this server is not asked with embeddings; vLLM is, with --enable-prompt-embeds"
    if soft is None:
        return None, "not tried"
    try:
        inputs = soft()
        words = dict.fromkeys(list(dict.fromkeys(ids[1]))[:3], "")
        said = way.ask(endpoint.post, ids[0], words, True)
        same = way.ask(endpoint.post, inputs.inputs(ids[0], None, "prepend"), words, True)
        (other,) = inputs.candidates(Prompt(np.full((1, 1, 1, inputs.width), 0.5, np.float32)))
        moved = way.ask(endpoint.post, inputs.inputs(ids[0], other, "prepend"), words, True)
    except ModelError as problem:
        return None, str(problem).removeprefix(endpoint.url)
    if _apart(said, same) > AGREE:
        return None, f"the embeddings here are not the server's: a text differs by {_apart(said, same):.3g} with them"
    if _apart(said, moved) < AGREE:
        return None, "prompt_embeds is answered with 200 and ignored"
    return inputs, "no server of this protocol takes prompts for deeper layers"


class _NotThereError(Exception):
    """A way does not work here, with the reason."""


def _entry(listed: Any, served: str | None, url: str) -> dict[str, Any]:
    """The server's entry of the model."""
    data = listed.get("data") if isinstance(listed, dict) else None
    entries: list[dict[str, Any]] = [each for each in data or [] if isinstance(each, dict) and "id" in each]
    names = [str(each["id"]) for each in entries]
    if served is not None:
        named = [each for each in entries if served in {str(each["id"]), *map(str, each.get("aliases") or ())}]
        short = [each for each in entries if str(each["id"]).rpartition("/")[2] == served]
        if named or short:
            return (named or short)[0]
        if names:
            raise InputError(f"--served-model {served}: {url} has {', '.join(names)}")
        return {"id": served}
    if len(names) != 1:
        there = f"has {', '.join(names)}" if names else "does not say which models it has, or no server answers there"
        raise InputError(f"{url} {there}; name one with --served-model")
    return entries[0]


def _server(endpoint: Endpoint, entry: dict[str, Any], props: dict[str, Any]) -> tuple[str, int | None]:
    """Name and version of the server, and the longest prompt, as far as it says."""
    owner = str(entry.get("owned_by", ""))
    version = endpoint.get("/version")
    context = entry.get("max_model_len") or props.get("n_ctx")
    if context is None and isinstance(props.get("default_generation_settings"), dict):
        context = props["default_generation_settings"].get("n_ctx")
    context = context if isinstance(context, int) and context > 0 else None
    if "build_info" in props:
        return f"llama.cpp {props['build_info']}", context
    if owner == "vllm" and isinstance(version, dict):
        return f"vLLM {version.get('version', '')}".strip(), context
    return owner or "an OpenAI-compatible server", context


def _tried(endpoint: Endpoint, way: Way, tokenizer: Any, ids: Sequence[tuple[int, ...]]) -> tuple[bool, float]:
    """Whether a way takes token ids, and how much its answers vary.

    Raises:
        _NotThereError: it does not work.
        ModelError: the server does not answer, or has another tokenizer.
    """
    top = _best(endpoint, way, ids[0])
    words = dict.fromkeys(list(top)[:3], "") if top else _usual(tokenizer)
    some = dict(list(words.items())[:2])

    def asked(prompt: Said, of: dict[int, str]) -> Read:
        try:
            return way.ask(endpoint.post, prompt, of, False)
        except (RefusedError, UnreadableError) as problem:
            if isinstance(problem, RefusedError) and problem.about_the_key:
                raise
            raise _NotThereError(str(problem).removeprefix(endpoint.url)) from problem

    chat = getattr(way, "chat", False)
    if chat:
        return False, _apart(asked(TEXTS[0], words), asked(TEXTS[0], words))
    whole = asked(TEXTS[0], words)
    again = asked(TEXTS[0], words)
    other = asked(TEXTS[1], words)
    if way.gives == LABELS:
        _check_labels(endpoint, whole, asked(TEXTS[0], some), other)
        _check_against(top, words, whole)
    elif way.gives == TOP and whole.values == other.values:
        raise _NotThereError("two prompts give the same numbers")
    takes_ids = _takes_ids(lambda prompt: asked(prompt, words), whole, ids[0], endpoint.url)
    return takes_ids, _apart(whole, again)


def _usual(tokenizer: Any) -> dict[int, str]:
    """Three common words of one token each."""
    usual = (" the", " a", " and", "the", "a", "and", " it", "it", ".", ",")
    ids = [(tokenizer(word, add_special_tokens=False)["input_ids"], word) for word in usual]
    single = {pieces[0]: word for pieces, word in ids if len(pieces) == 1}
    return dict(list(single.items())[:3])


def _best(endpoint: Endpoint, way: Way, ids: tuple[int, ...]) -> dict[int, float]:
    """The server's own most probable tokens, most probable first; none where the way has no ids or takes none."""
    if not isinstance(way, LlamaLabels | VllmLabels):
        return {}
    for prompt in (ids, TEXTS[0]):
        try:
            found = way.best(endpoint.post, prompt)
        except (RefusedError, UnreadableError) as problem:
            if isinstance(problem, RefusedError) and problem.about_the_key:
                raise
            continue
        return dict(sorted(found.items(), key=lambda each: -each[1]))
    return {}


def _check_labels(endpoint: Endpoint, whole: Read, some: Read, other: Read) -> None:
    """Label log-probabilities do not depend on which other labels are asked for, and do depend on the prompt."""
    apart = abs((whole.values[0] - whole.values[1]) - (some.values[0] - some.values[1]))
    if apart > AGREE:
        raise _NotThereError(f"two words differ by {apart:.3g} more when a third one is asked for, too")
    if max(abs(a - b) for a, b in zip(whole.values, other.values, strict=True)) < 1e-9:  # noqa: PLR2004
        raise _NotThereError(f"two prompts give the same numbers: {endpoint.url} does not read them")


def _check_against(top: dict[int, float], words: dict[int, str], whole: Read) -> None:
    """Differences of words are those of the server's own most probable tokens."""
    known = [(top[word], value) for word, value in zip(words, whole.values, strict=True) if word in top]
    shifts = [told - value for told, value in known]
    if shifts and max(shifts) - min(shifts) > AGREE:
        raise _NotThereError(
            f"two words differ by {max(shifts) - min(shifts):.3g} more than among the server's most probable tokens"
        )


def _takes_ids(asked: Any, whole: Read, ids: tuple[int, ...], url: str) -> bool:
    """Whether token ids are read as such.

    Raises:
        ModelError: the server counts another number of tokens than the tokenizer here, however it is asked.
    """
    try:
        by_ids = asked(ids)
    except _NotThereError:
        by_ids = None
    if by_ids is not None and by_ids.sent == len(ids):
        return True
    if by_ids is not None and by_ids.sent is None and _apart(by_ids, whole) <= AGREE:
        return True
    if whole.sent is not None and whole.sent != len(ids):
        raise ModelError(
            f"{url} reads {TEXTS[0]!r} as {whole.sent} tokens, the tokenizer here as {len(ids)}: it is that of another "
            "model. Give the directory of the served model's tokenizer with --model"
        )
    return False


def _apart(one: Read, other: Read) -> float:
    return max(abs(a - b) for a, b in zip(one.values, other.values, strict=True))
