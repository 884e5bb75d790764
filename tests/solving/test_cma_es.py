"""CMA-ES with the chance that is handed in, and one for each layer."""

from __future__ import annotations

import numpy as np
import pytest

from harness.solving import CmaEs, LayerwiseCmaEs


def minimise(search: CmaEs, goal: float, generations: int) -> float:
    for _ in range(generations):
        search.tell(((search.ask() - goal) ** 2).sum(axis=1))
    return float(np.abs(search.mean - goal).max())


def test_the_mean_moves_to_the_minimum_of_a_sphere() -> None:
    search = CmaEs(5, 12, np.random.default_rng(0))
    np.testing.assert_array_equal(search.mean, np.zeros(5))
    assert minimise(search, 2.0, 150) < 1e-3


def test_all_chance_is_the_generators() -> None:
    """Numpy's global generator is neither read nor moved."""
    runs = []
    for seed, elsewhere in ((3, 1), (3, 2), (4, 1)):
        np.random.seed(elsewhere)  # noqa: NPY002 - to show that it does not matter
        before = np.random.get_state()[1].tolist()  # type: ignore[index]  # noqa: NPY002
        search = CmaEs(4, 6, np.random.default_rng(seed))
        minimise(search, 1.0, 5)
        runs.append(search.ask().tolist())
        assert np.random.get_state()[1].tolist() == before  # type: ignore[index]  # noqa: NPY002
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize("sigma", [0.2, 1.0, 3.0])
def test_the_first_generation_is_as_wide_as_sigma(sigma: float) -> None:
    asked = CmaEs(200, 20, np.random.default_rng(0), sigma).ask()
    assert asked.shape == (20, 200)
    assert asked.std() == pytest.approx(sigma, rel=0.05)


def test_candidates_and_mean_stay_in_the_box() -> None:
    search = CmaEs(3, 10, np.random.default_rng(0), sigma=1.0, bound=0.5)
    for _ in range(60):
        asked = search.ask()
        assert np.abs(asked).max() <= 0.5
        search.tell(((asked - 2.0) ** 2).sum(axis=1))
    assert 0.45 < search.mean.min() <= search.mean.max() <= 0.5


def test_flat_losses_do_not_end_a_search() -> None:
    search = CmaEs(10, 8, np.random.default_rng(0))
    for _ in range(100):
        asked = search.ask()
        search.tell(np.zeros(8))
        before = search.mean
        search.restart_if_converged()
        np.testing.assert_array_equal(search.mean, before)
    assert asked.std() > 1e-3


def test_a_converged_search_starts_again_when_it_is_told_to() -> None:
    """On a line the samples draw together until pycma stops; until then nothing changes."""
    search = CmaEs(1, 6, np.random.default_rng(0))
    for _ in range(500):
        search.tell(((search.ask() - 1.0) ** 2).sum(axis=1))
        if search.mean[0] == pytest.approx(1.0, abs=1e-9):
            search.restart_if_converged()
            if search.mean[0] == 0.0:
                break
    assert search.mean[0] == 0.0
    assert search.ask().std() > 0.1


def test_another_number_of_losses_is_refused() -> None:
    search = CmaEs(3, 6, np.random.default_rng(0))
    search.ask()
    with pytest.raises(ValueError, match="5"):
        search.tell(np.zeros(5))


def test_layers_move_one_at_a_time_from_the_bottom_up_around_the_best() -> None:
    """What does not move is the best stack, which changes only if the loss falls."""
    search, goal = LayerwiseCmaEs(4, 6, np.random.default_rng(0), [1.0, 0.5, 0.25]), np.ones((3, 4))
    best, loss, kept = np.zeros((3, 4)), np.inf, []
    for n in range(60):
        stacks, layer = search.ask(), n % 3
        assert stacks.shape == (6, 3, 4)
        others = [other for other in range(3) if other != layer]
        np.testing.assert_array_equal(stacks[:, others], np.repeat(best[None, others], 6, axis=0))
        assert len(np.unique(stacks[:, layer, 0])) == 6
        losses = ((stacks - goal) ** 2).sum(axis=(1, 2))
        search.tell(losses)
        kept.append(losses.min() < loss)
        if kept[-1]:
            best, loss = stacks[losses.argmin()], losses.min()
        np.testing.assert_array_equal(search.best, best)
        assert search.best_loss == loss
    assert set(kept) == {True, False}
    assert loss < 0.3 * 12


def test_each_layer_has_a_step_size_of_its_own() -> None:
    search = LayerwiseCmaEs(300, 20, np.random.default_rng(0), [2.0, 0.5])
    for layer, sigma in enumerate((2.0, 0.5)):
        assert search.ask()[:, layer].std() == pytest.approx(sigma, rel=0.05)
        search.tell(np.arange(20.0))
    assert search.mean.shape == (2, 300)
    assert (np.abs(search.mean).max(axis=1) > 0).all()
