"""What the tracks `official` and `paper` name, in miniature: repositories for `fake_hub` under the real names.

The model is a tiny random RoBERTa; each data set has its real columns, label numbers and splits, and made-up texts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import datasets
import tiny_roberta

from harness.tracks.tasks import outside_set
from harness.tracks.track import load_track, track_tasks

if TYPE_CHECKING:
    from pathlib import Path

    from harness.tracks.tasks import TaskFile

PER_CLASS = 40
"""Training texts; the tracks draw 32 of each class at most."""
TEST_ROWS = 28


def save(root: Path) -> Path:
    """Write all repositories below `root`."""
    folder = root / "models" / load_track("official").model.source
    folder.mkdir(parents=True)
    tiny_roberta.save(folder)
    files = {name: file for track in ("official", "paper") for name, file in track_tasks(load_track(track)).items()}
    for file in (*files.values(), outside_set("mnli")):
        _save_set(root / "datasets", file)
    return root


def _save_set(root: Path, file: TaskFile) -> None:
    hub = file.hub
    assert hub is not None
    config = hub.config or "default"
    repository = root / hub.dataset
    (repository / config).mkdir(parents=True)
    card = repository / "README.md"
    lines = card.read_text(encoding="utf-8").splitlines()[1:-1] if card.exists() else ["configs:"]
    lines += [f"- config_name: {config}", "  data_files:"]
    for split in (hub.train, hub.test):
        lines += [f"  - split: {split}", f"    path: {config}/{split}-*"]
        rows = PER_CLASS * len(file.classes) if split == hub.train else TEST_ROWS
        table = {
            column: [f"{split} {column} {n} of {file.title}, {'long ' * (n % 7)}it was" for n in range(rows)]
            for column in hub.columns
        }
        table[hub.label] = [n % len(file.classes) for n in range(rows)]
        datasets.Dataset.from_dict(table).to_parquet(str(repository / config / f"{split}-00000-of-00001.parquet"))
    card.write_text("\n".join(["---", *lines, "---"]) + "\n", encoding="utf-8")
