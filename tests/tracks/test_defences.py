"""The [defences] table is part of a track's identity only when it keeps something back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from harness.errors import InputError, TrackError
from harness.tracks.defences import Defences, read_policy
from harness.tracks.track import Track, load_track, tracks_dir

if TYPE_CHECKING:
    from pathlib import Path

MINI = (tracks_dir() / "mini.toml").read_text(encoding="utf-8")


def with_table(folder: Path, table: str) -> Track:
    path = folder / "mini.toml"
    path.write_text(f"{MINI}\n[defences]\n{table}\n", encoding="utf-8")
    return load_track(str(path))


def test_no_defence_is_no_other_track(tmp_path: Path) -> None:
    mini = load_track("mini")
    assert mini.defences.none
    assert with_table(tmp_path, "").fingerprint == mini.fingerprint
    closed = with_table(tmp_path, 'words = "task"\nhidden_states = false')
    assert closed.defences == Defences(words="task", hidden_states=False)
    assert closed.fingerprint != mini.fingerprint
    assert closed.fingerprint != with_table(tmp_path, "most_rank = 9").fingerprint
    assert msgspec.structs.replace(closed, given_defences=msgspec.UNSET).fingerprint == mini.fingerprint


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("digits = 2", "digits keeps logits back, and hidden states give them away"),
        ("noise = 0.5", "add hidden_states = false"),
        ('words = "some"', "Invalid enum value 'some'"),
        ("most_rank = 0", ">= 1"),
        ("digits = 9\nhidden_states = false", "<= 6"),
        ("noise_seed = 3", "without noise"),
        ("rank = 3", "rank"),
    ],
)
def test_bad_tables_are_told_with_their_line(tmp_path: Path, table: str, said: str) -> None:
    with pytest.raises(TrackError, match=said) as found:
        with_table(tmp_path, table)
    assert "mini.toml:" in str(found.value)
    policy = tmp_path / "policy.toml"
    policy.write_text(table, encoding="utf-8")
    with pytest.raises(InputError, match=said) as found_again:
        read_policy(policy)
    assert "policy.toml:" in str(found_again.value)


def test_a_policy_is_the_table_as_a_file(tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text("most_rank = 40\nmost_texts = 100\n", encoding="utf-8")
    assert read_policy(policy) == Defences(most_rank=40, most_texts=100)
    assert read_policy(policy).lines() == [
        "at most 100 different texts in a cell",
        "at most 40 dimensions of logits in a cell",
    ]
    with pytest.raises(InputError, match=r"none\.toml"):
        read_policy(tmp_path / "none.toml")


def test_texts_are_not_kept_back(tmp_path: Path) -> None:
    path = tmp_path / "mini-text.toml"
    text = (tracks_dir() / "mini-text.toml").read_text(encoding="utf-8")
    path.write_text(f"{text}\n[defences]\n", encoding="utf-8")
    assert load_track(str(path)).fingerprint == load_track("mini-text").fingerprint
    path.write_text(f"{text}\n[defences]\nmost_texts = 3\n", encoding="utf-8")
    with pytest.raises(TrackError, match="this task's answer is text; leave one of the two out"):
        load_track(str(path))
