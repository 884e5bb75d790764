"""A row holds every few-shot text of the tracks that ship, so that an honest query costs what it always cost."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from harness.errors import DataError
from harness.evaluation.replay import _priced_as
from harness.lm import embedded
from harness.lm.text import encode
from harness.results.records import CellRecord, StoredCell
from harness.tracks.examples import Source, load_shots, splits_of
from harness.tracks.track import load_track, track_tasks

if TYPE_CHECKING:
    from outer_models import Arena

KIT = Path(__file__).resolve().parents[3] / "shared" / "data" / "competition"


@pytest.mark.parametrize(("name", "source"), [("mini", Source("embedded")), ("kit", Source("kit", KIT))])
def test_the_longest_few_shot_text_of_every_task_fits_into_a_row(name: str, source: Source) -> None:
    """Under the task's own template, with the features of all tokens or without."""
    track, tokenizer = load_track(name), embedded.tokenizer(embedded.package_folder())
    for file in track_tasks(track).values():
        spec, task = track.tasks[file.name], file.task(track.profile, "masked")
        try:
            splits = splits_of(file, source, spec, present_only=True)
        except DataError as missing:
            pytest.skip(str(missing))
        texts = {text for n in splits for part in _parts(load_shots(file, source, n, spec)) for text in part}
        most = 512 - track.prompt.tokens
        longest = max(encode(tokenizer, "masked", task.template, text, most).text for text in texts)
        size = spec.tokens_of_a_row
        assert size is not None
        assert longest <= size


def _parts(shots: object) -> list[tuple[tuple[str, ...], ...]]:
    return [shots.train.texts, shots.dev.texts]  # type: ignore[attr-defined]


def test_the_sizes_that_a_track_ships_with_are_no_part_of_its_fingerprint_and_others_are() -> None:
    """Older runs had none, and their queries cost the same."""
    mini = load_track("mini")
    assert (mini.fingerprint, load_track("kit").fingerprint) == ("8088f363d2dc772a", "b8849aca530e113a")
    for size in (msgspec.UNSET, 16):
        tasks = mini.tasks | {"sst2": msgspec.structs.replace(mini.tasks["sst2"], row_tokens=size)}
        other = msgspec.structs.replace(mini, tasks=tasks)
        assert (other.fingerprint == mini.fingerprint) == (size is msgspec.UNSET)


@pytest.mark.parametrize(("then", "now"), [(None, None), (16, 16)])
def test_a_replay_prices_a_cell_as_it_was_priced_then(then: int | None, now: int | None, arena: Arena) -> None:
    """Cells of older versions had rows of any size."""
    spec = msgspec.structs.replace(arena.cell().spec, row_tokens=64)
    cell, stored = (
        dataclasses.replace(arena.cell(), spec=spec),
        StoredCell("run", "sst2", 1, 1, "ok", CellRecord(row_tokens=then), np.zeros(0), {}, 0.0, {}),
    )
    assert _priced_as(cell, stored).spec.tokens_of_a_row == now
    assert ("row_tokens" in CellRecord(row_tokens=then).plain()) == (then is not None)
