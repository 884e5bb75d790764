"""Writes the losses and similarities that a results page of text tasks has, one row for each measured cell.

    python tools/text_losses.py --store results/harness.db --track mini-text --out docs/results/mini-text-losses.csv

The stored answer of a cell is asked how likely the references of train and dev are; a white-box reference keeps no
answer, and noted its losses when it was trained. What was written is compared with the references by the sentence
encoder. Rows that the file has already are kept, so an interrupted run goes on; a cell that was run once more is asked
again. It takes some seconds for each cell.
"""

from __future__ import annotations

import argparse
import sys
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.blackbox.text_pricing import mode_of, only_member
from harness.contract import TextTask
from harness.errors import HarnessError, InputError
from harness.evaluation.text_similarity import SentenceEncoder
from harness.lm.generation import text_model
from harness.lm.load import load_model
from harness.results.store import Store
from harness.solving import answers
from harness.tracks.examples import Source, load_shots, load_test
from harness.tracks.track import load_track, track_names, track_tasks
from tools.measured import measure
from tools.text_section import Row, read, write

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.contract import Answer, Examples
    from harness.leaderboard.entries import Entry
    from harness.lm.model import LanguageModel
    from harness.results.records import StoredCell
    from harness.tracks.track import Track

_ROUNDED = 1e-4
"""Most that rounding in the file does to a score."""


def loss(lm: LanguageModel, task: TextTask, answer: Answer, examples: Examples) -> float:
    """Mean over texts of the negative log-likelihood by token of the first reference, under an answer."""
    model, member = text_model(lm), only_member(answer)
    targets = model.target_ids(task.targets(examples))
    encoded = model.encode(member.template, examples.texts, mode_of(member), max(map(len, targets)))
    with lm.serving():
        return float(-model.score(member.prompt, encoded, targets).means.mean())


def score_of(entry: Entry, cell: StoredCell) -> float:
    """The test score of an entry's cell, 0 to 1."""
    return float(next(each.score for each in entry.cells if (each.task, each.split) == (cell.task, cell.split)))


class Asker:
    """Asks stored answers for what a row has. Model and encoder are loaded when the first cell needs them."""

    def __init__(self, track: Track, stores: Sequence[Store]) -> None:
        """Read answers from these stores."""
        self._track, self._stores, self._files = track, stores, track_tasks(track)
        self._source = Source(track.data.source)

    @cached_property
    def _lm(self) -> LanguageModel:
        return load_model(self._track.model, self._track.prompt)

    @cached_property
    def _encoder(self) -> SentenceEncoder:
        return SentenceEncoder()

    def row(self, entry: Entry, cell: StoredCell) -> Row | None:
        """The row of a cell; None where it wrote nothing, or its answer is not stored."""
        outputs = None if cell.record.outputs is None else cell.record.outputs.at(1.0)
        losses = self._losses(entry, cell)
        if outputs is None or losses is None:
            return None
        references = load_test(self._files[cell.task], self._source).references
        like = float(self._encoder.similarities(outputs, references).mean())
        return Row(cell.run, entry.name, cell.task, cell.split, *losses, score_of(entry, cell), like)

    def _losses(self, entry: Entry, cell: StoredCell) -> tuple[float, float] | None:
        """Loss on train and on dev."""
        if entry.white_box:
            note = cell.record.note
            return (note["loss"], note["dev_loss"]) if {"loss", "dev_loss"} <= set(note) else None
        blobs = (store.answer(cell.run, cell.task, cell.split) for store in self._stores)
        blob = next((each for each in blobs if each is not None), None)
        if blob is None:
            return None
        file, answer = self._files[cell.task], answers.from_bytes(blob)
        task, shots = (
            file.wording(self._track.profile, "causal"),
            load_shots(file, self._source, cell.split, self._track.tasks[cell.task]),
        )
        if not isinstance(task, TextTask):
            raise InputError(f"task {cell.task} has classes; take a track of text tasks")
        return loss(self._lm, task, answer, shots.train), loss(self._lm, task, answer, shots.dev)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compute what is missing, and write the file after each cell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", action="append", required=True, help="results database, may be given again")
    parser.add_argument("--track", default="mini-text", choices=track_names(), help="a track of text tasks")
    parser.add_argument("--out", type=Path, required=True, help="the CSV file")
    given = parser.parse_args(arguments)
    absent = [path for path in given.store if "://" not in path and not Path(path).is_file()]
    if absent:
        parser.error(f"{absent[0]}: no such results database")
    try:
        track, stores = load_track(given.track), [Store(path, create=False) for path in given.store]
        measured = measure(stores, track)
        kept = {(row.run, row.task, row.split): row for row in (read(given.out) if given.out.is_file() else ())}
    except HarnessError as problem:
        parser.error(str(problem))
    if measured is None:
        parser.error(f"no run on track {track.name} in {', '.join(given.store)}")
    wanted = [(entry, cell) for entry in measured.ranking.entries for cell in measured.runs.cells(entry.run)]
    asker, found = Asker(track, stores), list[Row]()
    for number, (entry, cell) in enumerate(wanted, start=1):
        known = kept.get((cell.run, cell.task, cell.split))
        if known is not None and abs(known.score - score_of(entry, cell)) > _ROUNDED:
            known = None  # the cell was run once more
        row = known or asker.row(entry, cell)
        where = f"[{number}/{len(wanted)}] {entry.name} {cell.task}/{cell.split}"
        if row is None:
            print(f"{where}: left out, for it wrote nothing, or no loss and no answer are stored")
            continue
        found.append(row)
        if known is None:
            write(given.out, {**kept, **{(each.run, each.task, each.split): each for each in found}}.values())
            print(
                f"{where}: loss on train {row.train_loss:.3f}, on dev {row.dev_loss:.3f}, score {100 * row.score:.1f}, "
                f"similarity {100 * row.similarity:.1f}",
                flush=True,
            )
    for store in stores:
        store.close()
    if not found:
        parser.error(f"no cell of {', '.join(given.store)} has an answer and its texts; {given.out} is left as it is")
    write(given.out, found)  # without rows of runs that do not count any more
    print(f"written: {given.out}, {len(found)} cells")
    return 0


if __name__ == "__main__":
    sys.exit(main())
