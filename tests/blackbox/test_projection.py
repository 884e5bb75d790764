"""Random projections depend on the seed alone, have the declared width, and stay within memory."""

import hashlib
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from harness.blackbox import projection
from harness.blackbox.projection import check_space, generate, matrix
from harness.contract import Distribution, Prompt, Subspace
from harness.errors import QueryError
from harness.lm.prompts import prompt_layers

SPACE = Subspace(dim=50, std=(0.5, 2.0), tokens=4, seed=3)
WIDTH = 16


def test_a_projection_is_the_same_on_every_platform() -> None:
    """The stream is Philox's; its float32 normals are rounded to 1e-5 before they are hashed."""
    values = np.round(matrix(replace(SPACE, dim=4), 1, 3).astype(np.float64) * 1e5).astype("<i8")
    assert values.shape == (12, 4)
    assert (
        hashlib.sha256(values.tobytes()).hexdigest()
        == "ca39105379baaab90c0f6760fd741f482877b86e9453d8c1963d663d29630df8"
    )


def test_seed_and_layer_choose_the_numbers_and_std_only_scales_them() -> None:
    a = matrix(SPACE, 0, WIDTH)
    np.testing.assert_array_equal(a, matrix(replace(SPACE, mode="prepend"), 0, WIDTH))
    np.testing.assert_allclose(matrix(replace(SPACE, std=(1.0, 1.0)), 0, WIDTH) * 0.5, a, rtol=1e-6)
    assert abs(np.corrcoef(a.ravel(), matrix(SPACE, 1, WIDTH).ravel())[0, 1]) < 0.1
    assert abs(np.corrcoef(a.ravel(), matrix(replace(SPACE, seed=4), 0, WIDTH).ravel())[0, 1]) < 0.1


@pytest.mark.parametrize("layer", [0, 1])
def test_standard_normal_coordinates_give_prompt_values_of_the_declared_std(layer: int) -> None:
    space = replace(SPACE, dim=200, tokens=10)
    z = np.random.default_rng(0).standard_normal((20, 2, 200))
    values = prompt_layers(space.at(z), 64)[layer].numpy()
    assert values.shape == (20, 10, 64)
    assert values.std() == pytest.approx(space.std[layer], rel=0.05)
    assert abs(values.mean()) < 0.05 * space.std[layer]


def test_uniform_entries_are_pytorchs_linear_default_at_std_one() -> None:
    a = matrix(Subspace(dim=100, std=(1.0,), tokens=20, seed=0, distribution="uniform"), 0, WIDTH)
    bound = torch.nn.Linear(100, 1).weight.abs().max().item()
    assert np.abs(a).max() == pytest.approx(bound, rel=0.05)
    assert np.abs(a).max() <= 0.1
    assert a.std() == pytest.approx(0.1 / np.sqrt(3), rel=0.02)


def test_coordinates_are_the_product_and_a_layer_all_agree_on_is_computed_once() -> None:
    z = np.random.default_rng(1).standard_normal((3, 2, 50)).astype(np.float32)
    z[:, 0] = z[0, 0]
    first, second = prompt_layers(SPACE.at(z), WIDTH)
    assert first.shape == (1, 4, WIDTH)
    assert second.shape == (3, 4, WIDTH)
    np.testing.assert_allclose(first[0].numpy().ravel(), matrix(SPACE, 0, WIDTH) @ z[0, 0], rtol=1e-4, atol=1e-5)
    for c in range(3):
        np.testing.assert_allclose(second[c].numpy().ravel(), matrix(SPACE, 1, WIDTH) @ z[c, 1], rtol=1e-4, atol=1e-5)


def test_values_from_the_wire_may_be_read_only() -> None:
    values = np.ones((2, 1, 4, WIDTH), dtype=np.float32)
    values[1] = 2
    values.setflags(write=False)
    (layer,) = prompt_layers(Prompt(values), WIDTH)
    np.testing.assert_array_equal(layer.numpy(), values[:, 0])
    z = np.frombuffer(np.arange(100, dtype=np.float32).tobytes(), dtype=np.float32).reshape(2, 1, 50)
    assert prompt_layers(replace(SPACE, std=(1.0,)).at(z), WIDTH)[0].shape == (2, 4, WIDTH)


def test_matrices_kept_never_exceed_the_memory_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    one = matrix(SPACE, 0, WIDTH).nbytes
    monkeypatch.setattr(projection, "LARGEST_BYTES", 3 * one)
    for seed in range(10, 20):
        matrix(replace(SPACE, seed=seed), 0, WIDTH)
        assert sum(a.nbytes for a in projection._kept.matrices.values()) <= 3 * one
    assert matrix(replace(SPACE, seed=19), 0, WIDTH) is matrix(replace(SPACE, seed=19), 0, WIDTH)


@pytest.mark.parametrize(
    ("changes", "expectation"),
    [
        ({"std": ()}, "subspace has 0 layers; the model has 3"),
        ({"std": (1.0,) * 4}, "subspace has 4 layers; the model has 3"),
        ({"tokens": 0}, "0 prompt tokens; 1 to 8"),
        ({"tokens": 9}, "9 prompt tokens; 1 to 8"),
        ({"dim": 0}, "dim 0"),
        ({"std": (float("nan"),)}, "finite widths"),
        ({"std": (float("inf"),)}, "finite widths"),
        ({"std": (-1.0,)}, "finite widths"),
        ({"dim": 2**31}, "GiB are allowed. Lower dim"),
        ({"seed": -1}, "seed -1"),
        ({"distribution": "cauchy"}, "'cauchy'"),
    ],
)
def test_a_subspace_that_cannot_be_shown_is_refused(changes: dict[str, object], expectation: str) -> None:
    check_space(SPACE, layers=3, width=WIDTH, tokens=8)
    with pytest.raises(QueryError) as problem:
        check_space(replace(SPACE, **changes), layers=3, width=WIDTH, tokens=8)  # type: ignore[arg-type]
    assert expectation in str(problem.value)


def test_coordinates_of_a_wrong_shape_are_told_the_right_one() -> None:
    for shape in [(50,), (2, 50), (2, 3, 50), (2, 2, 49), (1, 2, 2, 50), ()]:
        with pytest.raises(ValueError, match=r"takes \(candidates, 2, 50\)"):
            SPACE.at(np.zeros(shape))
    flat = replace(SPACE, std=(1.0,))
    assert flat.at(np.zeros(50)).z.shape == (1, 1, 50)
    assert flat.at(np.zeros((7, 50))).z.shape == (7, 1, 50)


@pytest.mark.parametrize("distribution", ["normal", "uniform"])
def test_a_projection_takes_its_own_size_while_it_is_made(distribution: Distribution) -> None:
    space = Subspace(300_000, (1.0,), 8, seed=1, distribution=distribution)
    size = 4 * space.dim * space.tokens * 16
    tracemalloc.start()
    assert generate(space, 0, 16).nbytes == size
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.02 * size


@pytest.mark.parametrize("distribution", ["normal", "uniform"])
@given(block=st.integers(1, 500))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_projection_is_the_same_however_it_is_cut(
    block: int, distribution: Distribution, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one piece it is what it was before it was made in blocks."""
    space = Subspace(7, (0.5, 1.5), 5, seed=9, distribution=distribution)
    rng = np.random.Generator(np.random.Philox(key=[9, 1]))
    one = (
        rng.standard_normal((30, 7), np.float32)
        if distribution == "normal"
        else rng.random((30, 7), np.float32) * 2 - 1
    )
    monkeypatch.setattr(projection, "_BLOCK", block)
    assert np.array_equal(generate(space, 1, 6), one * np.float32(1.5 / np.sqrt(7)))
