"""The language model: loaded once, frozen, and asked for label-word logits. The only place torch runs it."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from harness.contract import FeatureKind, FloatArray, IntArray, ModelInfo, Outputs, Prompt, Prompts, Text
from harness.errors import ModelError, QueryError
from harness.lm.backbone import Backbone, Batch
from harness.lm.encoder import EncoderBackbone
from harness.lm.plain import PlainBackbone
from harness.lm.projection import check_space
from harness.lm.prompts import prompt_layers
from harness.lm.text import Encoded, encode

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.track import ModelSpec, PromptSpec

CHUNK_TOKENS = 4096
"""Tokens forwarded at once: memory stays bounded and activations stay near the caches."""


@dataclass(frozen=True)
class TextSet:
    """Texts under one template, tokenised once."""

    encoded: tuple[Encoded, ...]

    def __len__(self) -> int:
        """Count the texts."""
        return len(self.encoded)

    @property
    def tokens(self) -> int:
        """Tokens of all texts, prompt tokens not counted."""
        return sum(len(e.ids) for e in self.encoded)


@dataclass(frozen=True)
class Forwarded:
    """What came of a forward request."""

    logits: FloatArray  # (candidates, texts, words)
    features: FloatArray | None  # (candidates, texts, width), or of all tokens (candidates, texts, tokens, width)
    lengths: IntArray | None  # (texts,) tokens, with the features of all tokens


class LanguageModel:
    """Frozen weights with their tokenizer, on one device, in one number format."""

    def __init__(
        self,
        name: str,
        model: Any,
        tokenizer: Any,
        spec: ModelSpec,
        prompt: PromptSpec,
        sha256: str,
        plain: bool = False,
    ) -> None:
        """Wrap a loaded transformers model; `plain` keeps the fast path off."""
        self.dtype: torch.dtype = getattr(torch, spec.dtype)
        model = model.eval().requires_grad_(False).to(self.dtype)
        self._model, self._zero_head_bias = model, spec.zero_head_bias
        fast = EncoderBackbone.fits(model) and not plain
        self.backbone: Backbone = (EncoderBackbone if fast else PlainBackbone)(model, spec.zero_head_bias)
        if self.backbone.kind != spec.kind:
            raise ModelError(f"{name} is a {self.backbone.kind} model; the track says {spec.kind}. Set model.kind")
        self.name, self.kind, self.sha256 = name, spec.kind, sha256
        self.tokenizer = tokenizer
        if spec.kind == "masked" and tokenizer.mask_token_id is None:
            raise ModelError(f"{name}: its tokenizer has no mask token; a masked model needs one")
        self._pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        config = model.config
        self._first_position = int(config.pad_token_id) + 1 if config.model_type == "roberta" else 0
        self.vocabulary = int(config.vocab_size)
        self.max_tokens = int(config.max_position_embeddings) - self._first_position
        self.max_tokens = min(self.max_tokens, 512)
        self._p0 = tuple(range(prompt.first_id, prompt.first_id + prompt.tokens))
        if self._p0[-1] >= self.vocabulary:
            raise ModelError(f"prompt ids {self._p0[0]}..{self._p0[-1]}; {name} has {self.vocabulary:,} vocabulary ids")
        self._start = 1 if spec.kind == "masked" or self._starts_with_special() else 0
        self.embedding_std = self.backbone.embedding_std()
        self.text_set = lru_cache(maxsize=256)(self._text_set)
        self._single_ids = lru_cache(maxsize=64)(self._known_ids)

    @property
    def prompt_tokens(self) -> int:
        """Most prompt tokens a query may use."""
        return len(self._p0)

    def info(self, texts: Sequence[Text], template: str) -> ModelInfo:
        """What is published, with layer widths measured on `texts` at the zero prompt."""
        zero = Prompt(np.zeros((1, 1, self.prompt_tokens, self.backbone.width), dtype=np.float32))
        layers = prompt_layers(zero, self.backbone.width)
        encoded = self.text_set(template, tuple(texts)).encoded
        batch = self._batch(encoded, layers, zero, 1)
        return ModelInfo(
            self.name,
            self.kind,
            self.backbone.layers,
            self.backbone.width,
            self.vocabulary,
            self.max_tokens,
            self.prompt_tokens,
            self.embedding_std,
            tuple(self.backbone.layer_std(batch)),
        )

    def _text_set(self, template: str, texts: tuple[Text, ...]) -> TextSet:
        longest = self.max_tokens - self.prompt_tokens
        return TextSet(tuple(encode(self.tokenizer, self.kind, template, text, longest) for text in texts))

    def word_ids(self, words: Sequence[str]) -> list[list[int]]:
        """Token ids of each word, verbatim."""
        return [list(self.tokenizer(word, add_special_tokens=False)["input_ids"]) for word in words]

    @cached_property
    def words(self) -> tuple[str, ...]:
        """Word of each token id, "" where it is none: special, or not read back as that one token."""
        tokenizer, special = self.tokenizer, set(self.tokenizer.all_special_ids)
        known = min(len(tokenizer), self.vocabulary)
        words = tokenizer.batch_decode([[i] for i in range(known)], clean_up_tokenization_spaces=False)
        ids = tokenizer(words, add_special_tokens=False)["input_ids"]
        good = [back == [i] and i not in special for i, back in enumerate(ids)]
        return tuple(word if fine else "" for word, fine in zip(words, good, strict=True)) + ("",) * (
            self.vocabulary - known
        )

    def single_ids(self, words: Sequence[str]) -> tuple[int, ...]:
        """One id per label word.

        Raises:
            QueryError: a word is not a single token; the message names its pieces.
        """
        return self._single_ids(tuple(words))

    def _known_ids(self, words: tuple[str, ...]) -> tuple[int, ...]:
        if not words:
            raise QueryError("no label words; at least one is needed")
        ids = self.word_ids(words)
        for word, pieces in zip(words, ids, strict=True):
            if len(pieces) != 1:
                shown = ", ".join(self.tokenizer.convert_ids_to_tokens(pieces)) or "nothing"
                raise QueryError(
                    f"label word {word!r} is {len(pieces)} tokens of {self.name} ({shown}); choose a single-token word"
                )
            if pieces[0] == self.tokenizer.unk_token_id and self.tokenizer.unk_token_id != self.tokenizer.eos_token_id:
                raise QueryError(f"label word {word!r} is unknown to {self.name}; choose a word of its vocabulary")
        return tuple(pieces[0] for pieces in ids)

    def check(self, prompts: Prompts | None) -> None:
        """Refuse prompts of a wrong shape before they are charged.

        Raises:
            QueryError: with the shape found and the shape expected; 0 candidates are none.
        """
        if prompts is None:
            return
        width, layers = self.backbone.width, self.backbone.layers
        if isinstance(prompts, Prompt):
            shape = prompts.values.shape
            most = (math.inf, layers, self.prompt_tokens, width)
            good = (
                len(shape) == len(most)
                and all(1 <= n <= m for n, m in zip(shape, most, strict=True))
                and shape[3] == width
            )
            if not good:
                wanted = f"(candidates, 1..{layers} layers, 1..{self.prompt_tokens} tokens, {width})"
                raise QueryError(f"prompt of shape {shape}; {wanted} expected")
            return
        check_space(prompts.space, layers, width, self.prompt_tokens)
        expected = (prompts.space.layers, prompts.space.dim)
        if prompts.z.ndim != 3 or not len(prompts.z) or prompts.z.shape[1:] != expected:  # noqa: PLR2004
            raise QueryError(
                f"coordinates of shape {prompts.z.shape}; (candidates, {expected[0]}, {expected[1]}) expected"
            )

    def forward(
        self,
        prompts: Prompts | None,
        texts: TextSet,
        words: Sequence[int],
        features: FeatureKind | None = None,
        normalize: bool = False,
    ) -> Forwarded:
        """Logits, with `normalize` log-probabilities among the whole vocabulary, and the features asked for; float32.

        Texts of like length are forwarded together, at most `CHUNK_TOKENS` tokens at once; which rows share
        a chunk depends on the query alone.
        """
        layers = prompt_layers(prompts, self.backbone.width) if prompts is not None else ()
        candidates = 1 if prompts is None else len(prompts.values if isinstance(prompts, Prompt) else prompts.z)
        ids = torch.tensor(list(words), dtype=torch.int64)
        logits = np.empty((candidates, len(texts), len(words)), dtype=np.float32)
        extra = layers[0].shape[1] if layers else 0
        lengths = np.array([len(e.ids) + extra for e in texts.encoded], dtype=np.int64)
        per_text = (lengths.max(), self.backbone.width) if features == "all" else (self.backbone.width,)
        states = np.zeros((candidates, len(texts), *per_text), dtype=np.float32) if features else None
        for chosen, members in _chunks(lengths.tolist(), candidates):
            part = tuple(layer[members] if len(layer) > 1 else layer for layer in layers)
            count = members.stop - members.start
            batch = self._batch([texts.encoded[i] for i in chosen], part, prompts, count, features)
            hidden = self.backbone.hidden(batch)  # (candidates, texts, reads, width); the first read is the mask
            q = self.backbone.logits(hidden[:, :, 0], ids)
            if normalize:
                q = q - self.backbone.normalizer(hidden[:, :, 0])[..., None]
            logits[members, chosen] = q.numpy()
            if states is not None and features == "all":
                masked = hidden[:, :, 1:] * batch.mask[None, :, :, None]
                states[members, chosen, : masked.shape[2]] = masked.numpy()
            elif states is not None:
                states[members, chosen] = hidden[:, :, -1].numpy()
        return Forwarded(logits, states, lengths if features == "all" else None)

    def outputs(
        self, prompts: Prompts | None, texts: Sequence[Text], template: str, words: Sequence[str], features: FeatureKind
    ) -> Outputs:
        """`forward` from texts and words, for the referee and `harness predict`; unmetered."""
        self.check(prompts)
        out = self.forward(prompts, self.text_set(template, tuple(texts)), self.single_ids(words), features)
        return Outputs(out.logits, cast("FloatArray", out.features), out.lengths)  # asked for, so they are there

    def weights(self) -> Any:
        """A float32 copy of the transformers model, frozen; its head's bias is zero where the track says so."""
        model = copy.deepcopy(self._model).float()
        bias = model.get_output_embeddings().bias
        if self._zero_head_bias and bias is not None:
            bias.data.zero_()
        return model

    def batch(self, encoded: Sequence[Encoded], prompted: bool) -> Batch:
        """Encoded texts as tensors for whoever runs `weights`; with p0's tokens where `prompted`."""
        zero = Prompt(np.zeros((1, 1, self.prompt_tokens, self.backbone.width), dtype=np.float32))
        layers = prompt_layers(zero, self.backbone.width) if prompted else ()
        return self._batch(encoded, layers, zero if prompted else None, 1)

    def _batch(
        self,
        encoded: Sequence[Encoded],
        layers: tuple[torch.Tensor, ...],
        prompts: Prompts | None,
        candidates: int,
        features: FeatureKind | None = None,
    ) -> Batch:
        """Pad, insert p0 (or room for a prepended prompt), and find the positions to read."""
        count = layers[0].shape[1] if layers else 0
        mode = "add" if prompts is None else prompts.mode if isinstance(prompts, Prompt) else prompts.space.mode
        start = 0 if mode == "prepend" else self._start
        rows = [(*e.ids[:start], *self._p0[:count], *e.ids[start:]) for e in encoded]
        longest = max(map(len, rows))
        ids = torch.full((len(rows), longest), self._pad, dtype=torch.int64)
        mask = torch.zeros((len(rows), longest), dtype=torch.bool)
        for row, tokens in enumerate(rows):
            ids[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.int64)
            mask[row, : len(tokens)] = True
        positions = torch.arange(longest).expand(len(rows), longest).clone()
        if mode == "prepend" and self.kind == "masked":  # the text keeps its own positions, the prompt has none
            positions = (positions - count).clamp(min=0)
        positions = (positions + self._first_position).clamp(max=self.max_tokens + self._first_position - 1)
        first = count if mode == "prepend" else 0
        more = {None: [], "mask": [], "cls": [first], "all": list(range(longest))}[features]
        read = torch.tensor([[e.read + count, *more] for e in encoded], dtype=torch.int64)
        return Batch(ids, positions, mask, read, layers, start, mode, candidates)

    def _starts_with_special(self) -> bool:
        ids = self.tokenizer("a")["input_ids"]
        return bool(ids and ids[0] == self.tokenizer.bos_token_id)


def _chunks(lengths: Sequence[int], candidates: int) -> Iterator[tuple[list[int], slice]]:
    """Cut texts x candidates into chunks of at most `CHUNK_TOKENS` tokens, texts of like length together."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    first = 0
    while first < len(order):
        longest = lengths[order[first]]
        fit = max(1, CHUNK_TOKENS // (longest * candidates))
        last = first + 1
        while last < len(order) and last - first < fit and lengths[order[last]] * 5 >= longest * 4:
            last += 1
        size = max(1, CHUNK_TOKENS // (longest * (last - first)))
        for start in range(0, candidates, size):
            yield order[first:last], slice(start, min(start + size, candidates))
        first = last
