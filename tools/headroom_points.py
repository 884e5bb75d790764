"""Writes leaderboard/headroom.csv: measured cells from which `harness headroom` foretells what tuning adds.

python tools/headroom_points.py STORE [--track mini] [--track kit --data DIR]

For each cell of the tracks on which the bare template and at least two tuning entries are in STORE, it asks the track's
model two calls and reads the test scores. The file holds the cells of all given tracks.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.errors import HarnessError
from harness.evaluation.headroom import POINTS, Point, signals
from harness.evaluation.overrides import Overrides
from harness.evaluation.run import Evaluation
from harness.evaluation.text_cells import with_classes
from harness.leaderboard.rank import rank
from harness.leaderboard.table import write_text
from harness.results.store import Store
from harness.tracks.examples import load_shots
from harness.tracks.track import load_track

if TYPE_CHECKING:
    from collections.abc import Sequence

NO_TUNING = ("manual", "icl")
"""Entries that use no labels to tune."""
LEAST_ENTRIES = 2


def points(results: Store, name: str, data: Path | None) -> list[Point]:
    """The measured cells of one track."""
    track = load_track(name)
    ranking = rank(results, track.name, track.fingerprint, track.planned, track.ranks)
    entries = [each for each in ranking.entries if not each.white_box]
    bare = next((each for each in entries if each.name == "manual"), None)
    tuning = [each for each in entries if each.name.partition("[")[0] not in NO_TUNING and not each.missing]
    if bare is None or len(tuning) < LEAST_ENTRIES:
        print(f"{name}: no bare template, or no complete tuning entry in the store; left out", file=sys.stderr)
        return []
    with_scores = [{(cell.task, cell.split): cell.score for cell in each.cells} for each in (bare, *tuning)]
    evaluation = Evaluation(track, Overrides(data=data), Store("sqlite://"))
    found = []
    for cell in evaluation.cells:
        place = (cell.task.name, cell.split)
        shots = load_shots(cell.file, cell.source, cell.split, cell.spec)
        base, *tuned = (scores[place] for scores in with_scores)
        known = signals(evaluation.model_for(cell), with_classes(cell.task, "headroom"), shots)
        found.append(Point(evaluation.lm.name, name, *place, known, float(np.mean(tuned)) - base, len(tuned)))
        print(found[-1], file=sys.stderr)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the file; where no cell was measured, it is left as it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", help="results database")
    parser.add_argument("--track", action="append", default=[], help="repeatable; default mini")
    parser.add_argument("--data", type=Path, help="data directory of the track kit")
    parser.add_argument("--out", type=Path, default=POINTS)
    given = parser.parse_args(arguments)
    tracks = given.track or ["mini"]
    try:
        results = Store(given.store, create=False)
        found = [each for track in tracks for each in points(results, track, given.data if track == "kit" else None)]
        if not found:
            raise HarnessError(
                f"no measured cell of {', '.join(tracks)} in {given.store}; {given.out} is left as it is"
            )
        write_text(as_csv(found), given.out)
    except HarnessError as problem:
        parser.error(str(problem))
    print(f"{len(found)} cells are written to {given.out}")
    return 0


def as_csv(found: Sequence[Point]) -> str:
    """The file's text."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["model", "track", "task", "split", "bare", "centred", "texts", "gain", "entries"])
    for each in found:
        s = each.signals
        numbers = (f"{s.bare:.4f}", f"{s.centred:.4f}", s.texts, f"{each.gain:.4f}", each.entries)
        writer.writerow([each.model, each.track, each.task, each.split, *numbers])
    return stream.getvalue()


if __name__ == "__main__":
    sys.exit(main())
