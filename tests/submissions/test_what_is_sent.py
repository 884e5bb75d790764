"""The table of docs/leaks.md says of every method what it sends and what comes back, held to its runs on the fake."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from harness import BudgetExhausted, Coordinates, Prompt, Weights
from harness.blackbox.fake import FakeLM, fake_shots, fake_task
from harness.blackbox.weights import soft
from harness.sandbox.submission import find

if TYPE_CHECKING:
    from .conftest import Bench

ROOT = Path(__file__).resolve().parents[2]
TABLE = (
    (ROOT / "docs" / "leaks.md")
    .read_text(encoding="utf-8")
    .partition("| method | texts in clear |")[2]
    .partition("\n\n")[0]
)
SAID = {
    name: cells
    for methods, *cells in (re.split(r" *\| *", line.strip("| ")) for line in TABLE.splitlines()[2:])
    for name in re.findall(r"`(\w+)`", methods)
}
MINE = sorted(
    path.name for path in (ROOT / "submissions").iterdir() if path.is_dir() and find(path).access == "black-box"
)


def layers_of(prompts: Any) -> int:
    """At how many depths soft prompts are put in; 0 where there are none."""
    return prompts.space.layers if isinstance(prompts, Coordinates) else 0


def test_the_table_has_every_method() -> None:
    assert sorted(SAID) == MINE


@pytest.mark.parametrize("name", MINE)
def test_what_a_method_sends(bench: Bench, name: str) -> None:
    module, task = bench.load(name), fake_task()
    shots = fake_shots(task, np.random.default_rng(0))
    lm = FakeLM.for_task(task, shots, 60)
    inside: list[str] = []
    seen: dict[str, set[Any]] = {"prompts": set(), "texts": set(), "templates": set(), "words": set(), "states": set()}

    def watched(real: Any, states: bool) -> Any:
        def asked(prompts: Any, texts: Any, template: Any = None, words: Any = None, *rest: Any, **more: Any) -> Any:
            if inside:  # the fake's logits are those of its outputs
                return real(prompts, texts, template, words, *rest, **more)
            seen["prompts"] |= {(type(prompts), layers_of(prompts)), (type(soft(prompts)), layers_of(soft(prompts)))}
            seen["texts"] |= set(texts)
            seen["templates"].add(template or task.template)
            seen["words"].add(len(words or task.words))
            seen["states"].add((states, more.get("features")))
            inside.append(name)
            try:
                return real(prompts, texts, template, words, *rest, **more)
            finally:
                inside.clear()

        return asked

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lm, "logits", watched(lm.logits, states=False))
        patch.setattr(lm, "outputs", watched(lm.outputs, states=True))
        try:
            for _ in module.tune(lm, task, shots, np.random.default_rng(0), module.Config()):
                pass
        except BudgetExhausted:
            pass
    texts, labels, prompts, back = SAID[name]
    known = {*shots.train.texts, *shots.dev.texts}
    assert (texts == "none") == (not seen["texts"])
    assert seen["texts"] <= known | {("",)}
    shown = any(text[0] in template for template in seen["templates"] for text in known)
    assert (labels == "in templates with demonstrations") == shown
    kinds = {kind for kind, _ in seen["prompts"]} - {type(None)}
    deep = any(layers > 1 for _, layers in seen["prompts"])
    assert any(word in prompts for word in ("coordinates", "values", "walks")) == bool(kinds)
    assert ("of weights" in prompts) == (Weights in kinds)
    assert (Coordinates in kinds) <= ("coordinates" in prompts)
    assert (Prompt in kinds) <= ("values" in prompts)
    assert ("deeper" in prompts) == deep
    assert ("states" in back) == any(states for states, _ in seen["states"])
    assert ("all tokens" in back) == any(features == "all" for _, features in seen["states"])
    assert ("thousands of words" in back) == (max(seen["words"], default=0) > 100)
