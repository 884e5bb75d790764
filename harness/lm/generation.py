"""What a causal language model says of text: how likely given continuations are, and the texts that it writes.

Targets are read in the same chunks as label words are. Outputs are written in batches of sequences (one text under one
candidate each) that end at different steps: a sequence that has ended leaves its batch, so nothing is computed for it.
"""

# ruff: noqa: SLF001 - this is the part of `LanguageModel` that text tasks need, in a module of its own

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from harness.blackbox.checkpoints import checkpoint
from harness.blackbox.text_model import Writes
from harness.contract import Generated, Likelihoods, Weights
from harness.errors import ModelError, QueryError
from harness.lm.backbones.plain import PlainBackbone
from harness.lm.backbones.stepping import begin, cache_bytes
from harness.lm.device import memory_for
from harness.lm.model import LanguageModel
from harness.lm.text import VERBATIM, Encoded, TextSet, continued

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from harness.blackbox.text_model import Decoding, TextModel
    from harness.contract import Mode, Prompts, SoftPrompts, Text
    from harness.lm.backbones.base import Batch
    from harness.lm.served import Served

CACHE_BYTES = 512 << 20
"""Memory for the keys and values of the sequences that are written at once."""
_MOST_SEQUENCES = 256
_LEFT = 0.75
"""Share of a batch's sequences below which those that have ended are taken out of its memory."""


def text_model(lm: Served | LanguageModel) -> TextModel:
    """What a text task needs of a model.

    Args:
        lm: with which cells are run.

    Raises:
        ModelError: it is no causal model, or a server that does not give what is needed.
    """
    if isinstance(lm, Writes):
        return lm.text_model()
    if isinstance(lm, LanguageModel) and lm.kind == "causal" and isinstance(lm.backbone, PlainBackbone):
        return Generation(lm)
    raise ModelError(
        f"{lm.name} is a {lm.kind} model, and text tasks need a causal one; take track mini-text, or a causal model "
        "with --model DIR"
    )


class Generation:
    """A causal `LanguageModel` as text tasks use it; implements `harness.blackbox.text_model.TextModel`."""

    soft = scores = True

    def __init__(self, lm: LanguageModel) -> None:
        """Use the weights, tokenizer and limits of `lm`."""
        self._lm, self._backbone = lm, cast("PlainBackbone", lm.backbone)

    def encode(self, template: str, texts: tuple[Text, ...], mode: Mode | None, room: int) -> TextSet:
        """See `TextModel`."""
        lm = self._lm
        longest = lm.max_tokens - (0 if mode is None else lm.prompt_tokens) - room
        if longest < 1:
            raise QueryError(f"{room:,} tokens of output; {lm.name} takes {lm.max_tokens:,} with text and prompt")
        return continued(lm.tokenizer, template, texts, longest)

    def target_ids(self, targets: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        """See `TextModel`."""
        ids = []
        for target in targets:
            checkpoint()
            (found,) = self._lm.word_ids([target])
            if not found:
                raise QueryError(f"the target {target!r} has no token; a target is the text whose likelihood is asked")
            ids.append(tuple(found))
        return tuple(ids)

    def score(self, prompts: Prompts | None, texts: TextSet, targets: Sequence[tuple[int, ...]]) -> Likelihoods:
        """See `TextModel`. Texts of like length are forwarded together, as `LanguageModel.forward` does."""
        asked = f"{1 if prompts is None else len(prompts)} candidates x {len(texts)} texts and their targets"
        tuner = self._lm._tuner
        with self._lm.device_lock, tuner.aside(), memory_for(asked, "Ask for fewer at once"):
            if not isinstance(prompts, Weights):
                return self._score(prompts, texts, targets)
            parts = tuner.one_by_one(prompts, lambda soft, _count: self._score(soft, texts, targets))
        return Likelihoods(np.concatenate([part.values for part in parts]), parts[0].lengths)

    def _score(self, prompts: SoftPrompts | None, texts: TextSet, targets: Sequence[tuple[int, ...]]) -> Likelihoods:
        lm = self._lm
        layers = () if prompts is None else lm._layers(prompts)
        candidates, extra = 1 if prompts is None else len(prompts), layers[0].shape[1] if layers else 0
        read = [
            replace(e, ids=(*e.ids, *target[:-1]), read=len(e.ids) - 1)
            for e, target in zip(texts.encoded, targets, strict=True)
        ]
        sizes = np.array([len(target) for target in targets], dtype=np.int64)
        values = np.zeros((candidates, len(read), int(sizes.max())), dtype=np.float32)
        lengths = [len(e.ids) + extra for e in read]
        for chosen, members in lm._chunks(lengths, candidates, int(sizes.max())):
            checkpoint()
            part = tuple(layer[members] if len(layer) > 1 else layer for layer in layers)
            count = members.stop - members.start
            batch = self._batch([read[i] for i in chosen], part, prompts, count)
            most = int(sizes[chosen].max())
            ids = torch.zeros((len(chosen), most), dtype=torch.int64)
            for n, i in enumerate(chosen):
                ids[n, : sizes[i]] = torch.tensor(targets[i])
            place = torch.arange(most)
            held = place < torch.from_numpy(sizes[chosen])[:, None]  # (texts, tokens)
            at = batch.read + place.minimum(torch.from_numpy(sizes[chosen])[:, None] - 1).to(batch.read.device)
            with memory_for(*lm._chunk(count, batch)):
                hidden = lm.backbone.hidden(replace(batch, read=at))  # (candidates, texts, tokens, width)
                where = held.expand(count, -1, -1)
                rows = hidden[where.to(hidden.device)]  # (all tokens of the targets, width)
                wanted = ids.expand(count, -1, -1)[where].to(rows.device)
                found = np.zeros(where.shape, dtype=np.float32)
                found[where.numpy()] = self._backbone.log_likelihood(rows, wanted).cpu().numpy()
            values[members, chosen, :most] = found
        return Likelihoods(values, sizes)

    def generate(
        self, prompts: Prompts | None, texts: TextSet, how: Decoding, go_on: Callable[[Sequence[int]], bool]
    ) -> Generated:
        """See `TextModel`. There is a checkpoint before each step."""
        asked = f"{1 if prompts is None else len(prompts)} candidates x {len(texts)} texts of {how.most_tokens} tokens"
        tuner, parts = self._lm._tuner, list[Generated]()
        with self._lm.device_lock, tuner.aside(), memory_for(asked, "Ask for fewer at once"):
            if not isinstance(prompts, Weights):
                return self._generate(prompts, texts, how, go_on)

            def cut() -> bool:
                return any(part.cut for part in parts)  # what does not fit into the budget ends all writing

            def written(soft: SoftPrompts | None, _count: int) -> None:
                first = sum(len(part.texts) for part in parts)

                def goes_on(numbers: Sequence[int]) -> bool:
                    return go_on([first * len(texts) + n for n in numbers])

                parts.append(self._generate(soft, texts, how, goes_on, first))

            tuner.one_by_one(prompts, written, lambda: not cut())
        rows = [row for part in parts for row in part.texts]
        tokens = np.zeros((len(prompts), len(texts)), dtype=np.int64)  # 0 of those that were not begun
        tokens[: len(rows)] = np.concatenate([part.tokens for part in parts])
        rows += [("",) * len(texts)] * (len(prompts) - len(rows))
        return Generated(tuple(rows), tokens, cut())

    def _generate(
        self,
        prompts: SoftPrompts | None,
        texts: TextSet,
        how: Decoding,
        go_on: Callable[[Sequence[int]], bool],
        first: int = 0,
    ) -> Generated:
        """Write under soft prompts; `first` is the number of the first candidate, by which chance goes."""
        lm = self._lm
        layers = () if prompts is None else lm._layers(prompts)
        candidates, extra = 1 if prompts is None else len(prompts), layers[0].shape[1] if layers else 0
        writing = [
            _Sequence(c * len(texts) + t, _draws(how, first + c, t))
            for c in range(candidates)
            for t in range(len(texts))
        ]
        same = itertools.takewhile(lambda ids: len(set(ids)) == 1, zip(*(e.ids for e in texts.encoded), strict=False))
        once = len(list(same)) + extra if candidates == 1 else 0  # tokens whose keys and values are kept once
        lengths, cut = [len(e.ids) + extra - once for e in texts.encoded], False
        for chosen, members in self._batches(lengths, candidates, how.most_tokens):
            part = tuple(layer[members] if len(layer) > 1 else layer for layer in layers)
            numbers = [c * len(texts) + t for c in range(members.start, members.stop) for t in chosen]
            checkpoint()
            cut = cut or not go_on(numbers)  # the first token of each, before anything is read
            if cut:
                break
            batch = self._batch([texts.encoded[i] for i in chosen], part, prompts, members.stop - members.start)
            cut = not self._write(batch, [writing[n] for n in numbers], how, go_on)
        tokens = np.array([len(each.ids) for each in writing], dtype=np.int64).reshape(candidates, -1)
        written = [self.text(each.ids) for each in writing]
        rows = tuple(tuple(written[c * len(texts) : (c + 1) * len(texts)]) for c in range(candidates))
        return Generated(rows, tokens, cut)

    def _write(
        self, batch: Batch, writing: list[_Sequence], how: Decoding, go_on: Callable[[Sequence[int]], bool]
    ) -> bool:
        """Write a batch to its end; whether nothing said that it must end before. Its first step was allowed."""
        backbone = self._backbone
        growing = begin(backbone, batch, how.most_tokens)
        while True:
            logits = backbone.next_logits(growing.states)
            chosen = self._chosen(logits, writing, how)
            for each, token in zip(writing, chosen.tolist(), strict=True):
                if not each.ended:
                    each.ids.append(token)
                    each.ended = self.ends(each.ids, how)
            going = [n for n, each in enumerate(writing) if not each.ended]
            if not going:
                return True
            checkpoint()
            if not go_on([writing[n].number for n in going]):
                return False
            if len(going) < _LEFT * len(writing):
                which = torch.tensor(going, device=chosen.device)
                growing.keep(which)
                writing, chosen = [writing[n] for n in going], chosen[which]
            growing.append(chosen)

    def _chosen(self, logits: torch.Tensor, writing: Sequence[_Sequence], how: Decoding) -> torch.Tensor:
        """The next token of each sequence: (sequences, vocabulary) -> (sequences,)."""
        if not how.temperature:
            return logits.argmax(dim=-1)
        warm = logits.double() / how.temperature
        if not torch.isfinite(warm).all():  # so cold that the quotient is beyond a float; what counts is the distance
            warm = (logits - logits.amax(dim=-1, keepdim=True)).double() / how.temperature
        shares = torch.softmax(warm, dim=-1).cumsum(dim=-1)
        points = torch.tensor([each.draw() for each in writing], dtype=torch.float64, device=logits.device)
        found = torch.searchsorted(shares, points[:, None] * shares[:, -1:])[:, 0]
        return found.clamp(max=logits.shape[-1] - 1)

    def ends(self, ids: list[int], how: Decoding) -> bool:
        """Whether nothing follows after these tokens of an output."""
        tokenizer = self._lm.tokenizer
        if ids[-1] in self._end_ids or len(ids) >= how.most_tokens:
            return True
        return bool(how.stop) and any(stop in tokenizer.decode(ids, **VERBATIM) for stop in how.stop)

    def text(self, ids: list[int]) -> str:
        """What was written; the token that ends a text is not part of it."""
        kept = ids[:-1] if ids and ids[-1] in self._end_ids else ids
        return str(self._lm.tokenizer.decode(kept, **VERBATIM)) if kept else ""

    @property
    def _end_ids(self) -> set[int]:
        """Tokens after which nothing follows: the tokenizer's, and those of the model's configuration."""
        named = getattr(self._lm._model.config, "eos_token_id", None)
        listed = named if isinstance(named, list) else [named]
        return {each for each in (*listed, self._lm.tokenizer.eos_token_id) if each is not None}

    def _batches(self, lengths: Sequence[int], candidates: int, most_tokens: int) -> Iterator[tuple[list[int], slice]]:
        """Texts x candidates that are written at once: texts of like length, within the memory for their caches."""
        order = sorted(range(len(lengths)), key=lambda n: (-lengths[n], n))
        first = 0
        while first < len(order):
            each = cache_bytes(self._backbone, lengths[order[first]] + most_tokens)
            most = min(_MOST_SEQUENCES, max(1, CACHE_BYTES // each) if each else _MOST_SEQUENCES)
            texts = min(len(order) - first, most)
            together = max(1, most // texts)
            for start in range(0, candidates, together):
                yield order[first : first + texts], slice(start, min(start + together, candidates))
            first += texts

    def _batch(
        self, encoded: Sequence[Encoded], layers: tuple[torch.Tensor, ...], prompts: SoftPrompts | None, candidates: int
    ) -> Batch:
        """A batch whose common beginning is computed once, unless a row's digits must not depend on its neighbours."""
        batch = self._lm._batch(encoded, layers, prompts, candidates)
        if self._lm._block is not None:
            return batch
        return replace(batch, prefix=_common(batch))


@dataclass
class _Sequence:
    """An output that is being written."""

    number: int
    chance: np.random.Generator | None
    ids: list[int] = field(default_factory=list)
    ended: bool = False

    def draw(self) -> float:
        """A number from 0 to 1."""
        return 0.0 if self.chance is None else float(self.chance.random())


def _draws(how: Decoding, candidate: int, text: int) -> np.random.Generator | None:
    """Chance of a sequence, of its own, so that it does not depend on when others end."""
    if not how.temperature:
        return None
    return np.random.Generator(np.random.Philox(key=[how.seed, (candidate << 32) + text]))


def _common(batch: Batch) -> int:
    """How many first tokens all texts of a batch share; every text keeps one of its own."""
    same = ((batch.ids == batch.ids[:1]) & batch.mask).all(dim=0)
    shared = int(same.long().cumprod(dim=0).sum())
    return min(shared, int(batch.mask.sum(dim=1).min()) - 1)
