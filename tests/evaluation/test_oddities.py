"""Data whose scores mislead are told in a line each, with the count."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console

from harness.contract import Examples, Shots
from harness.evaluation.oddities import odd_test, oddities
from harness.evaluation.overrides import Overrides
from harness.evaluation.preparation import Preparation
from harness.evaluation.progress import PlainProgress
from harness.tracks.tasks import load_task
from harness.tracks.track import load_track

if TYPE_CHECKING:
    from pathlib import Path

SNLI, SST2 = load_task("snli"), load_task("sst2")


def examples(name: str, *labels: int, fields: int = 1) -> Examples:
    return Examples(tuple((f"{name} {n}",) * fields for n in range(len(labels))), np.array(labels, dtype=np.int64))


GOOD = {8: Shots(examples("a", 0, 1), examples("b", 1, 0))}
TEST = examples("t", 0, 1, 1)


def test_good_data_are_passed_over() -> None:
    assert oddities(SST2, GOOD, TEST) == []
    assert Preparation(load_track("mini"), Overrides()).oddities == ()


def test_a_part_of_one_class_is_told() -> None:
    train, dev = Shots(examples("a", 1, 1), GOOD[8].dev), Shots(GOOD[8].train, examples("b", 0))
    assert oddities(SST2, {8: train, 13: dev}, TEST) == [
        "sst2/8: train has 2 texts, none of 1 class: negative",
        "sst2/13: dev has 1 text, none of 1 class: positive",
    ]


def test_test_texts_among_the_examples_are_counted() -> None:
    test = Examples((*TEST.texts, ("a 0",), ("b 1",)), np.array([0, 1, 1, 0, 1]))
    assert oddities(SST2, GOOD, test) == ["sst2: 2 of 5 texts of the test set stand in train or dev of split 8"]


def test_a_class_that_never_occurs_in_the_test_set_is_told_with_what_is_the_best_score() -> None:
    (line,) = odd_test(SNLI, examples("t", 0, 2, 2, fields=2))
    assert line == (
        f"snli: the test set has 3 texts, none of 1 class: {SNLI.classes[1]}; perfect predictions score 66.7 macro-F1"
    )


def test_the_lines_are_printed_before_anything_runs(tmp_path: Path) -> None:
    folder = tmp_path / "SST-2"
    (folder / "8").mkdir(parents=True)
    (folder / "8" / "train.tsv").write_text("good\tpositive\nfine\tpositive\n", encoding="utf-8")
    (folder / "8" / "dev.tsv").write_text("good film\tpositive\nbad film\tnegative\n", encoding="utf-8")
    (folder / "test.tsv").write_text("good\tpositive\nbad\tnegative\n", encoding="utf-8")
    prepared = Preparation(load_track("kit"), Overrides(data=tmp_path, tasks=("sst2",)))
    out = io.StringIO()
    PlainProgress(Console(file=out, width=200)).noticed(prepared.oddities)
    assert out.getvalue().splitlines() == [
        "odd data: sst2/8: train has 2 texts, none of 1 class: negative",
        "odd data: sst2: 1 of 2 texts of the test set stand in train or dev of split 8",
    ]
