"""A student learns what a victim says, and no more than it says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.contract import Examples
from harness.errors import InputError
from harness.leaks.behaviour import copy, random_like

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from harness.contract import IntArray, Text

WORDS = [f"w{a}{b}" for a in "abcdefgh" for b in "abcdefgh"]


def made_up(count: int, rng: np.random.Generator) -> Examples:
    texts = tuple(
        (" ".join(rng.choice(["good", "bad"], 1).tolist() + rng.choice(WORDS, 3).tolist()),) for _ in range(count)
    )
    return Examples(texts, np.array(["good" in text for (text,) in texts], dtype=np.int64))


def by_a_word(texts: Sequence[Text]) -> IntArray:
    return np.array(["good" in text for (text,) in texts], dtype=np.int64)


def test_a_student_copies_a_simple_victim_from_texts_of_the_domain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.leaks.behaviour.encoder", lambda: lambda texts: np.ones((len(texts), 2)))
    test = made_up(240, np.random.default_rng(0))
    found = copy("victim", "sst2", 1, by_a_word, (), WORDS, test)
    tfidf = [each for each in found.found if (each.texts, each.student) == ("in-domain", "tfidf")]
    assert [each.queries for each in tfidf] == [10, 20, 40, 80, 120]
    assert tfidf[-1].agreement > 0.95
    assert tfidf[-1].agreement_low <= tfidf[-1].agreement <= tfidf[-1].agreement_high
    assert tfidf[-1].accuracy == tfidf[-1].agreement, "this victim is always right"
    blind = [each for each in found.found if each.student == "encoder"]
    assert max(each.agreement for each in blind) < 0.65, "features that say nothing teach nothing"
    random = [each for each in found.found if (each.texts, each.student) == ("random", "tfidf")]
    assert random[-1].queries == 640
    assert random[-1].agreement < 0.65, "no random text has the word"
    assert copy("victim", "sst2", 1, by_a_word, (), WORDS, test) == found


def test_random_texts_have_the_lengths_of_real_ones() -> None:
    texts = [("a b c", "d"), ("e f", "g h i j")]
    made = random_like(texts, ["x", "y"], 50, np.random.default_rng(0))
    assert {tuple(len(field.split()) for field in text) for text in made} == {(3, 1), (2, 4)}
    assert set(" ".join(" ".join(text) for text in made).split()) == {"x", "y"}


def test_too_few_texts_are_told() -> None:
    with pytest.raises(InputError, match="12 test texts are too few"):
        copy("victim", "sst2", 1, by_a_word, (), WORDS, made_up(12, np.random.default_rng(0)))


def test_the_commands_attack_answers_that_are_tuned_or_stored(tmp_path: Path, tiny_track: Path) -> None:
    store = ["--store", str(tmp_path / "leaks.db"), "--track", str(tiny_track), "--task", "sst2"]
    first = CliRunner().invoke(app, ["leaks", "behaviour", "--solver", "manual", "--split", "1", *store])
    assert first.exit_code == 0, first.output
    assert "manual on sst2/1" in first.output
    assert "in-domain" in first.output
    out = ["--shadows", "8", "--out", str(tmp_path / "out")]
    second = CliRunner().invoke(app, ["leaks", "membership", "--solver", "manual", *store, *out])
    assert second.exit_code == 0, second.output
    rows = (tmp_path / "out" / "membership.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 1 + 4 * 2 * 3
    wrong = CliRunner().invoke(app, ["leaks", "membership", "--split", "1", *store])
    assert "membership draws splits of its own" in str(wrong.exception)


def test_text_tasks_are_refused_before_a_model_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.evaluation.run.Evaluation.__init__", lambda *_: pytest.fail("a model is loaded"))
    for what in ("layer", "behaviour", "membership"):
        refused = CliRunner().invoke(app, ["leaks", what, "--track", "mini-text", "--store", "sqlite://"])
        assert isinstance(refused.exception, InputError)
        assert "is answered by text, and harness leaks needs classes" in str(refused.exception)
