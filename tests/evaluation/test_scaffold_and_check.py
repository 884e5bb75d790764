"""`harness new` and `harness check`: a first submission, and what is wrong with it."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.cli.scaffold import create
from harness.errors import InputError, SubmissionError
from harness.evaluation.check import check
from harness.sandbox import best_tier

if TYPE_CHECKING:
    from outer_models import Arena


@pytest.fixture(autouse=True)
def modules() -> Any:
    path, kept = list(sys.path), dict(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - set(kept):
        del sys.modules[name]


def write(folder: Path, body: str) -> Path:
    place = folder / "mine"
    place.mkdir()
    head = (
        "from dataclasses import dataclass\nfrom harness import Answer\n\n@dataclass\nclass Config:\n    a: int = 1\n\n"
    )
    (place / "submission.py").write_text(head + body, encoding="utf-8")
    return place


def test_a_new_submission_passes_its_check(tmp_path: Path) -> None:
    folder = create("mysolver", tmp_path / "submissions")
    report = check(folder, {})
    assert report["submission"] == "mysolver"
    assert report["answers"] > 1
    assert report["calls"] == 200
    assert report["dev_accuracy"] > 0.5
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "submission.py"]


def test_a_new_submission_runs_for_real(arena: Arena) -> None:
    folder = create("mysolver", arena.folder)
    body = (folder / "submission.py").read_text(encoding="utf-8").split("annotations\n", 1)[1]
    run = arena.run(body)
    assert run.status == "ok"
    assert run.record.rows_spent == run.record.rows_total
    assert "loss" in run.record.note


def test_options_reach_the_check(tmp_path: Path) -> None:
    folder = create("mysolver", tmp_path)
    assert "population=5" in "\n".join(check(folder, {"population": "5"})["lines"])


@pytest.mark.parametrize("name", ["", "1st", "a b", "../a", "x" * 65, "a/b"])
def test_a_name_that_cannot_be_used_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="name"):
        create(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_exists_is_left_alone(tmp_path: Path) -> None:
    create("mine", tmp_path)
    (tmp_path / "mine" / "submission.py").write_text("work of weeks")
    with pytest.raises(InputError, match="exists already"):
        create("mine", tmp_path)
    assert (tmp_path / "mine" / "submission.py").read_text() == "work of weeks"


def test_a_place_that_cannot_be_written_is_an_error() -> None:
    with pytest.raises(InputError, match="cannot be made"):
        create("mine", Path("/dev/null"))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def tune(lm, task, shots, rng, config):\n    return\n    yield\n", "without a single answer"),
        ("def tune(lm, task, shots, rng, config):\n    yield 3\n", "tune yielded int"),
        ("def tune(lm, task, shots, rng, config):\n    raise KeyError('lost')\n    yield\n", "KeyError: 'lost'"),
        ("def tune(lm, task, shots, rng, config):\n    raise SystemExit(0)\n    yield\n", "SystemExit"),
        ("import sys\nsys.exit(0)\n", "SystemExit"),
        ("def tune(lm):\n    yield\n", "TypeError"),
        (
            "def tune(lm, task, shots, rng, config):\n    return None\n",
            "returned None.*yield answer.*, not `return answer",
        ),
        ("def tune(lm, task, shots, rng, config):\n    return Answer.of(task)\n", "returned Answer.*`yield answer`"),
        ("def tune(lm, task, shots, rng, config):\n    return 3\n", "returned int.*`yield answer`"),
        (
            "def tune(lm, task, shots, rng, config):\n    return Answer.of(task)\n    yield\n",
            "single answer.*yield answer",
        ),
        ("x = 1\n", "no function tune"),
        ("def tune(:\n", "SyntaxError"),
    ],
)
@pytest.mark.parametrize("here", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_what_is_wrong_is_said(tmp_path: Path, body: str, message: str, here: bool) -> None:
    with pytest.raises(SubmissionError, match=message):
        check(write(tmp_path, body), {}, here=here)


@pytest.mark.parametrize("here", [True, False])
def test_an_answer_that_breaks_the_contract_is_said(tmp_path: Path, here: bool) -> None:
    with pytest.raises(InputError, match="members"):
        check(write(tmp_path, "def tune(lm, task, shots, rng, config):\n    yield Answer(())\n"), {}, here=here)


@pytest.mark.parametrize("here", [True, False])
def test_a_loop_without_end_is_ended_even_if_it_swallows_everything(tmp_path: Path, here: bool) -> None:
    before = signal.getsignal(signal.SIGALRM)
    body = """
def tune(lm, task, shots, rng, config):
    yield Answer.of(task)
    while True:
        try:
            pass
        except Exception:
            pass
"""
    with pytest.raises(SubmissionError, match=r"no end after [13] s") as refused:
        check(write(tmp_path, body), {}, here=here, wall_s=1 if here else 3)
    said = str(refused.value)
    assert "Where it was (most recent call last):\n" in said, said
    assert 'mine/submission.py", line ' in said.split("last):\n")[1].splitlines()[0]  # it begins in the author's file
    assert ", in tune" in said
    assert signal.getsignal(signal.SIGALRM) == before


@pytest.mark.parametrize("here", [True, False])
def test_what_a_submission_prints_is_not_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], here: bool
) -> None:
    body = "def tune(lm, task, shots, rng, config):\n    print('hello')\n    yield Answer.of(task)\n"
    report = check(write(tmp_path, body), {}, here=here)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert ("hello" in captured.err, "hello" in report["output"]) == (here, not here)


def test_both_ways_to_check_report_the_same(tmp_path: Path) -> None:
    folder = create("mysolver", tmp_path)
    one, two = (check(folder, {"population": "5"}, here=here) for here in (True, False))
    same = ("answers", "calls", "end", "dev_accuracy", "submission")
    assert [one[name] for name in same] == [two[name] for name in same]
    assert (one["sandbox"], two["sandbox"]) == ("", best_tier.best().tier)


STEALS = """
def tune(lm, task, shots, rng, config):
    with open({path!r}, "a") as file:
        file.write("seen")
    yield Answer.of(task)
"""


@pytest.mark.skipif(best_tier.best().tier == "0", reason="no sandbox holds here")
def test_a_stranger_s_code_does_not_run_as_the_caller(tmp_path: Path) -> None:
    """It ran in the caller's own process, root's included."""
    mine = tmp_path / "diary.txt"
    mine.write_text("mine", encoding="utf-8")
    mine.chmod(0o666)
    place = write(tmp_path, STEALS.format(path=str(mine)))
    with pytest.raises(SubmissionError) as refused:
        check(place, {})
    assert mine.read_text(encoding="utf-8") == "mine"
    assert f"In the sandbox there is no {str(mine)!r}, whether it is on the machine or not" in str(refused.value)
    assert "docs/sandbox.md" in str(refused.value)
    check(place, {}, here=True)  # the positive control
    assert mine.read_text(encoding="utf-8") == "mineseen"


@pytest.mark.skipif(best_tier.best().tier == "0", reason="no sandbox holds here")
@pytest.mark.parametrize("module", ["transformers", "no_such_module"])
def test_a_module_that_the_sandbox_hides_is_said_to_be_hidden(tmp_path: Path, module: str) -> None:
    body = f"def tune(lm, task, shots, rng, config):\n    import {module}\n    yield Answer.of(task)\n"
    with pytest.raises(SubmissionError, match=rf"no module '{module}', installed or not.*numpy, scipy.*sandbox\.md"):
        check(write(tmp_path, body), {})
