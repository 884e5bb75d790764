"""Malformed examples are reported with file and line, and draws are the same everywhere."""

import json
from collections.abc import Sequence
from pathlib import Path

import datasets
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.contract import Examples
from harness.errors import DataError
from harness.tracks import examples
from harness.tracks.examples import (
    Source,
    draw_shots,
    examples_sha256,
    kit_splits,
    load_shots,
    load_test,
    read_tsv,
    splits_of,
)
from harness.tracks.tasks import load_task
from harness.tracks.track_task import TrackTask

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "competition"
SST2, SNLI, QQP = load_task("sst2"), load_task("snli"), load_task("qqp")
SPEC = TrackTask(calls=1, splits=(1,), shots=2, dev=1)


def kit(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "train.tsv"
    path.write_bytes(content)
    return path


def pool(texts: int, classes: int) -> Examples:
    return Examples(tuple((f"text {n}",) for n in range(texts)), np.arange(texts) % classes)


# ── the competition kit ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("content", "where", "expectation"),
    [
        (b"", "", "no rows; at least one example"),
        (b"good film\tpositive\nbad film\n", ":2", "1 columns, 2 expected"),
        (b"good film\tpositive\tyes\n", ":1", "3 columns, 2 expected"),
        (b"good film\tpositive\n\nbad film\tnegative\n", ":2", "1 columns, 2 expected"),
        (b"a\tnegative\nb\tPositive\n", ":2", "unknown label 'Positive'; expected one of negative, positive"),
        (b"a\tnegative\nb\t\n", ":2", "unknown label ''"),
        (b"a\tnegative\nb \xff\tnegative\n", ":2", "byte 0xff is not UTF-8"),
        (b"a\tnegative\nb\tneg\rative\n", ":2", "unknown label 'neg\\rative'"),
    ],
)
def test_a_malformed_row_is_told_with_file_line_and_expectation(
    tmp_path: Path, content: bytes, where: str, expectation: str
) -> None:
    path = kit(tmp_path, content)
    with pytest.raises(DataError) as problem:
        read_tsv(path, SST2)
    assert str(problem.value).startswith(f"{path}{where}: ")
    assert expectation in str(problem.value)


def test_pairs_take_three_columns(tmp_path: Path) -> None:
    path = kit(tmp_path, b"a\tb\tNeutral\n")
    assert read_tsv(path, SNLI).texts == (("a", "b"),)
    with pytest.raises(DataError, match=r"3 columns, 2 expected"):
        read_tsv(path, SST2)


@pytest.mark.parametrize(
    "content",
    [
        "fine é \u2028 \x85 film\tpositive\nbad\tnegative\n",
        "fine é \u2028 \x85 film\tpositive\r\nbad\tnegative\r\n",
        "fine é \u2028 \x85 film\tpositive \nbad\tnegative",
        "\ufefffine é \u2028 \x85 film\tpositive\nbad\tnegative\n",
    ],
    ids=["LF", "CRLF", "space after the label and no newline at the end", "byte-order mark"],
)
def test_line_ends_trailing_spaces_and_unicode_separators_change_nothing(tmp_path: Path, content: str) -> None:
    examples = read_tsv(kit(tmp_path, content.encode()), SST2)
    assert examples.texts == (("fine é \u2028 \x85 film",), ("bad",))
    assert examples.labels.tolist() == [1, 0]
    assert examples.labels.dtype == np.int64


def test_quotes_and_trailing_spaces_of_a_text_are_text(tmp_path: Path) -> None:
    examples = read_tsv(kit(tmp_path, b'"half a quote \tpositive\n'), SST2)
    assert examples.texts == (('"half a quote ',),)


def test_missing_things_are_named_with_what_is_there(tmp_path: Path) -> None:
    source = Source("kit", tmp_path)
    with pytest.raises(DataError, match=r"SST-2: no such directory; expected SST-2/<split>/train.tsv"):
        load_test(SST2, source)
    (tmp_path / "SST-2" / "13").mkdir(parents=True)
    for stray in ("007", "²", "notes"):
        (tmp_path / "SST-2" / stray).mkdir()
    assert kit_splits(SST2, source) == [13]
    with pytest.raises(DataError, match=r"split 42 of SST-2 is missing; this directory has 13"):
        load_shots(SST2, source, 42, SPEC)
    with pytest.raises(DataError, match=r"train.tsv: no such file"):
        load_shots(SST2, source, 13, SPEC)
    with pytest.raises(DataError, match=r"test.tsv: no such file"):
        load_test(SST2, source)
    with pytest.raises(DataError, match="--data DIR"):
        load_test(SST2, Source("kit"))


def test_splits_are_the_tracks_or_those_present(tmp_path: Path) -> None:
    source = Source("kit", tmp_path)
    for split in ("8", "13", "100"):
        (tmp_path / "SST-2" / split).mkdir(parents=True)
    listed, present = TrackTask(calls=1, splits=(100, 8, 42)), TrackTask(calls=1, splits="present")
    assert splits_of(SST2, source, listed) == [100, 8, 42]
    assert splits_of(SST2, source, listed, present_only=True) == [100, 8]
    assert splits_of(SST2, source, present) == [8, 13, 100]
    assert splits_of(SST2, Source("embedded"), listed) == [100, 8, 42]
    with pytest.raises(DataError, match="no split to run"):
        splits_of(SST2, source, TrackTask(calls=1, splits=(9,)), present_only=True)
    with pytest.raises(DataError, match="--data DIR"):
        splits_of(SST2, Source("embedded"), present)


@pytest.mark.parametrize(("name", "rows"), [("sst2", 32), ("snli", 48), ("qqp", 32), ("qnli", 32), ("dbpedia", 112)])
def test_the_real_kit_is_read_whole(name: str, rows: int) -> None:
    if not REAL.is_dir():
        pytest.skip(f"{REAL} is not here; the competition's files are not part of this project")
    file, source = load_task(name), Source("kit", REAL)
    splits = kit_splits(file, source)
    assert len(splits) == 3
    for split in splits:
        shots = load_shots(file, source, split, SPEC)
        for part in (shots.train, shots.dev):
            assert len(part) == rows
            assert np.bincount(part.labels, minlength=len(file.classes)).tolist() == [rows // len(file.classes)] * len(
                file.classes
            )
    test = load_test(file, source)
    assert file.kit is not None
    lines = (REAL / file.kit.folder / "test.tsv").read_bytes().count(b"\n")
    assert len(test) == lines >= 150
    assert set(test.labels.tolist()) == set(range(len(file.classes)))


# ── draws ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_draw_is_the_same_on_every_platform() -> None:
    shots = draw_shots(pool(60, 3), 3, 4, 2, "task/1")
    assert examples_sha256(shots.train) == "44bb9bbf76cceacafeebaf36f58e6ed22a7555e7f87fd43d58db4d304e187dff"
    assert examples_sha256(shots.dev) == "c41021ae26f954b5e0c0b53fd224c35e95eec9074abdab7cfc85af5de7a19d98"


@given(st.integers(0, 2**32 - 1), st.integers(2, 5), st.integers(1, 4), st.integers(1, 4))
def test_a_draw_is_balanced_disjoint_and_independent_of_the_order_of_the_file(
    seed: int, classes: int, train: int, dev: int
) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(60, 120))
    texts = tuple((f"text {n}",) for n in rng.integers(50, size=count))  # with repeats
    labels = np.array([int(text[0][5:]) % classes for text in texts])
    order = rng.permutation(count)
    shuffled = Examples(tuple(texts[i] for i in order), labels[order])
    try:
        shots = draw_shots(Examples(texts, labels), classes, train, dev, "k")
    except DataError as problem:
        assert "different texts" in str(problem)  # noqa: PT017 - which draws fit is up to chance
        return
    again = draw_shots(shuffled, classes, train, dev, "k")
    assert examples_sha256(shots.train) == examples_sha256(again.train)
    assert examples_sha256(shots.dev) == examples_sha256(again.dev)
    drawn = shots.train.texts + shots.dev.texts
    assert len(set(drawn)) == len(drawn)
    assert np.bincount(shots.train.labels, minlength=classes).tolist() == [train] * classes
    assert np.bincount(shots.dev.labels, minlength=classes).tolist() == [dev] * classes
    for text, label in zip(drawn, np.concatenate([shots.train.labels, shots.dev.labels]), strict=True):
        assert int(text[0][5:]) % classes == label


def test_splits_and_tasks_draw_different_examples() -> None:
    draws = {examples_sha256(draw_shots(pool(60, 3), 3, 4, 2, key).train) for key in ("t/1", "t/2", "u/1")}
    assert len(draws) == 3


def test_a_text_whose_labels_disagree_is_never_drawn() -> None:
    texts = tuple((f"text {n}",) for n in range(6))
    examples = Examples((*texts, texts[0]), np.array([0, 0, 0, 1, 1, 1, 1]))
    with pytest.raises(DataError, match=r"k: class 0 has 2 different texts, 2 \+ 1 are needed"):
        draw_shots(examples, 2, 2, 1, "k")
    for key in range(20):
        shots = draw_shots(examples, 2, 1, 1, f"{key}")
        assert texts[0] not in shots.train.texts + shots.dev.texts


def test_the_digest_of_examples_tells_texts_labels_and_order_apart() -> None:
    base = Examples((("a",), ("b",)), np.array([0, 1]))
    others = [
        Examples((("a",), ("c",)), np.array([0, 1])),
        Examples((("a",), ("b",)), np.array([1, 0])),
        Examples((("b",), ("a",)), np.array([1, 0])),
    ]
    assert len({examples_sha256(e) for e in [base, *others]}) == 4


# ── miniatures ───────────────────────────────────────────────────────────────────────────────────────────────


def mini(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *lines: object) -> Path:
    folder = tmp_path / "qqp" / "mini"
    folder.mkdir(parents=True)
    content = "\n".join(line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines)
    (folder / "test.jsonl").write_text(content + "\n", encoding="utf-8")
    monkeypatch.setattr(examples, "tasks_dir", lambda: tmp_path)
    return folder / "test.jsonl"


def test_a_miniature_is_read_with_labels_in_class_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"texts": ["a \u2028 b", "c"], "label": "duplicate"}, {"texts": ["d", "e"], "label": "different"}]
    mini(tmp_path, monkeypatch, *rows)
    examples = load_test(QQP, Source("embedded"))
    assert examples.texts == (("a \u2028 b", "c"), ("d", "e"))
    assert examples.labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("row", "expectation"),
    [
        ("{", 'expected {"texts": [...], "label": "..."}'),
        ("", 'expected {"texts": [...], "label": "..."}'),
        ([1], "expected"),
        ({"label": "duplicate"}, "texts"),
        ({"texts": "ab", "label": "duplicate"}, "Expected `array`, got `str`"),
        ({"texts": ["a", 2], "label": "duplicate"}, "Expected `str`, got `int`"),
        ({"texts": ["a", "b"], "label": ["duplicate"]}, "Expected `str`, got `array`"),
        ({"texts": ["a"], "label": "duplicate"}, "1 texts, 2 strings expected"),
        ({"texts": ["a", "b"], "label": "same"}, "unknown label 'same'; expected one of different, duplicate"),
    ],
)
def test_a_malformed_miniature_row_is_told_with_file_and_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: object, expectation: str
) -> None:
    path = mini(tmp_path, monkeypatch, {"texts": ["a", "b"], "label": "different"}, row)
    with pytest.raises(DataError) as problem:
        load_test(QQP, Source("embedded"))
    assert str(problem.value).startswith(f"{path}:2: ")
    assert expectation in str(problem.value)


# ── public data sets ─────────────────────────────────────────────────────────────────────────────────────────


def hub(tmp_path: Path, **columns: Sequence[object]) -> Source:
    table = datasets.Dataset.from_dict(columns)
    datasets.DatasetDict({"train": table, "test": table}).save_to_disk(str(tmp_path / "snli"))
    return Source("hub", tmp_path)


def test_a_public_data_set_is_read_and_its_unlabelled_rows_are_left_out(tmp_path: Path) -> None:
    names = [f"p{n}" for n in range(13)]
    source = hub(tmp_path, premise=names, hypothesis=["h"] * 13, label=[0, 1, 2, -1, *[0, 1, 2] * 3])
    test = load_test(SNLI, source)
    assert len(test) == 12
    assert test.texts[3] == ("p4", "h")
    shots = load_shots(SNLI, source, 1, SPEC)
    assert shots.train.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert ("p3", "h") not in shots.train.texts + shots.dev.texts


DRAWN = {
    "snli/8": (
        "2e88ee2ad4e49bcad60be4108002a5d12bb2f3fd6c2b9cc64f0ba9c679da21f4",
        "89eb698ab195b9d50a179ce33ff672490d08c35a95ada05af5e53a9da27e8e9b",
    ),
    "snli/717": (
        "b6456d45a91fcff9bb81d4a1f5c7011b9309b2bf0096a5f1c927276f7680be4e",
        "46061b8a13e9c76b5f0ac793113ba70504746f7f3c237abd8f7038feb4c79d3c",
    ),
    "dbpedia/42": (
        "11e2a38ed14a2af8cef8f292ff3c1bfc286161cabd1723cc651daf0d96eccfed",
        "21b8e2528bca599145f4fd9f96972220e1ee3a378d39c19b7a36463b86d14c85",
    ),
    "mrpc/13": (
        "429c0f48386958b103c99e17bfcaffc1fbdc75da9dbdd3a8a41c87d1be45b22e",
        "bc53694896eb338278725bcaa9c774919cb3e0666efb1c9d0653c6fb5637472f",
    ),
}
"""Digests of train and dev, frozen: whoever draws these splits from these rows gets these examples."""


@pytest.mark.parametrize("key", DRAWN)
def test_the_draw_from_a_saved_public_data_set_is_frozen(tmp_path: Path, key: str) -> None:
    """As the tracks draw it, 16 + 16 per class or 8 + 8; rows stored in another order change nothing."""
    name, split = key.split("/")
    file = load_task(name)
    assert file.hub is not None
    classes, shots = len(file.classes), 8 if name == "dbpedia" else 16
    numbers = list(range(60 * classes))
    for folder, order in (("a", numbers), ("b", numbers[::-1])):
        columns: dict[str, list[object]] = {c: [f"{c} № {n}" for n in order] for c in file.hub.columns}
        columns[file.hub.label] = [-1 if n % 10 == 9 else n % classes for n in order]
        table = datasets.Dataset.from_dict(columns)
        datasets.DatasetDict({file.hub.train: table, file.hub.test: table}).save_to_disk(str(tmp_path / folder / name))
        spec = TrackTask(calls=1, splits=(int(split),), shots=shots, dev=shots)
        drawn = load_shots(file, Source("hub", tmp_path / folder), int(split), spec)
        assert len(drawn.train) == len(drawn.dev) == shots * classes
        assert (examples_sha256(drawn.train), examples_sha256(drawn.dev)) == DRAWN[key]


def test_no_row_of_a_public_test_set_is_dropped_but_unlabelled_ones(tmp_path: Path) -> None:
    """Empty, repeated and very long texts stay, in order."""
    texts = ["", "twice", "twice", "long " * 10_000, "unlabelled", " "]
    table = datasets.Dataset.from_dict({"content": texts, "label": [0, 1, 1, 13, -1, 2]})
    datasets.DatasetDict({"train": table, "test": table}).save_to_disk(str(tmp_path / "dbpedia"))
    test = load_test(load_task("dbpedia"), Source("hub", tmp_path))
    assert test.texts == tuple((text,) for text in texts if text != "unlabelled")
    assert test.labels.tolist() == [0, 1, 1, 13, 2]


def test_a_task_without_kit_or_miniature_says_so(tmp_path: Path) -> None:
    """One message, whatever is asked for."""
    rte = load_task("rte")
    for ask in (load_test, kit_splits):
        with pytest.raises(DataError, match=r"task rte has no \[kit\] table: .*; take a track on other data"):
            ask(rte, Source("kit", tmp_path))
    with pytest.raises(DataError, match=r"task rte has no miniature, .* is missing; take a track on other data"):
        load_test(rte, Source("embedded"))
    with pytest.raises(DataError, match="task rte has no miniature"):
        load_shots(rte, Source("embedded"), 8, SPEC)


def test_a_public_data_set_that_does_not_fit_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"SNLI: stanfordnlp/snli, split test cannot be loaded: .* kit directory"):
        load_test(SNLI, Source("hub", tmp_path))
    with pytest.raises(DataError, match=r"stanfordnlp/snli, split test:1: unknown label '3'"):
        load_test(SNLI, hub(tmp_path / "a", premise=["p", "q"], hypothesis=["h", "h"], label=[0, 3]))
    with pytest.raises(DataError, match=r"split test cannot be loaded: .*hypothesis"):
        load_test(SNLI, hub(tmp_path / "b", premise=["p"], conclusion=["h"], label=[0]))
    with pytest.raises(DataError, match=r"split test:0: .* strings expected"):
        load_test(SNLI, hub(tmp_path / "c", premise=["p"], hypothesis=[None], label=[0]))


def test_a_source_names_itself_without_its_parents(tmp_path: Path) -> None:
    assert str(Source("kit", tmp_path / "competition")) == "kit:competition"
    assert str(Source("embedded")) == "embedded"
