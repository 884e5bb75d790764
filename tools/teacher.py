"""Targets for clozes, computed by the unchanged sentence encoder.

Three kinds of target, all computed from plain text by the encoder's own mean-pooled vectors:

- pairs: cosine of A and B -> P(yes), P(maybe), P(no) in "A ? [MASK] , B";
- topics: cosine of a text with each of many nouns -> a distribution at "[ Category: [MASK] ] S";
- opinions: cosine of a text with "it was <adjective>." -> a distribution at "S . It was [MASK] .".
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from tools import pairs as make

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from transformers import BertModel, PreTrainedTokenizerFast

    from tools.wordnet import WordNet

NOUN_FORMS = ("a {w}", "{w}", "category: {w}")
OPINION_FORMS = ("it was {w}.", "this was {w}.")
NAMED = re.compile(
    r"\b(?:an?|the|this|every|each) ([a-z]{3,})(?= (?:of|is|was|which|that|who|in|on|by|for|and|or|,|\.)|[,.;])"
)
GRADED = re.compile(r"\b(?:very|so|too|quite|really|rather|most|more|pretty) ([a-z]{3,})\b")


@dataclass(frozen=True)
class Clozes:
    """Texts with a distribution over words each."""

    texts: list[str]
    vectors: np.ndarray
    """(texts, width), unit length."""
    words: list[str]
    word_vectors: np.ndarray
    """(words, width), already centred and scaled: text vector @ word vector + shift = z-score."""
    shifts: np.ndarray
    """(words,)"""


@dataclass(frozen=True)
class Prepared:
    """Everything a run draws its batches from."""

    lines: list[str]
    held_lines: list[str]
    first: list[str]
    second: list[str]
    cosine: np.ndarray
    """(pairs,) float32"""
    weight: np.ndarray
    """(pairs,) chance of being drawn, not normalised."""
    held_pairs: np.ndarray
    """indices of pairs never trained on"""
    topics: Clozes
    opinions: Clozes


def embed(model: BertModel, tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], note: str = "") -> np.ndarray:
    """Mean-pooled unit vectors (texts, width), in the order given."""
    out = np.zeros((len(texts), model.config.hidden_size), dtype=np.float32)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    for start in range(0, len(order), 128):
        if note and start % 12800 == 0:
            print(f"{note}: {start}/{len(order)}", flush=True)
        chosen = order[start : start + 128]
        batch = tokenizer([texts[i] for i in chosen], padding=True, truncation=True, max_length=96, return_tensors="pt")
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = model(**batch).last_hidden_state
        mask = batch["attention_mask"][..., None].float()
        pooled = (hidden.float() * mask).sum(1) / mask.sum(1)
        out[chosen] = torch.nn.functional.normalize(pooled, dim=1).numpy()
    return out


def word_lists(
    lines: Sequence[str], vocabulary: set[str], net: WordNet, nouns: int, adjectives: int
) -> tuple[list[str], list[str]]:
    """The commonest nouns, and the commonest adjectives that come in degrees ("very ..."); single tokens all."""
    named: Counter[str] = Counter()
    graded: Counter[str] = Counter()
    for line in lines:
        low = line.lower()
        named.update(set(NAMED.findall(low)))
        graded.update(GRADED.findall(low))
    is_noun = net.lemmas.get("noun") or set(named)
    is_adjective = net.lemmas.get("adj") or set(graded)
    common = make.ENGLISH | {
        "one",
        "other",
        "same",
        "more",
        "much",
        "many",
        "most",
        "few",
        "little",
        "often",
        "far",
        "such",
        "than",
    }
    topic = [word for word, _ in named.most_common() if word in vocabulary and word in is_noun and word not in common]
    opinion = [
        word for word, _ in graded.most_common() if word in vocabulary and word in is_adjective and word not in common
    ]
    return topic[:nouns], opinion[:adjectives] or topic[:10]


def clozes(
    texts: list[str],
    vectors: np.ndarray,
    words: list[str],
    forms: Sequence[str],
    read: Callable[[Sequence[str]], np.ndarray],
) -> Clozes:
    """Score every text against every word, each word centred and scaled over the texts."""
    average = np.mean([read([form.replace("{w}", word) for word in words]) for form in forms], axis=0)
    scores = vectors[:4000] @ average.T
    mean, spread = scores.mean(0), scores.std(0) + 1e-4
    return Clozes(
        texts,
        vectors.astype(np.float16),
        words,
        (average / spread[:, None]).astype(np.float32),
        (-mean / spread).astype(np.float32),
    )


def prepare(
    lines: Sequence[str],
    net: WordNet,
    model: BertModel,
    tokenizer: PreTrainedTokenizerFast,
    size: int,
    seed: int,
) -> Prepared:
    """Cut the text, run the encoder, and keep what training needs.

    Args:
        lines: passages, one a line.
        net: WordNet, or an empty one.
        model: the untouched encoder.
        tokenizer: its tokenizer.
        size: about how many single texts pairs are made of.
        seed: chance.
    """
    rng = np.random.default_rng([seed, 1])
    english = [line for line in lines if len(line.split()) >= 4 and make.is_english(line)]  # noqa: PLR2004
    held = [line for line in english if make.held_out(line)]
    kept = [line for line in english if not make.held_out(line)]
    registers = np.asarray([make.register(line) for line in kept])
    units = make.collect_units(kept, size, rng)
    for i in rng.permutation(len(units.texts))[: size // 4]:
        source = int(i)
        copy = make.alter(units.texts[source], units.texts[int(rng.integers(len(units.texts)))], net, rng)
        if copy:
            units.add(copy, units.kinds[source], units.groups[source])
    topic_texts, opinion_texts = _texts_for_clozes(kept, registers, size, rng)

    def read(texts: Sequence[str], note: str = "") -> np.ndarray:
        return embed(model, tokenizer, texts, note)

    vectors = read(units.texts, "texts of pairs")
    found = make.candidate_pairs(units, vectors, min(20, len(units.texts) - 1), rng)
    cosine = np.einsum("pw,pw->p", vectors[found[:, 0]], vectors[found[:, 1]])
    kinds = np.asarray([kind == "question" for kind in units.kinds])
    vocabulary = {word for word in tokenizer.get_vocab() if word.isalpha()}
    nouns, adjectives = word_lists(kept, vocabulary, net, 2000, 300)
    return Prepared(
        lines=_mix(kept, registers, rng),
        held_lines=held,
        first=[units.texts[i] for i in found[:, 0]],
        second=[units.texts[i] for i in found[:, 1]],
        cosine=cosine.astype(np.float32),
        weight=_even(cosine, kinds[found[:, 0]] * 2 + kinds[found[:, 1]]),
        held_pairs=np.flatnonzero(np.asarray(units.groups)[found[:, 0]] % 64 == 0),
        topics=clozes(topic_texts, read(topic_texts, "texts of topics"), nouns, NOUN_FORMS, read),
        opinions=clozes(opinion_texts, read(opinion_texts, "texts of opinions"), adjectives, OPINION_FORMS, read),
    )


def _texts_for_clozes(
    kept: list[str], registers: np.ndarray, size: int, rng: np.random.Generator
) -> tuple[list[str], list[str]]:
    def some(kind: str, share: float) -> list[str]:
        places = np.flatnonzero(registers == kind)
        return [kept[i] for i in rng.permutation(places)[: int(share * size)]]

    topics = [
        " ".join(line.split()[:60])
        for line in some("gloss", 0.2) + some("prose", 0.2) + some("review", 0.05) + some("dictionary", 0.1)
    ]
    pool = some("review", 0.5) + some("prose", 0.1)
    opinions = [piece for line in pool for piece in rng.permutation(make.sentences(line))[:2]]
    return topics or kept, [str(text) for text in opinions] or kept


def _mix(kept: list[str], registers: np.ndarray, rng: np.random.Generator) -> list[str]:
    """Keep one in three old dictionary entries: they are half of many corpora and differ from the rest."""
    keep = (registers != "dictionary") | (rng.random(len(kept)) < 1 / 3)
    return [line for line, kept_line in zip(kept, keep, strict=True) if kept_line]


def _even(cosine: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """Weights that make cosines equally frequent from 0 to 0.95 within each shape (question or statement, twice)."""
    bins = np.clip((cosine * 12).astype(int), 0, 11)
    weight = np.zeros(len(cosine), dtype=np.float64)
    for kind in np.unique(shape):
        mine = shape == kind
        counts = np.bincount(bins[mine], minlength=12).astype(float)
        weight[mine] = np.minimum(1 / np.maximum(counts[bins[mine]], 50), 1)
    # questions with questions, questions with statements, statements with statements: 3 : 3 : 4
    share = {3: 0.3, 2: 0.27, 1: 0.03, 0: 0.4}
    for kind in np.unique(shape):
        mine = shape == kind
        weight[mine] *= share[int(kind)] / weight[mine].sum()
    return weight


def save(prepared: Prepared, path: Path) -> None:
    """One .npz for numbers, one .json for texts, both written aside and renamed."""
    numbers = {name: getattr(prepared, name) for name in ("cosine", "weight", "held_pairs")}
    texts: dict[str, list[str]] = {name: getattr(prepared, name) for name in ("lines", "held_lines", "first", "second")}
    for name in ("topics", "opinions"):
        cloze = getattr(prepared, name)
        numbers |= {f"{name}_{key}": getattr(cloze, key) for key in ("vectors", "word_vectors", "shifts")}
        texts |= {f"{name}_{key}": getattr(cloze, key) for key in ("texts", "words")}
    aside = path.with_suffix(".aside.npz")
    np.savez(aside, **numbers)
    aside.replace(path.with_suffix(".npz"))
    aside = path.with_suffix(".aside.json")
    aside.write_text(json.dumps(texts), encoding="utf-8")
    aside.replace(path.with_suffix(".json"))


def load(path: Path) -> Prepared:
    """Read what `save` wrote."""
    texts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    with np.load(path.with_suffix(".npz")) as numbers:
        made = {
            name: Clozes(
                texts[f"{name}_texts"],
                numbers[f"{name}_vectors"],
                texts[f"{name}_words"],
                numbers[f"{name}_word_vectors"],
                numbers[f"{name}_shifts"],
            )
            for name in ("topics", "opinions")
        }
        return Prepared(
            lines=texts["lines"],
            held_lines=texts["held_lines"],
            first=texts["first"],
            second=texts["second"],
            cosine=numbers["cosine"],
            weight=numbers["weight"],
            held_pairs=numbers["held_pairs"],
            topics=made["topics"],
            opinions=made["opinions"],
        )
