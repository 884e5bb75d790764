"""Write the miniatures of the text tasks: tasks/{headline,describe,reply,plain}/mini/{pool,test}.jsonl.

    python tools/make_text_miniatures.py            # writes them
    python tools/make_text_miniatures.py --check    # says what is wrong with those that are there

Each text is put together from phrases that were written for this project, in `tools/text_phrases.py`; nothing is copied
from anywhere, and the data are dedicated to the public domain (CC0 1.0). Chance comes from fixed seeds, so that the
same bytes are written everywhere. What a task asks for is a style that its references share and its template does not
name: how long a headline is, or which words are plain. Examples show it.

What is checked: sizes; no text twice, neither in a set nor over both; no content (the phrases without names, days and
numbers) both in pool and in test; no reference that stands in its text as it is; references of 3 to 24 words; and no
reference that serves more than a twentieth of a set.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import re
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.text_phrases import (
    ACTS,
    CAUSES,
    CONDITIONS,
    EVENTS,
    FEATURES,
    KINDS,
    NAMES,
    NOTES,
    OPENINGS,
    PLACES,
    QUARTERS,
    SERVICES,
    SPEAKERS,
    VISITORS,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[1]
POOL, TEST = 96, 240
SHORTEST, LONGEST = 3, 24
MOST_ALIKE = 0.05
_MOST_DRAWS = 100_000
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@dataclass(frozen=True)
class Item:
    """One example, with the content by which it is told from others."""

    text: str
    references: tuple[str, ...]
    content: tuple[object, ...]


def headlines(chance: random.Random) -> Iterator[Item]:
    """A passage of local news, and its headline: the place, what happened, and why, without articles."""
    while True:
        place, event, cause = chance.choice(PLACES), chance.choice(EVENTS), chance.choice(CAUSES)
        day, speaker, note = chance.choice(DAYS), chance.choice(SPEAKERS), chance.choice(NOTES)
        text = f"{event[0].format(place=place)} on {day} {cause[0]}. {speaker} said that {note}."
        other = f"On {day}, {event[0].format(place=place)[0].lower()}{event[0].format(place=place)[1:]} {cause[0]}."
        if chance.random() < 0.5:  # noqa: PLR2004 - two ways to begin a passage
            text = f"{other} {speaker} said that {note}."
        yield Item(text, (f"{place} {event[1]} {cause[1]}",), (event, cause))


def descriptions(chance: random.Random) -> Iterator[Item]:
    """Attributes with their values, and a sentence that says them all."""
    while True:
        name, kind, quarter = chance.choice(NAMES), chance.choice(KINDS), chance.choice(QUARTERS)
        feature, visitor = chance.choice(FEATURES), chance.choice(VISITORS)
        fields = [
            f"name: {name}", f"kind: {kind}", f"place: {quarter[0]}", f"has: {feature[0]}", f"for: {visitor[0]}",
        ]  # fmt: skip
        first = f"{name} is {_article(kind)} {kind} {quarter[1]} with {feature[1]}, good for {visitor[1]}."
        second = f"With {feature[1]}, {name} is {_article(kind)} {kind} {quarter[1]} that suits {visitor[1]}."
        head, rest = fields[0], fields[1:]
        chance.shuffle(rest)
        yield Item(" | ".join([head, *rest]), (first, second), (name, kind, quarter, feature))


def replies(chance: random.Random) -> Iterator[Item]:
    """Three turns of a short dialogue, and the reply: what was asked for in one sentence, and what happens next."""
    while True:
        service = chance.choice(SERVICES)
        what, detail = chance.choice(service.things), chance.choice(service.details)
        day = chance.choice(DAYS)
        asked = chance.choice(service.openings).format(thing=what, day=day)
        answer = chance.choice((f"{_first_upper(detail)}.", f"Well, {detail}."))
        text = f"A: {asked}\nB: {service.question}\nA: {answer}"
        said = f"{service.recap.format(thing=what, day=day, detail=detail)} {service.end}"
        yield Item(text, (said,), (service.question, what, detail))


def paraphrases(chance: random.Random) -> Iterator[Item]:
    """A formal sentence, and what it says in plain words."""
    while True:
        opening, act, condition = chance.choice(OPENINGS), chance.choice(ACTS), chance.choice(CONDITIONS)
        first = chance.random() < 0.4  # noqa: PLR2004 - the condition stands first in two of five sentences
        formal = f"{_first_upper(condition[0])}, {opening[0][0].lower()}{opening[0][1:]} {act[0]}."
        if not first:
            formal = f"{opening[0]} {act[0]} {condition[0]}."
        yield Item(formal, (f"Please {act[1]} {condition[1]}.",), (act, condition))


MAKERS: dict[str, Callable[[random.Random], Iterator[Item]]] = {
    "headline": headlines,
    "describe": descriptions,
    "reply": replies,
    "plain": paraphrases,
}


def made(name: str) -> tuple[list[Item], list[Item]]:
    """Pool and test of a task: different contents, each once."""
    seen: set[tuple[object, ...]] = set()
    texts: set[str] = set()
    found: list[Item] = []
    chance = random.Random(f"harness text miniatures, {name}")  # noqa: S311 - data, not a secret
    for item in itertools.islice(MAKERS[name](chance), _MOST_DRAWS):
        if item.content not in seen and item.text not in texts:
            seen.add(item.content)
            texts.add(item.text)
            found.append(item)
        if len(found) == POOL + TEST:
            return found[:POOL], found[POOL:]
    raise SystemExit(f"{name}: {len(found)} different contents, {POOL + TEST} are needed; add phrases")


def lines(items: list[Item]) -> str:
    """Items as they are written."""
    rows = ({"texts": [item.text], "references": list(item.references)} for item in items)
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def problems(name: str) -> Iterator[str]:
    """What is wrong with the miniature that is there."""
    for part, items in zip(("pool", "test"), made(name), strict=True):
        path = ROOT / "tasks" / name / "mini" / f"{part}.jsonl"
        if not path.is_file() or path.read_text(encoding="utf-8") != lines(items):
            yield f"{path}: not what this program writes; run it without --check"
            continue
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for number, row in enumerate(rows, start=1):
            for right in row["references"]:
                if right in row["texts"][0]:
                    yield f"{path}:{number}: the reference stands in the text"
                if not SHORTEST <= len(right.split()) <= LONGEST:
                    yield f"{path}:{number}: a reference of {len(right.split())} words"
                if re.search(r"\s{2}|\s[.,]|[{}]|\b(\w+) \1\b", right + row["texts"][0]):
                    yield f"{path}:{number}: a doubled word or space, a space before a sign, or a brace"
        most, count = Counter(row["references"][0] for row in rows).most_common(1)[0]
        if count > MOST_ALIKE * len(rows):
            yield f"{path}: {count} of {len(rows)} texts have the reference {most!r}"


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _first_upper(text: str) -> str:
    return text[0].upper() + text[1:]


def main() -> int:
    """Write or check all miniatures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if something is wrong")
    if not parser.parse_args().check:
        for name in MAKERS:
            folder = ROOT / "tasks" / name / "mini"
            folder.mkdir(parents=True, exist_ok=True)
            for part, items in zip(("pool", "test"), made(name), strict=True):
                (folder / f"{part}.jsonl").write_text(lines(items), encoding="utf-8")
    found = [problem for name in MAKERS for problem in problems(name)]
    print("\n".join(found) or f"{', '.join(MAKERS)}: {POOL} texts in each pool, {TEST} in each test set, no problem")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
