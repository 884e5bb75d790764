"""Random projections: a submission declares them, and they are generated here from the seed and cached. Pure numpy."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import numpy as np

from harness.errors import QueryError

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.contract import FloatArray, Subspace


class _Sized(Protocol):
    @property
    def nbytes(self) -> int: ...


T = TypeVar("T", bound=_Sized)

LARGEST_BYTES = 6 << 30
"""Largest total size in bytes of the matrices of one subspace."""


def check_space(space: Subspace, layers: int, width: int, tokens: int) -> None:
    """Refuse a subspace that does not fit the model or is too large for the server.

    Raises:
        QueryError: the subspace is refused. The message gives the numbers.
    """
    if not 1 <= space.layers <= layers:
        raise QueryError(f"the subspace has {space.layers} layers; the model has {layers}")
    if not 1 <= space.tokens <= tokens:
        raise QueryError(f"the subspace has {space.tokens} prompt tokens; 1 to {tokens} are allowed on this track")
    if space.dim < 1 or not all(0 <= s < 1e6 for s in space.std):  # noqa: PLR2004
        raise QueryError(
            f"the subspace has dim {space.dim} and widths {space.std}; dim >= 1 and finite widths >= 0 are needed"
        )
    if not 0 <= space.seed <= 2**62 or space.distribution not in {"normal", "uniform"}:
        raise QueryError(
            f"the subspace has seed {space.seed}, {space.distribution!r}; 0..2**62, normal or uniform are needed"
        )
    size = 4 * space.layers * space.dim * space.tokens * width
    if size > LARGEST_BYTES:
        raise QueryError(
            f"the projections have {size / 2**30:,.1f} GiB; {LARGEST_BYTES / 2**30:.0f} GiB are allowed. Lower dim"
        )


class Kept(Generic[T]):
    """A cache of matrices of at most `LARGEST_BYTES`. The least recently used matrix is dropped first."""

    def __init__(self) -> None:
        """Start with an empty cache."""
        self.matrices: OrderedDict[tuple[Subspace, int, int], T] = OrderedDict()

    def get(self, key: tuple[Subspace, int, int], size: int, make: Callable[[], T]) -> T:
        """The matrix of `key`, of `size` bytes. If it is not in the cache, room is made and the matrix is computed."""
        if key not in self.matrices:
            while self.matrices and size + sum(a.nbytes for a in self.matrices.values()) > LARGEST_BYTES:
                self.matrices.popitem(last=False)
            self.matrices[key] = make()
        self.matrices.move_to_end(key)
        return self.matrices[key]


_kept: Kept[FloatArray] = Kept()


def matrix(space: Subspace, layer: int, width: int) -> FloatArray:
    """A_l as `generate` computes it, cached in main memory."""
    size = 4 * space.tokens * width * space.dim
    return _kept.get((space, layer, width), size, lambda: generate(space, layer, width))


def generate(space: Subspace, layer: int, width: int) -> FloatArray:
    """A_l, float32 (tokens * width, dim), computed from (seed, layer) alone.

    ``normal``: N(0, std^2 / dim), so that z ~ N(0, I) gives values of standard deviation std. ``uniform``:
    std * U(-1/sqrt(dim), 1/sqrt(dim)).
    """
    rng = np.random.Generator(np.random.Philox(key=[space.seed, layer]))
    shape = (space.tokens * width, space.dim)
    if space.distribution == "normal":
        a = rng.standard_normal(shape, dtype=np.float32)
    else:
        a = rng.random(shape, dtype=np.float32) * 2 - 1
    a *= np.float32(space.std[layer] / np.sqrt(space.dim))  # in place, because it may fill most of the memory
    return a
