"""AJO and BBT-RGB search on BBTv2 as published where they are told to, and every search logs its generations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from harness.solving import hinge, hinge_of_probabilities, softmax

if TYPE_CHECKING:
    from .conftest import Bench

PUBLISHED = {"accept": "best", "selection": "faithful", "width_from": "embedding"}


def test_ajo_without_its_own_parts_is_bbtv2(bench: Bench) -> None:
    """No calibration, no head, on the published base: the same generations; its one call more may cost it a round."""
    for options in (PUBLISHED, PUBLISHED | {"remainder": False}, PUBLISHED | {"loss": "hinge"}):
        shared: dict[str, Any] = {"alpha_deep": 0.2, **options}
        two = bench.run("bbtv2", alpha=1.0, **shared)
        ajo = bench.run("ajo", alpha_input=1.0, calibrate="none", head=False, **shared)
        assert two.train[0].space == ajo.train[1].space
        count = min(len(two.told), len(ajo.told))
        assert count >= len(two.told) - 3
        for first, second in zip(two.told[:count], ajo.told[:count], strict=True):
            np.testing.assert_allclose(first.losses, second.losses, rtol=1e-6)


def test_bbt_rgb_without_its_own_parts_is_bbtv2(bench: Bench) -> None:
    """One step size, no text, no words, no COBYLA: bbtv2 on the same widths."""
    for options in ({}, PUBLISHED):
        two = bench.run("bbtv2", alpha=0.5, alpha_deep=0.5, **options)
        rgb = bench.run("bbt_rgb", instruction=False, words=0, polish=0.0, sigma_deep=1.0, alpha=0.5, **options)
        assert two.train[0].space == rgb.train[0].space
        for first, second in zip(two.told, rgb.told, strict=False):
            np.testing.assert_array_equal(first.losses, second.losses)


def test_hinge_of_probabilities_is_that_of_the_logits() -> None:
    """Where the probabilities are a softmax of them."""
    q, labels = np.random.default_rng(0).normal(size=(3, 8, 4)), np.arange(8) % 4
    np.testing.assert_allclose(hinge_of_probabilities(softmax(q), labels), hinge(q, labels))


@pytest.mark.parametrize("name", ["bbt", "bbtv2", "ajo", "bbt_rgb", "house"])
def test_every_generation_is_logged(bench: Bench, name: str) -> None:
    """The best loss of each, the step size after it, and the condition number, with the rows spent."""
    run = bench.run(name)
    logged = run.lm.logged
    assert [numbers["loss"] for _, numbers in logged] == [generation.losses.min() for generation in run.told]
    assert all(numbers["sigma"] > 0 and numbers["condition"] >= 1 for _, numbers in logged)
    rows = [rows for rows, _ in logged]
    assert rows == sorted(set(rows))
    assert rows[-1] <= run.lm.budget.rows_total


@pytest.mark.parametrize("name", ["nevergrad", "spsa", "random_search", "projection_free_es"])
def test_other_searches_log_their_losses(bench: Bench, name: str) -> None:
    """So that convergence can be drawn for all of them."""
    logged = bench.run(name).lm.logged
    assert len(logged) > 5
    assert min(numbers["loss"] for _, numbers in logged) < logged[0][1]["loss"]
