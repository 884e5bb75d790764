"""Changes of weights over HTTP: answered, charged, refused and handed in as over a socket."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from small_service import CALLS, FAST, ROWS, TASK, TRAIN, House, served

import harness
from harness.blackbox.checkpoints import checkpoint
from harness.blackbox.fake import FakeLM
from harness.blackbox.fake_language_model import FakeLanguageModel
from harness.blackbox.meter import Meter
from harness.contract import Answer, Prompt, Weights, WeightSpace
from harness.errors import QueryError

if TYPE_CHECKING:
    from pathlib import Path

SPACE = WeightSpace("biases", 4, 0.1, 1)


def test_weights_are_answered_over_http_as_without_it(house: House) -> None:
    near = FakeLM(house.lm.fake, Meter(CALLS, TRAIN))
    prompt = Prompt(np.full((1, 1, 2, 16), 0.3, dtype=np.float32))
    asked = [
        SPACE.at(np.ones((2, 4))),
        SPACE.at(np.ones(4), prompt),
        WeightSpace("all", 0, 0.1, 2).walk([3, 4], [0.5, 0.25]),
        SPACE.at(np.ones((2, 4)), prompt) + WeightSpace("attention", 0, 0.1, 2, (1,), 2).walk([3, 4], [0.5, 0.25]),
    ]
    with served(house.app) as url, harness.connect(url, house.token, task=TASK.name, split=1) as box:
        assert box.info.weights == near.info.weights
        texts = box.shots.train.texts
        for each in asked:
            np.testing.assert_array_equal(box.logits(each, texts), near.logits(each, texts))
        assert box.budget == near.budget
        assert box.budget.rows_left == ROWS - 6 * TRAIN
        with pytest.raises(QueryError, match="the model has 3"):
            box.logits(WeightSpace("biases", 4, 0.1, 1, (7,)).at(np.ones(4)), texts)
        assert box.budget == near.budget
        box.submit(Answer.of(TASK, asked[1] + asked[2]))


class Endless(FakeLanguageModel):
    """Walks on and on, with a checkpoint at each step; of prompts it is the fake model."""

    def forward(self, prompts: Any, *rest: Any) -> Any:
        """Compute prompts alone."""
        while isinstance(prompts, Weights):
            checkpoint()
        return super().forward(prompts, *rest)


def test_a_walk_without_end_is_given_up_and_costs_nothing(tmp_path: Path) -> None:
    house = House(tmp_path, Endless(TASK), replace(FAST, query_s=0.2))
    walk = WeightSpace("all", 0, 0.1, 2).walk([3], [0.5])
    with served(house.app) as url, harness.connect(url, house.token, task=TASK.name, split=1) as box:
        with pytest.raises(QueryError, match=r"more than 0\.2 s, and nothing was charged"):
            box.logits(walk, box.shots.train.texts)
        assert house.spent == 0
        box.logits(None, box.shots.train.texts)
    assert house.spent == TRAIN
