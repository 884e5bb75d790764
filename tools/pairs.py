"""Texts to train on, cut from any plain text: sentences, questions, altered copies, pairs of them.

No labels are used here. Pairs are only candidates. The unchanged sentence encoder (`teacher.py`)
scores them and is distilled into the cloze "A ? [MASK] , B".
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tools.wordnet import WordNet

ENTRY = re.compile(r"^([A-Za-z][\w' -]{1,30}): (.{8,200})$")
VERB = re.compile(r"(?:^\d+\. |v\. [ti]\. )To ([a-z]+ [^.;,:()]{6,45})[.;,:]")
CLAUSE = re.compile(
    r"^((?:[\w'-]+ ){1,7}?)(is|was|are|were|can|will|would|could|should|has been|had been) (.{8,110}?)\s*[.;!]*$"
)
ENGLISH = set("the a an of to in is was and that it he for with or i you on by as not".split())  # noqa: SIM905 - reads as prose
REVIEW = re.compile(
    r"\b(film|movie|comedy|drama|actor|acting|plot|director|story|character|audience|camera|scenes?|humou?r)s?\b"
)
HALF = 0.5
DEFINE = (
    "What is {t}?",
    "What does {t} mean?",
    "What exactly is {t}?",
    "Can someone explain {t}?",
    "How would you define {t}?",
)
USE = ("What is {t} used for?", "How do people use {t}?", "What can I do with {t}?")
ORIGIN = ("Where does {t} come from?", "What is the origin of {t}?", "Who invented {t}?")
KINDS = ("What are the different kinds of {t}?", "How many types of {t} are there?")
VALUE = ("Why is {t} important?", "Why does {t} matter?", "What are the benefits of {t}?")
CHOICE = ("What is the best {t}?", "Which {t} should I choose?", "What is a good {t} for beginners?")
LEARN = ("How can I learn about {t}?", "What is the best way to learn {t}?", "Where can I find good books on {t}?")
HARM = ("Is {t} dangerous?", "What are the disadvantages of {t}?", "What is wrong with {t}?")
PRICE = ("How much does {t} cost?", "What is the price of {t}?")
DIFFER = (
    "What is the difference between {t} and {u}?",
    "How does {t} differ from {u}?",
    "Which is better, {t} or {u}?",
)
NOUN_FRAMES = (DEFINE, USE, ORIGIN, KINDS, VALUE, CHOICE, LEARN, HARM, PRICE, DIFFER)
VERB_FRAMES = (
    ("How do I {t}?", "How can I {t}?", "What is the best way to {t}?", "What is the easiest way to {t}?"),
    ("Why do people {t}?", "Why would anyone want to {t}?", "What makes someone {t}?"),
    ("Is it possible to {t}?", "Can I {t}?", "Is there a way to {t}?"),
    ("Should I {t}?", "Is it a good idea to {t}?", "Is it wrong to {t}?"),
    ("What happens if I {t}?", "What happens when you {t}?"),
    ("How long does it take to {t}?", "How much time do you need to {t}?"),
    ("Where can I {t}?", "What is the best place to {t}?"),
)


@dataclass
class Units:
    """Single texts from which pairs are made."""

    texts: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    """"question" or "statement"."""
    groups: list[int] = field(default_factory=list)
    """Units of the same passage or dictionary entry share a group."""

    def add(self, text: str, kind: str, group: int) -> int:
        """Append one unit and return its index."""
        self.texts.append(text)
        self.kinds.append(kind)
        self.groups.append(group)
        return len(self.texts) - 1


def held_out(text: str) -> bool:
    """One line in 64, chosen by its own bytes, is never trained on."""
    return zlib.crc32(text.encode()) % 64 == 0


def is_english(text: str) -> bool:
    """Mostly ASCII, and at least one word in twelve is among the commonest."""
    words = text.lower().split()
    common = sum(word in ENGLISH for word in words)
    return bool(words) and common * 12 >= len(words) and len(text.encode()) <= len(text) * 1.05


def register(line: str) -> str:
    """The kind of a line by its form: "review", "gloss", "dictionary" or "prose"."""
    if ENTRY.match(line) and line[-1] not in "?!" and "#" not in line[:40] and not line[: line.index(":")].isupper():
        return "gloss"
    if (
        " , n." in line[:40]
        or " , a." in line[:40]
        or " , v." in line[:40]
        or re.match(r"^\d+\. [A-Z]|^Syn:|^Note:", line)
    ):
        return "dictionary"
    return "review" if REVIEW.search(line.lower()) else "prose"


def sentences(line: str) -> list[str]:
    """Sentences of 4 to 28 words."""
    return [piece for piece in re.split(r"(?<=[.!?;])\s+", line) if 4 <= len(piece.split()) <= 28]  # noqa: PLR2004


def questions_from_clause(sentence: str, rng: np.random.Generator) -> list[str]:
    """Questions a statement answers, by moving its subject, its verb or its last phrase."""
    match = CLAUSE.match(sentence)
    if match is None or match[1].strip().lower() in {
        "it",
        "he",
        "she",
        "they",
        "this",
        "that",
        "there",
        "i",
        "we",
        "you",
        "what",
        "which",
        "who",
    }:
        return []
    subject, verb, rest = match[1].strip(), match[2], match[3].strip(" ,`'")
    who = "Who" if len(subject.split()) <= 3 and all(word[0].isupper() for word in subject.split()) else "What"  # noqa: PLR2004
    found = [f"{who} {verb} {rest}?"]
    if " " not in verb:
        found.append(f"{verb.capitalize()} {subject} {rest}?")
        tail = re.search(r" (in|at|on|by|because|for|from|with) (\S+(?: \S+){0,6})$", rest)
        if tail is not None and tail.start() > 5:  # noqa: PLR2004
            wh = {"because": "Why", "by": "How", "for": "Why", "with": "How"}.get(
                tail[1], "When" if re.search(r"\d", tail[2]) else "Where"
            )
            found.append(f"{wh} {verb} {subject} {rest[: tail.start()]}?")
    return list(rng.permutation(found)[:2])


def alter(sentence: str, other: str, net: WordNet, rng: np.random.Generator) -> str:
    """A copy that says less, more, the same, or something else."""
    words = sentence.split()
    ways = (_drop_words, _keep_one_end, _add_words, _deny, _mix_in)
    relations = (net.synonyms, net.antonyms, net.hypernyms)
    how = int(rng.integers(len(ways) + len(relations)))
    if how < len(ways):
        return " ".join(ways[how](words, other.split(), rng)) or sentence
    relation = relations[how - len(ways)]
    return swap(words, relation, rng, most=1 if relation is net.antonyms else 3)


def _drop_words(words: list[str], _: list[str], rng: np.random.Generator) -> list[str]:
    keep = rng.random(len(words)) > rng.uniform(0.1, 0.6)
    return [word for word, kept in zip(words, keep, strict=True) if kept]


def _keep_one_end(words: list[str], _: list[str], rng: np.random.Generator) -> list[str]:
    cut = int(rng.integers(2, max(3, len(words) - 1)))
    return words[:cut] if rng.random() < HALF else words[-cut:]


def _add_words(words: list[str], other: list[str], rng: np.random.Generator) -> list[str]:
    return [*words[:-1], words[-1].rstrip(".;!?"), *other[-int(rng.integers(2, 7)) :]]


def _deny(words: list[str], _: list[str], __: np.random.Generator) -> list[str]:
    for i, word in enumerate(words):
        if word in {"is", "was", "are", "were", "can", "will", "would", "could", "should", "has", "had"}:
            return [*words[: i + 1], "not", *words[i + 1 :]]
    return ["No", "one", "says", "that", *words]


def _mix_in(words: list[str], other: list[str], rng: np.random.Generator) -> list[str]:
    return [other[int(rng.integers(len(other)))] if rng.random() < 0.3 else word for word in words]  # noqa: PLR2004


def swap(words: Sequence[str], table: dict[str, list[str]], rng: np.random.Generator, most: int) -> str:
    """Exchange up to `most` words for a relation's."""
    out = list(words)
    places = [i for i, word in enumerate(words) if len(word) > 3 and word.lower() in table]  # noqa: PLR2004
    for i in rng.permutation(places)[:most] if places else []:
        choices = table[words[i].lower()]
        out[i] = choices[int(rng.integers(len(choices)))]
    return " ".join(out)


def collect_units(lines: Sequence[str], limit: int, rng: np.random.Generator) -> Units:
    """About `limit` units: sentences, dictionary entries as statements, and questions about both."""
    units = Units()
    entries: list[tuple[str, str]] = []
    for number in rng.permutation(len(lines)):
        line = lines[int(number)]
        kind = register(line)
        if kind == "gloss":
            match = ENTRY.match(line)
            if match is not None and len(entries) < limit // 10:
                entries.append((match[1], match[2].split(';"')[0].split('; "')[0]))
            continue
        verb = VERB.search(line)
        if verb is not None and rng.random() < 0.3:  # noqa: PLR2004
            _add_questions(units, verb[1], "", VERB_FRAMES, int(number), rng)
        if kind == "dictionary" and rng.random() < 0.7:  # noqa: PLR2004
            continue
        if len(units.texts) > limit:
            break
        _add_sentences(units, line, int(number), rng)
    for number, (term, gloss) in enumerate(entries):
        group = len(lines) + number
        units.add(f"{term} is {gloss}" if rng.random() < HALF else f"{term}: {gloss}", "statement", group)
        if rng.random() < HALF:
            units.add(gloss, "statement", group)
        other = entries[int(rng.integers(len(entries)))][0]
        _add_questions(units, term, other, NOUN_FRAMES, group, rng, gloss)
    return units


def _add_sentences(units: Units, line: str, group: int, rng: np.random.Generator) -> None:
    for sentence in sentences(line)[:4]:
        units.add(sentence, "question" if sentence.endswith("?") else "statement", group)
        if rng.random() < HALF:
            for question in questions_from_clause(sentence, rng):
                units.add(question, "question", group)


def _add_questions(
    units: Units,
    term: str,
    other: str,
    frames: tuple[tuple[str, ...], ...],
    group: int,
    rng: np.random.Generator,
    gloss: str = "",
) -> None:
    """Two wordings of one intent, and one of another."""
    first, second = rng.permutation(len(frames))[:2]
    asked = [*rng.permutation(frames[first])[:2], frames[second][int(rng.integers(len(frames[second])))]]
    if gloss and rng.random() < 0.6:  # noqa: PLR2004
        asked.append(DEFINE[int(rng.integers(len(DEFINE)))])
    if re.search(r"\(\d{4}-\d{4}\)", gloss):
        asked = ["Who was {t}?", f"Who was the {gloss.split('(', maxsplit=1)[0].strip()}?"]
    elif re.match(r"an? (?:\w+ )?(?:city|town|river|mountain|island|village|port|lake)", gloss):
        asked = ["Where is {t}?", "In which country is {t}?"]
    for frame in asked:
        units.add(str(frame).replace("{t}", term).replace("{u}", other), "question", group)


def candidate_pairs(units: Units, vectors: np.ndarray, neighbours: int, rng: np.random.Generator) -> np.ndarray:
    """Index pairs over a broad spread of closeness: neighbours, same passage, anything.

    Args:
        units: the texts.
        vectors: unit vectors (units, width).
        neighbours: how many of the nearest to draw from.
        rng: chance.

    Returns:
        (pairs, 2) int32, either order.
    """
    count = len(units.texts)
    groups = np.asarray(units.groups)
    questions = np.flatnonzero(np.asarray(units.kinds) == "question")
    found: list[tuple[int, int]] = []
    for start in range(0, count, 1024):
        block = vectors[start : start + 1024] @ vectors.T
        near = np.argpartition(-block, neighbours, axis=1)[:, :neighbours]
        for i, row in enumerate(near):
            me = start + i
            wanted = 2 if units.kinds[me] == "question" else 1
            found.extend((me, int(partner)) for partner in rng.permutation(row[row != me])[:wanted])
    by_group: dict[int, list[int]] = {}
    for i, group in enumerate(groups):
        by_group.setdefault(int(group), []).append(i)
    for members in by_group.values():
        for me in members:
            if len(members) > 1:
                partner = int(rng.choice([other for other in members if other != me]))
                found.append((me, partner))
    found.extend((int(me), int(rng.integers(count))) for me in rng.permutation(count)[: count // 4])
    if len(questions):
        found.extend((int(me), int(rng.choice(questions))) for me in rng.permutation(questions)[: len(questions) // 4])
    pairs = np.asarray([pair for pair in found if units.texts[pair[0]] != units.texts[pair[1]]], dtype=np.int32)
    flip = rng.random(len(pairs)) < HALF
    # a question asks first when it meets a statement
    is_question = np.isin(pairs, questions)
    flip = np.where(is_question[:, 0] != is_question[:, 1], is_question[:, 1] & (rng.random(len(pairs)) < 0.9), flip)  # noqa: PLR2004
    pairs[flip] = pairs[flip][:, ::-1]
    return pairs
