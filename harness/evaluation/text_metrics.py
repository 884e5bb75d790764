"""Metrics of generated texts: for each text a score from 0 to 1 against its references.

    chrF         F of character n-grams up to 6, recall weighing 2 (Popovic 2015); sacrebleu's `sentence_chrf`
    BLEU         geometric mean of word n-gram precisions up to 4 times a brevity penalty (Papineni et al. 2002), in
                 sentences with exponential smoothing and effective order (Chen & Cherry 2014); sacrebleu
    ROUGE-L      F of the longest common subsequence of words (Lin 2004), without stemming; rouge-score
    exact match  1 if equal, after small letters, without punctuation, articles and extra spaces (Rajpurkar et al. 2016)
    token F1     F of the words, after the same normalisation (Rajpurkar et al. 2016)

A task's score is the mean over its texts. Papers report chrF and BLEU of a whole corpus, from n-gram counts summed over
it; such a number is no mean over texts. It is not used here, since the mean has an exact influence of each text
(`harness.leaderboard.influence`), so that intervals and ranks are those of accuracy, and since 200 short texts differ
little in length. Scores are therefore not to be compared with corpus scores of papers.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from harness.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from harness.contract import TextMetric

_NEEDS: dict[TextMetric, str] = {"chrf": "sacrebleu", "bleu": "sacrebleu", "rouge_l": "rouge_score"}


def check_installed(metric: TextMetric) -> None:
    """Look for the library of a metric.

    Raises:
        InputError: it is missing, with the command that installs it.
    """
    package = _NEEDS.get(metric)
    if package is not None and find_spec(package) is None:
        raise InputError(
            f'metric {metric} needs the package {package}, which is missing. Run: pip install -e ".[text]"'
        )


def scores(metric: TextMetric, outputs: Sequence[str], references: Sequence[Sequence[str]]) -> npt.NDArray[np.float64]:
    """Score outputs.

    Args:
        metric: which.
        outputs: one for each text.
        references: of each text the right answers, at least one. With several, BLEU and chrF take them together, the
            others the best one.

    Returns:
        (texts,), from 0 to 1.

    Raises:
        InputError: the metric's library is missing.
        ValueError: there is not one list of references for each output.
    """
    check_installed(metric)
    score = _METRICS[metric]()
    pairs = zip(outputs, references, strict=True)
    return np.clip(np.array([score(output, list(right)) for output, right in pairs], dtype=np.float64), 0, 1)


def _chrf() -> Callable[[str, list[str]], float]:
    from sacrebleu.metrics.chrf import CHRF  # noqa: PLC0415 - an extra

    metric = CHRF()
    return lambda output, references: float(metric.sentence_score(output, references).score) / 100


def _bleu() -> Callable[[str, list[str]], float]:
    from sacrebleu.metrics.bleu import BLEU  # noqa: PLC0415 - an extra

    metric = BLEU(effective_order=True)
    return lambda output, references: float(metric.sentence_score(output, references).score) / 100


def _rouge_l() -> Callable[[str, list[str]], float]:
    from rouge_score.rouge_scorer import RougeScorer  # noqa: PLC0415 - an extra

    scorer = RougeScorer(["rougeL"])
    return lambda output, references: float(scorer.score_multi(references, output)["rougeL"].fmeasure)


def _exact_match() -> Callable[[str, list[str]], float]:
    return lambda output, references: float(_words(output) in map(_words, references))


def _token_f1() -> Callable[[str, list[str]], float]:
    return lambda output, references: max(_f1(_words(output), _words(right)) for right in references)


_METRICS: dict[TextMetric, Callable[[], Callable[[str, list[str]], float]]] = {
    "chrf": _chrf,
    "bleu": _bleu,
    "rouge_l": _rouge_l,
    "exact_match": _exact_match,
    "token_f1": _token_f1,
}


def _words(text: str) -> list[str]:
    """Words without case, punctuation and articles."""
    plain = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", plain).split()


def _f1(said: list[str], right: list[str]) -> float:
    same = sum((Counter(said) & Counter(right)).values())
    if not same:
        return float(said == right)  # both may be empty
    return 2 * same / (len(said) + len(right))
