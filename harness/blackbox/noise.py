"""The noise of weights, as `harness.contract.weights` specifies it: Philox 4x32-10 on integers of numpy or of torch.

Operators are those that both libraries share, on signed 64-bit integers. A product of two 32-bit words wraps there, and
its bits are those of the unsigned product.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from harness.contract import Noise

_M0, _M1, _W0, _W1 = 0xD2511F53, 0xCD9E8D57, 0x9E3779B9, 0xBB67AE85  # Salmon et al. 2011, section 4
_WORD = 0xFFFFFFFF
_ROUNDS = 10
PER_BLOCK = {"normal": 4, "rademacher": 128}
"""Elements that one counter gives."""
_CENTRE = 510
UNIT = np.float32(1 / np.sqrt(21845))
"""One over the standard deviation of the sum of four bytes: 4 (256^2 - 1) / 12 = 21845."""
START = 1 << 31
"""Added to a tensor's number where its first value is drawn."""
SECOND = 1 << 30
"""Added to a matrix's number where the second factor of its noise of low rank is drawn."""


def philox(counter: tuple[Any, Any, Any, Any], seed: int) -> tuple[Any, Any, Any, Any]:
    """Four words for each counter.

    Args:
        counter: four words below 2**32, as int64 arrays of numpy or tensors of torch that broadcast, or integers.
        seed: the key, below 2**64.

    Returns:
        Four words, as int64 of the same kind.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = seed & _WORD, seed >> 32
    for _ in range(_ROUNDS):
        p0, p1 = c0 * _M0, c2 * _M1
        c0, c1, c2, c3 = ((p1 >> 32) & _WORD) ^ c1 ^ k0, p1 & _WORD, ((p0 >> 32) & _WORD) ^ c3 ^ k1, p0 & _WORD
        k0, k1 = (k0 + _W0) & _WORD, (k1 + _W1) & _WORD
    return c0, c1, c2, c3


def blocks_of(size: int, distribution: Noise) -> int:
    """Counters that a tensor of `size` elements takes."""
    return -(-size // PER_BLOCK[distribution])


def octets(blocks: Any, streams: Any, tensor: int, seed: int) -> list[Any]:
    """The sixteen bytes of each block, from which its noise follows; see the specification.

    Args:
        blocks: (1, blocks) int64, numbers of the blocks.
        streams: (streams, 1) int64.
        tensor: number of the tensor.
        seed: of the space.

    Returns:
        Arrays (streams, blocks) of the bytes, from the lowest of the first word on.
    """
    words = philox((blocks & _WORD, blocks >> 32, streams + blocks * 0, tensor), seed)
    return [(word >> shift) & 255 for word in words for shift in (0, 8, 16, 24)]


def sums(found: list[Any]) -> list[Any]:
    """The integers of normal noise, `UNIT` times each: one for each of the four words."""
    return [found[n] + found[n + 1] + found[n + 2] + found[n + 3] - _CENTRE for n in (0, 4, 8, 12)]


SIGNS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little").astype(np.float32) * 2 - 1
"""Rademacher noise of a byte, from its lowest bit on: (256, 8)."""


def product_unit(distribution: Noise, rank: int) -> np.float32:
    """By what the products of factors' integers are multiplied: noise of this rank has variance 1."""
    return np.float32(1 / ((21845 if distribution == "normal" else 1) * np.sqrt(rank)))


def numpy_matrix_noise(
    shape: tuple[int, int], streams: Any, tensor: int, seed: int, distribution: Noise, rank: int
) -> Any:
    """The noise of low rank of one matrix, float32 (streams, rows, columns), by numpy."""
    first, second = (
        _integers(size * rank, streams, t, seed, distribution).reshape(-1, size, rank)
        for size, t in zip(shape, (tensor, tensor + SECOND), strict=True)
    )
    return (first @ second.transpose(0, 2, 1)).astype(np.float32) * product_unit(distribution, rank)


def _integers(size: int, streams: Any, tensor: int, seed: int, distribution: Noise) -> Any:
    """The integers from which the noise of one tensor is made: int64 (streams, size)."""
    noise = numpy_noise(size, streams, tensor, seed, distribution)
    return np.rint(noise if distribution == "rademacher" else noise / UNIT).astype(np.int64)


def numpy_noise(size: int, streams: Any, tensor: int, seed: int, distribution: Noise) -> Any:
    """The noise of one tensor, float32 (streams, size), by numpy."""
    blocks = np.arange(blocks_of(size, distribution), dtype=np.int64)[None]
    found = octets(blocks, np.asarray(streams, dtype=np.int64)[:, None], tensor, seed)
    if distribution == "rademacher":
        return SIGNS[np.stack(found, axis=-1)].reshape(len(streams), -1)[:, :size]
    return np.stack(sums(found), axis=-1).reshape(len(streams), -1)[:, :size].astype(np.float32) * UNIT
