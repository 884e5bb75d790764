"""The ways to ask a server how likely a given text is, and to let it write. None is believed for its status.

`harness.lm.endpoint.text_probe` tries them.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from harness.lm.endpoint.requests import WrongReplyError
from harness.lm.endpoint.ways import LEAST, chat_body, choice, completion_body, shape, usage

if TYPE_CHECKING:
    from harness.lm.endpoint.requests import Post
    from harness.lm.endpoint.ways import Said


@dataclass(frozen=True)
class Likely:
    """How likely the tokens of a target are after a text."""

    values: tuple[float, ...]
    """Log-probability of each, in nats."""
    sent: int
    """Tokens of the prompt by the server's count."""
    received: int


@dataclass(frozen=True)
class Wrote:
    """What a server wrote after one text."""

    text: str
    """With the stop, where the server says which one it was."""
    ids: tuple[int, ...] | None
    """Its tokens, where the server gives them; a token that ends a text is not among them."""
    ended: bool
    """Whether a token ended it that is not in the text: the end of text, or a stop that the server took out."""
    sent: int
    received: int


class Scores(Protocol):
    """A way to ask for likelihoods."""

    @property
    def name(self) -> str:
        """What the server is asked."""
        ...

    def ask(self, post: Post, prompt: tuple[int, ...], target: tuple[int, ...]) -> Likely:
        """Log-probability of each token of a target after a prompt.

        Raises:
            ModelError: the server does not answer, refuses, or answers something else.
        """
        ...


class Writes(Protocol):
    """A way to let the server write."""

    @property
    def name(self) -> str:
        """What the server is asked."""
        ...

    def ask(self, post: Post, prompt: Said, most: int, stop: tuple[str, ...], temperature: float, seed: int) -> Wrote:
        """What follows a prompt: at most `most` tokens, until a stop or the end of text.

        Raises:
            ModelError: the server does not answer, refuses, or answers something else.
        """
        ...


@dataclass(frozen=True)
class LlamaForced:
    """llama.cpp: a grammar of token ids leaves it nothing but the target, and it tells what it thought of each token.

    The log-probabilities are those before any sampler, so that the grammar does not change them.
    """

    name = "llama.cpp's /completion with a grammar of token ids"

    def ask(self, post: Post, prompt: tuple[int, ...], target: tuple[int, ...]) -> Likely:
        """See `Scores`."""
        body = {
            "prompt": list(prompt),
            "n_predict": len(target),
            "n_probs": 1,
            "temperature": 0,
            "samplers": ["temperature"],
            "grammar": "root ::= " + " ".join(f"<[{token}]>" for token in target),
            "cache_prompt": False,
        }
        return post("/completion", body, lambda reply: _forced(reply, target))


@dataclass(frozen=True)
class Echoed:
    """The protocol's own: the prompt is given back (``echo``) with the log-probability of each of its tokens."""

    model: str
    name = "echo and logprobs of /v1/completions"

    def ask(self, post: Post, prompt: tuple[int, ...], target: tuple[int, ...]) -> Likely:
        """See `Scores`."""
        whole = (*prompt, *target)
        body = completion_body(self.model, whole) | {"echo": True, "logprobs": 1}
        return post("/v1/completions", body, lambda reply: _echoed(reply, len(prompt), len(target)))


@dataclass(frozen=True)
class LlamaWrites:
    """llama.cpp's own ``/completion``, which says which stop it met and gives its tokens."""

    name = "llama.cpp's /completion"

    def ask(self, post: Post, prompt: Said, most: int, stop: tuple[str, ...], temperature: float, seed: int) -> Wrote:
        """See `Writes`. No sampler but the temperature changes what is drawn."""
        body = {
            "prompt": list(prompt) if isinstance(prompt, tuple) else prompt,
            "n_predict": most,
            "stop": list(stop),
            "samplers": ["temperature"],
            "temperature": temperature,
            "seed": seed,
            "return_tokens": True,
            "cache_prompt": False,
        }
        return post("/completion", body, _llama_wrote)


@dataclass(frozen=True)
class Completes:
    """``/v1/completions``, or a chat, whose template then surrounds the text."""

    model: str
    chat: bool = False
    vllm: bool = False
    """Whether the server is vLLM, which leaves a stop in the text and names its tokens if it is asked to."""

    @property
    def name(self) -> str:
        """See `Writes`."""
        return "/v1/chat/completions" if self.chat else "/v1/completions"

    def ask(self, post: Post, prompt: Said, most: int, stop: tuple[str, ...], temperature: float, seed: int) -> Wrote:
        """See `Writes`."""
        body = chat_body(self.model, prompt, most) if self.chat else completion_body(self.model, prompt)
        body |= {"max_tokens": most, "temperature": temperature, "seed": seed, "top_p": 1}
        if stop:
            body["stop"] = list(stop)
        if self.vllm:
            body |= {"include_stop_str_in_output": True, "return_token_ids": True, "top_k": -1}
        return post(self.name, body, lambda reply: _wrote(reply, stop, chat=self.chat))


def _forced(reply: Any, target: tuple[int, ...]) -> Likely:
    with shape("completion_probabilities with the tokens of the target"):
        if reply.get("truncated"):
            raise WrongReplyError("the server has cut the prompt: its context is too short")
        listed = reply["completion_probabilities"]
        ids = tuple(int(each["id"]) for each in listed)
        if ids[: len(target)] != target:
            raise WrongReplyError(f"it has the tokens {json.dumps(ids)}, and {json.dumps(target)} were asked for")
        values = tuple(_least(each["logprob"]) for each in listed[: len(target)])
        return Likely(values, int(reply["tokens_evaluated"]), int(reply["tokens_predicted"]))


def _echoed(reply: Any, before: int, count: int) -> Likely:
    with shape("choices[0].logprobs.token_logprobs of the whole prompt"):
        given = choice(reply)["logprobs"]["token_logprobs"]
        if not before + count <= len(given) <= before + count + 1:
            raise WrongReplyError(f"it has {len(given)} log-probabilities, and the prompt {before + count} tokens")
        sent, received = usage(reply)
        values = tuple(_least(value) for value in given[before : before + count])
        return Likely(values, before + count if sent is None else sent, received)


def _llama_wrote(reply: Any) -> Wrote:
    with shape("content, tokens and stop_type"):
        if reply.get("truncated"):
            raise WrongReplyError("the server has cut the prompt: its context is too short")
        text, tokens, how = reply["content"], tuple(int(each) for each in reply["tokens"]), reply["stop_type"]
        if how == "word":
            text += reply["stopping_word"]
        if not isinstance(text, str):
            raise WrongReplyError(f"its content is {type(text).__name__}")
        return Wrote(text, tokens, how == "eos", int(reply["tokens_evaluated"]), int(reply["tokens_predicted"]))


def _wrote(reply: Any, stop: tuple[str, ...], *, chat: bool) -> Wrote:
    with shape("choices[0] with a text"):
        given = choice(reply)
        text = given["message"]["content"] if chat else given["text"]
        if not isinstance(text, str):
            raise WrongReplyError(f"its text is {type(text).__name__}")
        sent, received = usage(reply)
        told = any(each in text for each in stop)
        tokens = given.get("token_ids")
        ids = None if tokens is None else tuple(int(each) for each in tokens)
        return Wrote(text, ids, given.get("finish_reason") == "stop" and not told, sent or 0, received)


def _least(value: Any) -> float:
    """A log-probability; a server's null or minus infinity is one that it rounds to nothing."""
    number = LEAST if value is None else float(value)
    if math.isnan(number) or number > 1e-3:  # noqa: PLR2004 - rounding
        raise WrongReplyError(f"{value!r} is no log-probability")
    return min(max(number, LEAST), 0.0)
