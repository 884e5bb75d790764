"""What a white-box reference writes is what the black box writes, in every causal family.

Alone, in a batch of texts of several lengths with keys and values kept, and with a prompt added at the input.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import more_families
import numpy as np
import pytest
import tiny_models
import torch
from tiny_models import WIDTH

from harness.contract import Answer, Examples, Member, Prompt, TextTask
from harness.evaluation.text_cells import write
from harness.evaluation.text_white_box import TextWhiteBox
from harness.lm.generation import text_model
from harness.lm.load import load_model
from harness.tracks.track import ModelSpec, PromptSpec

if TYPE_CHECKING:
    from harness.lm.model import LanguageModel

TOKENS = 3
TASK = TextTask("films", "chrf", "A film : {a} Say", stop=(".",), most_tokens=8)
TEXTS = (("It was bad .",), ("yes",), ("A long story about a small village, told twice",), ("no , maybe",))
EXAMPLES = Examples(TEXTS, np.zeros(4, dtype=np.int64), (("great film",), ("no", "maybe"), ("yes ? no",), ("bad",)))
QUICK = {*tiny_models.CAUSAL, "mistral, with a window", "gpt_neo"}
CAUSAL = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
    for name in (*tiny_models.CAUSAL, *(name for name, made in more_families.MODELS.items() if made.kind == "causal"))
]


@pytest.fixture(scope="module", params=CAUSAL)
def lm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    family = tiny_models if request.param in tiny_models.CAUSAL else more_families
    folder = family.save(request.param, tmp_path_factory.mktemp("model"))
    return load_model(ModelSpec(str(folder), "float32", "causal"), PromptSpec(TOKENS, 20))


def loss(lm: LanguageModel, prompt: Prompt | None) -> float:
    model = text_model(lm)
    ids = model.target_ids(TASK.targets(EXAMPLES))
    encoded = model.encode(TASK.template, TEXTS, None if prompt is None else "add", max(map(len, ids)))
    return float(-model.score(prompt, encoded, ids).means.mean())


@pytest.mark.parametrize("prompted", [False, True])
def test_it_writes_and_scores_as_the_black_box(lm: LanguageModel, prompted: bool) -> None:
    white, prompt = TextWhiteBox(lm, TASK, TEXTS), None
    if prompted:
        values: Any = np.random.default_rng(0).normal(size=(1, 1, TOKENS, WIDTH)).astype(np.float32)
        prompt, start = Prompt(values), white.batch(TEXTS, prompted=True).start
        added = torch.from_numpy(values[0, 0])
        span = slice(start, start + TOKENS)
        white.edit_input(0, lambda x: torch.cat([x[:, :start], x[:, span] + added, x[:, start + TOKENS :]], dim=1))
    assert white.loss(EXAMPLES, prompted) == pytest.approx(loss(lm, prompt), abs=5e-5)
    assert white.written(TEXTS, prompted) == write(Answer((Member(TASK.template, (), prompt),)), TASK, lm, TEXTS)
