"""What runs is what was hashed: other code under the same digest, in every tier and for references.

The attacks here are not code of a submission but its folder, and so they stand beside the cheat.
"""

from __future__ import annotations

import importlib.util
import marshal
import sys
from importlib._bootstrap_external import _code_to_hash_pyc  # type: ignore[import-not-found]
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from made_up import key
from outer_models import write_submission

from harness.evaluation.referee import run_cell, run_reference
from harness.sandbox.submission import find

if TYPE_CHECKING:
    from outer_models import Arena

    from harness.results.records import CellRecord
    from harness.sandbox.submission import Submission
    from harness.tracks.tiers import Tier

TELLS = """
from pathlib import Path
import helper.word

def tune(lm, task, shots, rng, config):
    here = Path(__file__).parent
    print("word", helper.word.WORD)
    print("names", *sorted(str(path.relative_to(here)) for path in here.rglob("*")))
    print("times", *sorted({int(path.stat().st_mtime) for path in (here, *here.rglob("*"))}))
    try:
        (here / "note").write_text("for the next cell")
        print("written")
    except OSError as refused:
        print("refused")
    yield Answer.of(task)
"""
NAMES = "names helper helper/__init__.py helper/word.py submission.py"


@pytest.fixture
def planted(arena: Arena) -> Submission:
    """A submission whose caches hold other code, and data, than its sources."""
    place = write_submission(arena.folder, TELLS)
    package = place / "helper"
    (package / "__pycache__").mkdir(parents=True)
    (package / "__init__.py").write_text("", encoding="utf-8")
    source = package / "word.py"
    source.write_text("WORD = 'hashed'\n", encoding="utf-8")
    code = compile("WORD = 'planted'\n", str(source), "exec")
    compiled = Path(importlib.util.cache_from_source(str(source)))
    compiled.write_bytes(_code_to_hash_pyc(code, importlib.util.source_hash(b""), False))  # never checked
    assert marshal.loads(compiled.read_bytes()[16:]) == code  # noqa: S302 - made a line above
    (package / "__pycache__" / "labels.txt").write_text("0 1 1 0", encoding="utf-8")
    (place / "empty-1-0-0-1").mkdir()
    return find(place)


def run(arena: Arena, found: Submission, tier: Tier, number: int = 0) -> CellRecord:
    attempt = arena.store.begin(arena.store.open_run(key(seed=number), {}), "sst2", 1)
    return run_cell(arena.cell(), found, {}, arena.lm, attempt, lambda *_: None, tier).record


def test_neither_compiled_code_nor_data_in_caches_nor_empty_folders_reach_a_worker(
    arena: Arena, planted: Submission, tier: Tier
) -> None:
    said = run(arena, planted, tier).output.splitlines()
    assert said == ["word hashed", NAMES, "times 1656374400", "refused"]


def test_an_edit_between_two_cells_changes_nothing(arena: Arena, planted: Submission, tier: Tier) -> None:
    first = run(arena, planted, tier)
    (planted.path / "helper" / "word.py").write_text("WORD = 'edited'\n", encoding="utf-8")
    (planted.path / "note.txt").write_text("from the first cell", encoding="utf-8")
    assert run(arena, planted, tier, 1).output == first.output


def test_the_plant_is_a_real_one(planted: Submission) -> None:
    """The positive control: Python itself takes the compiled file that lies there."""
    sys.path.insert(0, str(planted.path))
    try:
        import helper.word  # type: ignore[import-not-found]

        assert helper.word.WORD == "planted"
    finally:
        sys.path.remove(str(planted.path))
        for name in ("helper", "helper.word"):
            sys.modules.pop(name, None)


def test_a_traceback_names_the_author_s_own_file(arena: Arena, tier: Tier) -> None:
    found = find(write_submission(arena.folder, "def tune(lm, task, shots, rng, config):\n    1 / 0"))
    detail = run(arena, found, tier).detail
    assert f'File "{found.path}/submission.py", line ' in detail
    assert "harness-snapshot" not in detail


def test_a_reference_runs_what_was_hashed_too(arena: Arena, planted: Submission) -> None:
    body = """
    import helper.word
    from harness.evaluation.white_box import Predictor
    access = "white-box"

    def tune(lm, task, shots, rng, config):
        yield Predictor(lambda texts: np.full((len(texts), 2), 0.5), {"planted": helper.word.WORD == "planted"})
    """
    write_submission(arena.folder, body)
    attempt = arena.store.begin(arena.store.open_run(key(), {}), "sst2", 1)
    verdict = run_reference(arena.cell(), find(planted.path), {}, arena.lm, attempt, lambda *_: None)
    assert verdict.record.note == {"planted": 0.0}
