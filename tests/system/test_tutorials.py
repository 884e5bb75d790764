"""The two pages that lead a newcomer work as they stand: from an idea to an entry, and from a CSV to a competition."""

from __future__ import annotations

import re
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tutorials import follow

from harness.tracks import track as tracks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tutorials import Ran

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


@pytest.fixture
def small_mini(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The track `mini` with one task of one split and a budget of 20 calls; everything else is as it ships."""
    place = tmp_path_factory.mktemp("builtin")
    for path in tracks.tracks_dir().glob("*.toml"):
        shutil.copy(path, place)
    text = (place / "mini.toml").read_text(encoding="utf-8")
    text = re.sub(r"^\[tasks\.(dbpedia|snli|qqp|qnli)\]\n(?:.+\n)*", "", text, flags=re.MULTILINE)
    text = re.sub(r"^calls = \d+", "calls = 20", text, flags=re.MULTILINE)
    (place / "mini.toml").write_text(re.sub(r"^splits = .*", "splits = [1]", text, flags=re.MULTILINE))
    monkeypatch.setattr(tracks, "tracks_dir", lambda: place)
    tracks._shipped_rows.cache_clear()
    yield
    tracks._shipped_rows.cache_clear()


def printed(ran: list[Ran], start: str) -> str:
    """What the last command printed whose line starts so."""
    return [each.stdout for each in ran if each.line.startswith(start)][-1]


@pytest.mark.slow
def test_from_idea_to_ranked_entry(folder: Path, small_mini: None) -> None:
    shutil.copytree(ROOT / "submissions" / "manual", folder / "submissions" / "manual")
    ran = follow("first-entry.md", folder)
    assert "ok; now the real thing" in printed(ran, "harness check submissions/mysolver --here")
    board = printed(ran, "harness leaderboard --format md")
    assert {"mysolver", "mysolver[step=1]", "manual"} <= set(re.findall(r"mysolver\[step=1\]|mysolver|manual", board))
    assert "reproduced" in printed(ran, "harness replay")


def test_hold_your_own_competition(folder: Path) -> None:
    with zipfile.ZipFile(folder / "predictions.zip", "w") as archive:
        for split in (1, 2):
            rows = "".join(f"{n},{n % 2}\n" for n in range(12))
            archive.writestr(f"my/{split}.csv", f",pred\n{rows}")
    ran = follow("own-competition.md", folder)
    assert "ok: the track reviews" in printed(ran, "harness tasks --check")
    public = next(each.stdout for each in ran if each.line == "harness leaderboard --track reviews")
    assert "1  alice/mysolver" in public
    assert "scores are kept back until then" in public
    assert not re.search(r"\d\d\.\d", public)
    assert "1 label of 12 corrected" in printed(ran, "harness leaderboard --track reviews --organiser --out")
    original = printed(ran, "harness leaderboard --track reviews --organiser --labels original")
    assert "the labels on which the runs were scored; they were corrected since" in original
    usage = printed(ran, "harness leaderboard --track reviews --usage")
    assert {"alice", "carol"} <= set(usage.split())
    assert "bob" in printed(ran, "harness serve --usage")
    assert "carol/predictions" in printed(ran, "harness rulings")
    assert (folder / "final.csv").is_file()
