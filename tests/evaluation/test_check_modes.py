"""`harness check` beyond the fake model: one real query, the debugger, files beside the submission, small budgets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from outer_models import write_submission

from harness.blackbox.fake import FakeLM, FakeModel, fake_shots, fake_task
from harness.cli.scaffold import create
from harness.errors import InputError, QueryError, SubmissionError
from harness.evaluation.check import check
from harness.evaluation.overrides import Overrides
from harness.tracks.track import load_track

if TYPE_CHECKING:
    from pathlib import Path

    from outer_models import Arena

    from harness.lm.model import LanguageModel

COUNTS = """
def tune(lm, task, shots, rng, config):
    for answer in search(lm, task, shots, rng, config):
        print(lm.info.name, lm.budget.rows_left)
        yield answer
"""


@pytest.mark.parametrize("here", [True, False])
def test_the_real_model_is_asked_once(tiny_track: Path, tmp_path: Path, here: bool, capfd: Any) -> None:
    """The first query is answered and priced by the track, the second one ends the check."""
    place = write_submission(tmp_path, COUNTS, "counts")
    report = check(place, {}, here=here, track=load_track(str(tiny_track)))
    real = report["real"]
    assert (real["track"], real["rows"], real["calls"], real["budget_calls"]) == ("tiny", 16, 2.0, 10)
    assert real["where"].startswith("tiny sst2/1, ")
    assert 0 <= real["dev"] <= 1
    assert real["whole_budget_s"] > 0
    printed = report["output"] + capfd.readouterr().err
    own = [line for line in printed.splitlines() if line and not line.startswith("fake ")]
    assert [line.split()[-1] for line in own] == ["80", "64"]
    assert any("one real query, 16 rows, 2.0 of 10 calls" in line for line in report["lines"])


def test_another_cell_of_the_track_can_be_chosen(tiny_track: Path, tmp_path: Path) -> None:
    place = write_submission(tmp_path, COUNTS, "counts")
    chosen = Overrides(tasks=("qqp",), splits=(1,))
    report = check(place, {}, track=load_track(str(tiny_track)), choices=chosen)
    assert report["real"]["where"].startswith("tiny qqp/1, ")
    with pytest.raises(InputError, match=r"no task 'qq' \(did you mean 'qqp'"):
        check(place, {}, track=load_track(str(tiny_track)), choices=Overrides(tasks=("qq",)))


def test_what_fails_on_the_real_model_alone_fails_the_check(tiny_track: Path, tmp_path: Path) -> None:
    """The fake model takes any word; a real tokenizer cuts this one into pieces."""
    body = """
    def tune(lm, task, shots, rng, config):
        yield Answer.of(task)
        lm.logits(None, shots.train.texts, words=[" class0", " extraordinariness"])
    """
    place = write_submission(tmp_path, body, "long_word")
    assert check(place, {})["real"] is None
    with pytest.raises(SubmissionError, match=r"label word ' class0' is \d tokens of"):
        check(place, {}, track=load_track(str(tiny_track)))


def test_a_first_query_that_is_too_large_for_the_track_is_told(tiny_track: Path, tmp_path: Path) -> None:
    """On the fake model it fits."""
    body = """
    def tune(lm, task, shots, rng, config):
        yield Answer.of(task)
        space = Subspace(4, (1.0,), 2, seed=1)
        lm.logits(space.at(rng.standard_normal((20, 4))), shots.train.texts)
    """
    place = write_submission(tmp_path, body, "large")
    assert check(place, {})["calls"] == 20
    with pytest.raises(SubmissionError, match=r"asked for 160 rows, which are 20\.0 calls, and the whole budget is 80"):
        check(place, {}, track=load_track(str(tiny_track)))


def test_a_package_that_the_track_allows_can_be_imported_and_is_listed(tiny_track: Path, tmp_path: Path) -> None:
    place = write_submission(
        tmp_path, "import rich\n\ndef tune(lm, task, *_):\n    yield Answer.of(task)\n", "rich_one"
    )
    with pytest.raises(SubmissionError, match="no module 'rich', installed or not"):
        check(place, {})
    allowed = tmp_path / "tiny.toml"
    text = tiny_track.read_text(encoding="utf-8")
    allowed.write_text(f'{text}\n[packages]\nallow = ["rich"]\n', encoding="utf-8")
    report = check(place, {}, track=load_track(str(allowed)))
    assert [each for each in report["importable"] if each.startswith("rich ")]
    assert any("rich " in line for line in report["lines"])


@pytest.mark.parametrize("calls", [1, 3, 5, 10, 37])
def test_a_new_submission_fits_into_any_budget_and_spends_all_of_it(tmp_path: Path, calls: int) -> None:
    """Its first query asked for ten calls, whatever there were."""
    report = check(create("mysolver", tmp_path), {}, here=True, calls=calls)
    assert report["calls"] == calls
    assert report["answers"] >= 2


def test_a_new_submission_searches_on_a_small_budget_for_real(arena: Arena) -> None:
    body = (create("mysolver", arena.folder) / "submission.py").read_text(encoding="utf-8").split("annotations\n", 1)[1]
    run = arena.run(body, calls=3)
    assert (run.status, run.record.rows_spent) == ("ok", 3 * 8)


def test_several_files_make_a_submission(tmp_path: Path) -> None:
    """A module, a package and data beside it, as README says."""
    body = """
    import helper
    from parts import deeper
    from pathlib import Path

    def tune(lm, task, shots, rng, config):
        word = (Path(__file__).parent / "words.txt").read_text().strip()
        print(helper.double(deeper.NUMBER), word)
        yield Answer.of(task)
    """
    place = write_submission(tmp_path, body, "several")
    (place / "parts").mkdir()
    (place / "parts" / "deeper.py").write_text("NUMBER = 21\n", encoding="utf-8")
    (place / "helper.py").write_text("def double(n):\n    return 2 * n\n", encoding="utf-8")
    (place / "words.txt").write_text("word\n", encoding="utf-8")
    assert check(place, {})["output"] == "42 word\n"


DEBUGGED = """
def tune(lm, task, shots, rng, config):
    number = 41
    breakpoint()
    yield Answer.of(task)
"""


def debugged(place: Path, typed: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "harness.cli", "check", str(place), "--here", "--timeout", "30"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONBREAKPOINT"}
    return subprocess.run(
        program, input=typed, capture_output=True, text=True, check=False, env=environment, timeout=200
    )


def test_a_breakpoint_opens_the_debugger_at_the_authors_line(tmp_path: Path) -> None:
    place = write_submission(tmp_path, DEBUGGED, "debugged")
    done = debugged(place, "p number + 1\nc\n")
    assert done.returncode == 0, done.stderr
    assert "(Pdb) 42" in done.stdout
    assert "debugged/submission.py" in done.stdout.split("(Pdb)")[0]
    assert "-> yield Answer.of(task)" in done.stdout
    left = debugged(place, "q\n")
    assert left.returncode == 2
    assert "the debugger was left, and the check ended with it" in left.stderr


def test_a_breakpoint_in_a_worker_says_where_it_works(tmp_path: Path) -> None:
    place = write_submission(tmp_path, DEBUGGED, "debugged")
    with pytest.raises(SubmissionError, match=r"in tune\n +breakpoint\(\)\n(.*\n)*.*needs a terminal.*check --here"):
        check(place, {})


@pytest.mark.parametrize("here", [True, False])
def test_there_may_be_no_limit_of_time(tmp_path: Path, here: bool) -> None:
    for wall_s in (None, float("inf")):
        assert check(write_submission(tmp_path, COUNTS), {}, here=here, wall_s=wall_s)["calls"] == 200


@pytest.mark.parametrize("wall_s", [-1.0, -0.001, float("nan")])
def test_a_time_that_is_none_is_refused(tmp_path: Path, wall_s: float) -> None:
    with pytest.raises(InputError, match=r"--timeout .*more than 0"):
        check(write_submission(tmp_path, COUNTS), {}, wall_s=wall_s)


def test_a_plain_string_is_read_as_a_tuple_of_one_by_fake_and_real(tiny_lm: LanguageModel) -> None:
    """The fake took its characters for fields or words."""
    task = fake_task()
    shots = fake_shots(task, np_generator(), 2)
    lm, free = FakeLM.for_task(task, shots, 100), FakeModel(task, 0, 3, 16, 4)
    plain: list[Any] = [text[0] for text in shots.train.texts]
    assert lm.logits(None, plain).tolist() == lm.logits(None, shots.train.texts).tolist()
    asked: Any = (None, plain, task.template, task.words)
    assert free.outputs(*asked).logits.tolist() == lm.logits(None, shots.train.texts).tolist()
    real: Any = (None, ["A fine film."], "{a} It was {mask}.", ("bad", "good"), "mask")
    fields: Any = (None, [("A fine film.",)], *real[2:])
    assert tiny_lm.outputs(*real).logits.tolist() == tiny_lm.outputs(*fields).logits.tolist()
    one: Any = " good"
    assert lm.word_ids(one) == lm.word_ids((" good",))
    assert tiny_lm.word_ids(one) == tiny_lm.word_ids((" good",))
    assert len(lm.word_ids(one)) == 1
    word: Any = task.words[0]
    assert lm.logits(None, plain, words=word).tolist() == lm.logits(None, plain, words=(word,)).tolist()
    wrong: Any = "a text"
    with pytest.raises(QueryError, match="a sequence of texts expected"):
        lm.logits(None, wrong)


def test_the_fake_vocabulary_has_words_like_a_real_ones() -> None:
    lm = FakeLM.for_task(fake_task(), fake_shots(fake_task(), np_generator(), 2), 10)
    vocabulary = lm.vocabulary()
    words = [word for word in vocabulary if word]
    spaced = [word for word in words if word.startswith(" ") and word[1:].isalpha()]
    assert len(spaced) > 300
    assert {" great", " terrible", " yes", "ing", " ."} <= set(words)
    assert all(lm.word_ids([word]) == [[number]] for number, word in enumerate(vocabulary) if word)
    text = fake_shots(fake_task(), np_generator(), 2).train.texts[0][0]
    ids = [lm.word_ids([f" {word}"])[0][0] for word in text.split()]
    assert [vocabulary[each] for each in ids] == [f" {word}" for word in text.split()]


def np_generator() -> Any:
    """A generator with a fixed seed."""
    import numpy as np

    return np.random.default_rng(0)


def test_the_report_is_json(tiny_track: Path, tmp_path: Path) -> None:
    place = write_submission(tmp_path, COUNTS, "counts")
    report = check(place, {}, track=load_track(str(tiny_track)))
    assert json.loads(json.dumps(report, allow_nan=False)) == report
