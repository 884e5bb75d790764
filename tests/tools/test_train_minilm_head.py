"""The training script: any text in, checked weights out, the same after an interruption."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file

from harness.lm import embedded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
ANIMALS = ("heron", "otter", "badger", "beetle", "salmon", "falcon", "hedgehog", "lizard", "spider", "raven")
PLACES = ("river", "forest", "garden", "mountain", "village", "harbour", "meadow", "castle", "market", "island")


def write_text(path: Path) -> Path:
    """Two hundred short lines: glosses, opinions and statements."""
    lines = [
        f"{animal}: an animal of the {place} that is seen in the early morning"
        for animal in ANIMALS
        for place in PLACES
    ]
    lines += [
        f"The {animal} was seen by the old {place} in the summer of 1907." for animal in ANIMALS for place in PLACES[:5]
    ]
    lines += [
        f"the film about the {animal} is very slow but the story of the {place} is really good ."
        for animal in ANIMALS[:5]
        for place in PLACES
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(name="trainer")
def import_trainer(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The script as a module; the number of threads is put back afterwards."""
    monkeypatch.syspath_prepend(str(ROOT))
    threads = torch.get_num_threads()
    yield importlib.import_module("tools.train_minilm_head")
    torch.set_num_threads(threads)


def train(trainer: ModuleType, text: Path, folder: Path, steps: int, *more: str) -> dict[str, torch.Tensor]:
    """Run the script; the tensors it wrote."""
    options = [str(text), "--out", str(folder / "out"), "--work", str(folder / "work"), "--scale", "0.05"]
    options += ["--units", "150", "--wordnet", str(folder / "none"), "--steps", str(steps), "--every", "2"]
    trainer.main([*options, "--threads", "1", *more])
    return load_file(folder / "out" / "head.safetensors")


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(
    trainer: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stopped after two of four steps and started again: the same bytes."""
    text = write_text(tmp_path / "text.txt")
    whole = train(trainer, text, tmp_path / "whole", 4)
    train(trainer, text, tmp_path / "parts", 4, "--stop-after", "2")
    capsys.readouterr()
    parts = train(trainer, text, tmp_path / "parts", 4)
    said = capsys.readouterr().out
    assert "going on from step 2" in said
    assert "tokens/s" in said
    assert whole.keys() == parts.keys()
    assert all(whole[name].equal(parts[name]) for name in whole)


@pytest.mark.parametrize(("what", "layers"), [("head", 0), ("adapter", 6), ("encoder", 6)])
def test_what_is_written_loads_and_is_small(trainer: ModuleType, tmp_path: Path, what: str, layers: int) -> None:
    """Plain names, bfloat16, a checksum that holds, no word embeddings."""
    train(trainer, write_text(tmp_path / "text.txt"), tmp_path, 2, "--train", what)
    state = embedded.read_weights(tmp_path / "out")
    assert len({name.split(".")[3] for name in state if name.startswith("bert.encoder.layer.")}) == layers
    assert not [name for name in state if "embeddings" in name or "decoder" in name]
    assert sum(tensor.numel() * 2 for tensor in state.values()) < (4e6 if layers == 0 else 24e6)
    assert json.loads((tmp_path / "out" / "checksum.json").read_text(encoding="utf-8"))["bytes"] < 24_000_000
    embedded.overlay(embedded.base_model(embedded.package_folder()), state)


def test_an_empty_text_is_refused_with_what_to_give(trainer: ModuleType, tmp_path: Path) -> None:
    """The message names the file and the format."""
    text = tmp_path / "empty.txt"
    text.write_text("\n\n", encoding="utf-8")
    with pytest.raises(SystemExit, match=r"empty\.txt has no lines with text; give a file with one passage a line"):
        trainer.main([str(text), "--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")])
