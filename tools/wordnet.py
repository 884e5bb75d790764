"""Reads as much of WordNet's dictionary files as is needed to substitute words.

Reads `data.noun`, `data.verb`, `data.adj` and `data.adv` (format: wndb(5WN), as installed by
Debian's `wordnet-base`). Only lemmas of one word are kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

Pointer = tuple[str, str, int, int]
"""symbol, offset of the other synset, place of the word in this one and in the other"""
Synsets = dict[str, tuple[list[str], list[Pointer]]]
PARTS = ("noun", "verb", "adj", "adv")


@dataclass(frozen=True)
class WordNet:
    """Single-word lemmas by part of speech, and the relations between them."""

    lemmas: dict[str, set[str]] = field(default_factory=dict)
    """part of speech -> lemmas."""
    synonyms: dict[str, list[str]] = field(default_factory=dict)
    antonyms: dict[str, list[str]] = field(default_factory=dict)
    hypernyms: dict[str, list[str]] = field(default_factory=dict)


def read_wordnet(folder: Path | None) -> WordNet:
    """Read the four data files; a missing folder gives an empty WordNet."""
    found = WordNet(lemmas={part: set() for part in PARTS})
    if folder is None or not folder.is_dir():
        return found
    for part in PARTS:
        synsets = _read_part(folder / f"data.{part}")
        for words, pointers in synsets.values():
            found.lemmas[part].update(words)
            for word in words:
                _extend(found.synonyms, [word], [other for other in words if other != word])
            for pointer in pointers:
                _relate(found, words, pointer, synsets)
    return found


def _relate(found: WordNet, words: list[str], pointer: Pointer, synsets: Synsets) -> None:
    symbol, target, source_word, target_word = pointer
    others = synsets[target][0] if target in synsets else []
    if symbol == "!" and source_word <= len(words) and target_word <= len(others):
        _extend(found.antonyms, words[source_word - 1 : source_word], others[target_word - 1 : target_word])
    elif symbol in {"@", "@i"}:
        _extend(found.hypernyms, words, others)


def _extend(table: dict[str, list[str]], words: list[str], others: list[str]) -> None:
    kept = [other for other in others if other]
    if not kept:
        return
    for word in words:
        if word:
            table.setdefault(word, []).extend(kept)


def _read_part(path: Path) -> Synsets:
    """Offset -> (words, pointers); a word of several parts is kept as "" so that positions hold."""
    synsets: Synsets = {}
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith("  "):
                continue
            cells = line.split(" | ")[0].split()
            count = int(cells[3], 16)
            raw = [cells[4 + 2 * i].split("(")[0] for i in range(count)]
            words = [word.lower() if word.isalpha() else "" for word in raw]
            at = 4 + 2 * count
            pointers = []
            for i in range(int(cells[at])):
                symbol, target, _, link = cells[at + 1 + 4 * i : at + 5 + 4 * i]
                places = bytes.fromhex(link)  # the two words meant, counted from 1; 0 is the whole synset
                pointers.append((symbol, target, places[0], places[1]))
            synsets[cells[0]] = (words, pointers)
    return synsets
