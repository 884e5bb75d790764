"""Text tasks over llama.cpp: likelihoods and outputs are those of the same weights in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from llama_server import dequantised, llama_server

from harness.blackbox.text_model import Decoding
from harness.contract import TextTask
from harness.lm.endpoint.model import connect
from harness.lm.endpoint.text_ways import LlamaForced, LlamaWrites
from harness.lm.generation import text_model
from harness.lm.load import load_model
from harness.tracks.examples import Source, load_test
from harness.tracks.tasks import load_task
from harness.tracks.track import load_track

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow
TRACK = load_track("mini-text")
COUNT = 12
QUANTISED = 0.5
"""Largest difference of a target's mean log-likelihood: llama.cpp rounds activations where weights have 4 bits."""
WHOLE = 0.01
"""The same where the server has the weights in float32, as this process has them."""


@pytest.fixture(scope="module")
def whole(gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with the weights in float32."""
    with llama_server(dequantised(gguf, tmp_path_factory.mktemp("float32") / "float32.gguf")) as url:
        yield url


@pytest.fixture(scope="module")
def here(gguf: Path) -> Any:
    del gguf
    return load_model(TRACK.model, TRACK.prompt)


def task_and_test() -> Any:
    task = load_task("plain").wording("harness-2026", "causal")
    assert isinstance(task, TextTask)
    return task, load_test(load_task("plain"), Source("embedded"))


def scored(lm: Any) -> Any:
    model, (task, test) = text_model(lm), task_and_test()
    ids = model.target_ids(task.targets(test)[:COUNT])
    return model.score(None, model.encode(task.template, test.texts[:COUNT], None, max(map(len, ids))), ids)


def written(lm: Any, how: Decoding) -> Any:
    model, (task, test) = text_model(lm), task_and_test()
    encoded = model.encode(task.template, test.texts[:COUNT], None, how.most_tokens)
    return model.generate(None, encoded, how, lambda _sequences: True)


def test_likelihoods_of_the_same_weights_are_the_same(whole: str, here: Any) -> None:
    lm = connect(TRACK.model, TRACK.prompt, whole, concurrency=2)
    try:
        assert isinstance(lm.text_found.scores, LlamaForced)
        assert isinstance(lm.text_found.writes, LlamaWrites)
        theirs, ours = scored(lm), scored(here)
        np.testing.assert_array_equal(theirs.lengths, ours.lengths)
        assert np.abs(theirs.values - ours.values).max() < 10 * WHOLE
        assert np.abs(theirs.means - ours.means).max() < WHOLE
    finally:
        lm.close()


def test_greedy_outputs_of_the_same_weights_are_the_same(whole: str, here: Any) -> None:
    lm = connect(TRACK.model, TRACK.prompt, whole, concurrency=2)
    try:
        for how in (Decoding(24, ("\n",)), Decoding(12)):
            theirs, ours = written(lm, how), written(here, how)
            same = [a == b for a, b in zip(theirs.texts[0], ours.texts[0], strict=True)]
            assert sum(same) >= COUNT - 3, "a tie in the last digits may be broken the other way"
            for n in np.flatnonzero(same):
                assert theirs.tokens[0, n] == ours.tokens[0, n]
        drawn = [written(lm, Decoding(8, (), 1.0, seed)).texts[0] for seed in (1, 1, 2)]
        again, other = (sum(a == b for a, b in zip(drawn[0], each, strict=True)) for each in drawn[1:])
        assert again > COUNT / 2, "what else the server computes moves the last digits, and a draw may fall elsewhere"
        assert other < COUNT / 2
    finally:
        lm.close()


def test_the_quantised_server_finds_targets_about_as_likely(quantised: str, here: Any) -> None:
    lm = connect(TRACK.model, TRACK.prompt, quantised, concurrency=2)
    try:
        assert np.abs(scored(lm).means - scored(here).means).max() < QUANTISED
    finally:
        lm.close()
