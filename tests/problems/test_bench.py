"""`harness bench` runs a suite, takes it up where it was, ranks it, and writes logs that others draw."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from harness import cli
from harness.errors import InputError
from harness.problems import bench
from harness.problems.bench import Suite
from harness.problems.logs import write_coco
from harness.problems.spec import Spec
from harness.problems.trials import Trial, ranking
from harness.results.audit import audit
from harness.results.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def trial(optimizer: str, loss: float, test: float, *, task: str = "sst2", seed: int = 1, **more: Any) -> Trial:
    steps = more.get("steps", ((1, loss + 0.5), (4, loss)))
    return Trial(
        optimizer,
        task,
        more.get("split", 1),
        5,
        5,
        seed,
        "run",
        more.get("evaluations", 10),
        steps,
        loss,
        0.9,
        test,
        1.0,
    )


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Iterator[Any]:
    """Run `harness bench` in an empty directory: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["harness", "bench", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return code, captured.out, captured.err

    return run


def test_a_suite_is_run_once_ranked_and_logged(command: Any, tiny_track: Path, tmp_path: Path) -> None:
    arguments = [
        "--optimizers", "random,cma,scipy:Powell", "--tasks", "sst2,qqp", "--dims", "5", "--seeds", "0,1",
        "--budget", "6", "--track", str(tiny_track),
    ]  # fmt: skip
    code, out, err = command(*arguments)
    assert code == 0, err
    assert "[12/12]" in err
    assert "loss rank" in out
    assert out.count("behind") == 2
    assert "95 % intervals" in out
    folder = tmp_path / "results" / "bench"
    with (folder / "trials.csv").open(encoding="utf-8") as file:
        trials = list(csv.DictReader(file))
    assert len(trials) == 12
    assert {row["evaluations"] for row in trials} == {"6"}
    for row in trials:
        assert float(row["gap"]) == pytest.approx(float(row["train_score"]) - float(row["test_score"]))
    with (folder / "ranking.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["optimizer"] for row in rows} == {"random", "cma", "scipy:Powell"}
    assert sum(float(row["rank_by_train_loss"]) for row in rows) == 6
    assert [row["problems"] for row in rows] == ["4"] * 3
    store = Store(str(tmp_path / "results" / "bench.db"))
    assert audit(store).findings == ()
    attempts = sum(len(store.attempts(run.id)) for run in store.runs())
    store.close()
    code, out, err = command(*arguments, "--json", "--logs", "none")
    assert code == 0
    assert err.count("finished before") == 12
    assert len(json.loads(out)["trials"]) == 12
    store = Store(str(tmp_path / "results" / "bench.db"))
    assert sum(len(store.attempts(run.id)) for run in store.runs()) == attempts
    store.close()


def test_cocopp_reads_what_bench_writes(command: Any, tiny_track: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own
        cocopp = pytest.importorskip("cocopp", reason='needs pip install -e ".[optimizers]"')
    code, _, err = command(
        "--optimizers", "random", "--tasks", "sst2,qqp", "--dims", "2,5", "--seeds", "1,2", "--budget", "6",
        "--track", str(tiny_track),
    )  # fmt: skip
    assert code == 0, err
    folder = tmp_path / "results" / "bench"
    with (folder / "trials.csv").open(encoding="utf-8") as file:
        trials = list(csv.DictReader(file))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = cocopp.load(str(folder / "coco" / "random"))
    assert sorted((each.funcId, each.dim) for each in found) == [(1, 2), (1, 5), (2, 2), (2, 5)]
    for each in found:
        task = {1: "qqp", 2: "sst2"}[each.funcId]
        own = [row for row in trials if row["task"] == task and int(row["dim"]) == each.dim]
        assert each.algId == "random"
        assert list(each.maxevals) == [6, 6]
        assert sorted(each.finalfunvals) == pytest.approx(sorted(float(row["train_loss"]) for row in own), rel=1e-6)
    assert "f1: qqp, split 1" in (folder / "coco" / "README.txt").read_text(encoding="utf-8")


def test_ioh_logs_hold_the_runs(tmp_path: Path, command: Any, tiny_track: Path) -> None:
    pytest.importorskip("ioh", reason='needs pip install -e ".[optimizers]"')
    code, _, err = command(
        "--optimizers", "random,cma", "--dims", "3", "--seeds", "1,2", "--budget", "7", "--track", str(tiny_track),
        "--logs", "ioh",
    )  # fmt: skip
    assert code == 0, err
    folder = tmp_path / "results" / "bench"
    with (folder / "trials.csv").open(encoding="utf-8") as file:
        losses = [float(row["train_loss"]) for row in csv.DictReader(file) if row["optimizer"] == "cma"]
    (page,) = (folder / "ioh" / "cma").glob("*.json")
    facts = json.loads(page.read_text(encoding="utf-8"))
    (scenario,) = facts["scenarios"]
    assert facts["function_name"] == "sst2-1"
    assert scenario["dimension"] == 3
    assert [run["evals"] for run in scenario["runs"]] == [7, 7]
    assert [run["best"]["y"] for run in scenario["runs"]] == pytest.approx(losses)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--optimizers", "adam"], "no optimizer"),
        (["--optimizers", "cma,cma"], "each once"),
        (["--optimizers", "cma:"], "no optimizer"),
        (["--dims", "0"], "at least 1"),
        (["--dims", "ten"], "whole numbers"),
        (["--seeds", "1,,2"], "commas between"),
        (["--seeds", "-1"], "whole numbers"),
        (["--tasks", "nowhere"], "nowhere"),
        (["--splits", "9"], "split 9"),
        (["--logs", "svg"], "coco, ioh"),
        (["--space", "ocean"], "no space"),
        (["--space", "template"], "Take --space input, deep, words or mixed"),
        (["--loss", "mse"], "no loss"),
        (["--optimizers", "scipy:Newton"], "Powell"),
    ],
)
def test_what_is_given_wrongly_is_exit_code_2(command: Any, tiny_track: Path, arguments: list[str], says: str) -> None:
    code, _, err = command("--track", str(tiny_track), "--dims", "3", "--budget", "2", *arguments)
    assert code == 2
    assert says in err


def test_an_optimizer_that_raises_ends_its_own_trial_alone(
    command: Any, tiny_track: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = bench.minimize

    def broken(name: str, problem: Any, seed: int) -> None:
        if name == "random":
            problem.evaluate(problem.points + float("nan") if problem.evaluations else [[0.0] * problem.dimension])
            raise ZeroDivisionError("of a library")
        real(name, problem, seed)

    arguments = ["--optimizers", "random,cma", "--dims", "3", "--budget", "5", "--track", str(tiny_track)]
    monkeypatch.setattr(bench, "minimize", broken)
    code, out, err = command(*arguments, "--json")
    assert code == 1
    assert "ZeroDivisionError: of a library" in err
    found = json.loads(out)
    assert [row["optimizer"] for row in found["trials"]] == ["cma"]
    assert len(found["failed"]) == 1
    monkeypatch.setattr(bench, "minimize", real)
    code, out, _ = command(*arguments, "--json")
    assert code == 0
    assert len(json.loads(out)["trials"]) == 2


def test_an_interrupted_suite_is_taken_up_where_it_was(
    command: Any, tiny_track: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = bench.minimize

    def interrupted(name: str, problem: Any, seed: int) -> None:
        if name == "cma":
            problem.evaluate([[0.0] * problem.dimension])
            raise KeyboardInterrupt
        real(name, problem, seed)

    arguments = ["--optimizers", "random,cma", "--dims", "3", "--budget", "5", "--track", str(tiny_track)]
    monkeypatch.setattr(bench, "minimize", interrupted)
    code, _, err = command(*arguments)
    assert code == 130
    assert "takes up where it was" in err
    monkeypatch.setattr(bench, "minimize", real)
    code, out, err = command(*arguments, "--json")
    assert code == 0
    assert err.count("finished before") == 1
    assert [row["evaluations"] for row in json.loads(out)["trials"]] == [5, 5]


@pytest.mark.slow
def test_cocopp_draws_what_bench_writes(command: Any, tiny_track: Path, tmp_path: Path) -> None:
    pytest.importorskip("cocopp", reason='needs pip install -e ".[optimizers]"')
    code, _, err = command(
        "--optimizers", "random,cma", "--dims", "2,5", "--seeds", "1,2", "--budget", "20", "--track", str(tiny_track)
    )
    assert code == 0, err
    folders = [str(tmp_path / "results" / "bench" / "coco" / name) for name in ("random", "cma")]
    subprocess.run(
        [sys.executable, "-m", "cocopp", "-o", str(tmp_path / "drawn"), *folders],
        check=True, capture_output=True, timeout=300, cwd=tmp_path, env=os.environ | {"MPLBACKEND": "Agg"},
    )  # fmt: skip
    assert list((tmp_path / "drawn").rglob("pprldmany_05D_*.svg"))


def test_ranks_are_means_over_the_problems_that_all_have() -> None:
    trials = [
        trial("a", 0.1, 0.6), trial("b", 0.2, 0.7), trial("c", 0.2, 0.5),
        trial("a", 0.1, 0.6, seed=2), trial("b", 0.3, 0.6, seed=2), trial("c", 0.0, 0.5, seed=2),
        trial("a", 0.9, 0.1, seed=3),
    ]  # fmt: skip
    rows = {str(row["optimizer"]): row for row in ranking(trials)}
    assert [rows[name]["rank_by_train_loss"] for name in "abc"] == [1.5, 2.75, 1.75]
    assert [rows[name]["rank_by_test_score"] for name in "abc"] == [1.75, 1.25, 3.0]
    assert rows["a"]["train_loss"] == pytest.approx(0.1)
    assert rows["a"]["gap"] == pytest.approx(0.3)
    assert (rows["a"]["problems"], rows["a"]["left_out"]) == (2, 1)
    assert ranking([]) == []


def test_how_far_an_optimizer_is_behind_has_an_interval_over_splits() -> None:
    """Seeds of one split are averaged first: they do not make the sample larger."""
    a = [trial("a", 0.1, 0.8, split=split, seed=seed) for split in (1, 2, 3) for seed in (1, 2)]
    differences = {(1, 1): 0.1, (1, 2): 0.3, (2, 1): 0.3, (2, 2): 0.3, (3, 1): 0.4, (3, 2): 0.4}
    b = [trial("b", 0.1 + d, 0.8 - d / 2, split=split, seed=seed) for (split, seed), d in differences.items()]
    first, second = ranking([*a, *b])
    assert (first["loss_behind"], first["loss_behind_low"], first["loss_behind_high"]) == (0, 0, 0)
    half = 4.302653 * 0.1 / 3**0.5  # t of two degrees of freedom; the splits' means are 0.2, 0.3 and 0.4
    bounds = [second[f"loss_behind{end}"] for end in ("", "_low", "_high")]
    assert bounds == pytest.approx([0.3, 0.3 - half, 0.3 + half], abs=1e-6)
    assert second["test_behind"] == pytest.approx(0.15)
    wider = ranking([*a, *b, *(trial("c", 0.9, 0.5, split=each.split, seed=each.seed) for each in a)])[1]
    assert wider["optimizer"] == "b"
    assert wider["loss_behind_low"] < second["loss_behind_low"]  # three pairs of optimizers
    assert np.isnan(ranking([a[0], b[0]])[1]["loss_behind_low"])  # one split


def test_coco_has_functions_for_24_cells(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="25 tasks and splits"):
        write_coco(tmp_path, [trial("a", 0.1, 0.5, task=f"t{n}") for n in range(25)], 0.0)


def test_a_suite_names_each_trial_once() -> None:
    suite = Suite(("random", "cma"), ("sst2",), (1, 2), (5,), (1, 2), None, Spec())
    assert len(set(suite.jobs)) == len(suite.jobs) == 8
    assert [job.optimizer for job in suite.jobs[:2]] == ["random", "cma"]
