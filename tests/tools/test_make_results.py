"""The results page says what the databases hold, and keeps what a person wrote."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import typer.main
from made_up import key

from harness.cli import app
from harness.evaluation.headroom import Point, Signals, read_points
from harness.results.packed import pack
from harness.results.records import CellRecord, KeptAnswer
from harness.results.store import Store
from harness.tracks.track import load_track

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
LABELS = np.array([0, 1, 1, 0, 1, 0, 1, 1])  # majority class 1: 5 of 8
FACTS = {
    "rows_spent": 64, "train_rows": 32, "rows_total": 640, "tuning_s": 30.0, "level": 1, "tokens": 7, "bytes_up": 5,
    "bytes_down": 6, "lm_s": 0.25, "sandbox": "process",
}  # fmt: skip
ENVIRONMENT = {"packages": {"torch": "1"}, "threads": 2, "cpu": "AVX2", "python": "3.11"}
CELLS = {("sst2", 1): 5, ("sst2", 2): 7, ("qqp", 1): 6, ("qqp", 2): 6}


@pytest.fixture(name="tool")
def import_tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module."""
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("tools.make_results")


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "results.db"


@pytest.fixture
def store(database: Path) -> Iterator[Store]:
    made = Store(str(database))
    yield made
    made.close()


def add(
    store: Store,
    entry: str,
    right: dict[tuple[str, int], int],
    status: str = "ok",
    facts: dict[str, Any] | None = None,
    **identity: Any,
) -> None:
    """A run on kit, whose splits are those that are there; so many of the eight labels right in each cell."""
    track = load_track(identity.get("track", "kit"))
    identity = {"track": track.name, "track_fingerprint": track.fingerprint, "data": "kit:DIR"} | identity
    run = store.open_run(key(entry, **identity), ENVIRONMENT)
    for (task, split), count in right.items():
        predicted = np.where(np.arange(8) < count, LABELS, 1 - LABELS)
        kept = [KeptAnswer(1.0, 1, b"a", predicted)]
        store.begin(run, task, split).finish(status, CellRecord(**FACTS | (facts or {})), "t", LABELS, kept)


def history(*offers: tuple[int, float]) -> dict[str, Any]:
    """Facts of a cell whose answers were offered at so many rows with so much on dev, after one without."""
    return {"history": [[0, {}], *([rows, {"dev": dev}] for rows, dev in offers)]}


def written(tool: ModuleType, databases: Path | list[Path], out: Path, track: str = "kit") -> str:
    """The page as the script writes it."""
    paths = databases if isinstance(databases, list) else [databases]
    stores = [word for path in paths for word in ("--store", str(path))]
    assert tool.main([*stores, "--track", track, "--out", str(out)]) == 0
    return out.read_text(encoding="utf-8")


def row(page: str, name: str, section: str = "## Ranking") -> list[str]:
    """Cells of the line that has `name` in a section's table."""
    part = page.partition(f"{section}\n")[2].partition("\n## ")[0]
    (line,) = [line for line in part.splitlines() if line.startswith("|") and f"`{name}`" in line]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_has_rank_scores_interval_calls_and_time(tool: ModuleType, store: Store, database: Path) -> None:
    """sst2 5/8 and 7/8, qqp 6/8 twice: 75 each; four cells of two calls and half a minute."""
    add(store, "bbt", CELLS)
    page = written(tool, database, database.with_name("page.md"))
    rank, name, access, qqp, sst2, average, calls, minutes, failed = row(page, "bbt")
    assert (rank, name, access, calls, minutes, failed) == ("1", "`bbt`", "L1", "8", "2.0", "0")
    assert (qqp, sst2) == ("75.0 ± 0.0", f"75.0 ± {100 * 0.25 / 2**0.5:.1f}")
    value, low, high = map(float, re.findall(r"[\d.]+", average))
    assert low < value == 75 < high


def test_a_failed_cell_counts_as_the_majority_class_and_is_shown(
    tool: ModuleType, store: Store, database: Path
) -> None:
    """Score and interval alike: five of eight, in whatever it predicted."""
    add(store, "bbt", {("sst2", 1): 8}, status="crashed")
    page = written(tool, database, database.with_name("page.md"))
    cells = row(page, "bbt")
    assert cells[3] == "62.5"
    assert cells[4].startswith("62.5 [")
    assert cells[-1] == "1"


def test_cells_that_the_clock_ended_count_and_are_named(tool: ModuleType, store: Store, database: Path) -> None:
    add(store, "bbt", {("sst2", 1): 8}, status="timeout")
    add(store, "manual", {("sst2", 1): 6})
    page = written(tool, database, database.with_name("page.md"))
    assert row(page, "bbt")[3] == "100.0"
    assert "The clock ended some cells, and their last answer until then was scored: `bbt` in 1." in page


def test_differences_are_shown_in_points_with_their_sign(tool: ModuleType, store: Store, database: Path) -> None:
    """One right more of eight in every split is 12.5 points, and less the other way round."""
    add(store, "bbt", CELLS)
    add(store, "bbtv2", {cell: count + 1 for cell, count in CELLS.items()})
    add(store, "manual", {cell: count + 1 for cell, count in CELLS.items()})
    page = written(tool, database, database.with_name("page.md"))
    assert [cell.partition(" [")[0] for cell in row(page, "bbtv2` - `bbt", "## Differences")[1:]] == ["+12.5"] * 3
    assert [cell.partition(" [")[0] for cell in row(page, "bbt` - `manual", "## Differences")[1:]] == ["-12.5"] * 3
    assert row(page, "ajo` - `bbtv2", "## Differences")[1:] == ["-"] * 3
    assert "No complete run of `ajo`, `house`, `random_search`." in page


def test_one_split_is_enough(tool: ModuleType, store: Store, database: Path) -> None:
    """No deviation over splits, an interval over items, and no warning."""
    for name in ("ajo", "bbtv2", "bbt", "manual"):
        add(store, name, {("sst2", 1): 6}, facts=history((64, 0.5)))
    page = written(tool, database, database.with_name("page.md"))
    assert row(page, "bbt")[3] == "75.0"
    assert "1.00 times [1.00, 1.00]" in page


def test_what_lacks_cells_is_named_and_has_no_average(tool: ModuleType, store: Store, database: Path) -> None:
    """The cells it lacks, and the submissions that were never run."""
    add(store, "bbt", CELLS)
    add(store, "nevergrad", {("sst2", 1): 8})
    page = written(tool, database, database.with_name("page.md"))
    assert row(page, "nevergrad")[0] == "-"
    assert row(page, "nevergrad")[5] == "-"
    assert "- `nevergrad` lacks cells (3): qqp/1, qqp/2, sst2/2" in page
    (never,) = [line for line in page.splitlines() if line.startswith("- no run at all: ")]
    assert "`ajo`" in never
    assert "`bbt`" not in never
    assert "`nevergrad`" not in never


def test_cells_of_the_track_that_nobody_ran_are_named(tool: ModuleType, store: Store, database: Path) -> None:
    """The track says which splits there are to be: nothing is complete, and the page is written."""
    add(store, "bbt", {("sst2", 1): 8}, track="mini", data="embedded")
    page = written(tool, database, database.with_name("page.md"), "mini")
    assert "- `bbt` lacks cells (14): dbpedia/1, dbpedia/2" in page
    assert row(page, "bbt")[0] == "-"


def test_findings_are_kept_to_the_letter(tool: ModuleType, store: Store, database: Path) -> None:
    """Everything else is written anew."""
    add(store, "bbt", CELLS)
    out = database.with_name("page.md")
    fresh = written(tool, database, out)
    mine = "<!-- findings -->\n\nOne \\1 finding,  with `code`.\n- and a list \n<!-- end findings -->"
    out.write_text(fresh.replace(tool.NO_FINDINGS, mine).replace("| 1 |", "| 7 |"), encoding="utf-8")
    again = written(tool, database, out)
    assert mine in again
    assert again == fresh.replace(tool.NO_FINDINGS, mine)


def test_a_page_without_the_markers_is_not_overwritten(
    tool: ModuleType, store: Store, database: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody wrote it, or broke a marker."""
    add(store, "bbt", CELLS)
    out = database.with_name("page.md")
    out.write_text("<!-- findings -->\nMine.\n", encoding="utf-8")
    with pytest.raises(SystemExit):
        tool.main(["--store", str(database), "--track", "kit", "--out", str(out)])
    assert out.read_text(encoding="utf-8") == "<!-- findings -->\nMine.\n"
    assert "end findings" in capsys.readouterr().err


def test_a_track_without_runs_leaves_the_page_alone(
    tool: ModuleType, store: Store, database: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No failure: `make results` writes the pages there is something for."""
    add(store, "bbt", CELLS)
    out = database.with_name("page.md")
    assert tool.main(["--store", str(database), "--track", "mini", "--out", str(out)]) == 0
    assert not out.exists()
    assert "no run on track mini" in capsys.readouterr().out


def test_a_database_that_is_not_there_is_not_made(tool: ModuleType, tmp_path: Path) -> None:
    """An error, and no empty file."""
    with pytest.raises(SystemExit):
        tool.main(["--store", str(tmp_path / "none.db")])
    assert not (tmp_path / "none.db").exists()


def test_several_databases_are_one_and_the_newest_complete_run_counts(
    tool: ModuleType, store: Store, database: Path
) -> None:
    """A partial run does not replace a complete one, wherever it is; a newer complete one does."""
    second = database.with_name("second.db")
    other = Store(str(second))
    add(store, "bbt", dict.fromkeys(CELLS, 5), submission_sha256="old")
    add(other, "bbt", dict.fromkeys(CELLS, 6), submission_sha256="new")
    add(other, "bbtv2", dict.fromkeys(CELLS, 7), submission_sha256="old")
    add(store, "bbtv2", {("sst2", 1): 8}, submission_sha256="new")
    other.close()
    page = written(tool, [database, second], database.with_name("page.md"))
    assert [row(page, name)[3] for name in ("bbt", "bbtv2")] == ["75.0 ± 0.0", "87.5 ± 0.0"]


def test_a_run_in_two_databases_is_united(tool: ModuleType, store: Store, database: Path) -> None:
    """Half its cells here, half there."""
    second = database.with_name("second.db")
    other = Store(str(second))
    add(store, "bbt", {("sst2", 1): 8, ("sst2", 2): 8})
    add(other, "bbt", {("qqp", 1): 8, ("qqp", 2): 8})
    other.close()
    page = written(tool, [second, database], database.with_name("page.md"))
    assert row(page, "bbt")[5] == "100.0 [100.0, 100.0]"


def test_a_white_box_reference_stands_apart(tool: ModuleType, store: Store, database: Path) -> None:
    """In a table of its own, without calls."""
    add(store, "bbt", CELLS)
    add(store, "prompt_tuning", CELLS, access="white-box")
    page = written(tool, database, database.with_name("page.md"))
    ranking, references = page.partition("## White-box references")[::2]
    assert "`prompt_tuning`" not in ranking
    cells = row(page, "prompt_tuning", "## White-box references")
    assert cells[1] == "75.0 ± 0.0"
    assert cells[3].startswith("75.0 [")
    assert references


def test_cells_that_only_a_reference_has_change_no_interval(tool: ModuleType, store: Store, database: Path) -> None:
    """A reference on more tasks and splits is compared on those of the ranked ones, which lack nothing."""
    add(store, "bbt", CELLS)
    add(store, "manual", CELLS)
    before = written(tool, database, database.with_name("page.md"))
    add(store, "prompt_tuning", CELLS | {("sst2", 3): 1, ("qnli", 1): 1}, access="white-box")
    after = written(tool, database, database.with_name("page.md"))
    assert [row(after, name)[-4] for name in ("bbt", "manual")] == [row(before, name)[-4] for name in ("bbt", "manual")]
    assert row(after, "bbt` - `manual", "## Differences") == row(before, "bbt` - `manual", "## Differences")
    assert row(after, "prompt_tuning", "## White-box references")[4].startswith("75.0 [")
    assert "lacks" not in after


def test_without_history_the_speed_up_is_not_recorded(tool: ModuleType, store: Store, database: Path) -> None:
    """Older runs do not have it."""
    add(store, "ajo", CELLS, facts=history((64, 0.5)))
    add(store, "bbtv2", CELLS)
    assert "Not recorded" in written(tool, database, database.with_name("page.md"))


def test_the_speed_up_counts_calls_to_the_last_dev_score_of_bbtv2(
    tool: ModuleType, store: Store, database: Path
) -> None:
    """bbtv2 ends at .8, first reached at 320 of 640 rows; ajo passes .8 at 64 on sst2 and never on qqp.

    Mean shares: bbtv2 (.5 + .5) / 2, ajo (.1 + 1) / 2, so .5 / .55 = .91.
    """
    add(store, "bbtv2", {("sst2", 1): 6, ("qqp", 1): 6}, facts=history((160, 0.7), (320, 0.8), (480, 0.8)))
    add(store, "ajo", {("sst2", 1): 6}, facts=history((32, 0.7), (64, 0.9), (96, 1.0)))
    add(store, "ajo", {("qqp", 1): 6}, facts=history((32, 0.7), (64, 0.79)))
    page = written(tool, database, database.with_name("page.md"))
    assert "**0.91 times" in page
    assert "`ajo` gets there in 1 of 2 cells" in page
    assert "| sst2 | 1 of 1 | 10.0% | 50.0% |" in page
    assert "| qqp | 0 of 1 | 100.0% | 50.0% |" in page


def test_a_cell_without_a_dev_score_of_bbtv2_is_left_out_and_counted(
    tool: ModuleType, store: Store, database: Path
) -> None:
    """There is no target in it; without any, there is no speed-up."""
    add(store, "ajo", {("sst2", 1): 6, ("qqp", 1): 6}, facts=history((64, 0.9)))
    add(store, "bbtv2", {("sst2", 1): 6}, facts=history((320, 0.8)))
    add(store, "bbtv2", {("qqp", 1): 6}, facts=history())
    page = written(tool, database, database.with_name("page.md"))
    assert "because `bbtv2` offers no dev score in them: 1." in page
    assert "**5.00 times [5.00, 5.00]**" in page


def test_no_dev_score_at_all_is_said(tool: ModuleType, store: Store, database: Path) -> None:
    """Both complete, nothing to aim at."""
    for name in ("ajo", "bbtv2"):
        add(store, name, CELLS, facts=history())
    assert "no cell of `bbtv2` has a dev score" in written(tool, database, database.with_name("page.md"))


def test_published_numbers_stand_beside_the_measured(tool: ModuleType, store: Store, database: Path) -> None:
    """For what was measured, and only for tasks that were."""
    add(store, "bbtv2", CELLS)
    page = written(tool, database, database.with_name("page.md"))
    cells = row(page, "bbtv2", "## Beside the published numbers")
    assert cells[1:3] == ["90.33 ± 1.73", f"75.0 ± {100 * 0.25 / 2**0.5:.1f}"]
    assert cells[5:] == ["57.27 ± 2.27", "-"]
    assert "79.82" not in page


def test_chance_of_the_optimiser_is_told_where_cells_were_repeated(
    tool: ModuleType, store: Store, database: Path
) -> None:
    """Standard deviations between repeats and between splits, in points; the command has the number of repeats."""
    add(store, "bbt", {("sst2", 1): 4, ("sst2", 2): 6})
    page = written(tool, database, database.parent / "once.md")
    assert "## Chance of the optimiser" not in page
    add(store, "bbt", {("sst2", 1): 6, ("sst2", 2): 8}, repeat=1)
    page = written(tool, database, database.parent / "twice.md")
    cells = row(page, "bbt", "## Chance of the optimiser")
    assert cells[1:] == ["2", "2", "17.7", "17.7"]  # 50 and 75, 75 and 100; means 62.5 and 87.5
    assert row(page, "bbt")[3].startswith("75.0 ± 17.7")
    assert "harness evaluate submissions/bbt --track kit --data DIR --task sst2 --repeats 2" in page


def test_accuracy_stands_beside_macro_f1(tool: ModuleType, store: Store, database: Path) -> None:
    """For comparison with papers, on the tasks that are ranked by another metric."""
    labels = np.array([0, 1, 2, 0, 0, 0])
    run = store.open_run(
        key("bbt", track="kit", track_fingerprint=load_track("kit").fingerprint, data="kit:DIR"), ENVIRONMENT
    )
    kept = [KeptAnswer(1.0, 1, b"a", np.zeros(6, dtype=np.int64))]
    store.begin(run, "snli", 1).finish("ok", CellRecord(**FACTS), "t", labels, kept)
    page = written(tool, database, database.parent / "page.md")
    assert row(page, "bbt", "## Accuracy")[1:] == ["66.7"]
    assert row(page, "bbt")[3] == "26.7"  # F1 of class 0 is 0.8, of the others 0


def test_the_commands_on_the_page_are_accepted(tool: ModuleType, store: Store, database: Path) -> None:
    """One line per entry, with its options, its tasks and its seed; parsed, not run."""
    add(store, "bbt", CELLS, seed=3)
    add(store, "nevergrad[optimizer=PSO]", CELLS, seed=3, options=(("optimizer", "PSO"),))
    page = written(tool, database, database.with_name("page.md"))
    lines = [line for line in page.splitlines() if line.startswith("harness ")]
    common = "--track kit --data DIR --task qqp --task sst2 --seed 3"
    assert lines == [
        f"harness evaluate submissions/bbt {common}",
        f"harness evaluate submissions/nevergrad {common} --config optimizer=PSO",
    ]
    command = typer.main.get_command(app).commands["evaluate"]  # type: ignore[attr-defined]
    for line in lines:
        command.make_context("evaluate", shlex.split(line)[2:]).close()


def test_machine_facts_name_the_entries_they_hold_for(tool: ModuleType, store: Store, database: Path) -> None:
    """One line per environment."""
    add(store, "bbt", CELLS)
    add(store, "ajo", CELLS)
    page = written(tool, database, database.with_name("page.md"))
    assert "- `ajo`, `bbt`: cpu AVX2; threads 2; python 3.11; sandbox process; torch 1" in page


def test_a_published_database_gives_the_page(tool: ModuleType, store: Store, database: Path) -> None:
    """Whoever has no more than the compressed facts writes the same page."""
    add(store, "bbt", CELLS)
    page = written(tool, database, database.with_name("page.md"))
    assert "These budgets are 15 generations of 20 candidates" in page
    packed = database.with_name("measured.db.xz")
    pack(database, packed, answers=False)
    assert written(tool, packed, database.with_name("again.md")) == page


def test_a_file_that_is_no_database_is_told_and_the_page_stays(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, out = tmp_path / "broken.db", tmp_path / "page.md"
    broken.write_text("no database at all, but long enough to be looked at " * 10, encoding="utf-8")
    out.write_text("kept", encoding="utf-8")
    with pytest.raises(SystemExit):
        tool.main(["--store", str(broken), "--track", "kit", "--out", str(out)])
    assert "broken.db" in capsys.readouterr().err
    assert out.read_text(encoding="utf-8") == "kept"


def test_a_page_that_cannot_be_written_whole_is_left_as_it_is(
    tool: ModuleType,
    store: Store,
    database: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The findings in it are written by hand, so half a page would lose them."""
    add(store, "bbt", CELLS)
    out = database.with_name("page.md")
    out.write_text("<!-- findings -->\nby hand\n<!-- end findings -->", encoding="utf-8")
    before = out.read_text(encoding="utf-8")

    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(SystemExit):
        tool.main(["--store", str(database), "--track", "kit", "--out", str(out)])
    assert "no space left" in capsys.readouterr().err
    assert out.read_text(encoding="utf-8") == before
    assert sorted(each.name for each in out.parent.glob("*page.md*")) == ["page.md"]


def test_the_page_ranks_the_devices_that_the_track_ranks(tool: ModuleType, store: Store, database: Path) -> None:
    """As the leaderboard does, whichever device has more entries."""
    for name in ("bbt", "bbtv2"):
        add(store, name, CELLS, device="NVIDIA H200")
    add(store, "manual", CELLS)
    page = written(tool, database, database.with_name("page.md"))
    assert row(page, "manual")[0] == "1"
    assert "`bbtv2`" not in page.partition("## Efficiency")[0].partition("## Ranking")[2]


HEADROOM = "model,track,task,split,bare,centred,texts,gain,entries\n"


def test_measured_cells_stay_where_there_is_nothing_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A path without a database is not made one, and the file that `harness headroom` reads is not emptied."""
    monkeypatch.syspath_prepend(str(ROOT))
    points = importlib.import_module("tools.headroom_points")
    out, empty = tmp_path / "headroom.csv", tmp_path / "empty.db"
    out.write_text(HEADROOM, encoding="utf-8")
    Store(str(empty)).close()
    for path, said in ((tmp_path / "none.db", "no such file"), (empty, "no measured cell of mini")):
        with pytest.raises(SystemExit):
            points.main([str(path), "--out", str(out)])
        assert said in capsys.readouterr().err
    assert out.read_text(encoding="utf-8") == HEADROOM
    assert not (tmp_path / "none.db").exists()
    made = Point("m", "t", "sst2", 1, Signals(0.5, 0.75, 64), 0.125, 3)
    out.write_text(points.as_csv([made]), encoding="utf-8")
    assert read_points(out) == (made,)


def test_an_entry_of_another_division_is_told_apart(tool: ModuleType, store: Store, database: Path) -> None:
    """A `-` or a second 1 in the table has its reason below it."""
    for name in ("bbt", "bbtv2"):
        add(store, name, CELLS)
    add(store, "ajo", CELLS, facts={"sandbox": "0"})
    page = written(tool, database, database.with_name("page.md"))
    assert row(page, "ajo")[0] == "-"
    assert "without isolation, none: `ajo` (pure / cpu / sandbox 0)." in page
    assert "Ranks are those of pure / cpu / sandbox process." in page


def test_repeats_of_one_split_have_no_deviation_over_splits(tool: ModuleType, store: Store, database: Path) -> None:
    """Nothing is computed from a single number."""
    for repeat, right in enumerate((5, 7)):
        add(store, "bbt", {("sst2", 1): right}, repeat=repeat)
    page = written(tool, database, database.with_name("page.md"))
    assert row(page, "bbt", "## Chance of the optimiser")[-3:] == ["1", f"{100 * 0.25 / 2**0.5:.1f}", "-"]
