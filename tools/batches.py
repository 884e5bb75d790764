"""Batches of a training run. Each is a pure function of (seed, step), so a resumed run draws the same batches."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerFast

    from tools.teacher import Clozes, Prepared

PAIR_FORMS = (("{a} ? [MASK] , {b}", 0.85), ("{a} . [MASK] , {b}", 0.1), ("{a} ? [MASK] . {b}", 0.05))
TOPIC_FORMS = (("[ Category: [MASK] ] {s}", 0.4), ("[MASK] News: {s}", 0.4), ("{s} This is about [MASK] .", 0.2))
OPINION_FORMS = (("{s} . It was [MASK] .", 0.9), ("{s} . All in all , it was [MASK] .", 0.1))
PAIR_WORDS = ("yes", "maybe", "no")
LONGEST = 96
MOST_PROMPT_TOKENS = 10


@dataclass(frozen=True)
class Batch:
    """One forward pass and its targets."""

    name: str
    ids: torch.Tensor
    """(rows, tokens)"""
    attention: torch.Tensor
    """(rows, tokens)"""
    places: torch.Tensor
    """(targets,) flat positions that are read."""
    labels: torch.Tensor | None
    """(targets,) token ids; None if the target is a distribution."""
    words: torch.Tensor
    """(words,) token ids"""
    chances: torch.Tensor
    """(targets, words) distribution over `words`; both are empty if there are labels."""

    @property
    def tokens(self) -> int:
        """Tokens that are not padding."""
        return int(self.attention.sum())


class Batches:
    """Draws batches from prepared texts."""

    def __init__(self, prepared: Prepared, tokenizer: PreTrainedTokenizerFast, seed: int, scale: float = 1.0) -> None:
        """`scale` multiplies every batch size; 1 is about 9,000 tokens a step."""
        self.prepared = prepared
        self.tokenizer = tokenizer
        self.seed = seed
        self.scale = scale
        vocabulary = tokenizer.get_vocab()
        self.plain = np.asarray(sorted(i for word, i in vocabulary.items() if re.fullmatch("[a-z]{2,}", word)))
        self.special = np.asarray([vocabulary[word] for word in ("[CLS]", "[SEP]", "[PAD]", "[MASK]")])
        # content words are masked about three times as often as the rest
        self.appeal = np.full(len(vocabulary), 0.7)
        self.appeal[[i for word, i in vocabulary.items() if re.fullmatch("[a-z]{4,}", word)]] = 2.0
        self.appeal[self.special] = 0
        self.pair_words = torch.tensor([vocabulary[word] for word in PAIR_WORDS])
        self.topic_words = torch.tensor([vocabulary[word] for word in prepared.topics.words])
        self.opinion_words = torch.tensor([vocabulary[word] for word in prepared.opinions.words])
        train = prepared.weight.copy()
        train[prepared.held_pairs] = 0
        self.pair_cumulative = np.cumsum(train) / train.sum()
        self.pair_lengths = np.asarray([len(a) + len(b) for a, b in zip(prepared.first, prepared.second, strict=True)])
        self.line_lengths = np.asarray([len(line) for line in prepared.lines])

    def at(self, step: int) -> list[Batch]:
        """The batches of one step: masked text, pairs, topics, opinions."""
        rng = np.random.default_rng([self.seed, 2, step])
        return [self._masked(rng), self._pairs(rng), self._topics(rng), self._opinions(rng)]

    def held_out(self, most: int = 512) -> list[Batch]:
        """The same batches for every call, from texts that are never trained on."""
        rng = np.random.default_rng([self.seed, 3])
        lines = sorted(self.prepared.held_lines[:most], key=len)
        masked = [self.mask(lines[i : i + 64], rng, prompt=False) for i in range(0, len(lines), 64)]
        chosen = rng.permutation(self.prepared.held_pairs)[:most]
        return masked + [self.pairs(chosen[i : i + 64], rng, prompt=False) for i in range(0, len(chosen), 64)]

    def _masked(self, rng: np.random.Generator) -> Batch:
        drawn = rng.integers(len(self.prepared.lines), size=1024)
        drawn = drawn[np.argsort(self.line_lengths[drawn], kind="stable")]
        tokens = np.minimum(self.line_lengths[drawn] / 4.3 + 3, LONGEST)
        # start anywhere on the tokens, not on the rows, so that long lines are drawn as often as their share
        start = int(np.searchsorted(np.cumsum(tokens), rng.random() * tokens.sum() * 0.95))
        count = max(2, int(np.searchsorted(np.cumsum(tokens[start:]), 5000 * self.scale)))
        return self.mask(
            self._alike([self.prepared.lines[i] for i in drawn[start : start + count]], max(2, count // 2), rng), rng
        )

    def mask(self, lines: Sequence[str], rng: np.random.Generator, *, prompt: bool = True) -> Batch:
        """Hide a fifth of the tokens of each line, content words first."""
        ids, attention = self._encode(lines, rng, prompt=prompt)
        appeal = self.appeal[ids] * attention
        keys = np.where(appeal > 0, -np.log(rng.random(ids.shape) + 1e-12) / np.maximum(appeal, 1e-9), np.inf)
        count = np.maximum(1, (attention.sum(1) * 0.2).astype(int))
        ranks = keys.argsort(1).argsort(1)
        hidden = (ranks < count[:, None]) & np.isfinite(keys)
        labels = torch.from_numpy(ids[hidden])
        ids[hidden] = self.tokenizer.mask_token_id
        return Batch(
            "masked",
            torch.from_numpy(ids),
            torch.from_numpy(attention),
            torch.from_numpy(np.flatnonzero(hidden)),
            labels,
            words=torch.zeros(0, dtype=torch.long),
            chances=torch.zeros(0, 0),
        )

    def _pairs(self, rng: np.random.Generator) -> Batch:
        rows = max(2, int(96 * self.scale))
        drawn = np.searchsorted(self.pair_cumulative, rng.random(rows * 8))
        drawn = self._chunk(drawn, self.pair_lengths[drawn], min(2 * rows, len(drawn)), rng)
        lengths = self._lengths([self.prepared.first[i] + " " + self.prepared.second[i] for i in drawn])
        return self.pairs(self._chunk(drawn, lengths, rows, rng), rng)

    def pairs(self, chosen: np.ndarray, rng: np.random.Generator, *, prompt: bool = True) -> Batch:
        """The cloze "A ? [MASK] , B", with yes, maybe, no as likely as the encoder finds A and B alike."""
        forms = self._forms(PAIR_FORMS, len(chosen), rng)
        first, second = self.prepared.first, self.prepared.second
        texts = [form.replace("{a}", first[i]).replace("{b}", second[i]) for form, i in zip(forms, chosen, strict=True)]
        closeness = 2 * (self.prepared.cosine[chosen] - 0.5)
        # "maybe" has its top in the middle, so that it still wins there once each word's mean is taken away
        scores = np.stack([3 * closeness, 1 - 4 * closeness**2, -3 * closeness], axis=1)
        return self._cloze("pairs", texts, self.pair_words, scores, rng, prompt=prompt)

    def _topics(self, rng: np.random.Generator) -> Batch:
        return self._distil("topics", self.prepared.topics, self.topic_words, TOPIC_FORMS, 2.0, 28, rng)

    def _opinions(self, rng: np.random.Generator) -> Batch:
        return self._distil("opinions", self.prepared.opinions, self.opinion_words, OPINION_FORMS, 2.0, 56, rng)

    def _distil(
        self,
        name: str,
        source: Clozes,
        words: torch.Tensor,
        forms: tuple[tuple[str, float], ...],
        sharpness: float,
        rows: int,
        rng: np.random.Generator,
    ) -> Batch:
        rows = max(2, int(rows * self.scale))
        drawn = rng.integers(len(source.texts), size=rows * 8)
        drawn = self._chunk(drawn, np.asarray([len(source.texts[i]) for i in drawn]), 2 * rows, rng)
        chosen = self._chunk(drawn, self._lengths([source.texts[i] for i in drawn]), rows, rng)
        texts = [
            form.replace("{s}", source.texts[i]) for form, i in zip(self._forms(forms, rows, rng), chosen, strict=True)
        ]
        scores = source.vectors[chosen].astype(np.float32) @ source.word_vectors.T + source.shifts
        return self._cloze(name, texts, words, sharpness * scores, rng)

    def _chunk(self, drawn: np.ndarray, lengths: np.ndarray, rows: int, rng: np.random.Generator) -> np.ndarray:
        """Some of the drawn texts, of similar lengths, so that there is little padding."""
        start = int(rng.integers(len(drawn) - rows + 1))
        return drawn[np.argsort(lengths, kind="stable")][start : start + rows]

    def _alike(self, texts: list[str], rows: int, rng: np.random.Generator) -> list[str]:
        chosen = self._chunk(np.arange(len(texts)), self._lengths(texts), min(rows, len(texts)), rng)
        return [texts[i] for i in chosen]

    def _lengths(self, texts: list[str]) -> np.ndarray:
        """Tokens of each text, counted up to the longest row."""
        counted = self.tokenizer(
            texts, truncation=True, max_length=LONGEST, return_attention_mask=False, return_token_type_ids=False
        )["input_ids"]
        return np.asarray([len(ids) for ids in counted])

    def _forms(self, forms: tuple[tuple[str, float], ...], rows: int, rng: np.random.Generator) -> list[str]:
        return [forms[i][0] for i in rng.choice(len(forms), size=rows, p=[share for _, share in forms])]

    def _cloze(
        self,
        name: str,
        texts: Sequence[str],
        words: torch.Tensor,
        scores: np.ndarray,
        rng: np.random.Generator,
        *,
        prompt: bool = True,
    ) -> Batch:
        ids, attention = self._encode(texts, rng, prompt=prompt)
        is_mask = ids == self.tokenizer.mask_token_id
        kept = is_mask.any(1)  # a cut text may have lost its mask
        places = np.flatnonzero(kept) * ids.shape[1] + is_mask[kept].argmax(1)
        chances = torch.softmax(torch.from_numpy(scores[kept].astype(np.float32)), dim=1)
        return Batch(
            name,
            torch.from_numpy(ids),
            torch.from_numpy(attention),
            torch.from_numpy(places),
            labels=None,
            words=words,
            chances=chances,
        )

    def _encode(
        self, texts: Sequence[str], rng: np.random.Generator, *, prompt: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """Tokens; in seven of ten batches up to ten words drawn at random stand after [CLS]."""
        made = self.tokenizer(list(texts), padding=True, truncation=True, max_length=LONGEST, return_tensors="np")
        ids, attention = np.asarray(made["input_ids"]), np.asarray(made["attention_mask"])
        count = int(rng.integers(MOST_PROMPT_TOKENS + 1)) if prompt and rng.random() < 0.7 else 0  # noqa: PLR2004
        if count:
            words = self.plain[rng.integers(len(self.plain), size=(len(ids), count))]
            ids = np.concatenate([ids[:, :1], words, ids[:, 1:]], axis=1)
            attention = np.concatenate([attention[:, :1], np.ones_like(words), attention[:, 1:]], axis=1)
        return ids.astype(np.int64), attention.astype(np.int64)
