"""The draw of BBT's code, pinned on small synthetic sets."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness.contract import Examples
from harness.errors import DataError
from harness.tracks import bbt_2022
from harness.tracks.bbt_2022 import RowsOf2022, draw
from harness.tracks.tasks import load_task
from harness.tracks.track_task import TrackTask

LABELS = [0, 1, 0, 1, 0, 1, 1, 0, 0, 1, 0, 1]
ROWS = RowsOf2022("made up", None, "paper-2022", prompt_tokens=50)


class Words:
    """A tokenizer that cuts at spaces, and adds two."""

    mask_token = "<mask>"  # noqa: S105

    def __call__(self, texts: list[str], **_: Any) -> dict[str, list[list[int]]]:
        """As transformers' tokenizers are called."""
        return {"input_ids": [[0] * (len(text.split()) + 2) for text in texts]}


@pytest.fixture(autouse=True)
def words(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model is needed to count."""
    monkeypatch.setattr(bbt_2022, "_tokenizer", lambda _source, _revision: Words())
    bbt_2022._lengths.cache_clear()


@pytest.mark.parametrize(
    ("split", "train", "dev"),
    [(13, [5, 9, 7, 8], [3, 4]), (42, [10, 9, 0, 5], [8, 1])],
)
def test_the_rows_of_a_split_are_pinned(split: int, train: list[int], dev: list[int]) -> None:
    """Numpy's legacy shuffle of 0 .. n-1 under the split's number, then one pass; taken order is kept."""
    assert draw(LABELS, split, 2, 1) == (train, dev)
    order = list(range(len(LABELS)))
    np.random.RandomState(split).shuffle(order)
    for rows in (train, dev):
        assert [order.index(n) for n in rows] == sorted(order.index(n) for n in rows)


def test_train_is_filled_before_dev_class_by_class() -> None:
    """No row is in both, and each class has its number."""
    train, dev = draw(LABELS * 5, 8, 4, 3)
    assert not set(train) & set(dev)
    assert sorted(LABELS[n % 12] for n in train) == [0] * 4 + [1] * 4
    assert sorted(LABELS[n % 12] for n in dev) == [0] * 3 + [1] * 3


def test_long_rows_are_left_out_before_the_draw() -> None:
    """512 tokens with the filled template and the prompt's tokens are kept, 513 are not."""
    file = load_task("sst2")  # " . {a} . It was <mask> ." has 6 words of its own, and 2 special tokens
    fits = 512 - 50 - 2 - 6
    texts = (("a " * fits,), ("a " * (fits + 1),), ("short",))
    kept = ROWS.kept(Examples(texts, np.array([0, 1, 1])), file)
    assert kept.texts == (texts[0], texts[2])
    assert kept.labels.tolist() == [0, 1]


def test_written_out_line_breaks_are_spaces_on_yelp_alone() -> None:
    examples = Examples((("good\\nfood",),), np.array([1]))
    assert ROWS.kept(examples, load_task("yelp")).texts == (("good food",),)
    assert ROWS.kept(examples, load_task("agnews")).texts == (("good\\nfood",),)


def test_too_few_rows_of_a_class_are_told() -> None:
    pool = Examples(tuple((f"text {n}",) for n in range(12)), np.array(LABELS))
    with pytest.raises(DataError, match="class negative has 6 rows to train on and 0 for dev; 6 and 1 are needed"):
        ROWS.shots(pool, load_task("sst2"), 8, TrackTask(1, (8,), 6, 1))
    shots = ROWS.shots(pool, load_task("sst2"), 13, TrackTask(1, (13,), 2, 1))
    assert [text for (text,) in shots.train.texts] == ["text 5", "text 9", "text 7", "text 8"]
    assert shots.dev.labels.tolist() == [LABELS[3], LABELS[4]]


def test_the_draw_is_a_tracks() -> None:
    """It names the tokenizer, the wording and the length of the prompt."""
    track = SimpleNamespace(
        model=SimpleNamespace(source="x", revision="y"), profile="p", prompt=SimpleNamespace(tokens=3)
    )
    assert RowsOf2022.of(track) == RowsOf2022("x", "y", "p", 3)  # type: ignore[arg-type]
