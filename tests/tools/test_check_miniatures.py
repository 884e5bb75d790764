"""The miniatures are what tools/check_miniatures.py demands, and each of its checks can fail."""

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
TASKS = ("sst2", "dbpedia", "snli", "qqp", "qnli")
PAIRS = ("snli", "qqp", "qnli")

Rows = list[dict[str, Any]]
Splits = dict[str, Rows]


def load_script() -> ModuleType:
    """Import tools/check_miniatures.py, which is in no package."""
    path = ROOT / "tools" / "check_miniatures.py"
    spec = importlib.util.spec_from_file_location("check_miniatures", path)
    if spec is None or spec.loader is None:
        raise ImportError(path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up here
    spec.loader.exec_module(module)
    return module


cm = load_script()


def random_text(rng: np.random.Generator) -> str:
    """Twelve words out of 4,000, without a meaning."""
    return " ".join(f"w{number}" for number in rng.integers(4000, size=12))


def sound_splits(task: str) -> Splits:
    """A data set of the task's size in which nothing gives the label away."""
    rng = np.random.default_rng(0)
    spec = cm.SPECS[task]
    splits: Splits = {}
    for split, size in (("pool", spec.pool_rows), ("test", spec.test_rows)):
        labels = list(spec.classes) * (size // len(spec.classes))
        rng.shuffle(labels)
        splits[split] = [{"texts": [random_text(rng) for _ in spec.columns], "label": label} for label in labels]
    return splits


def write_splits(splits: Splits, task: str, tasks_dir: Path) -> None:
    """Write the data set where the script looks for it."""
    mini = tasks_dir / task / "mini"
    mini.mkdir(parents=True)
    for split, rows in splits.items():
        lines = [json.dumps(row) for row in rows]
        (mini / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def failed_checks(splits: Splits, task: str, tasks_dir: Path) -> dict[str, Any]:
    """The checks that fail on the data set, by name."""
    write_splits(splits, task, tasks_dir)
    result = cm.check_task(task, tasks_dir)
    return {check.name: check for check in result.checks if not check.passed}


def add_word(splits: Splits, column: int) -> None:
    """Give every label away by a word in the column."""
    for row in splits["pool"] + splits["test"]:
        row["texts"][column] += f" sign{row['label']}"


def add_overlap(splits: Splits) -> None:
    """Give every label away by how many words of the first text return in the second."""
    for rows in splits.values():
        labels = sorted({row["label"] for row in rows})
        for row in rows:
            shared = row["texts"][0].split()[: 4 * labels.index(row["label"]) : 2]
            row["texts"][1] += " " + " ".join(reversed(shared))
            row["texts"][1] = row["texts"][1].strip()


@pytest.mark.parametrize("task", TASKS)
def test_sound_data_pass_every_check(task: str, tmp_path: Path) -> None:
    """Random words at random labels, in the right numbers, are no reason to complain."""
    assert failed_checks(sound_splits(task), task, tmp_path) == {}


def remove_row(splits: Splits) -> None:
    """Leave test one row short."""
    splits["test"].pop()


def swap_label(splits: Splits) -> None:
    """Give the first row of pool the other label."""
    row = splits["pool"][0]
    row["label"] = "positive" if row["label"] == "negative" else "negative"


def sort_pool(splits: Splits) -> None:
    """Sort pool by label."""
    splits["pool"].sort(key=lambda row: str(row["label"]))


def copy_with_new_word(splits: Splits) -> None:
    """Let row 5 of test be row 3 of pool but for its last word."""
    text = splits["pool"][2]["texts"][0]
    splits["test"][4]["texts"] = [text.rsplit(" ", 1)[0] + " other"]


def copy_in_capitals(splits: Splits) -> None:
    """Let row 5 of test be row 3 of pool in capitals."""
    splits["test"][4]["texts"] = [splits["pool"][2]["texts"][0].upper() + "!"]


@pytest.mark.parametrize(
    ("spoil", "name", "row"),
    [
        (remove_row, "rows in test", None),
        (swap_label, "balance of pool, rows off", None),
        (sort_pool, "order of pool, neighbours with one label", "pool:2"),
        (copy_with_new_word, "near-duplicates, largest 5-gram Jaccard", "pool:3~test:5 (0.78)"),
        (copy_in_capitals, "repeated texts in sentence", "pool:3=test:5"),
    ],
)
def test_spoilt_data_fail_the_check_that_names_the_fault(
    spoil: Callable[[Splits], None], name: str, row: str | None, tmp_path: Path
) -> None:
    """One fault makes its check fail, and the check names the row."""
    splits = sound_splits("sst2")
    spoil(splits)
    check = failed_checks(splits, "sst2", tmp_path)[name]
    assert row is None or row in check.rows


@pytest.mark.parametrize(
    "row",
    [
        [],
        {"texts": ["fine words"]},
        {"texts": ["fine words"], "label": "neutral"},
        {"texts": ["fine words", "one too many"], "label": "positive"},
        {"texts": "no list", "label": "positive"},
        {"texts": ["..."], "label": "positive"},
        {"texts": [" outer blank"], "label": "positive"},
        {"texts": ["a\nline"], "label": "positive"},
        {"texts": ["fine words"], "label": "positive", "id": 1},
    ],
)
def test_malformed_line_is_named(row: Any, tmp_path: Path) -> None:
    """A line that is no row fails the format and is counted out of the rest."""
    splits = sound_splits("sst2")
    splits["pool"][6] = row
    failed = failed_checks(splits, "sst2", tmp_path)
    assert failed["format of pool.jsonl, malformed lines"].rows == ("pool:7",)
    assert failed["rows in pool"].number == cm.SPECS["sst2"].pool_rows - 1


def test_line_that_is_not_json_is_named(tmp_path: Path) -> None:
    """Neither is a blank line JSON."""
    write_splits(sound_splits("sst2"), "sst2", tmp_path)
    with (tmp_path / "sst2" / "mini" / "test.jsonl").open("a", encoding="utf-8") as file:
        file.write("{\n\n")
    checks = {check.name: check for check in cm.check_task("sst2", tmp_path).checks}
    assert checks["format of test.jsonl, malformed lines"].rows == ("test:201", "test:202")


def test_missing_files_fail_without_a_score(tmp_path: Path) -> None:
    """What could not be measured has no number and does not pass."""
    checks = {check.name: check for check in cm.check_task("sst2", tmp_path).checks}
    assert not checks["format of pool.jsonl, malformed lines"].passed
    assert checks["accuracy by bag of words"].number is None
    assert not checks["accuracy by bag of words"].passed


def test_telling_word_fails_sst2(tmp_path: Path) -> None:
    """A word that gives the label away is found and named."""
    splits = sound_splits("sst2")
    add_word(splits, column=0)
    check = failed_checks(splits, "sst2", tmp_path)["accuracy by bag of words"]
    assert check.number == 1.0
    assert "positive: signpositive" in check.hint


def test_telling_word_in_hypothesis_fails_snli(tmp_path: Path) -> None:
    """The hypothesis alone must not give the label away."""
    splits = sound_splits("snli")
    add_word(splits, column=1)
    assert "accuracy by bag of words of hypothesis only" in failed_checks(splits, "snli", tmp_path)


def test_telling_word_in_premise_passes_the_check_of_hypotheses(tmp_path: Path) -> None:
    """Only the hypothesis is read for it."""
    splits = sound_splits("snli")
    add_word(splits, column=0)
    assert failed_checks(splits, "snli", tmp_path) == {}


@pytest.mark.parametrize("task", PAIRS)
def test_telling_word_overlap_fails_pairs(task: str, tmp_path: Path) -> None:
    """Shared words must not give the label away."""
    splits = sound_splits(task)
    add_overlap(splits)
    assert "accuracy by word overlap" in failed_checks(splits, task, tmp_path)


@pytest.mark.parametrize("task", PAIRS)
def test_repeated_single_text_fails_though_the_pair_is_new(task: str, tmp_path: Path) -> None:
    """Each column is searched for itself."""
    splits = sound_splits(task)
    for column, name in enumerate(cm.SPECS[task].columns):
        splits["test"][column]["texts"][column] = splits["pool"][0]["texts"][column]
        check = failed_checks(splits, task, tmp_path / str(column))[f"repeated texts in {name}"]
        assert check.rows == (f"pool:1=test:{column + 1}",)


def test_limit_itself_passes_or_fails_as_its_sign_says() -> None:
    """At most 0.80 lets 0.80 pass, less than 0.2 does not let 0.2 pass."""
    assert cm.Check("accuracy", 160 / 200, "<=", 0.80).passed
    assert not cm.Check("overlap", 0.2, "<", 0.2).passed


def test_overlap_features_of_a_pair() -> None:
    """Two words of three and of four are shared, five words in all."""
    row = cm.Row("pool:1", ("Red, green, blue.", "blue red black white"), "duplicate")
    assert cm.overlap_features(row) == (2 / 5, 2 / 3, 2 / 4, 1)


def test_style_is_reported_and_never_fails(tmp_path: Path) -> None:
    """One opening for all texts shows in the report alone."""
    splits = sound_splits("sst2")
    for row in splits["pool"] + splits["test"]:
        row["texts"][0] = "This film is " + row["texts"][0]
    write_splits(splits, "sst2", tmp_path)
    result = cm.check_task("sst2", tmp_path)
    reports = {report.name: report.numbers for report in result.reports}
    assert result.passed
    assert reports['most common opening of sentence, "this film is"']["share"] == 1.0
    assert reports["words in sentence, positive"] == {"min": 15, "mean": 15.0, "max": 15}
    assert 0 < reports["vocabulary"]["type-token ratio"] < 1


@pytest.mark.parametrize("task", TASKS)
def test_bag_of_words_is_measured_on_every_task(task: str, tmp_path: Path) -> None:
    """With a limit it is a check, without one a report."""
    write_splits(sound_splits(task), task, tmp_path)
    result = cm.check_task(task, tmp_path)
    assert "accuracy by bag of words" in {of.name for of in (*result.checks, *result.reports)}


def test_exit_code_and_lines_tell_of_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1, and the line has fact, number, limit and row."""
    splits = sound_splits("sst2")
    copy_in_capitals(splits)
    write_splits(splits, "sst2", tmp_path)
    assert cm.main(["--task", "sst2", "--tasks-dir", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "FAIL  repeated texts in sentence: 1 (limit = 0)" in out
    assert "rows: pool:3=test:5" in out


def test_json_of_sound_data_is_the_same_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 0, and nothing depends on chance."""
    for task in TASKS:
        write_splits(sound_splits(task), task, tmp_path)
    arguments = ["--tasks-dir", str(tmp_path), "--json"]
    assert cm.main(arguments) == 0
    first = capsys.readouterr().out
    assert cm.main(arguments) == 0
    assert capsys.readouterr().out == first
    found = json.loads(first)
    assert found["passed"]
    assert [task["task"] for task in found["tasks"]] == list(TASKS)


@pytest.mark.parametrize("task", TASKS)
def test_miniature_of_the_repository_passes(task: str) -> None:
    """The data that are shipped pass."""
    result = cm.check_task(task, ROOT / "tasks")
    assert result.passed, cm.format_task(result)
