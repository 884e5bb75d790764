"""The embedded model: checked, complete, and able to fill a mask."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
import torch

from harness.errors import ModelError
from harness.lm import embedded

if TYPE_CHECKING:
    from pathlib import Path


def fill(text: str, words: list[str]) -> list[float]:
    """Logits of some words at the mask of one text."""
    model, tokenizer = embedded.load()
    batch = tokenizer([text], return_tensors="pt")
    with torch.inference_mode():
        logits = model(**batch).logits[0, batch["input_ids"][0] == tokenizer.mask_token_id][0]
    return [float(logits[i]) for i in tokenizer.convert_tokens_to_ids(words)]


def test_decoder_is_the_word_embeddings() -> None:
    """No second vocabulary matrix is kept."""
    model, _ = embedded.load()
    decoder = model.get_output_embeddings().weight
    assert decoder.data_ptr() == model.get_input_embeddings().weight.data_ptr()


def test_loading_twice_gives_the_same_numbers() -> None:
    """Loading the model uses no random numbers."""
    (first, _), (second, _) = embedded.load(), embedded.load()
    state = second.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in first.state_dict().items())


def test_an_easy_mask_is_filled_sensibly() -> None:
    """Words that fit score above words that do not."""
    cat, stone = fill("The kitten grew up to be a large [MASK] that purrs.", ["cat", "parliament"])
    assert cat > stone
    good, bad = fill("A wonderful , touching and very funny film . It was [MASK] .", ["great", "bad"])
    worse_good, worse_bad = fill("A tedious , badly acted and pointless film . It was [MASK] .", ["great", "bad"])
    assert good - bad > worse_good - worse_bad


def test_alike_texts_lean_to_yes() -> None:
    """The pair cloze tells a paraphrase from a change of subject."""
    yes, no = fill("How can I learn to swim ? [MASK] , What is the best way to learn swimming ?", ["yes", "no"])
    other_yes, other_no = fill(
        "How can I learn to swim ? [MASK] , Who painted the ceiling of the chapel ?", ["yes", "no"]
    )
    assert yes - no > other_yes - other_no


def test_recorded_checksum_is_sixty_four_hexadecimal_digits() -> None:
    """Runs are stored with this checksum."""
    assert len(embedded.weights_sha256()) == 64
    assert int(embedded.weights_sha256(), 16)


def test_altered_weights_are_refused_with_both_checksums(tmp_path: Path) -> None:
    """A flipped byte is an error that says what was found, what was expected and what to do."""
    for name in ("head.safetensors", "checksum.json"):
        shutil.copy(embedded.WEIGHTS / name, tmp_path / name)
    content = bytearray((tmp_path / "head.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "head.safetensors").write_bytes(bytes(content))
    expected = json.loads((tmp_path / "checksum.json").read_text(encoding="utf-8"))["sha256"]
    with pytest.raises(ModelError, match=f"sha256 found [0-9a-f]{{64}}, expected {expected}; restore"):
        embedded.load(weights=tmp_path)


def test_another_encoder_is_refused(tmp_path: Path) -> None:
    """The package's own file is checked too."""
    shutil.copy(embedded.package_folder() / "config.json", tmp_path / "config.json")
    (tmp_path / "model.safetensors").write_bytes(b"something else")
    with pytest.raises(ModelError, match=f"expected {embedded.PACKAGE_SHA256}; reinstall"):
        embedded.load(package=tmp_path)


def test_missing_record_is_an_error_with_a_next_step(tmp_path: Path) -> None:
    """No checksum, no model."""
    with pytest.raises(ModelError, match=r"checksum\.json holds no readable sha256"):
        embedded.read_weights(tmp_path)


def test_tensors_that_do_not_fit_are_named() -> None:
    """Wrong names and wrong shapes are counted and the first is given."""
    model = embedded.base_model(embedded.package_folder())
    with pytest.raises(ModelError, match=r"1 unknown and 0 misshapen tensors, first nonsense"):
        embedded.overlay(model, {"nonsense": torch.zeros(1)})
