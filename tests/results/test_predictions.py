"""Prediction archives: good ones are scored, bad ones are errors that name file and line."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from made_up import key

from harness.errors import InputError
from harness.evaluation.predict import stored_answer
from harness.leaderboard.rank import rank
from harness.leaderboard.uploads import upload_records, upload_table, uploads
from harness.results.records import CellRecord
from harness.results.store import Store
from harness.results.uploads import keep, missing_cells, planned_cells, score_archive
from harness.tracks.examples import Source, load_test
from harness.tracks.tasks import load_task
from harness.tracks.track import load_track, track_tasks

KIT = Path(__file__).resolve().parents[3] / "shared" / "data" / "competition"
FILES = {name: load_task(name) for name in ("sst2", "qqp")}
MINI = load_track("mini")
TRACK = msgspec.structs.replace(MINI, tasks={name: MINI.tasks[name] for name in FILES})
EMBEDDED = Source("embedded")
LABELS = load_test(FILES["sst2"], EMBEDDED).labels
GOOD = ",pred\n" + "".join(f"{n},{label}\n" for n, label in enumerate(LABELS))


def archive(folder: Path, members: dict[str, str | bytes]) -> Path:
    path = folder / "predictions.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, text in members.items():
            file.writestr(zipfile.ZipInfo(name), text, zipfile.ZIP_DEFLATED)  # of a fixed date: the same bytes again
    return path


def scored(folder: Path, members: dict[str, str | bytes]) -> list[tuple[str, int, float]]:
    return [(s.task, s.split, s.score) for s in score_archive(archive(folder, members), TRACK, EMBEDDED)]


def test_right_predictions_score_one_and_wrong_ones_nothing(tmp_path: Path) -> None:
    wrong = ",pred\n" + "".join(f"{n},{1 - label}\n" for n, label in enumerate(LABELS))
    assert scored(tmp_path, {"SST-2/1.csv": GOOD, "SST-2/3.csv": wrong}) == [("sst2", 1, 1.0), ("sst2", 3, 0.0)]


@pytest.mark.parametrize("folder", ["SST-2", "sst-2", "sst2", "upload/SST-2"])
def test_a_task_is_known_by_its_folder_or_its_name(tmp_path: Path, folder: str) -> None:
    assert scored(tmp_path, {f"{folder}/1.csv": GOOD}) == [("sst2", 1, 1.0)]


def test_class_names_windows_line_ends_and_a_mark_of_byte_order_are_read(tmp_path: Path) -> None:
    names = FILES["sst2"].classes
    text = ",pred\r\n" + "".join(f"{n},{names[label]}\r\n" for n, label in enumerate(LABELS))
    assert scored(tmp_path, {"SST-2/1.csv": b"\xef\xbb\xbf" + text.encode()}) == [("sst2", 1, 1.0)]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("SST-2/1.csv", GOOD.replace(",pred", "index,pred"), ":1: header"),
        ("SST-2/1.csv", "", ":1: header"),
        ("SST-2/1.csv", ",pred\n", "0 predictions; the test set has 200"),
        ("SST-2/1.csv", GOOD + "200,1\n", "201 predictions; the test set has 200"),
        ("SST-2/1.csv", GOOD.replace("\n7,", "\n8,", 1), r":9: '8,\d' expected|:9: '8,.'; '7,<class>' expected"),
        ("SST-2/1.csv", ",pred\n" + "".join(f"{n},2\n" for n in range(200)), "unknown class '2'; 0..1 expected"),
        ("SST-2/1.csv", ",pred\n" + "".join(f"{n},nan\n" for n in range(200)), "unknown class 'nan'"),
        ("SST-2/1.csv", b"\xff\xfe\x00", "cannot be read"),
        ("SST-2/1.csv", '"' + "x" * 200_000, "not a CSV file"),
        ("SST-2/one.csv", GOOD, "<Task>/<split>.csv expected"),
        ("SST-2/\N{SUPERSCRIPT TWO}.csv", GOOD, "<Task>/<split>.csv expected"),
        ("SST-2/" + "1" * 5000 + ".csv", GOOD, "<Task>/<split>.csv expected"),
        ("MNLI/1.csv", GOOD, "with Task one of QQP, SST-2"),
        ("1.csv", GOOD, "<Task>/<split>.csv expected"),
        ("../SST-2/1.csv", GOOD, "<Task>/<split>.csv expected"),
        ("/SST-2/1.csv", GOOD, "<Task>/<split>.csv expected"),
        ("../../etc/SST-2/1.csv", GOOD, "<Task>/<split>.csv expected"),
        ("SST-2/9.csv", GOOD, "track mini has no split 9 of sst2; it has 1, 2, 3"),
        ("SST-2/.csv", GOOD, "<Task>/<split>.csv expected"),
        ("SST-2/1.txt", GOOD, "only <Task>/<split>.csv files"),
    ],
)
def test_bad_members_are_errors(tmp_path: Path, name: str, text: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        scored(tmp_path, {name: text})


def test_nothing_is_written_beside_a_bad_archive(tmp_path: Path) -> None:
    """Members are read in memory: a path that leads out of the archive leads nowhere."""
    with pytest.raises(InputError):
        scored(tmp_path, {"../SST-2/1.csv": GOOD})
    assert [path.name for path in tmp_path.rglob("*")] == ["predictions.zip"]


def test_two_files_for_one_split_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there are two files"):
        scored(tmp_path, {"SST-2/1.csv": GOOD, "sst2/1.csv": GOOD})


def test_an_empty_archive_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no \.csv file"):
        scored(tmp_path, {})


def test_what_desktops_leave_is_skipped(tmp_path: Path) -> None:
    left = {"__MACOSX/SST-2/._1.csv": b"\0", "SST-2/.DS_Store": b"\0", ".DS_Store": b"\0", "SST-2/._1.csv": b"\0"}
    left |= {"SST-2/Thumbs.db": b"\0", "desktop.ini": b""}
    assert len(scored(tmp_path, {**left, "SST-2/": b"", "SST-2/1.csv": GOOD})) == 1


def test_a_bomb_is_refused_by_its_size(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="larger than 16 MiB"):
        scored(tmp_path, {"SST-2/1.csv": b"0" * (17 << 20)})


def test_a_bomb_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path, {"SST-2/1.csv": b"0" * (17 << 20)})
    data = path.read_bytes().replace(struct.pack("<I", 17 << 20), struct.pack("<I", 100))
    path.write_bytes(data)
    with pytest.raises(InputError):
        score_archive(path, TRACK, EMBEDDED)


def test_too_many_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="1001 files"):
        scored(tmp_path, {f"SST-2/{n}.csv": "" for n in range(1001)})


def test_an_encrypted_archive_is_an_error(tmp_path: Path) -> None:
    path = archive(tmp_path, {"SST-2/1.csv": GOOD})
    data = bytearray(path.read_bytes())
    data[6] |= 1  # flag of the local header
    data[data.index(b"PK\x01\x02") + 8] |= 1  # and of the directory
    path.write_bytes(data)
    with pytest.raises(InputError, match="encrypted"):
        score_archive(path, TRACK, EMBEDDED)


def test_a_damaged_archive_is_an_error(tmp_path: Path) -> None:
    path = archive(tmp_path, {"SST-2/1.csv": GOOD})
    data = bytearray(path.read_bytes())
    data[60:90] = bytes(30)
    path.write_bytes(data)
    with pytest.raises(InputError, match="cannot be read"):
        score_archive(path, TRACK, EMBEDDED)


@pytest.mark.parametrize("content", [b"", b"PK", b"not a zip at all", None])
def test_what_is_no_archive_is_an_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "predictions.zip"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read"):
        score_archive(path, TRACK, EMBEDDED)


def test_the_kit_is_scored_by_its_own_labels(tmp_path: Path) -> None:
    if not (KIT / "SST-2" / "test.tsv").is_file():
        pytest.skip(f"no competition kit at {KIT}")
    source = Source("kit", KIT)
    track = load_track("kit")
    files = {n: f for n, f in track_tasks(track).items() if f.kit and (KIT / f.kit.folder / "test.tsv").is_file()}
    members: dict[str, str | bytes] = {}
    for file in files.values():
        rows = io.StringIO(",pred\n")
        rows.seek(0, io.SEEK_END)
        assert file.kit is not None
        for n, label in enumerate(load_test(file, source).labels):
            rows.write(f"{n},{file.kit.labels[label]}\n")
        members[f"{file.kit.folder}/8.csv"] = rows.getvalue()
    found = score_archive(archive(tmp_path, members), track, source)
    assert {(s.task, s.score) for s in found} == {(name, 1.0) for name in files}


# ── stored ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def store(tmp_path: Path) -> Any:
    made = Store(str(tmp_path / "results.db"))
    yield made
    made.close()


def upload(store: Store, folder: Path, members: dict[str, str | bytes], name: str = "team") -> str:
    path = archive(folder, members)
    found = score_archive(path, TRACK, EMBEDDED)
    return keep(store, name, path, TRACK, "embedded", found, planned_cells(TRACK, EMBEDDED))


CELLS = [(name, split) for name in FILES for split in (1, 2, 3)]
HALF = ",pred\n" + "".join(f"{n},{label if n % 2 else 1 - label}\n" for n, label in enumerate(LABELS))


def test_an_archive_is_stored_as_predictions_without_a_budget(tmp_path: Path, store: Store) -> None:
    """It is stored once. Another archive of that name is another run; the newest is listed."""
    first = upload(store, tmp_path, {"SST-2/1.csv": GOOD, "SST-2/2.csv": HALF})
    assert upload(store, tmp_path, {"SST-2/1.csv": GOOD, "SST-2/2.csv": HALF}) == first
    (run,) = store.runs()
    assert (run.id, run.key.access, run.key.entry) == (first, "predictions", "team")
    one, two = store.cells(first)
    np.testing.assert_array_equal(one.predictions[1.0], LABELS)
    np.testing.assert_array_equal(one.labels, LABELS)
    assert (one.split, two.split, one.status) == (1, 2, "ok")
    (listed,) = uploads(store, "mini", TRACK.fingerprint, CELLS)
    assert (listed.name, listed.missing, listed.average) == ("team", 4, 0.75)
    second = upload(store, tmp_path, {"SST-2/1.csv": HALF})
    assert second != first
    (listed,) = uploads(store, "mini", TRACK.fingerprint, CELLS)
    assert (listed.run, listed.average) == (second, 0.5)
    assert upload_records([listed]) == [
        {"name": "team", "run": second, "missing_cells": 5, "average": 0.5, "sst2": 0.5}
    ]
    assert upload_table([listed]).row_count == 1
    assert uploads(store, "mini", "another version", CELLS) == []


def test_uploads_change_nothing_about_the_ranking(tmp_path: Path, store: Store) -> None:
    """Even with perfect uploads, only the metered run is ranked. Without that run, the leaderboard is empty."""
    upload(store, tmp_path, {"SST-2/1.csv": GOOD})
    assert rank(store, "mini", TRACK.fingerprint).entries == ()
    metered = key("metered", track="mini", track_fingerprint=TRACK.fingerprint)
    attempt = store.begin(store.open_run(metered, {"packages": {}}), "sst2", 1)
    assert attempt.finish("no_answer", CellRecord(level=0, sandbox="process"), "t", LABELS, [])
    upload(store, tmp_path, {"SST-2/1.csv": GOOD}, "again")
    ranking = rank(store, "mini", TRACK.fingerprint)
    assert [(entry.name, entry.rank) for entry in ranking.entries] == [("metered", 1)]
    assert (ranking.left_out, ranking.elsewhere) == (0, ())


def test_missing_cells_are_named_and_the_complete_archive_comes_first(tmp_path: Path, store: Store) -> None:
    """An archive with one split of one task is scored; what it lacks is said."""
    labels = load_test(FILES["qqp"], EMBEDDED).labels
    qqp = ",pred\n" + "".join(f"{n},{label}\n" for n, label in enumerate(labels))
    part = score_archive(archive(tmp_path, {"SST-2/2.csv": GOOD}), TRACK, EMBEDDED)
    planned = planned_cells(TRACK, EMBEDDED)
    assert missing_cells(planned, part) == ["sst2/1", "sst2/3", "qqp/1", "qqp/2", "qqp/3"]
    whole: dict[str, str | bytes] = {}
    for n in (1, 2, 3):
        whole |= {f"SST-2/{n}.csv": HALF, f"QQP/{n}.csv": qqp}
    assert missing_cells(planned, score_archive(archive(tmp_path, whole), TRACK, EMBEDDED)) == []
    upload(store, tmp_path, {"SST-2/2.csv": GOOD}, "part")
    upload(store, tmp_path, whole, "whole")
    found = uploads(store, "mini", TRACK.fingerprint, CELLS)
    assert [(each.name, each.missing, each.average) for each in found] == [("whole", 0, 0.75), ("part", 5, 1.0)]


def small_kit(folder: Path) -> Path:
    """A competition directory with SST-2 alone, in the splits 8 and 13."""
    for split in (8, 13):
        place = folder / "SST-2" / str(split)
        place.mkdir(parents=True)
        for name in ("train", "dev"):
            (place / f"{name}.tsv").write_text("good\tpositive\nbad\tnegative\n")
    (folder / "SST-2" / "test.tsv").write_text("fine\tpositive\npoor\tnegative\n")
    return folder


def test_a_split_that_the_data_lack_is_refused_with_those_they_have(tmp_path: Path) -> None:
    """It was scored, and averaged in."""
    kit = Source("kit", small_kit(tmp_path / "kit"))
    predicted = ",pred\n0,1\n1,0\n"
    with pytest.raises(InputError, match=r"SST-2/11\.csv.*has no split 11 of sst2; it has 8, 13"):
        score_archive(archive(tmp_path, {"SST-2/8.csv": predicted, "SST-2/11.csv": predicted}), load_track("kit"), kit)


def test_of_a_data_directory_s_splits_those_without_predictions_are_counted(tmp_path: Path, store: Store) -> None:
    """The track leaves its splits open, so the list of uploads said that none was missing."""
    kit, track = Source("kit", small_kit(tmp_path / "kit")), load_track("kit")
    path = archive(tmp_path, {"SST-2/8.csv": ",pred\n0,1\n1,0\n"})
    planned, found = planned_cells(track, kit), score_archive(path, track, kit)
    assert planned == [("sst2", 8), ("sst2", 13)]
    assert missing_cells(planned, found) == ["sst2/13"]
    keep(store, "part", path, track, "kit", found, planned)
    (listed,) = uploads(store, "kit", track.fingerprint, track.planned)
    assert listed.missing == 1


def test_predictions_have_no_answer_to_apply(tmp_path: Path, store: Store) -> None:
    """`harness predict` says why."""
    upload(store, tmp_path, {"SST-2/1.csv": GOOD})
    with pytest.raises(InputError, match="'team' was uploaded as predictions"):
        stored_answer(store, "team", "mini", "sst2", 1, other_model=False)
