"""The language model: loaded once, frozen, and asked for label-word logits. No other module runs it with torch."""

from __future__ import annotations

import contextlib
import copy
from dataclasses import replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from harness.blackbox.cells import cell, served
from harness.blackbox.checkpoints import checkpoint
from harness.blackbox.lock import DeviceLock
from harness.blackbox.model import Forwarded
from harness.blackbox.query import texts_of
from harness.blackbox.weights import parts_of, soft
from harness.contract import (
    FeatureKind,
    FloatArray,
    Mode,
    ModelInfo,
    Outputs,
    Prompt,
    Prompts,
    SoftPrompts,
    Text,
    Weights,
    WeightSpace,
)
from harness.errors import ModelError, QueryError
from harness.lm.backbones import choice, families
from harness.lm.backbones.base import LONGEST, Batch
from harness.lm.checks import check_finite, check_tokenizer
from harness.lm.chunks import cut_by_reads, cut_by_tokens, padded
from harness.lm.device import memory_for
from harness.lm.prompts import TOGETHER, check_prompts, forget, mode_of, prompt_layers
from harness.lm.text import SENTINEL, Encoded, TextSet, Vocabulary, mask_token, text_set
from harness.lm.tuning import Tuner

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.lm.backbones.edited import LayerEdit
    from harness.lm.device import Kind as DeviceKind
    from harness.tracks.numerics import Forward
    from harness.tracks.track import DType, ModelSpec, PromptSpec


class LanguageModel:
    """Frozen weights with their tokenizer, on one device, in one number format."""

    lacks, traffic = "", None  # `harness.lm.served`: everything can be had, and there is no server
    format: DType
    """The number format in which this machine computes, one of those that the track allows (`harness.lm.formats`)."""

    def __init__(
        self,
        name: str,
        model: Any,
        tokenizer: Any,
        spec: ModelSpec,
        prompt: PromptSpec,
        sha256: str,
        device: DeviceKind,
        chunk_tokens: int,
        forward: Forward = "packed",
    ) -> None:
        """Wrap a loaded transformers model; `chunk_tokens` and `forward` are those of `Numerics`.

        Raises:
            ModelError: the model is not of the kind that `spec` says, does not fit the prompt or the tokenizer, has
                weights that are not finite, or cannot be computed in its number format.
        """
        self.format = choice.number_format(model, spec, device, forward)
        self.dtype: torch.dtype = torch.float32 if self.format == "int8" else getattr(torch, self.format)
        self.device, self.chunk_tokens = device, chunk_tokens
        self.device_lock = DeviceLock()
        self._block = TOGETHER if forward == "invariant" else None
        model = families.in_format(model.eval().requires_grad_(False), device, self.dtype)
        self._model, self._zero_head_bias = model, spec.zero_head_bias
        check_finite(name, model)
        kind = families.kind(model.config)
        if kind != spec.kind:
            raise ModelError(f"{name} is a {kind} model; the track says {spec.kind}. Set model.kind")
        self.backbone = choice.backbone(
            model, spec.zero_head_bias, device, chunk_tokens, forward, self.format == "int8"
        )
        self._tuner = Tuner(model, cast("Any", self.backbone), device, self._block)
        self.name, self.kind, self.sha256 = name, spec.kind, sha256
        self.tokenizer = tokenizer
        mask = mask_token(tokenizer)
        if spec.kind != "causal" and mask is None:
            raise ModelError(f"{name}: its tokenizer has no mask token and no sentinel; a {spec.kind} model needs one")
        self._sentinel = tokenizer.convert_tokens_to_ids(SENTINEL) if mask == SENTINEL else None
        self._decoder_start = getattr(model.config, "decoder_start_token_id", None)
        if spec.kind == "seq2seq" and self._decoder_start is None:
            raise ModelError(f"{name}: its configuration names no decoder_start_token_id; add it to config.json")
        self._pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        config = model.config
        self._first_position = families.first_position(model)
        self._absolute = families.position_embeddings(model) is not None
        self.vocabulary = int(config.vocab_size)
        check_tokenizer(name, tokenizer, model)
        self._tokens = Vocabulary(name, tokenizer, self.vocabulary)
        positions = getattr(config, "max_position_embeddings", LONGEST) - self._first_position  # T5's are relative
        self.max_tokens = min(int(positions), LONGEST)
        self._p0 = tuple(range(prompt.first_id, prompt.first_id + prompt.tokens))
        self._separator = prompt.separator if isinstance(prompt.separator, str) else None
        self._p0_values: torch.Tensor | None = None  # see `with_p0`
        self._p0_mode: Mode = "add"
        if self._p0[-1] >= self.vocabulary:
            raise ModelError(f"prompt ids {self._p0[0]}..{self._p0[-1]}; {name} has {self.vocabulary:,} vocabulary ids")
        self._start = 1 if spec.kind == "masked" or self._starts_with_special() else 0
        self.embedding_std = self.backbone.embedding_std()
        self._text_sets = lru_cache(maxsize=256)(self._text_set)
        self._single_ids = lru_cache(maxsize=64)(self._known_ids)

    def with_p0(self, values: FloatArray, mode: Mode = "add") -> LanguageModel:
        """This model, its weights shared, with `values` (prompt tokens, width) added to every prompt at the input.

        So every prompt is relative to them, in the mode they were trained in: added to p0, or put before the text.
        Queries without a prompt are as they were; those in the other mode are refused.
        """
        relative = copy.copy(self)
        relative._p0_mode = mode  # noqa: SLF001
        relative._p0_values = torch.from_numpy(np.array(values, dtype=np.float32)).to(self.device)  # noqa: SLF001
        return relative

    def cut_at(self, tokens: int) -> LanguageModel:
        """This model, its weights shared, with texts cut so that no input is longer than `tokens`, prompt included."""
        shorter = copy.copy(self)
        shorter.max_tokens = min(self.max_tokens, tokens)
        shorter._text_sets = lru_cache(maxsize=256)(shorter._text_set)  # noqa: SLF001
        return shorter

    @property
    def prompt_tokens(self) -> int:
        """Largest number of prompt tokens that a query may use."""
        return len(self._p0)

    def info(self, texts: Sequence[Text], template: str) -> ModelInfo:
        """What is published, with layer widths measured on `texts` at the zero prompt."""
        zero = self._zero(self._p0_mode)
        encoded = self.text_set(template, tuple(texts), self._p0_mode).encoded
        with self.device_lock, self._tuner.aside():  # a thread takes torch's number of threads over at its first use
            batch = self._batch(encoded, self._layers(zero), zero, 1)
            asked = (
                f"{len(texts)} texts x {batch.ids.shape[1]} tokens at once, on which the layers' widths are measured"
            )
            remedy = "This does not depend on chunk_tokens: run another task or split here (--task, --split)"
            with memory_for(asked, remedy):
                widths, clipped = zip(*self.backbone.layer_std(batch), strict=True)
            facts = self._tuner.facts
        return ModelInfo(
            self.name,
            self.kind,
            self.backbone.layers,
            self.backbone.width,
            self.vocabulary,
            self.max_tokens,
            self.prompt_tokens,
            self.embedding_std,
            widths,
            clipped,
            facts,
        )

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Serve one cell: it finds nothing in a cache that another one has left, and leaves nothing."""
        _ = self.words  # seconds for whoever asks first, so that is not a cell
        mine = object()
        with served(mine):
            try:
                yield
            finally:
                with self.device_lock:
                    forget(mine)
                    self._tuner.forget(mine)

    def text_set(self, template: str, texts: tuple[Text, ...], mode: Mode | None = "add") -> TextSet:
        """The texts under a template, tokenised once in a cell; see `harness.blackbox.model.Model`."""
        return self._text_sets(cell(), template, texts, mode)

    def _text_set(self, _cell: object, template: str, texts: tuple[Text, ...], mode: Mode | None) -> TextSet:
        longest = self.max_tokens - (0 if mode is None else self.prompt_tokens)
        if mode != "add" and self._separator is not None:  # no p0 stands in the text, so nothing has to part them
            template = template.removeprefix(self._separator).lstrip(" ")
        return text_set(self.tokenizer, self.kind, template, texts, longest)

    def word_ids(self, words: Sequence[str]) -> list[list[int]]:
        """Token ids of each word, verbatim."""
        return self._tokens.word_ids(words)

    @property
    def words(self) -> tuple[str, ...]:
        """The word of each token id.

        It is "" for a special token, and for a word that is not read back as that one token.
        """
        return self._tokens.words

    def single_ids(self, words: Sequence[str]) -> tuple[int, ...]:
        """One id for each label word.

        Raises:
            QueryError: a word is not a single token. The message names its tokens.
        """
        return self._single_ids(cell(), tuple(words))

    def _known_ids(self, _cell: object, words: tuple[str, ...]) -> tuple[int, ...]:
        return self._tokens.single_ids(words)

    def check(self, prompts: Prompts | None) -> None:
        """Refuse prompts of a wrong shape before they are charged.

        Raises:
            QueryError: the shape is wrong, or there are no candidates. The message gives the shape found and the one
                expected.
        """
        for part in parts_of(prompts):
            self.weight_count(part.space)
        prompts = soft(prompts)
        if prompts is None:
            return
        if self._p0_values is not None and mode_of(prompts) != self._p0_mode:
            raise QueryError(
                f"this run's pre-trained p0 is for prompts in mode {self._p0_mode}, this one is in mode "
                f"{mode_of(prompts)}; take mode {self._p0_mode} (bbt: injection={self._p0_mode}), or leave out --p0"
            )
        check_prompts(prompts, self.backbone.layers, self.backbone.width, self.prompt_tokens)

    def weight_count(self, space: WeightSpace) -> int:
        """See `harness.blackbox.model.Model`."""
        return self._tuner.count(space)

    def check_features(self, features: FeatureKind | None) -> None:
        """Every kind of hidden states can be had; see `harness.blackbox.model.Model`."""

    def forward(
        self,
        prompts: Prompts | None,
        texts: TextSet,
        words: Sequence[int],
        features: FeatureKind | None = None,
        normalize: bool = False,
    ) -> Forwarded:
        """Logits and the features that were asked for, in float32. With `normalize`, logits are log-probabilities.

        Texts of like length are forwarded together, as many tokens at once as `chunk_tokens` says; which rows share a
        chunk depends on the query alone. Of several threads one computes, the others wait in `device_lock`. There is a
        checkpoint before each chunk.
        """
        asked = f"the reply to {1 if prompts is None else len(prompts)} candidates x {len(texts)} texts"
        with self.device_lock, self._tuner.aside(), memory_for(asked, "Ask for fewer at once"):
            run = partial(self._forward, texts, words, features, normalize)
            if isinstance(prompts, Weights):
                return self._tuner.forward(prompts, run)
            return run(prompts, 1 if prompts is None else len(prompts), ())

    def _forward(
        self,
        texts: TextSet,
        words: Sequence[int],
        features: FeatureKind | None,
        normalize: bool,
        prompts: SoftPrompts | None,
        candidates: int,
        edits: tuple[LayerEdit | None, ...],
    ) -> Forwarded:
        layers = self._layers(prompts) if prompts is not None else ()
        ids = torch.tensor(list(words), dtype=torch.int64, device=self.device)
        logits = np.empty((candidates, len(texts), len(words)), dtype=np.float32)
        extra = layers[0].shape[1] if layers else 0
        lengths = np.array([len(e.ids) + extra for e in texts.encoded], dtype=np.int64)
        per_text = (lengths.max(), self.backbone.width) if features == "all" else (self.backbone.width,)
        states = np.zeros((candidates, len(texts), *per_text), dtype=np.float32) if features else None
        reads = {None: 1, "mask": 2, "cls": 2, "all": 1 + int(lengths.max())}[features]
        for chosen, members in self._chunks(lengths.tolist(), candidates, reads):
            checkpoint()
            part = tuple(layer[members] if len(layer) > 1 else layer for layer in layers)
            count = members.stop - members.start
            batch = self._batch([texts.encoded[i] for i in chosen], part, prompts, count, features)
            batch = replace(batch, edits=tuple(edit and edit.of(members) for edit in edits)) if edits else batch
            with memory_for(*self._chunk(count, batch)):
                hidden = self.backbone.hidden(batch)  # (candidates, texts, reads, width); the first read is for words
                q = self.backbone.logits(hidden[:, :, 0], ids)
                if normalize:
                    q = q - self.backbone.normalizer(hidden[:, :, 0])[..., None]
                logits[members, chosen] = q.cpu().numpy()
            if states is not None and features == "all":
                masked = hidden[:, :, 1:] * batch.mask[None, :, :, None]
                states[members, chosen, : masked.shape[2]] = masked.cpu().numpy()
            elif states is not None:
                states[members, chosen] = hidden[:, :, -1].cpu().numpy()
        return Forwarded(logits, states, lengths if features == "all" else None)

    def _chunk(self, candidates: int, batch: Batch) -> tuple[str, str]:
        """Describe a chunk, and say what to do if the device has too little memory for it."""
        (texts, tokens), most = batch.ids.shape, self.chunk_tokens
        asked = f"{candidates} candidates x {texts} texts x {tokens} tokens at once (chunk_tokens = {most:,})"
        fewer = f"Lower chunk_tokens in [numerics] of a track file of your own, for example to {max(1, most // 2):,}"
        return asked, f"{fewer}. Another numeric profile is another track, so its runs are ranked separately"

    def _chunks(self, lengths: Sequence[int], candidates: int, reads: int) -> Iterator[tuple[list[int], slice]]:
        """Cut texts x candidates into chunks for the backbone. Texts of similar length are in one chunk."""
        order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
        ordered, most = [lengths[i] for i in order], self.chunk_tokens
        if self.backbone.bounded:
            cuts = cut_by_reads(ordered, candidates, reads, most)
        else:
            cuts = cut_by_tokens(ordered, candidates, reads, most, self.backbone.together)
        for texts, members in cuts:
            yield order[texts], members

    def outputs(
        self, prompts: Prompts | None, texts: Sequence[Text], template: str, words: Sequence[str], features: FeatureKind
    ) -> Outputs:
        """Run `forward` on texts and words, without a meter, for the referee and for `harness predict`."""
        self.check(prompts)
        inner = soft(prompts)
        encoded = self.text_set(template, texts_of(texts), None if inner is None else mode_of(inner))
        out = self.forward(prompts, encoded, self.single_ids(words), features)
        return Outputs(out.logits, cast("FloatArray", out.features), out.lengths)  # asked for, so they are there

    def _layers(self, prompts: SoftPrompts) -> tuple[torch.Tensor, ...]:
        """Prompt values per layer, as in `prompt_layers`. The values of p0 are added to those of the first layer."""
        candidates = len(prompts)
        with memory_for(f"the projections and prompts of {candidates} candidates", "Ask for fewer candidates at once"):
            first, *deeper = prompt_layers(prompts, self.backbone.width, self.device, self._block)
        if self._p0_values is not None:
            first = first + self._p0_values[: first.shape[1]]
        return (first, *deeper)

    def weights(self) -> Any:
        """A frozen float32 copy of the transformers model. The bias of its head is zero if the track says so."""
        with self.device_lock, self._tuner.aside():  # no cell's change of weights is in the copy
            model = families.in_format(copy.deepcopy(self._model), self.device, torch.float32)
        bias = families.head_bias(model)
        if self._zero_head_bias and bias is not None:
            bias.data.zero_()
        return model

    def batch(self, encoded: Sequence[Encoded], mode: Mode | None) -> Batch:
        """Encoded texts as tensors for whoever runs `weights`; with p0's tokens, or room before the text, by `mode`."""
        zero = None if mode is None else self._zero(mode)
        layers = () if zero is None else prompt_layers(zero, self.backbone.width, self.device)
        return self._batch(encoded, layers, zero, 1)

    def _zero(self, mode: Mode) -> Prompt:
        return Prompt(np.zeros((1, 1, self.prompt_tokens, self.backbone.width), dtype=np.float32), mode)

    def _batch(
        self,
        encoded: Sequence[Encoded],
        layers: tuple[torch.Tensor, ...],
        prompts: SoftPrompts | None,
        candidates: int,
        features: FeatureKind | None = None,
    ) -> Batch:
        """Pad, insert p0 (or room for a prepended prompt), and find the positions to read."""
        count = layers[0].shape[1] if layers else 0
        mode = "add" if prompts is None else mode_of(prompts)
        start = 0 if mode == "prepend" else self._start
        rows = [(*e.ids[:start], *self._p0[:count], *e.ids[start:]) for e in encoded]
        ids, mask = padded(rows, self._pad)
        longest = ids.shape[1]
        positions = torch.arange(longest).expand(len(rows), longest).clone()
        if mode == "prepend" and self._absolute:  # the text keeps its position ids, the prompt gets none
            positions = (positions - count).clamp(min=0)
        positions = (positions + self._first_position).clamp(max=self.max_tokens + self._first_position - 1)
        first = count if mode == "prepend" else 0
        more = {None: [], "mask": [], "cls": [first], "all": list(range(longest))}[features]
        at, decoder = [e.read + count for e in encoded], None
        if self.kind == "seq2seq":
            given = [self._given_to_decoder(row[first:mask_at]) for row, mask_at in zip(rows, at, strict=True)]
            at, decoder = [len(row) - 1 for row in given], padded(given, self._pad)[0]
        read = torch.tensor([[position, *more] for position in at], dtype=torch.int64)
        ids, positions, mask, read = (t.to(self.device) for t in (ids, positions, mask, read))
        decoder = None if decoder is None else decoder.to(self.device)
        return Batch(ids, positions, mask, read, layers, start, mode, candidates, decoder)

    def _given_to_decoder(self, before: tuple[int, ...]) -> tuple[int, ...]:
        """The decoder's input after which its next token fills the mask. `before` is the mask's left context.

        T5 names the gap and then fills it; BART writes the whole text again. Each model was trained in this way, and
        BBT's code reads them in the same way.
        """
        return (self._decoder_start, *(before if self._sentinel is None else (self._sentinel,)))

    def _starts_with_special(self) -> bool:
        ids = self.tokenizer("a")["input_ids"]
        return bool(ids and ids[0] == self.tokenizer.bos_token_id)
