"""The noise of weights is what its specification says, bit by bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from harness.blackbox.noise import blocks_of, numpy_matrix_noise, numpy_noise, philox

KNOWN = [
    ((0, 0, 0, 0), 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((2**32 - 1,) * 4, 2**64 - 1, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), 0xA4093822 | 0x299F31D0 << 32,
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]  # fmt: skip
"""The known answers that come with Salmon et al.'s Random123 for philox4x32-10: counter, key, words."""


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_philox_gives_the_known_answers(counter: tuple[int, ...], key: int, words: tuple[int, ...]) -> None:
    found = philox(tuple(np.array([word], dtype=np.int64) for word in counter), key)  # type: ignore[arg-type]
    assert tuple(int(word[0]) for word in found) == words


def by_hand(element: int, stream: int, tensor: int, seed: int, distribution: str) -> float:
    """One number, by the words of the specification and Python's integers alone."""
    per = 4 if distribution == "normal" else 128
    b = element // per
    counter = [b % 2**32, b >> 32, stream, tensor]
    k0, k1 = seed % 2**32, seed >> 32
    for _ in range(10):
        p0, p1 = counter[0] * 0xD2511F53, counter[2] * 0xCD9E8D57
        counter = [(p1 >> 32) ^ counter[1] ^ k0, p1 % 2**32, (p0 >> 32) ^ counter[3] ^ k1, p0 % 2**32]
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    if distribution == "normal":
        return float(np.float32(sum(counter[element % 4].to_bytes(4, "little")) - 510) * np.float32(21845**-0.5))
    return 1.0 if counter[element % 128 // 32] >> element % 32 & 1 else -1.0


@pytest.mark.parametrize("distribution", ["normal", "rademacher"])
def test_noise_is_what_the_specification_says(distribution: str) -> None:
    seed, tensor, streams = 2**62 - 5, 3, [0, 9, 2**32 - 1]
    found = numpy_noise(300, streams, tensor, seed, distribution)  # type: ignore[arg-type]
    wanted = [[by_hand(e, s, tensor, seed, distribution) for e in range(300)] for s in streams]
    assert found.dtype == np.float32
    assert np.array_equal(found, np.array(wanted, dtype=np.float32))


def test_fixed_values_stay() -> None:
    normal = numpy_noise(4, [5], 1, 42, "normal")[0]
    assert normal.tobytes().hex() == "725e05403ff02e3fb2d1f6bfe15af33f"
    assert numpy_noise(8, [5], 1, 42, "rademacher")[0].astype(int).tolist() == [1, 1, -1, 1, 1, 1, 1, -1]


def test_noise_has_mean_0_and_variance_1() -> None:
    normal, signs = (numpy_noise(200_000, [1], 0, 1, kind)[0].astype(float) for kind in ("normal", "rademacher"))
    assert abs(normal.mean()) < 0.01
    assert normal.var() == pytest.approx(1, abs=0.01)
    assert (normal**4).mean() == pytest.approx(2.7, abs=0.05)
    assert abs(normal).max() <= 3.46
    assert abs(signs.mean()) < 0.01
    assert set(signs) == {-1.0, 1.0}


def test_a_tensor_s_noise_does_not_depend_on_its_length() -> None:
    long, short = (numpy_noise(size, [1, 2], 0, 1, "normal") for size in (101, 17))
    assert np.array_equal(long[:, :17], short)
    assert blocks_of(101, "normal") == 26


@pytest.mark.parametrize("distribution", ["normal", "rademacher"])
@pytest.mark.parametrize("rank", [1, 3, 64])
def test_noise_of_low_rank_is_the_product_that_the_specification_says(distribution: Any, rank: int) -> None:
    rows, columns, streams, seed = 5, 7, [0, 9], 2**61 + 3
    found = numpy_matrix_noise((rows, columns), streams, 4, seed, distribution, rank)
    a = numpy_noise(rows * rank, streams, 4, seed, distribution).reshape(2, rows, rank).astype(float)
    b = numpy_noise(columns * rank, streams, 4 + 2**30, seed, distribution).reshape(2, columns, rank).astype(float)
    assert np.allclose(found, a @ b.transpose(0, 2, 1) / np.sqrt(rank), atol=1e-5)
    assert np.linalg.matrix_rank(found[0]) == min(rank, rows, columns)
    assert found.dtype == np.float32


def test_noise_of_low_rank_has_fixed_bits_and_variance_one() -> None:
    one = numpy_matrix_noise((2, 2), [5], 1, 42, "normal", 2)[0]
    assert one.view(np.uint32).tolist() == [[1071983921, 1058312092], [1069604747, 3219120549]]
    for distribution in ("normal", "rademacher"):
        each = numpy_matrix_noise((50, 60), range(40), 0, 1, distribution, 4)  # type: ignore[arg-type]
        assert abs(each.mean()) < 0.05
        assert abs(each.std() - 1) < 0.05
