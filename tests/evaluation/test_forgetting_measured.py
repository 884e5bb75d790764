"""What an answer forgets, measured on the embedded model: texts, words, the command, and what it refuses."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from made_up import key
from typer.testing import CliRunner, Result

from harness.cli import app
from harness.contract import Answer, Member, Prompt, Task, WeightSpace
from harness.errors import AnswerError, InputError, StoreError
from harness.evaluation.forgetting import (
    OTHER_TASKS,
    Measure,
    Sizes,
    changes_of,
    clozes,
    masked_loss,
    read_passages,
)
from harness.evaluation.overrides import Overrides
from harness.results.observations import forgotten
from harness.results.packed import pack
from harness.results.records import CellRecord, KeptAnswer
from harness.results.store import Store
from harness.solving.answers import to_bytes
from harness.tracks.examples import Source, load_test
from harness.tracks.tasks import load_task
from harness.tracks.track import load_track

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TASK = Task("qqp", ("no", "yes"), "accuracy", "{a} {mask} , {b}", ("no", "yes"))
BIASES = WeightSpace("biases", 2, 0.3, 1, (3, 4, 5))
HEADS = WeightSpace("attention", 0, 0.02, 2, (5,), rank=1)
PROMPT = Prompt(np.full((1, 1, 2, 384), 0.1, dtype=np.float32))
SIZES = Sizes(texts=12, passages=9)
SMALL = ("--texts", 12, "--passages", 9)


@pytest.fixture(scope="module")
def measure() -> Iterator[Measure]:
    store = Store("sqlite://")
    yield Measure(load_track("mini"), Overrides(), store, SIZES, [])
    store.close()


def answered(store: Store, answer: Answer | None, model: str, label: str = "tuned", **identity: Any) -> str:
    """A run on `mini` with one cell on qqp and this answer."""
    run = store.open_run(key(label, track="mini", model_sha256=model, **identity), {})
    test = load_test(load_task("qqp"), Source("embedded"))
    kept = [KeptAnswer(1.0, 0, b"" if answer is None else to_bytes(answer), np.zeros(len(test), dtype=np.int64))]
    attempt = store.begin(run, "qqp", 1)
    attempt.finish("ok", CellRecord(format="int8", access=identity.get("access", "black-box")), "t", test.labels, kept)
    return run


def ask(*arguments: Any) -> Result:
    return CliRunner().invoke(app, ["forget", *map(str, arguments)])


def test_changes_are_those_of_the_answer_s_members_without_prompts_and_once() -> None:
    one, two = BIASES.at([1, 2]), BIASES.at([2, 1]) + HEADS.walk([1], [1.0])
    members = tuple(Member.of(TASK, each) for each in (None, one, two, PROMPT, BIASES.at([1, 2], PROMPT), one))
    found = changes_of(Answer(members))
    assert [len(each.parts) for each in found] == [1, 2]
    assert all(each.prompts is None for each in found)
    assert changes_of(Answer.of(TASK)) == []


def test_words_are_masked_in_their_own_passage_and_drawn_by_the_seed(measure: Measure) -> None:
    passages = ["The film was long and boring .", "too short", "A dog ran to the house .", "xq zzqqx1 vvqk 77 88"]
    asked = clozes(measure.lm, passages, TASK, Sizes(passages=5))
    assert len(asked.texts) == 2
    for (before, after), target in zip(asked.texts, asked.targets, strict=True):
        word = measure.lm.words[asked.words[target]]
        whole = f"{before} {word} {after}"
        assert whole.lower() in [each.lower() for each in passages]
    same, other = (clozes(measure.lm, passages, TASK, Sizes(passages=5, seed=seed)) for seed in (0, 3))
    assert same.texts == asked.texts != other.texts
    with pytest.raises(InputError, match="none of 1 passages has a word of one token"):
        clozes(measure.lm, ["no"], TASK, SIZES)


def test_a_large_change_makes_masked_words_harder_and_none_leaves_them(measure: Measure) -> None:
    asked = measure._asked("qqp", ["sst2", "snli"])
    still, wild = (masked_loss(measure.lm, BIASES.at(z), asked) for z in (np.zeros(2), np.full(2, 8.0)))
    assert 0 < still < 12
    assert wild > still + 0.1
    assert measure._published(BIASES.at([1, 2]), "qqp", asked) == still


def test_the_command_measures_stores_and_does_not_measure_again(
    measure: Measure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "results.db"
    store = Store(str(path))
    answer = Answer((Member.of(TASK, BIASES.at([3, -3])), Member.of(TASK, HEADS.walk([1, 2], [1.0, 1.0]))))
    run = answered(store, answer, measure.lm.sha256, "tuned[dim=2]")
    answered(store, Answer.of(TASK), measure.lm.sha256, "plain")
    store.close()
    done = ask("tuned[dim=2]", "plain", "--store", path, *SMALL, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    (row,) = found["forgetting"]
    assert (row["entry"], row["run"], row["task"], row["changes"], row["texts"]) == ("tuned[dim=2]", run, "qqp", 2, 12)
    others = ("dbpedia", "qnli", "snli", "sst2")
    assert row["other_tasks"] == pytest.approx(
        np.mean([row[f"{name}_after"] - row[f"{name}_before"] for name in others]), abs=1e-5
    )
    assert "qqp_before" not in row
    assert 0 < row["masked_before"] != row["masked_after"]
    assert found["without"] == ["plain qqp/1: its answer changes no weights; there is nothing to forget"]
    assert "other tasks" in done.stderr
    store = Store(str(path))
    (fact,) = forgotten(store)[run]
    assert (fact.source, fact.format, fact.passages) == (OTHER_TASKS, "int8", 9)
    store.close()
    monkeypatch.setattr(Measure, "_score", None)
    again = ask("tuned[dim=2]", "--store", path, *SMALL)
    assert again.exit_code == 0, again.output
    assert "tuned[dim=2] qqp/1" in again.stdout
    assert "tuned[dim=2], mean" in again.stdout


def test_passages_may_be_one_s_own(measure: Measure, tmp_path: Path) -> None:
    path, text = tmp_path / "results.db", tmp_path / "own.txt"
    text.write_text("The film was long and boring .\n\nA dog ran to the house .\n", encoding="utf-8")
    store = Store(str(path))
    answered(store, Answer.of(TASK, BIASES.at([1, 1])), measure.lm.sha256)
    store.close()
    done = ask("tuned", "--store", path, "--texts", 4, "--text", text, "--json")
    (row,) = json.loads(done.stdout)["forgetting"]
    assert row["passages"] == 2
    assert len(row["source"]) == 64


def test_what_cannot_be_measured_is_refused_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    store = Store(str(path))
    answered(store, None, "m", "reference", access="white-box")
    answered(store, Answer.of(TASK, BIASES.at([1, 1])), "another")
    store.close()
    for arguments, says in (
        (("reference",), "is white-box: the weights that it trained are not stored"),
        (("tuned", "--split", 9), "has no finished cell like that"),
        (("nobody",), "has no run 'nobody'"),
        (("tuned", "--text", tmp_path / "none.txt"), "cannot be read"),
        (("tuned", *SMALL), "was computed by weights another, and those here are"),
    ):
        failed = ask(*arguments, "--store", path)
        assert isinstance(failed.exception, InputError), failed.output
        assert says in str(failed.exception)
    assert ask("tuned", "--store", path, "--texts", 0).exit_code == 2
    assert ask().exit_code == 2
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(InputError, match="is empty"):
        read_passages(tmp_path / "empty.txt")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read"):
        read_passages(tmp_path / "bytes.txt")


def test_an_answer_whose_bytes_were_left_out_is_not_said_to_change_nothing(
    measure: Measure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a published database; nor is a cell without an answer. What cannot be stored is not measured."""
    whole, thin, packed = tmp_path / "whole.db", tmp_path / "thin.db.xz", tmp_path / "packed.db.xz"
    store = Store(str(whole))
    answered(store, Answer((Member.of(TASK, BIASES.at([1, 2])),)), measure.lm.sha256)
    failed = store.open_run(key("failed", track="mini", model_sha256=measure.lm.sha256), {})
    labels = load_test(load_task("qqp"), Source("embedded")).labels
    store.begin(failed, "qqp", 1).finish("crashed", CellRecord(), "t", labels, [])
    store.close()
    pack(whole, thin, answers=False)
    pack(whole, packed)
    monkeypatch.setattr(measure, "_score", lambda *_: pytest.fail("it was measured"))
    for path, said in (
        (thin, ["the bytes of its answer are not in this database", "it ended as crashed and has no answer"]),
        (packed, ["attempt to write a readonly database", "it ended as crashed and has no answer"]),
    ):
        store = Store(str(path), create=False)
        monkeypatch.setattr(measure, "store", store)
        for run, message in zip(store.runs(), said, strict=True):
            (cell,) = store.cells(run.id)
            with pytest.raises((AnswerError, StoreError), match=message):
                measure.of_cell(run, cell, lambda _said: None)
        store.close()
