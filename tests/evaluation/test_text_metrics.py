"""Metrics of texts: those of the libraries, by text, and their intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from harness.errors import InputError
from harness.evaluation import text_metrics
from harness.evaluation.text_metrics import scores
from harness.leaderboard.influence import influences
from harness.solving.metrics import TEXT_SCALE, cell_score, failed_prediction, is_text, score

OUTPUTS = ("Rain returns to Selby", "the cat", "", "A red bus.")
REFERENCES = (("Rain returns to Selby",), ("a dog", "the cat sat"), ("snow",), ("a red bus",))


def test_metrics_of_libraries_are_theirs() -> None:
    import sacrebleu
    from rouge_score.rouge_scorer import RougeScorer

    pairs = list(zip(OUTPUTS, REFERENCES, strict=True))
    chrf = [sacrebleu.sentence_chrf(o, list(r)).score / 100 for o, r in pairs]
    bleu = [sacrebleu.sentence_bleu(o, list(r)).score / 100 for o, r in pairs]
    rouge = [max(RougeScorer(["rougeL"]).score(one, o)["rougeL"].fmeasure for one in r) for o, r in pairs]
    for metric, wanted in (("chrf", chrf), ("bleu", bleu), ("rouge_l", rouge)):
        np.testing.assert_allclose(scores(metric, OUTPUTS, REFERENCES), np.clip(wanted, 0, 1), atol=1e-9)  # type: ignore[arg-type]


def test_exact_match_and_token_f1_do_not_mind_case_articles_and_signs() -> None:
    assert scores("exact_match", OUTPUTS, REFERENCES).tolist() == [1, 0, 0, 1]
    np.testing.assert_allclose(scores("token_f1", OUTPUTS, REFERENCES), [1, 2 / 3, 0, 1])


@pytest.mark.parametrize("metric", ["chrf", "bleu", "rouge_l", "exact_match", "token_f1"])
def test_every_metric_is_1_for_a_reference_and_from_0_to_1(metric: Any) -> None:
    same = scores(metric, [right[0] for right in REFERENCES], REFERENCES)
    np.testing.assert_allclose(same, 1, atol=1e-9)
    found = scores(metric, OUTPUTS, REFERENCES)
    assert ((found >= 0) & (found <= 1)).all()
    assert found[2] == 0
    assert is_text(metric)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_metrics, "find_spec", lambda _name: None)
    with pytest.raises(InputError, match=r"needs the package sacrebleu.*\[text\]"):
        scores("chrf", OUTPUTS, REFERENCES)
    assert scores("exact_match", OUTPUTS, REFERENCES).sum() == 2


def test_a_score_is_the_mean_and_each_text_has_its_influence() -> None:
    rng = np.random.default_rng(0)
    predicted = rng.integers(0, TEXT_SCALE + 1, size=(3, 50))
    labels = np.zeros(50, dtype=np.int64)
    found, psi = influences("chrf", predicted, labels, TEXT_SCALE + 1)
    np.testing.assert_allclose(found, predicted.mean(axis=1) / TEXT_SCALE)
    np.testing.assert_allclose(psi.sum(axis=1), 0, atol=1e-9)
    np.testing.assert_allclose(psi.var(axis=1), predicted.var(axis=1) / TEXT_SCALE**2)
    np.testing.assert_allclose(score("bleu", predicted, labels, 0), found)
    assert cell_score("chrf", predicted[0], labels, 0) == pytest.approx(found[0])
    assert not failed_prediction("rouge_l", labels).any()
