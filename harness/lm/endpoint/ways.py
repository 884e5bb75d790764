"""The ways to ask a server for what it thinks of label words, strongest first.

Each way is a request that some servers understand. None is believed for its status: `harness.lm.endpoint.probe` tries
them and compares numbers.
"""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeAlias, TypeVar

import numpy as np

from harness.lm.endpoint.requests import WrongReplyError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.lm.endpoint.requests import Post

TEXT, TOP, LABELS = "text only", "top-k log-probabilities", "label log-probabilities"
"""What an endpoint gives of a label word: whether the text begins with it, its log-probability where it is among the k
most probable tokens, or its log-probability always."""
LEAST = -100.0
"""Log-probability of a word whose probability a server rounds to 0."""
MISS = -10.0
"""Log-probability of the words that a generated text does not begin with, where nothing else is known."""
BEST = 5
"""Most probable tokens that label log-probabilities are compared with."""
_BIAS = 100.0
_VLLM_WORDS = 128
"""Most ids that vLLM takes in ``logprob_token_ids``."""
_TEXT_TOKENS = 4

K = TypeVar("K", int, str)
Said: TypeAlias = "tuple[int, ...] | str | bytes"
"""A prompt as token ids, as text for servers that take no ids, or as embeddings (`harness.lm.endpoint.soft`)."""


@dataclass(frozen=True)
class Read:
    """What one prompt gave."""

    values: tuple[float, ...]
    """Log-probability of each word; up to a constant, unless the whole vocabulary was asked for."""
    sent: int | None
    """Tokens of the prompt by the server's count; None where it does not say."""
    received: int
    bounded: int = 0
    """Words of which only an upper bound is known."""


class Way(Protocol):
    """One way to ask."""

    @property
    def gives(self) -> str:
        """`TEXT`, `TOP` or `LABELS`."""
        ...

    def ask(self, post: Post, prompt: Said, words: Mapping[int, str], normalize: bool) -> Read:
        """Log-probabilities of words, by their token ids, as the next token.

        Args:
            post: sends a request.
            prompt: what stands before the word.
            words: text of each token id; values come in this order.
            normalize: whether they must be among the whole vocabulary.

        Raises:
            ModelError: the server does not answer, refuses, or answers something else.
        """
        ...


@dataclass(frozen=True)
class LlamaLabels:
    """llama.cpp's own ``/completion``: exact log-probabilities among the label words, in a reply of their size.

    A bias of +100 on the label ids takes every other token out, and the probabilities after it are then the softmax
    among the labels. For the whole vocabulary, the most probable token's log-probability is asked for first, and it
    joins the labels as a reference.
    """

    gives = LABELS

    def ask(self, post: Post, prompt: Said, words: Mapping[int, str], normalize: bool) -> Read:
        """See `Way`."""
        said = {"prompt": list(prompt) if isinstance(prompt, tuple) else prompt, "n_predict": 1, "cache_prompt": False}
        ids = list(words)
        if not normalize:
            return self._among(post, said, ids)
        top = post("/completion", {**said, "n_probs": 1, "temperature": 0}, lambda reply: _llama(reply, "logprob", 1))
        best, value = next(iter(top.values.items()))
        asked = ids if best in words else [*ids, best]
        among = self._among(post, said, asked)
        by_id = dict(zip(asked, among.values, strict=True))
        values = tuple(max(by_id[each] - by_id[best] + value, LEAST) for each in ids)
        return Read(values, (among.sent or 0) + (top.sent or 0), among.received + top.received)

    def best(self, post: Post, prompt: Said) -> dict[int, float]:
        """The server's own most probable tokens, by their ids, without any bias."""
        said = {"prompt": list(prompt) if isinstance(prompt, tuple) else prompt, "n_predict": 1, "temperature": 0}
        return post("/completion", said | {"n_probs": BEST}, lambda reply: _llama(reply, "logprob", BEST)).values

    @staticmethod
    def _among(post: Post, said: dict[str, Any], ids: Sequence[int]) -> Read:
        body = said | {
            "n_probs": len(ids),
            "logit_bias": [[each, _BIAS] for each in ids],
            "post_sampling_probs": True,
            "samplers": ["temperature"],
            "temperature": 1.0,
        }
        found = post("/completion", body, lambda reply: _with(_llama(reply, "prob", len(ids)), ids))
        values = tuple(max(math.log(found.values[each]), LEAST) if found.values[each] > 0 else LEAST for each in ids)
        return Read(values, found.sent, found.received)


@dataclass(frozen=True)
class VllmLabels:
    """vLLM's ``logprob_token_ids``: exact log-probabilities of the label ids among the whole vocabulary."""

    model: str
    gives = LABELS

    def ask(self, post: Post, prompt: Said, words: Mapping[int, str], normalize: bool) -> Read:  # noqa: ARG002 - always
        """See `Way`."""
        ids, found, sent, received = list(words), dict[int, float](), 0, 0
        for start in range(0, len(ids), _VLLM_WORDS):
            some = ids[start : start + _VLLM_WORDS]
            body = {
                **completion_body(self.model, prompt),
                "logprobs": 1,
                "logprob_token_ids": some,
                "return_tokens_as_token_ids": True,
            }
            part = post("/v1/completions", body, lambda reply, some=some: _with(_openai_ids(reply), some))  # type: ignore[misc]
            found |= part.values
            sent, received = sent + (part.sent or 0), received + part.received
        return Read(tuple(max(found[each], LEAST) for each in ids), sent or None, received)

    def best(self, post: Post, prompt: Said) -> dict[int, float]:
        """The server's own most probable tokens, by their ids, without any choice of ids."""
        body = completion_body(self.model, prompt) | {"logprobs": BEST, "return_tokens_as_token_ids": True}
        return post("/v1/completions", body, _openai_ids).values


@dataclass(frozen=True)
class TopK:
    """The `k` most probable tokens. A label that is not among them counts with the last one's log-probability.

    That is an upper bound of it. Tokens are told apart by their text, as hosted services give no ids. In a chat, where
    a reply may begin with or without a space and in either case, every token that reads as the label counts for it.
    """

    model: str
    k: int
    chat: bool = False
    gives = TOP

    def ask(self, post: Post, prompt: Said, words: Mapping[int, str], normalize: bool) -> Read:  # noqa: ARG002 - always
        """See `Way`."""
        found = self.top(post, prompt)
        least = min(found.values.values())
        told = {each: word if not self.chat else _plain(word) for each, word in words.items()}
        merged: dict[str, float] = {}
        for token, value in found.values.items():
            name = _plain(token) if self.chat else token
            merged[name] = float(np.logaddexp(merged[name], value)) if name in merged else value
        values = tuple(max(merged.get(word, least), LEAST) for word in told.values())
        return Read(values, found.sent, found.received, sum(word not in merged for word in told.values()))

    def top(self, post: Post, prompt: Said) -> _Found[str]:
        """The tokens with their log-probabilities."""
        if self.chat:
            body = chat_body(self.model, prompt, 1) | {"logprobs": True, "top_logprobs": self.k}
            return post("/v1/chat/completions", body, lambda reply: _openai_top(reply, self.k, chat=True))
        body = completion_body(self.model, prompt) | {"logprobs": self.k}
        return post("/v1/completions", body, lambda reply: _openai_top(reply, self.k, chat=False))


@dataclass(frozen=True)
class TextOnly:
    """The text that the server writes. The label it begins with gets log-probability 0, the others `MISS`."""

    model: str
    chat: bool = False
    gives = TEXT

    def ask(self, post: Post, prompt: Said, words: Mapping[int, str], normalize: bool) -> Read:  # noqa: ARG002 - neither
        """See `Way`."""
        if self.chat:
            body = chat_body(self.model, prompt, _TEXT_TOKENS)
            text, sent, received = post("/v1/chat/completions", body, lambda reply: _text(reply, chat=True))
        else:
            body = completion_body(self.model, prompt) | {"max_tokens": _TEXT_TOKENS}
            text, sent, received = post("/v1/completions", body, lambda reply: _text(reply, chat=False))
        begun = _plain(text)
        fit = {each: _plain(word) for each, word in words.items() if _plain(word) and begun.startswith(_plain(word))}
        best = max(fit, key=lambda each: len(fit[each]), default=None)
        return Read(tuple(0.0 if each == best else MISS for each in words), sent, received, len(words))


@dataclass(frozen=True)
class _Found(Generic[K]):
    values: dict[K, float]
    sent: int | None
    received: int


def completion_body(model: str, prompt: Said) -> dict[str, Any]:
    """The body of a request for one token after a prompt."""
    body: dict[str, Any] = {"model": model, "max_tokens": 1, "temperature": 0}
    if isinstance(prompt, bytes):
        return body | {"prompt_embeds": base64.b64encode(prompt).decode()}
    return body | {"prompt": list(prompt) if isinstance(prompt, tuple) else prompt}


def chat_body(model: str, prompt: Said, tokens: int) -> dict[str, Any]:
    """The body of a request that has the prompt as a user's message."""
    return {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": tokens,
        "temperature": 0,
    }


def _plain(word: str) -> str:
    return word.strip().casefold()


def _llama(reply: Any, name: str, most: int) -> _Found[int]:
    """Log-probabilities or probabilities by token id, of llama.cpp's own reply."""
    with shape("completion_probabilities[0].top_" + name + "s"):
        if reply.get("truncated"):
            raise WrongReplyError("the server has cut the prompt: its context is too short")
        listed = reply["completion_probabilities"][0][f"top_{name}s"][:most]
        values = {int(each["id"]): _finite(each[name]) for each in listed}
        if not values:
            raise WrongReplyError("no token is in it")
        return _Found(values, int(reply["tokens_evaluated"]), int(reply["tokens_predicted"]))


def _with(found: _Found[int], ids: Sequence[int]) -> _Found[int]:
    """The same, if it has exactly these ids among others."""
    missing = [each for each in ids if each not in found.values]
    if missing:
        raise WrongReplyError(f"{len(missing)} of {len(ids)} tokens that were asked for are not in it")
    return found


def _openai_ids(reply: Any) -> _Found[int]:
    """Log-probabilities by token id, where the server names tokens by their ids."""
    with shape("choices[0].logprobs.top_logprobs[0]"):
        top = choice(reply)["logprobs"]["top_logprobs"][0]
        values = {int(name.removeprefix("token_id:")): _finite(value) for name, value in top.items()}
        return _Found(values, *usage(reply))


def _openai_top(reply: Any, k: int, *, chat: bool) -> _Found[str]:
    """Log-probabilities by the tokens' text, in the shape of either protocol."""
    with shape("choices[0].logprobs"):
        given = choice(reply)["logprobs"]
        if chat or "content" in given:
            listed = [(each["token"], each["logprob"]) for each in given["content"][0]["top_logprobs"]]
        else:
            listed = list(given["top_logprobs"][0].items())
        values = {str(token): _finite(value) for token, value in listed}
        if not 1 <= len(values) <= k + 1:
            raise WrongReplyError(f"{len(values)} tokens are in it; {k} were asked for")
        if sum(map(math.exp, values.values())) > 1.01:  # noqa: PLR2004 - rounding
            raise WrongReplyError("their probabilities have a sum above 1")
        return _Found(values, *usage(reply))


def _text(reply: Any, *, chat: bool) -> tuple[str, int | None, int]:
    with shape("choices[0] with a text"):
        given = choice(reply)
        text = given["message"]["content"] if chat else given["text"]
        if not isinstance(text, str):
            raise WrongReplyError(f"its text is {type(text).__name__}")
        return (text, *usage(reply))


def choice(reply: Any) -> Any:
    """The one choice of a reply."""
    choices = reply["choices"]
    if len(choices) != 1:
        raise WrongReplyError(f"{len(choices)} choices are in it; 1 was asked for")
    return choices[0]


def usage(reply: Any) -> tuple[int | None, int]:
    """Tokens sent, None where the server does not say, and received."""
    usage = reply.get("usage") or {}
    sent = usage.get("prompt_tokens")
    return (None if sent is None else int(sent)), int(usage.get("completion_tokens") or 1)


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise WrongReplyError(f"{value!r} is no finite number")
    return number


class shape:  # noqa: N801 - reads as a statement
    """Within the block, what is missing or of another type is a wrong reply."""

    def __init__(self, wanted: str) -> None:
        self._wanted = wanted

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, _trace: object) -> None:
        """Turn errors of access into one that says what was wanted.

        Raises:
            WrongReplyError: something is missing or of another type.
        """
        if kind is not None and issubclass(kind, (KeyError, IndexError, TypeError, AttributeError, ValueError)):
            raise WrongReplyError(f"{self._wanted} is not there ({kind.__name__}: {value})") from value
