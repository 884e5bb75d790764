"""Every line of a plan runs its cell or says why not, and all lines together are one evaluation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from outer_models import write_submission

from harness import cli
from harness.errors import InputError
from harness.evaluation.overrides import Overrides
from harness.evaluation.plan import CellId, plan, planned
from harness.leaderboard.rank import rank
from harness.results.audit import audit
from harness.results.store import Store
from harness.sandbox.submission import find
from harness.tracks.track import load_track

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
HEX = "0123456789abcdef"


@given(
    NAMES, st.text(HEX, min_size=8, max_size=8), NAMES, st.text(HEX, min_size=12, max_size=12), NAMES,
    st.integers(0, 10**6), st.dictionaries(NAMES, st.text(st.characters(exclude_categories=["Cs"]), max_size=8)),
)  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_a_cell_is_one_line_and_read_back_as_it_was(
    track: str, basis: str, name: str, sha256: str, task: str, split: int, options: dict[str, str]
) -> None:
    cell = CellId(track, basis, name, sha256, task, split, tuple(sorted(options.items())))
    line = str(cell)
    assert line.isascii()
    assert line.isprintable()
    assert not set(line) & set(" '\"$`\\;|<>()")
    assert CellId.parse(f"{line}\n") == cell


@given(st.text(max_size=60))
@settings(max_examples=200, deadline=None)
def test_what_is_no_line_of_a_plan_is_an_error(text: str) -> None:
    with pytest.raises(InputError, match="not a line"):
        CellId.parse(text)


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line.replace("/sst2/", "/sst2/0"),
        lambda line: line.replace("@", ""),
        lambda line: line[:-2],
        lambda line: line + "?",
        lambda line: line + "?b=1&a=2",
        lambda line: line + "/x",
        lambda line: line.replace("sst2", "ss%742"),
    ],
)
def test_a_line_that_was_edited_is_an_error(change: Any, tiny_track: Path, tmp_path: Path) -> None:
    line = lines(tiny_track, tmp_path)[0]
    with pytest.raises(InputError, match="not a line"):
        CellId.parse(change(line))


def lines(track: Path, folder: Path, **choices: Any) -> list[str]:
    entry = find(write_submission(folder, "tune = search"))
    return [str(cell) for cell in plan(load_track(str(track)), Overrides(**choices), [entry], {})]


def test_a_plan_names_the_cells_that_an_evaluation_would_run(tiny_track: Path, tmp_path: Path) -> None:
    found = [CellId.parse(line) for line in lines(tiny_track, tmp_path)]
    assert [(cell.task, cell.split) for cell in found] == [("sst2", 1), ("qqp", 1), ("sst2", 2)]
    assert lines(tiny_track, tmp_path) == [str(cell) for cell in found]
    assert len(lines(tiny_track, tmp_path, tasks=("qqp",))) == 1
    with pytest.raises(InputError, match="no task 'mnli'"):
        lines(tiny_track, tmp_path, tasks=("mnli",))
    entry = find(tmp_path / "entry")
    with pytest.raises(InputError, match="named twice"):
        plan(load_track(str(tiny_track)), Overrides(), [entry, entry], {})


def test_references_are_planned_where_they_may_run_and_refused_elsewhere(tiny_track: Path, tmp_path: Path) -> None:
    entry = find(write_submission(tmp_path, 'access = "white-box"\ntune = search'))
    with pytest.raises(InputError, match=r"is a white-box reference: .* allow that with --white-box"):
        plan(load_track(str(tiny_track)), Overrides(), [entry], {})
    assert len(plan(load_track(str(tiny_track)), Overrides(white_box=True), [entry], {})) == 3


def test_a_plan_is_of_one_version_of_the_submission(tiny_track: Path, tmp_path: Path) -> None:
    cell, track = CellId.parse(lines(tiny_track, tmp_path)[2]), load_track(str(tiny_track))
    choices, submission = planned(cell, track, Overrides(), [tmp_path / "entry"])
    assert (choices.tasks, choices.splits, submission.name) == (("sst2",), (2,), "entry")
    write_submission(tmp_path, "tune = search  # changed")
    with pytest.raises(InputError, match=r"another version of .*entry, whose digest is .*plan again"):
        planned(cell, track, Overrides(), [tmp_path / "entry"])


@pytest.mark.parametrize("choices", [{"seed": 1}, {"calls": 3}, {"device": "cpu"}, {"p0": Path("p0")}])
def test_a_plan_is_of_one_set_of_choices(tiny_track: Path, tmp_path: Path, choices: dict[str, Any]) -> None:
    cell, track = CellId.parse(lines(tiny_track, tmp_path)[0]), load_track(str(tiny_track))
    with pytest.raises(InputError, match="or with other choices"):
        planned(cell, track, Overrides(**choices), [tmp_path / "entry"])


def test_a_plan_is_of_one_track(tiny_track: Path, tmp_path: Path) -> None:
    cell = CellId.parse(lines(tiny_track, tmp_path)[0])
    with pytest.raises(InputError, match="of track tiny, not mini"):
        planned(cell, load_track("mini"), Overrides(), [tmp_path / "entry"])
    changed = tmp_path / "tiny.toml"
    changed.write_text(tiny_track.read_text(encoding="utf-8").replace("wall_s = 60", "wall_s = 61"), encoding="utf-8")
    with pytest.raises(InputError, match="another version of track tiny"):
        planned(cell, load_track(str(changed)), Overrides(), [tmp_path / "entry"])


def test_a_line_of_another_submission_says_which_one_it_needs(tiny_track: Path, tmp_path: Path) -> None:
    cell, track = CellId.parse(lines(tiny_track, tmp_path)[0]), load_track(str(tiny_track))
    other = write_submission(tmp_path, "tune = search  # of other content", name="other")
    with pytest.raises(InputError, match="of submission entry, and only other is given"):
        planned(cell, track, Overrides(), [other])


def harness(*arguments: object, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli", *map(str, arguments)], cwd=cwd, env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def results(url: str, track: Path) -> Any:
    """The ranking, and every cell's queries and answers."""
    store, chosen = Store(url), load_track(str(track))
    try:
        assert audit(store).findings == ()
        entries = rank(store, chosen.name, chosen.fingerprint, chosen.planned).entries
        ranks = [(e.rank, e.name, e.run, [(c.task, c.split, c.status, c.score) for c in e.cells]) for e in entries]
        cells = {
            (run.id, c.task, c.split): (
                [row.sha256 for row in store.ledger(c.attempt)],
                {mark: (c.rows[mark], p.tolist(), store.answer(run.id, c.task, c.split, mark))
                 for mark, p in c.predictions.items()},
            )
            for run in store.runs()
            for c in store.cells(run.id)
        }  # fmt: skip
        return ranks, cells
    finally:
        store.close()


@pytest.fixture(scope="module")
def parts(tiny_track: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one database per line of a plan, and with `whole.db` of one evaluation; each by its own process."""
    folder = tmp_path_factory.mktemp("parts")
    entry = write_submission(folder / "submissions", "tune = search")
    given = [entry, "--track", tiny_track, "--config", "step=0.5"]
    told = harness("plan", *given, cwd=folder).stdout.splitlines()
    assert len(told) == 3
    for number, line in enumerate(told):
        harness("evaluate", "--track", tiny_track, "--cell", line, "--store", f"{number}.db", cwd=folder)
    harness("evaluate", *given, "--store", "whole.db", cwd=folder)
    return folder


@pytest.mark.slow
def test_all_lines_run_apart_and_merged_are_one_evaluation(parts: Path, tiny_track: Path, place: str) -> None:
    names = [str(parts / f"{number}.db") for number in range(3)]
    brought = json.loads(harness("merge", *names, "--into", place, "--json", cwd=parts).stdout)
    assert [each["cells"] for each in brought] == [1, 1, 1]
    merged = results(place, tiny_track)
    assert merged == results(str(parts / "whole.db"), tiny_track)
    assert [len(cells) for *_, cells in merged[0]] == [3]
    whole = str(parts / "whole.db")
    again = json.loads(harness("merge", *names, whole, "--into", place, "--json", cwd=parts).stdout)
    assert [each["cells"] for each in again] == [0] * 4
    assert [each["agreeing"] for each in again] == [0, 0, 0, 3]
    assert results(place, tiny_track) == merged


def test_wrong_commands_say_what_to_do(tiny_track: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    line = lines(tiny_track, tmp_path)[0]
    write_submission(tmp_path, 'access = "white-box"\ntune = search', name="reference")
    Store(str(tmp_path / "a.db")).close()
    monkeypatch.chdir(tmp_path)
    for arguments, message in (
        (["evaluate"], "name a submission folder"),
        (["evaluate", "--cell", "nonsense"], "not a line of `harness plan`"),
        (["evaluate", "--cell", line, "--task", "sst2"], "leave out --task"),
        (["evaluate", "--cell", line, "--track", str(tiny_track)], "no submission.py there"),
        (["evaluate", "entry", "--cell", line.replace("/1", "/7"), "--track", str(tiny_track)], "split 7 is in no"),
        (["plan", "entry", "--format", "xml"], "lines or json"),
        (["plan", "reference"], "allow that with --white-box"),
        (["plan", "reference", "--white-box", "--format", "xml"], "lines or json"),
        (["merge", "a.db", "b.db", "--into", "all.db"], "b.db: no such results database"),
        (["migrate", "--store", "postgresql+psycopg://me:geheim@/db"], "harness merge"),
    ):
        monkeypatch.setattr(sys, "argv", ["harness", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        told = capsys.readouterr().err
        assert message in told
        assert "geheim" not in told
        assert end.value.code == 2
    assert not (tmp_path / "all.db").exists()
    monkeypatch.setattr(sys, "argv", ["harness", "merge", "a.db", "--into", "a.db"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 1
    assert "are the same database" in capsys.readouterr().err
