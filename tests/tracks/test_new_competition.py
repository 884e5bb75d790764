"""A folder of one's own is a competition: a track, tasks beside it, and data with few-shot splits."""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from harness.errors import DataError, InputError, TaskError, TrackError
from harness.tracks.dividing import Sizes
from harness.tracks.examples import Source, load_shots, load_test, splits_of
from harness.tracks.inspection import inspect
from harness.tracks.new_competition import Wanted, create
from harness.tracks.tasks import find_task, load_task, task_names
from harness.tracks.track import load_track, track_tasks

if TYPE_CHECKING:
    from pathlib import Path

FEW = Sizes(4, 4, 3)
QUOTES = "put a field that holds a separator or a line break into double quotes"


def table(path: Path, rows: list[tuple[str, ...]], header: tuple[str, ...] = ("id", "sentence", "label")) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, delimiter="\t" if path.suffix == ".tsv" else ",").writerows([header, *rows])
    return path


def reviews(path: Path, count: int = 60) -> Path:
    return table(path, [(str(n), f"Review, number {n}", "01"[n % 2]) for n in range(count)])


def wanted(path: Path, **more: Any) -> Wanted:
    return replace(Wanted(path, ("sentence",), "label", sizes=FEW), **more)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return create(tmp_path / "mine", wanted(reviews(tmp_path / "my.csv"), classes=("bad", "good"))).folder


def test_the_folder_is_a_track_with_a_task_and_stored_splits(made: Path) -> None:
    track = load_track(str(made))
    (file,) = track_tasks(track).values()
    assert (track.name, file.name, file.classes, file.written_labels) == ("mine", "my", ("bad", "good"), ("0", "1"))
    assert file.task(track.profile, "masked").words == (" bad", " good")
    source, spec = Source(track.data.source), track.tasks["my"]
    assert splits_of(file, source, spec) == [1, 2, 3]
    test = load_test(file, source)
    seen = set()
    for split in (1, 2, 3):
        shots = load_shots(file, source, split, spec)
        assert (len(shots.train), len(shots.dev)) == (8, 8)
        assert not set(shots.train.texts) & set(shots.dev.texts)
        seen |= {*shots.train.texts, *shots.dev.texts}
    assert not seen & set(test.texts)
    assert len(test) == 60 - 2 * 15  # half of each class
    number = int(test.texts[0][0].rpartition(" ")[2])
    assert test.labels[0] == number % 2
    assert inspect(str(made)).problems == []


def test_the_same_file_gives_the_same_splits_in_whatever_order_it_is(made: Path, tmp_path: Path) -> None:
    rows = [(str(n), f"Review, number {n}", "01"[n % 2]) for n in reversed(range(60))]
    again = create(tmp_path / "again", wanted(table(tmp_path / "my.tsv", rows), classes=("bad", "good"))).folder
    for part in ("test", "splits/1/train", "splits/3/dev"):
        one = (made / "tasks/my" / f"{part}.csv").read_text(encoding="utf-8")
        other = (again / "tasks/my" / f"{part}.tsv").read_text(encoding="utf-8")
        parsed = [list(csv.reader(text.splitlines(), delimiter=mark)) for text, mark in ((one, ","), (other, "\t"))]
        assert parsed[0] == parsed[1]


def test_without_data_there_are_data_that_ship(tmp_path: Path) -> None:
    folder = create(tmp_path / "films", Wanted()).folder
    track = load_track(str(folder))
    (file,) = track_tasks(track).values()
    assert (file.name, len(load_test(file, Source("files")))) == ("films", 200)
    assert inspect(str(folder)).problems == []


def test_a_test_set_that_is_given_is_the_test_set_and_is_in_no_split(tmp_path: Path) -> None:
    data = reviews(tmp_path / "my.csv", 30)
    test = table(tmp_path / "unseen.csv", [("0", f"Review, number {n}", "01"[n % 2]) for n in range(4)])
    result = create(tmp_path / "mine", wanted(data, test=test))
    file = load_task("my", result.folder / "tasks")
    assert [text[0] for text in load_test(file, Source("files")).texts] == [f"Review, number {n}" for n in range(4)]
    assert result.notes == ("4 texts of the data are in the test set, too, and are in no split",)
    assert inspect(str(result.folder)).warnings == []


def test_repeated_and_contradictory_rows_are_left_out_and_told(tmp_path: Path) -> None:
    rows = [(str(n), f"text {n % 50}", "01"[n % 2]) for n in range(60)] + [("x", "text 3", "0")]
    result = create(tmp_path / "mine", wanted(table(tmp_path / "my.csv", rows)))
    assert result.notes == (
        "9 rows repeat another row; each text counts once",
        "1 text have several labels and are left out, first 'text 3'",
    )


def test_pairs_and_names_that_need_quotes(tmp_path: Path) -> None:
    rows = [(f'Is "{n}" odd?', f"Has {n}\\2 a rest,\nor not?", 'ye"s' if n % 2 else "né\\o") for n in range(40)]
    data = table(tmp_path / "Odd Numbers.csv", rows, ("a b", 'c"d', "is"))
    folder = create(
        tmp_path / "odd", Wanted(data, ("a b", 'c"d'), "is", words=("no", "yes"), sizes=FEW, metric="f1")
    ).folder
    file = load_task("odd-numbers", folder / "tasks")
    assert (file.classes, file.fields, file.metric) == (("né\\o", 'ye"s'), 2, "f1")
    test = load_test(file, Source("files"))
    assert {(*text, file.classes[label]) for text, label in zip(test.texts, test.labels, strict=True)} <= set(rows)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"text": ()}, InputError, "needs the names of its columns; it has id, sentence, label"),
        ({"label": "lable"}, InputError, "has no column 'lable'; it has id, sentence, label"),
        ({"label": "id"}, DataError, "60 different values in 60 rows; a label is one of a few classes"),
        ({"classes": ("bad",)}, InputError, "--classes names 1 classes, 1 distinct; the labels are 0, 1"),
        ({"words": ("bad", "bad")}, InputError, "--words has 2 words, 1 distinct"),
        ({"metric": "auc"}, InputError, "--metric auc: accuracy, macro_f1, f1 can score 2 classes"),
        ({"template": "{a} and {b} {mask}"}, InputError, "--template: .* has the unknown field {b}"),
        (
            {"sizes": Sizes(16, 16, 1)},
            DataError,
            "class '0' has 30 texts, and 16 .* test text are needed; take --shots 14",
        ),
        ({"data": None}, InputError, "are about a file of yours; name it with --data"),
    ],
)
def test_a_wish_that_cannot_be_met_makes_nothing(
    tmp_path: Path, change: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        create(tmp_path / "mine", replace(wanted(reviews(tmp_path / "my.csv")), **change))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my.csv"]


def test_a_folder_that_is_there_is_left_alone(made: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="exists already and is not empty"):
        create(made, wanted(tmp_path / "my.csv"))
    with pytest.raises(InputError, match="'mini' is a track that ships"):
        create(tmp_path / "mini", Wanted())
    (tmp_path / "empty").mkdir()
    assert create(tmp_path / "empty", Wanted()).folder.is_dir()


# ── tasks elsewhere ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_tasks_are_found_elsewhere_and_then_among_those_that_ship(made: Path, tmp_path: Path) -> None:
    tasks = tmp_path / "elsewhere"
    shutil.move(made / "tasks", tasks)
    with pytest.raises(TrackError, match=r"track\.toml:\d+: tasks\.my: no task 'my'"):
        load_track(str(made))
    track = load_track(str(made), tasks)
    assert track_tasks(track)["my"].folder == str(tasks / "my")
    assert find_task("sst2", tasks) == load_task("sst2")
    with pytest.raises(TaskError, match=r"no task 'x': .*elsewhere has my, and those that ship are agnews"):
        find_task("x", tasks)
    with pytest.raises(TrackError, match=r"--tasks .*nowhere: no such directory"):
        load_track(str(made), tmp_path / "nowhere")
    assert "my" not in task_names()


def test_the_wording_of_an_own_task_counts_and_its_place_and_dates_do_not(made: Path, tmp_path: Path) -> None:
    first = load_track(str(made)).fingerprint
    moved = tmp_path / "moved"
    shutil.copytree(made, moved)
    toml = moved / "track.toml"
    toml.write_text(toml.read_text() + "\n[competition]\nattempts_per_day = 3\n")
    assert load_track(str(moved)).fingerprint == first
    task = moved / "tasks" / "my" / "task.toml"
    task.write_text(task.read_text().replace("It was", "That was"))
    assert load_track(str(moved)).fingerprint != first


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        ("track.toml", 'name = "mine"', 'name = "mini"', "track.toml:2: name is 'mini', which is a track that ships"),
        ("track.toml", 'name = "mine"', 'name = "a b"', "track.toml:2: name 'a b': letters, digits"),
        ("track.toml", "[model]", 'folder = "x"\n[model]', "track.toml:8: unknown field `folder`"),
        (
            "track.toml",
            "splits = [1, 2, 3]",
            "splits = [1, 4]",
            "splits:1: the track wants split 4, which is not there",
        ),
        (
            "tasks/my/task.toml",
            'columns = ["sentence"]',
            'columns = ["sentence", "x"]',
            "files.columns has 2 columns for 1",
        ),
        ("tasks/my/task.toml", 'label = "label"', 'label = "sentence"', "each must be another"),
        ("tasks/my/task.toml", 'labels = ["0", "1"]', 'labels = ["0"]', "files.labels has 1 labels, 1 distinct, for 2"),
        ("tasks/my/task.toml", 'title = "my"', 'title = "my"\nfolder = "x"', "task.toml:4: unknown field `folder`"),
        ("tasks/my/task.toml", "[files]", "[file]", "Object contains unknown field `file`"),
    ],
)
def test_what_is_wrong_in_a_toml_file_is_told_with_file_and_line(
    made: Path, file: str, old: str, new: str, says: str
) -> None:
    path = made / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    problems = inspect(str(made)).problems
    assert any(says in line for line in problems), problems


def test_all_that_is_wrong_with_data_is_listed_at_once(made: Path) -> None:
    task = made / "tasks" / "my"
    lines = (task / "test.csv").read_text(encoding="utf-8").splitlines()
    shared = (task / "splits" / "1" / "train.csv").read_text(encoding="utf-8").splitlines()[1]
    (task / "test.csv").write_text("\n".join([*lines[:2], '"x",2', "alone", lines[2], lines[2], shared]) + "\n")
    (task / "splits" / "2" / "dev.csv").unlink()
    (task / "splits" / "3" / "dev.csv").write_text("sentence,label\na,0\n")
    found = inspect(str(made))
    assert [line.removeprefix(f"{task}/") for line in found.problems] == [
        "test.csv:3: unknown label '2'; expected one of 0, 1",
        f"test.csv:4: 1 fields, and the header has 2; {QUOTES}",
        "splits/2/dev.csv: no such file",
    ]
    assert [line.removeprefix(f"{task}/").partition(": ")[0] for line in found.warnings] == [
        "test.csv:6", "splits/3/dev.csv", "test.csv:7"
    ]  # fmt: skip
    assert inspect(str(task)).problems == inspect(str(made / "tasks")).problems == found.problems


def test_what_is_no_competition_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(TrackError, match=r"no track\.toml and no folder with a task\.toml; nothing to check"):
        inspect(str(tmp_path))
    with pytest.raises(TrackError, match=r"no track 'nowhere'; choose one of .* or of a folder with a track\.toml"):
        inspect("nowhere")
    with pytest.raises(TrackError, match=r"track\.toml: no such file; harness new-competition makes such a folder"):
        load_track(str(tmp_path))
    assert inspect("mini").problems == []
