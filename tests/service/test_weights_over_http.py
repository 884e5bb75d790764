"""Changes of weights over HTTP: answered, charged, refused and handed in as over a socket."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from small_service import CALLS, ROWS, TASK, TRAIN, served

import harness
from harness.blackbox.fake import FakeLM
from harness.blackbox.meter import Meter
from harness.contract import Answer, Prompt, WeightSpace
from harness.errors import QueryError

if TYPE_CHECKING:
    from small_service import House

SPACE = WeightSpace("biases", 4, 0.1, 1)


def test_weights_are_answered_over_http_as_without_it(house: House) -> None:
    near = FakeLM(house.lm.fake, Meter(CALLS, TRAIN))
    prompt = Prompt(np.full((1, 1, 2, 16), 0.3, dtype=np.float32))
    asked = [
        SPACE.at(np.ones((2, 4))),
        SPACE.at(np.ones(4), prompt),
        WeightSpace("all", 0, 0.1, 2).walk([3, 4], [0.5, 0.25]),
    ]
    with served(house.app) as url, harness.connect(url, house.token, task=TASK.name, split=1) as box:
        assert box.info.weights == near.info.weights
        texts = box.shots.train.texts
        for each in asked:
            np.testing.assert_array_equal(box.logits(each, texts), near.logits(each, texts))
        assert box.budget == near.budget
        assert box.budget.rows_left == ROWS - 4 * TRAIN
        with pytest.raises(QueryError, match="the model has 3"):
            box.logits(WeightSpace("biases", 4, 0.1, 1, (7,)).at(np.ones(4)), texts)
        assert box.budget == near.budget
        box.submit(Answer.of(TASK, asked[1]))
