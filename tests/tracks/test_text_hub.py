"""Public data sets of text tasks, in the columns that they have on the hub. The texts were written for these tests."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import datasets
import msgspec
import pytest
from fake_hub import serving
from test_fetch import CARD, Place

from harness.errors import DataError, TaskError
from harness.tracks.examples import Source, load_shots, load_test
from harness.tracks.staging import wants
from harness.tracks.tasks import load_task, tasks_dir
from harness.tracks.text_examples import from_table
from harness.tracks.text_tasks import TextHub
from harness.tracks.track import load_track

if TYPE_CHECKING:
    from pathlib import Path

SHOTS = 3
WRITTEN: dict[str, Any] = {
    "e2e": lambda n, _split: {
        "meaning_representation": f"name[The Mill {n // 2}], eatType[pub], near[the lock]",
        "human_reference": f"The Mill {n // 2} is a pub by the lock{'!' * (n % 2)}.",
    },
    "samsum": lambda n, split: {
        "id": str(n),
        "dialogue": f"Ann: Is train {n} late?\r\nBob: Yes, by {n} minutes. {split}",
        "summary": f"Train {n} is late.",
    },
    "wmt16": lambda n, _split: {"translation": {"de": f"Das Haus {n} ist alt.", "en": f"House {n} is old."}},
    "gsm8k": lambda n, _split: {
        "question": f"Ann has {n} pears and buys {n} more. How many has she?",
        "answer": f"She has {n} + {n} = <<{n}+{n}={2 * n}>>{2 * n} pears.\n#### {2 * n}",
    },
}


def staged(folder: Path, name: str, rows: int = 24) -> Source:
    """The data set of a task as `harness fetch` leaves it, with these rows in each split."""
    hub = load_task(name).hub
    assert hub is not None
    table = {
        split: datasets.Dataset.from_list([WRITTEN[name](n, split) for n in range(rows)])
        for split in (hub.train, hub.test)
    }
    datasets.DatasetDict(table).save_to_disk(str(folder / name))
    return Source("hub", folder)


@pytest.mark.parametrize("name", sorted(WRITTEN))
def test_each_set_gives_texts_and_references(name: str, tmp_path: Path) -> None:
    source, file, spec = staged(tmp_path, name), load_task(name), load_track("text").tasks[name]
    test = load_test(file, source)
    assert len(test) == (12 if name == "e2e" else 24)
    text, references = {
        "e2e": (
            "name[The Mill 0], eatType[pub], near[the lock]",
            ("The Mill 0 is a pub by the lock.", "The Mill 0 is a pub by the lock!."),
        ),
        "samsum": ("Ann: Is train 0 late?\nBob: Yes, by 0 minutes. test", ("Train 0 is late.",)),
        "wmt16": ("Das Haus 0 ist alt.", ("House 0 is old.",)),
        "gsm8k": ("Ann has 0 pears and buys 0 more. How many has she?", ("0",)),
    }[name]
    assert (test.texts[0], test.references[0]) == ((text,), references)
    assert test.labels.tolist() == [0] * len(test)
    shots = load_shots(file, source, 1, msgspec.structs.replace(spec, shots=SHOTS, dev=SHOTS))
    assert len({*shots.train.texts, *shots.dev.texts}) == 2 * SHOTS
    again = load_shots(file, source, 2, msgspec.structs.replace(spec, shots=SHOTS, dev=SHOTS))
    assert again.train.texts != shots.train.texts


def test_the_track_wants_its_model_and_four_data_sets() -> None:
    track = load_track("text")
    found = wants(track, track.tasks)
    assert set(found) == {f"model/{track.model.source}", *(f"data/{name}" for name in WRITTEN)}
    assert found["data/wmt16"].config == "de-en"
    assert found["data/wmt16"].splits == ("validation", "test")


def test_a_large_test_set_is_cut_by_the_digest_of_its_texts() -> None:
    table = {"q": [f"question {n}" for n in range(50)], "a": [f"answer {n}" for n in range(50)]}
    hub = TextHub("owner/set", ("q",), "a", "train", "test", test_texts=10)
    some = from_table(table, "set", hub, test=True)
    assert len(some) == 10
    back = {name: column[::-1] for name, column in table.items()}
    assert set(from_table(back, "set", hub, test=True).texts) == set(some.texts)
    assert len(from_table(table, "set", hub, test=False)) == 50


@pytest.mark.parametrize(
    ("table", "after", "message"),
    [
        ({"q": ["x"], "b": ["y"]}, "", "no column 'a'; there are q, b"),
        ({"q": ["x", " "], "a": ["y", "z"]}, "", "set:1: .* strings that are not empty"),
        ({"q": ["x"], "a": [None]}, "", "set:0: .* strings that are not empty"),
        ({"q": ["x"], "a": ["no marker"]}, "####", "no '####' in column a"),
        ({"q": ["x"], "a": ["what #### "]}, "####", "nothing follows '####'"),
        ({"q": [], "a": []}, "", "no rows"),
    ],
)
def test_what_a_set_lacks_is_told_by_row_and_column(table: Any, after: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        from_table(table, "set", TextHub("owner/set", ("q",), "a", "train", "test", after=after), test=True)


def test_a_field_inside_a_column_may_be_missing() -> None:
    hub = TextHub("owner/set", ("t.de",), "t.en", "train", "test")
    with pytest.raises(DataError, match=r"set:1: .* in column t; 'de' expected in it"):
        from_table({"t": [{"de": "a", "en": "b"}, {"en": "b"}]}, "set", hub, test=True)


def test_a_task_file_names_one_column_for_each_field(tmp_path: Path) -> None:
    shutil.copytree(tasks_dir() / "gsm8k", tmp_path / "gsm8k")
    path = tmp_path / "gsm8k" / "task.toml"
    path.write_text(path.read_text(encoding="utf-8").replace('["question"]', '["question", "answer"]'))
    with pytest.raises(TaskError, match=r"hub\.columns has 2 columns for 1 text fields"):
        load_task("gsm8k", tmp_path)


def test_a_set_is_fetched_and_read_without_a_network(tmp_path: Path) -> None:
    """Through the hub's own client, from a hub of this test; the model is a folder, so that data alone are wanted."""
    root, (owner, name) = tmp_path / "hub", load_task("samsum").hub.dataset.split("/")  # type: ignore[union-attr]
    folder = root / "datasets" / owner / name
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(
        CARD.format(config="default").replace("split: validation", "split: test").replace("validation-*", "test-*"),
        encoding="utf-8",
    )
    for split in ("train", "test"):
        (folder / "default").mkdir(exist_ok=True)
        table = datasets.Dataset.from_list([WRITTEN["samsum"](n, split) for n in range(12)])
        table.to_parquet(str(folder / "default" / f"{split}-00000-of-00001.parquet"))
    (tmp_path / "model").mkdir()
    with serving(root) as hub:
        place = Place(tmp_path / "user", hub)
        shipped = load_track("text")
        place.track.write_text(
            f'name = "tiny"\ntitle = "One set"\nrules = 1\nprofile = "harness-2026"\ndevice = "cpu"\n'
            f'[model]\nsource = "{tmp_path / "model"}"\ndtype = "float32"\nkind = "causal"\n'
            '[data]\nsource = "hub"\n[prompt]\ntokens = 2\nfirst_id = 20\n[limits]\nwall_s = 60\nmemory_gb = 2\n'
            f"[tasks.samsum]\ncalls = 5\nrow_tokens = {shipped.tasks['samsum'].tokens_of_a_row}\nsplits = [1]\n",
            encoding="utf-8",
        )
        done = place.fetch()
        assert done.returncode == 0, done.stderr
    source = Source("hub", place.staged / "data")
    assert len(load_test(load_task("samsum"), source)) == 12
