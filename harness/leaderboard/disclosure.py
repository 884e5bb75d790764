"""What an entry was given of the model, what it sent to the service, and what its answers give away: stored facts.

Nothing is ranked by it. Two numbers stand for an entry:

- *stolen*: dimensions of the last layer that its queries could have shown: at most min(different rows, different
  words), and all of them where hidden states were given (`harness.results.asked`; Carlini et al., ICML 2024).
- *given away*: labelled examples whose text stands in clear in its answers' templates; and, where `harness leaks
  membership --entries` has measured it, how well its answers tell members of train from others.

Cells from before these counts are bounded by their ledger: a reply has 4 bytes for each number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from harness.blackbox.weights import LEVEL, parts_of, soft
from harness.contract import Coordinates, heads
from harness.errors import DataError, HarnessError
from harness.solving import answers
from harness.tracks.examples import load_shots
from harness.tracks.tasks import find_task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.contract import Answer, Shots
    from harness.leaderboard.entries import Entry
    from harness.results.asked import Asked
    from harness.results.membership import Told
    from harness.results.records import LedgerRow, StoredCell
    from harness.results.store import Store
    from harness.tracks.examples import Source
    from harness.tracks.track import Track

_MEMBERSHIP = ("found", "low", "high", "auc", "auc_low", "auc_high")
_FLOAT_BYTES, _DEEP, _STATES = 4, 2, 3


@dataclass(frozen=True)
class Disclosure:
    """An entry's numbers: the largest over its cells, unless it says otherwise."""

    entry: str
    run: str
    cells: int
    levels: tuple[int, ...]
    """Access levels of its queries: 0 text and logits, 1 input prompts, 2 deep prompts, 3 hidden states, 5 changes of
    weights. A query for hidden states has level 3 with or without a prompt, and 5 under changed weights."""
    rows: int
    """Rows that it was answered."""
    words: int | None
    """Different words whose logits it was given; None where cells did not count them."""
    numbers: int
    """Most numbers that a row of a reply can have held, by the ledger."""
    states: bool
    """Whether it was given hidden states."""
    dimensions: int | None
    """Dimensions of the last layer that its replies show at most, where no hidden states were given; with hidden
    states, and where words were not counted, None."""
    texts: int | None
    """Different texts that it sent in clear."""
    declared_bytes: int | None
    """Bytes of texts and subspaces that it sent."""
    up_bytes: int
    """Bytes of its queries."""
    answers: int
    """Cells whose answer is in the database."""
    in_clear: int | None
    """Labelled examples whose text stands in an answer's template; None where answers or texts are not at hand."""
    labelled: int
    """Labelled examples of the cell."""
    head_numbers: int
    """Numbers in the heads of an answer, which are fitted to hidden states of labelled examples."""
    prompt_numbers: int
    """Numbers in the prompts of an answer, and in its changes of weights."""

    @property
    def stolen(self) -> str:
        """The first number, for people."""
        if self.states:
            return "all: hidden states"
        if self.dimensions is not None:
            return f"{self.dimensions:,}"
        return f"at most {min(self.rows, self.numbers):,} a query" if self.rows else "0"

    @property
    def given_away(self) -> str:
        """The second number, for people."""
        return "not known" if self.in_clear is None else f"{self.in_clear} of {self.labelled}"

    @property
    def sent(self) -> str:
        """What of the participant's went to the service, for people."""
        texts = "texts in clear" if self.texts is None else f"{self.texts:,} texts in clear"
        prompts = ", prompts at the input" * (1 in self.levels) + ", prompts at deeper layers" * (_DEEP in self.levels)
        prompts += ", changes of weights" * (LEVEL in self.levels)
        shown = ", labels beside texts in templates" if self.in_clear else ", labels in no field"
        shown += "" if self.in_clear is not None else ", templates not at hand"
        return f"{texts}{prompts}{shown}" if self.rows else "nothing but its answer"


def disclosure(store: Store, entry: Entry, track: Track, source: Source) -> Disclosure:
    """The numbers of one entry.

    Args:
        store: the database with its cells, ledgers and answers.
        entry: of a ranking.
        track: whose splits are looked up.
        source: of the examples; where they are not at hand, texts cannot be found in templates.
    """
    cells = store.cells(entry.run)
    asked = [cell.record.asked for cell in cells]
    ledgers = [store.ledger(cell.attempt) for cell in cells]
    given = [(cell, answer) for cell in cells if (answer := _answer(store, cell)) is not None]
    clear = [_in_clear(answer, _shots(cell, track, source)) for cell, answer in given]
    counted = [each for each in asked if each is not None]
    complete = all(each is not None or not cell.record.queries for each, cell in zip(asked, cells, strict=True))
    levels = sorted({row.level for ledger in ledgers for row in ledger})
    states = _STATES in levels or any(each.states for each in counted)  # a query under changed weights has their level
    known = [each for each in clear if each is not None]
    return Disclosure(
        entry.name, entry.run, len(cells), tuple(levels),
        rows=max((cell.record.rows_spent for cell in cells), default=0),
        words=_most(each.words for each in counted) if complete else None,
        numbers=max((_numbers(row) for ledger in ledgers for row in ledger), default=0),
        states=states,
        dimensions=_most(map(_dimensions, counted)) if complete and not states else None,
        texts=_most(each.texts for each in counted) if complete else None,
        declared_bytes=max((cell.record.declared_bytes for cell in cells if cell.record.declared_bytes is not None),
                           default=None),
        up_bytes=max((cell.record.bytes_up for cell in cells), default=0),
        answers=len(given),
        in_clear=max((n for n, _ in known), default=0) if known and len(known) == len(cells) else None,
        labelled=max((n for _, n in known), default=0),
        head_numbers=max((_head_numbers(answer) for _, answer in given), default=0),
        prompt_numbers=max((_prompt_numbers(answer) for _, answer in given), default=0),
    )  # fmt: skip


def records(found: Sequence[Disclosure], told: Mapping[str, Told]) -> list[dict[str, Any]]:
    """Flat records for CSV and JSON; `told` has what membership inference found, by run."""
    names = list(Disclosure.__dataclass_fields__)
    rows = []
    for each in found:
        one = told.get(each.run)
        row = {name: getattr(each, name) for name in names}
        row |= {"levels": " ".join(map(str, each.levels)), "sent": each.sent}
        row |= {f"members_{name}": None if one is None else getattr(one, name) for name in _MEMBERSHIP}
        rows.append(row)
    return rows


def members(one: Told | None) -> str:
    """How well members are told from others, for people."""
    return "not measured" if one is None else f"{one.auc:.2f} [{one.auc_low:.2f}, {one.auc_high:.2f}]"


def table(found: Sequence[Disclosure], title: str, told: Mapping[str, Told]) -> Table:
    """A line for each entry; `told` has what membership inference found, by run."""
    made = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in (
        "entry",
        "stolen: dimensions",
        "given away: examples",
        "members told, AUC",
        "sent to the service",
        "KB up",
        "in the answer",
    ):
        made.add_column(name, overflow="fold", justify="right" if name == "KB up" else "left")
    for each in found:
        up = (each.up_bytes + (each.declared_bytes or 0)) / 1000
        inside = [f"{each.head_numbers:,} numbers of heads"] * bool(each.head_numbers)
        inside += [f"{each.prompt_numbers:,} of prompts or weights"] * bool(each.prompt_numbers)
        said = ", ".join(inside) or ("template and words" if each.answers else "not kept")
        one = escape(members(told.get(each.run)))
        made.add_row(escape(each.entry), each.stolen, each.given_away, one, each.sent, f"{up:,.1f}", said)
    return made


def in_clear(answer: Answer, shots: Shots) -> int:
    """How many labelled examples stand in clear in an answer's templates: all fields of a text must be there."""
    templates = " ".join(member.template for member in answer.members)
    flat = " ".join(templates.split())
    texts = {*shots.train.texts, *shots.dev.texts}
    return sum(all(" ".join(field.split()) in flat for field in text) for text in texts)


def _in_clear(answer: Answer, shots: Shots | None) -> tuple[int, int] | None:
    if shots is None:
        return None
    return in_clear(answer, shots), len({*shots.train.texts, *shots.dev.texts})


def _answer(store: Store, cell: StoredCell) -> Answer | None:
    blob = store.answer(cell.run, cell.task, cell.split)
    if not blob:
        return None
    try:
        return answers.from_bytes(blob)
    except HarnessError:
        return None


def _shots(cell: StoredCell, track: Track, source: Source) -> Shots | None:
    """The examples of a cell; None where they are not at hand."""
    if cell.task not in track.tasks or source.kind == "hub":
        return None
    try:
        file = find_task(cell.task, track.tasks_folder)
        return load_shots(file, source, cell.split, track.tasks[cell.task])
    except DataError:
        return None


def _dimensions(asked: Asked) -> int:
    return min(asked.rows, asked.dimensions())


def _numbers(row: LedgerRow) -> int:
    return row.bytes_down // _FLOAT_BYTES // max(row.rows, 1)


def _most(numbers: Any) -> int:
    return max(numbers, default=0)


def _head_numbers(answer: Answer) -> int:
    found = [member.head for member in answer.members if member.head is not None]
    return sum(np.size(getattr(head, name)) for head in found for name in heads.arrays_of(heads.kind_of(head)))


def _prompt_numbers(answer: Answer) -> int:
    """Numbers in soft prompts and in changes of weights; the noise of a walk's steps is no secret, and not counted."""
    given = [member.prompt for member in answer.members]
    changes = sum(int(part.z.size) for each in given for part in parts_of(each))
    prompts = [each for each in map(soft, given) if each is not None]
    return changes + sum(
        int(each.z.size) if isinstance(each, Coordinates) else int(each.values.size) for each in prompts
    )
