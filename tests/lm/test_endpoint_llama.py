"""A real server, llama.cpp's, with real weights: its numbers are those of the same weights in this process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_server import dequantised, llama_server

from harness.lm.endpoint.model import connect
from harness.lm.endpoint.requests import KEY
from harness.lm.endpoint.ways import LABELS
from harness.lm.load import load_model
from harness.tracks.examples import Source, load_test
from harness.tracks.tasks import load_task
from harness.tracks.track import load_track

pytestmark = pytest.mark.slow
TRACK = load_track("api")
ROOT = Path(__file__).parents[2]
WORDS = (" bad", " great", " fine")
QUANTISED = 0.6
"""Largest difference of a logit: llama.cpp rounds activations to 8 bits where weights have 4; measured 0.3."""
WHOLE = 0.02
"""The same where the server has the weights in float32, as this process has them."""


@pytest.fixture(scope="module")
def here(gguf: Path) -> Any:
    """The same weights, dequantised, in this process."""
    del gguf
    return load_model(TRACK.model, TRACK.prompt)


def furthest(url: str, here: Any, *, normalize: bool) -> tuple[float, float]:
    """Largest difference of a number, and the share of equal predictions, on 24 texts of SST-2."""
    task = load_task("sst2").task("harness-2026", "causal")
    texts = load_test(load_task("sst2"), Source("embedded")).texts[:24]
    lm = connect(TRACK.model, TRACK.prompt, url, concurrency=2)
    try:
        theirs, ours = (
            each.forward(None, each.text_set(task.template, texts, None), each.single_ids(WORDS), normalize=normalize)
            .logits[0].astype(np.float64) for each in (lm, here)
        )  # fmt: skip
        assert lm.found.gives == LABELS
        assert lm.found.takes_ids
        assert lm.traffic.sent >= 24 * 5
    finally:
        lm.close()
    if not normalize:
        theirs, ours = theirs - theirs.mean(axis=1, keepdims=True), ours - ours.mean(axis=1, keepdims=True)
    return float(np.abs(theirs - ours).max()), float((theirs.argmax(1) == ours.argmax(1)).mean())


@pytest.mark.parametrize("normalize", [False, True])
def test_the_quantised_server_agrees_with_the_dequantised_weights(quantised: str, here: Any, normalize: bool) -> None:
    apart, same = furthest(quantised, here, normalize=normalize)
    assert apart < QUANTISED
    assert same > 0.9


def test_the_server_with_the_same_weights_has_the_same_numbers(gguf: Path, here: Any, tmp_path: Path) -> None:
    with llama_server(dequantised(gguf, tmp_path / "float32.gguf")) as url:
        assert furthest(url, here, normalize=True)[0] < WHOLE


def test_a_cell_of_the_track_api_runs_over_the_server(
    quantised: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY, "sk-not-needed-here")
    command = ["evaluate", str(ROOT / "submissions" / "manual"), "--track", "api", "--task", "sst2", "--split", "1"]
    command += ["--backend", "openai", "--endpoint", quantised, "--store", str(tmp_path / "r.db")]
    run = [sys.executable, "-c", "from harness.cli import main; main()", *command]
    done = subprocess.run(run, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr
    assert "sst2/1  acc" in done.stdout + done.stderr
    assert b"sk-not-needed-here" not in (tmp_path / "r.db").read_bytes()
