"""A model behind an endpoint, with the interface of `harness.lm.model.LanguageModel` as far as a server gives it.

The tokenizer is here and the weights are there. So texts are cut, priced and checked exactly as for a model in this
process, and what cannot be had is refused before a request is sent.
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from harness.blackbox.cells import cell, served
from harness.blackbox.model import Forwarded
from harness.blackbox.weights import soft
from harness.contract import ModelInfo, Outputs, Weights
from harness.errors import InputError, QueryError
from harness.lm.backbones.base import LONGEST
from harness.lm.endpoint.probe import probe
from harness.lm.endpoint.requests import Endpoint, Traffic
from harness.lm.endpoint.soft import SoftInputs
from harness.lm.endpoint.text_probe import probe_text
from harness.lm.endpoint.writing import EndpointWriter
from harness.lm.load import load_tokenizer
from harness.lm.prompts import mode_of
from harness.lm.text import TextSet, Vocabulary, text_set
from harness.results.records import ENDPOINT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Literal, Self

    from harness.blackbox.model import Shape
    from harness.contract import FeatureKind, FloatArray, Mode, Prompts, SoftPrompts, Text, WeightSpace
    from harness.lm.endpoint.probe import Found
    from harness.lm.endpoint.text_probe import TextFound
    from harness.lm.endpoint.ways import Read, Said
    from harness.tracks.track import ModelSpec, PromptSpec


@dataclass
class _Reached:
    """The layers of a served model that a prompt reaches: none, or the input alone."""

    layers: int = 0
    width: int = 0


class EndpointModel:
    """A served causal model. It answers label words, takes prompts at the input at most, and shows no hidden states."""

    kind: Literal["causal"] = "causal"
    format = "served"
    device: Literal["cpu"] = "cpu"
    """Where this process computes; the server's own device is not known."""

    def __init__(self, endpoint: Endpoint, found: Found, tokenizer: Any, text_found: TextFound | None = None) -> None:
        """Use `connect`."""
        self._endpoint, self.found, self.tokenizer = endpoint, found, tokenizer
        soft = found.soft
        self.backbone: Shape = _Reached() if soft is None else _Reached(1, soft.width)
        self.prompt_tokens = 0 if soft is None else len(soft.p0)
        self.name = PurePosixPath(found.model).name or found.model
        self._tokens = Vocabulary(self.name, tokenizer, len(tokenizer))
        self.max_tokens = min(LONGEST, found.context - 1) if found.context else LONGEST
        basis = f"{found.server} {found.model} {found.gives} {tokenizer.backend_tokenizer.to_str()}"
        self.sha256 = hashlib.sha256(basis.encode()).hexdigest()
        self._text_sets = lru_cache(maxsize=256)(self._text_set)
        self._text_found = text_found

    def __repr__(self) -> str:
        """Show the address and the model, never the key."""
        return f"<{type(self).__name__} {self.found.model} at {self.found.url}>"

    @property
    def ranked_as(self) -> str:
        """What stands for the device in a run's identity: the server, the model and what it gives of a word."""
        return f"{ENDPOINT}{self.found.server}, {self.name}, {self.found.gives}"

    @property
    def lacks(self) -> str:
        """What a submission cannot have here, for the reason of a crash."""
        return (
            f"{self.name} is an endpoint that gives {self.found.gives}: no soft prompts and no hidden states beyond "
            f"that. lm.info has {self.backbone.layers} layers and {self.prompt_tokens} prompt tokens here; a "
            "submission that needs more cannot run"
        )

    @property
    def asked(self) -> int:
        """Requests that were sent so far, by all threads and by the probe."""
        return self._endpoint.asked

    @property
    def traffic(self) -> Traffic:
        """What was exchanged for the cell that this thread serves, and for those before."""
        return self._endpoint.traffic

    def tell(self, line: Callable[[str], None], patience_s: float | None = None) -> None:
        """Give `line` a text when the endpoint makes everybody wait.

        Args:
            line: gets the text.
            patience_s: seconds for which a request is sent again before the endpoint is given up; None as it is.
        """
        self._endpoint.tell = line
        if patience_s is not None:
            self._endpoint.patience_s = patience_s

    def close(self) -> None:
        """Close the connections."""
        self._endpoint.close()

    def cut_at(self, tokens: int) -> Self:
        """This model, with texts cut so that no input is longer than `tokens`."""
        shorter = type(self)(self._endpoint, self.found, self.tokenizer, self._text_found)
        shorter.max_tokens = min(self.max_tokens, tokens)
        return shorter

    @property
    def text_found(self) -> TextFound:
        """What the server gives of text; it is found out when it is asked for first.

        Raises:
            ModelError: the server does not answer, or does not write.
        """
        if self._text_found is None:
            self._text_found = probe_text(self._endpoint, self.found, self.tokenizer)
        return self._text_found

    def text_model(self) -> EndpointWriter:
        """See `harness.blackbox.text_model.Writes`."""
        return EndpointWriter(self.name, self._endpoint, self.text_found, self.tokenizer, self.max_tokens, self._said)

    def info(self, texts: Sequence[Text], template: str) -> ModelInfo:
        """What is published: of the layers that a prompt reaches, so of the input or of none."""
        reached, size, std, widths = self.backbone, len(self.tokenizer), 0.0, tuple[float, ...]()
        if self.found.soft is not None:
            std, width = self.found.soft.widths([e.ids for e in self.text_set(template, tuple(texts)).encoded])
            widths = (width,)
        return ModelInfo(
            self.name, self.kind, reached.layers, reached.width, size, self.max_tokens, self.prompt_tokens, std, widths,
            widths,
        )  # fmt: skip

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Serve one cell: it finds nothing in a cache that another one has left."""
        _ = self.words
        with served(object()):
            yield

    def word_ids(self, words: Sequence[str]) -> list[list[int]]:
        """Token ids of each word, verbatim."""
        return self._tokens.word_ids(words)

    @property
    def words(self) -> tuple[str, ...]:
        """The word of each token id; "" if a query cannot ask for the token."""
        return self._tokens.words

    def single_ids(self, words: Sequence[str]) -> tuple[int, ...]:
        """One id for each label word.

        Raises:
            QueryError: a word is not a single token. The message names its tokens.
        """
        return self._tokens.single_ids(words)

    def check(self, prompts: Prompts | None) -> None:
        """Refuse prompts that the server cannot be given.

        Raises:
            QueryError: it takes none, or the shape is wrong.
        """
        if isinstance(prompts, Weights):
            self.weight_count(prompts.space)
        elif prompts is not None and self.found.soft is not None:
            self.found.soft.check(prompts)
        elif prompts is not None:
            raise QueryError(
                f"{self.name} is an endpoint that gives {self.found.gives}; it takes text and no soft prompts. "
                "Ask with prompts=None, and change the template and the label words"
            )

    def weight_count(self, space: WeightSpace) -> int:
        """Refuse every change of weights.

        Raises:
            QueryError: always.
        """
        raise QueryError(
            f"{self.name} is an endpoint; nobody changes its weights from here (group {space.group!r}). Take a track "
            "whose model is computed in the referee"
        )

    def check_features(self, features: FeatureKind | None) -> None:
        """Refuse every kind of hidden states.

        Raises:
            QueryError: some are asked for.
        """
        if features is not None:
            raise QueryError(
                f"{self.name} is an endpoint that gives {self.found.gives}; it returns no hidden states. "
                "Ask with lm.logits, and answer without a head"
            )

    def text_set(self, template: str, texts: tuple[Text, ...], mode: Mode | None = "add") -> TextSet:
        """The texts under a template, tokenised once in a cell; see `harness.blackbox.model.Model`."""
        longest = self.max_tokens - (0 if mode is None else self.prompt_tokens)
        return self._text_sets(cell(), template, texts, longest)

    def _text_set(self, _cell: object, template: str, texts: tuple[Text, ...], longest: int) -> TextSet:
        return text_set(self.tokenizer, self.kind, template, texts, longest)

    def forward(
        self,
        prompts: Prompts | None,
        texts: TextSet,
        words: Sequence[int],
        features: FeatureKind | None = None,
        normalize: bool = False,
    ) -> Forwarded:
        """Ask for every text, several at once. Values are log-probabilities; without `normalize` up to a constant.

        Raises:
            QueryError: prompts or features are asked for.
            ModelError: the endpoint does not answer, or not as it did when it was tried. Nothing is charged.
        """
        self.check(prompts)
        self.check_features(features)
        inner = soft(prompts)
        by_id = {each: self._tokens.text(each) for each in words}
        ask = self.found.way.ask
        said = [self._said(e.ids) for e in texts.encoded] if inner is None else self._soft(inner, texts)
        found = self._endpoint.each([partial(ask, prompt=one, words=by_id, normalize=normalize) for one in said])
        lengths = [len(e.ids) for e in texts.encoded] * (len(said) // len(texts))
        sent = sum(own if r.sent is None else r.sent for own, r in zip(lengths, found, strict=True))
        self._endpoint.count(Traffic(len(found), 0, sent, sum(read.received for read in found)))
        logits = _logits(found, list(by_id), words)
        return Forwarded(logits.reshape(-1, len(texts), len(words)), None, None)

    def _soft(self, prompts: SoftPrompts, texts: TextSet) -> list[Said]:
        """Every candidate with every text, as embeddings."""
        inputs = cast("SoftInputs", self.found.soft)  # `check` has refused prompts without it
        mode = mode_of(prompts)
        return [inputs.inputs(e.ids, values, mode) for values in inputs.candidates(prompts) for e in texts.encoded]

    def _said(self, ids: Sequence[int]) -> Said:
        if self.found.takes_ids:
            return tuple(ids)
        kept = ids[1:] if ids and ids[0] == self.tokenizer.bos_token_id and len(ids) > 1 else ids
        return str(self.tokenizer.decode(list(kept), clean_up_tokenization_spaces=False))

    def outputs(
        self, prompts: Prompts | None, texts: Sequence[Text], template: str, words: Sequence[str], features: FeatureKind
    ) -> Outputs:
        """`forward` on texts and words, without a meter, for the referee. There are no features: their width is 0."""
        self.check(prompts)
        inner = soft(prompts)
        mode = None if inner is None else mode_of(inner)
        out = self.forward(prompts, self.text_set(template, tuple(texts), mode), self.single_ids(words))
        none = np.zeros((len(out.logits), len(texts), *((1,) if features == "all" else ()), 0), dtype=np.float32)
        lengths = np.zeros(len(texts), dtype=np.int64) if features == "all" else None
        return Outputs(out.logits, none, lengths)


def _logits(found: Sequence[Read], ids: Sequence[int], words: Sequence[int]) -> FloatArray:
    """(prompts, words), in the order of `words`, which may name a token twice."""
    at = {each: n for n, each in enumerate(ids)}
    values = np.array([read.values for read in found], dtype=np.float32)  # (texts, ids)
    return values[:, [at[each] for each in words]]


def connect(
    spec: ModelSpec, prompt: PromptSpec, url: str, served: str | None = None, concurrency: int = 4, *,
    patience_s: float = 300.0, reply_s: float = 120.0, transport: Any = None,
) -> EndpointModel:  # fmt: skip
    """Connect to an endpoint, and find out what it really gives.

    Args:
        spec: the track's model, whose tokenizer is used here. It must be causal: servers complete text. Where a server
            takes soft prompts, its weights are read for their embeddings.
        prompt: the track's soft prompt.
        url: address of the server.
        served: name of the model there; None takes the only one.
        concurrency: requests at once.
        patience_s: seconds for which a request is sent again before the endpoint is given up.
        reply_s: seconds that one reply may take.
        transport: a transport of httpx2, for tests.

    Returns:
        The model.

    Raises:
        InputError: the address or the name of the model is wrong, or the track's model is not causal.
        ModelError: the server or the tokenizer is not there, or the server gives nothing that can be used.
    """
    if spec.kind != "causal":
        raise InputError(
            f"--backend openai: the track's model is {spec.kind}, and an endpoint completes text. Take a track with a "
            "causal model, for example --track api"
        )
    tokenizer = load_tokenizer(spec)
    endpoint = Endpoint(url, concurrency, patience_s, reply_s, transport)
    try:
        found = probe(endpoint, tokenizer, served, partial(SoftInputs.of, spec, prompt))
        return EndpointModel(endpoint, found, tokenizer)
    except BaseException:
        endpoint.close()
        raise
