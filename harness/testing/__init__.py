"""The conformance suite for any `BlackBox`: the fake, the client of a worker, the HTTP client, and one of your own.

    import pytest
    from harness import testing

    @pytest.mark.parametrize("check", testing.CHECKS, ids=lambda check: check.__name__)
    def test_my_black_box_keeps_the_contract(check):
        check(testing.Subject(make=lambda: MyBlackBox(calls=20), task=task, texts=shots.train.texts))

A black box of a text task has checks of its own, `TEXT_CHECKS`, each a function of a `TextSubject`.

Each check is a function of a `Subject`. It returns None, or raises `ConformanceError`, which says what the contract
wants and what the black box did.
"""

from __future__ import annotations

from harness.testing.checks import CHECKS, ConformanceError, Subject
from harness.testing.text_checks import TEXT_CHECKS, TextSubject

__all__ = ["CHECKS", "TEXT_CHECKS", "ConformanceError", "Subject", "TextSubject"]
