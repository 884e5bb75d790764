"""Tracebacks begin in the author's file, and a stack at a timeout is read from the worker's word with care."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import QueryError, SubmissionError
from harness.sandbox import traces
from harness.sandbox.answering import offered
from harness.sandbox.submission import loaded

if TYPE_CHECKING:
    from collections.abc import Callable

HEAD = "from dataclasses import dataclass\nimport harness\n\n@dataclass\nclass Config:\n    pass\n\n"


def raised(folder: Path, body: str) -> tuple[BaseException, str]:
    """What the generator of a submission raises, and the traceback that its author is shown."""
    (folder / "submission.py").write_text(HEAD + body, encoding="utf-8")
    try:
        with loaded(folder, {}) as solver:
            offered(solver.tune(None, None, None, None, None), lambda _answer: None)
    except Exception as problem:  # noqa: BLE001 - whatever it is
        return problem, traces.authors(problem, folder)
    raise AssertionError("nothing was raised")


def frames(text: str) -> list[str]:
    """The frames of a traceback, this file's aside, which stands where a worker's would."""
    return [line for line in text.splitlines() if line.startswith('  File "') and __file__ not in line]


def test_it_begins_in_the_authors_file_and_goes_on_into_libraries(tmp_path: Path) -> None:
    _, said = raised(tmp_path, "import json\n\ndef tune(*_):\n    json.loads('{')\n    yield 1\n")
    first, *rest = frames(said)
    assert first.startswith(f'  File "{tmp_path}/submission.py", line ')
    assert first.endswith(", in tune")
    assert rest
    assert all("/json/" in line for line in rest)
    assert "harness/sandbox" not in said


def test_causes_begin_in_the_authors_file_too(tmp_path: Path) -> None:
    body = """
def inner():
    raise KeyError("lost")

def tune(*_):
    try:
        inner()
    except KeyError as problem:
        raise ValueError("found") from problem
    yield 1
"""
    _, said = raised(tmp_path, body)
    assert said.count("Traceback (most recent call last):") == 2
    assert "The above exception was the direct cause" in said
    assert all(str(tmp_path) in line for line in frames(said))


def test_groups_are_cut_as_well(tmp_path: Path) -> None:
    _, said = raised(
        tmp_path, "def tune(*_):\n    raise ExceptionGroup('many', [ValueError('a'), KeyError('b')])\n    yield\n"
    )
    assert "ValueError: a" in said
    assert all(str(tmp_path) in line for line in frames(said))


def test_a_syntax_error_is_shown_without_the_import_system(tmp_path: Path) -> None:
    _, said = raised(tmp_path, "def tune(:\n    yield 1\n")
    assert said.splitlines()[0].strip().startswith(f'File "{tmp_path}/submission.py", line 8')
    assert "importlib" not in said


def test_an_error_of_the_call_itself_has_no_frames_of_ours(tmp_path: Path) -> None:
    problem, said = raised(tmp_path, "def tune(lm):\n    yield 1\n")
    assert isinstance(problem, TypeError)
    assert frames(said) == []


def test_an_error_that_began_in_the_harness_below_the_author_is_whole(tmp_path: Path) -> None:
    body = """
from harness.blackbox.query import Query

def tune(*_):
    Query.of(3, [], None, None, None, False)
    yield 1
"""
    problem, said = raised(tmp_path, body)
    assert isinstance(problem, QueryError)
    assert str(tmp_path) in frames(said)[0]
    assert "harness/blackbox/query.py" in frames(said)[1]


def dump(*blocks: tuple[tuple[str, int, str], ...]) -> str:
    """Stacks as `faulthandler` writes them, most recent call first."""
    return "\n".join(
        "Thread 0x00007f (most recent call first):\n"
        + "".join(f'  File "{path}", line {line} in {name}\n' for path, line, name in block)
        for block in blocks
    )


def test_of_several_threads_the_authors_is_shown_in_the_usual_order() -> None:
    own = (("/usr/lib/python3/time.py", 9, "sleep"), ("/s/submission.py", 2, "inner"), ("/s/submission.py", 1, "tune"))
    said = traces.of_dump(
        "printed\n" + dump((("/lib/threading.py", 1, "run"),), (*own, ("/h/worker.py", 5, "_run"))) + "more",
        Path("/s"),
        {"submission.py": b"inner()\nsleep(9)\n"},
    )
    assert said.splitlines() == [
        traces.HEAD,
        '  File "/s/submission.py", line 1, in tune', "    inner()",
        '  File "/s/submission.py", line 2, in inner', "    sleep(9)",
        '  File "/usr/lib/python3/time.py", line 9, in sleep',
    ]  # fmt: skip


def test_a_made_up_stack_makes_the_referee_read_no_file(tmp_path: Path) -> None:
    """The output is the submission's word: it could name a file of labels, whose lines would then be in its log."""
    secret = tmp_path / "labels.txt"
    secret.write_text("the answer is 42\n", encoding="utf-8")
    said = traces.of_dump(
        dump(((str(secret), 1, "x"), ("/s/../labels.txt", 1, "y"), ("/s/submission.py", 1, "tune"))), Path("/s"), {}
    )
    assert said
    assert "42" not in said
    assert str(secret) in said


@given(st.text(), st.lists(st.tuples(st.text(alphabet="ab/.", min_size=1), st.integers(0, 10**6), st.text())))
def test_no_output_is_too_strange(noise: str, stack: list[tuple[str, int, str]]) -> None:
    said = traces.of_dump(f"{noise}\n{dump(tuple(stack))}{noise}", Path("/a"), {"b": b"\xff\n"})
    assert said == "" or said.startswith(traces.HEAD)


def test_a_deep_recursion_is_shown_by_its_end() -> None:
    deep = tuple(("/s/submission.py", 1, f"f{n}") for n in range(500))
    assert len(frames(traces.of_dump(dump(deep), Path("/s"), {}))) == 30


@pytest.mark.parametrize(
    ("given_back", "says"),
    [(None, "tune returned None"), (3, "tune returned int"), (lambda: 1, "tune returned function")],
)
def test_a_tune_that_gives_no_iterator_is_told_to_yield(given_back: object, says: str) -> None:
    with pytest.raises(SubmissionError, match=f"{says}.*`yield answer`"):
        offered(given_back, lambda _answer: None)


def test_what_a_generator_yields_is_offered_in_order_and_its_return_is_not() -> None:
    from harness.contract import Answer, Member

    answer = Answer((Member("{a} {mask}", ("a", "b")),))
    seen: list[object] = []
    offer: Callable[[object], None] = seen.append

    def tune() -> object:
        yield 1
        yield 2
        return answer

    assert "does not count" in offered(tune(), offer)
    assert offered(iter([3]), offer) == ""
    assert offered((each for each in (4,)), offer) == ""
    assert seen == [1, 2, 3, 4]
