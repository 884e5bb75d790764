"""A model in an installed package: found without running the package's code, or told how to install it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
import tiny_models

from harness.errors import ModelError
from harness.lm.kinds import kind_of
from harness.lm.load import load_model, load_tokens
from harness.lm.packages import located
from harness.tracks.track import ModelSpec, PromptSpec, load_track

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package `tiny-model` 1.2 with a Llama in its folder. Its code must not run."""
    folder = tmp_path / "tiny_model"
    tiny_models.save("llama", folder)
    (folder / "__init__.py").write_text("raise SystemExit('the package was imported')\n", encoding="utf-8")
    facts = tmp_path / "tiny_model-1.2.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.2\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


@pytest.mark.parametrize("source", ["package:tiny-model==1.2", "package:tiny-model"])
def test_a_model_is_loaded_from_its_package(package: Path, source: str) -> None:
    """Kind, tokens and weights; and it is called by the package's name."""
    assert located(source) == str(package)
    assert kind_of(source) == "causal"
    spec = ModelSpec(source, "float32", "causal")
    lm, tokens = load_model(spec, PromptSpec(2, 20)), load_tokens(spec)
    same = load_model(ModelSpec(str(package), "float32", "causal"), PromptSpec(2, 20))
    assert tokens is not None
    assert (lm.name, tokens.name, lm.sha256) == ("tiny-model", "tiny-model", same.sha256)
    assert tokens.word_ids([" bad"]) == lm.word_ids([" bad"])
    assert "tiny_model" not in sys.modules


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("package:no-such-model==3", r"no-such-model, which is not installed\. Run: pip install --no-deps no-such-mod"),
        ("package:tiny-model==1.3", r"tiny-model 1\.3; version 1\.2 is installed\. Run: pip install --no-deps tiny-m"),
    ],
)
def test_a_package_that_is_not_there_is_told_with_the_command(package: Path, source: str, message: str) -> None:
    """By whatever asks for the model first."""
    assert package.is_dir()
    with pytest.raises(ModelError, match=message):
        kind_of(source)
    with pytest.raises(ModelError, match=message):
        load_model(ModelSpec(source, "float32", "causal"), PromptSpec(2, 20))
    assert load_tokens(ModelSpec(source, "float32", "causal")) is None


def test_other_sources_are_left_as_they_are() -> None:
    """A directory, a hub id and the embedded model."""
    for source in ("embedded", "owner/name", "/some/where"):
        assert located(source) == source


def test_mini_causal_has_the_tasks_splits_and_budgets_of_mini() -> None:
    """Otherwise conclusions of one could not be checked on the other."""
    mini, causal = load_track("mini"), load_track("mini-causal")
    assert causal.tasks == mini.tasks
    assert (causal.data, causal.prompt, causal.profile) == (mini.data, mini.prompt, mini.profile)
