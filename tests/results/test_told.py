"""What membership inference found is shown of the most answers that stand, and a wrong fact is found."""

from __future__ import annotations

from dataclasses import replace

from harness.results.membership import Told, newest

STANDING = {("run", "sst2", split): str(split) * 64 for split in (1, 2, 3)}
ALL = tuple(sorted(STANDING.values()))
FACT = Told("run", ALL, "rmia", 0.2, 0.1, 0.3, 0.6, 0.5, 0.7, 60, 90, 0, 1.0)


def test_the_newest_fact_about_the_most_answers_is_shown() -> None:
    later, fewer = replace(FACT, auc=0.65, made=2.0), replace(FACT, answers=ALL[:2], made=3.0)
    assert newest([FACT, later, fewer], STANDING) == {"run": later}
    assert newest([fewer], STANDING) == {"run": fewer}


def test_a_fact_about_an_answer_that_stands_no_more_is_passed_over() -> None:
    assert newest([replace(FACT, answers=(*ALL, "9" * 64))], STANDING) == {}
    assert newest([FACT], {}) == {}


def test_what_cannot_be_true_is_said() -> None:
    assert FACT.problems == []
    assert replace(FACT, auc=1.5).problems == ["a share is not from 0 to 1"]
    assert replace(FACT, low=float("nan")).problems == ["a share is not from 0 to 1"]
    assert replace(FACT, answers=()).problems == ["it names no answer"]
