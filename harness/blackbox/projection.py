"""Random projections: declared by a submission, generated here from the seed, kept while in use. Pure numpy."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import numpy as np

from harness.blackbox.cells import cell
from harness.errors import QueryError

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.contract import FloatArray, Subspace


class _Sized(Protocol):
    @property
    def nbytes(self) -> int: ...


T = TypeVar("T", bound=_Sized)

LARGEST_BYTES = 6 << 30
"""Most memory the matrices of one subspace may take."""


def check_space(space: Subspace, layers: int, width: int, tokens: int) -> None:
    """Refuse a subspace the model cannot show or the server cannot hold.

    Raises:
        QueryError: with the numbers.
    """
    if not 1 <= space.layers <= layers:
        raise QueryError(f"subspace with {space.layers} layers; the model has {layers}")
    if not 1 <= space.tokens <= tokens:
        raise QueryError(f"subspace with {space.tokens} prompt tokens; 1 to {tokens} are allowed on this track")
    if space.dim < 1 or not all(0 <= s < 1e6 for s in space.std):  # noqa: PLR2004
        raise QueryError(
            f"subspace with dim {space.dim} and widths {space.std}; dim >= 1 and finite widths >= 0 are needed"
        )
    if not 0 <= space.seed <= 2**62 or space.distribution not in {"normal", "uniform"}:
        raise QueryError(
            f"subspace with seed {space.seed}, {space.distribution!r}; 0..2**62, normal or uniform are needed"
        )
    size = 4 * space.layers * space.dim * space.tokens * width
    if size > LARGEST_BYTES:
        raise QueryError(
            f"projections of {size / 2**30:,.1f} GiB; {LARGEST_BYTES / 2**30:.0f} GiB are allowed. Lower dim"
        )


class Kept(Generic[T]):
    """Matrices in use, the longest unused dropped first; together at most `LARGEST_BYTES`. Each is of one cell."""

    def __init__(self) -> None:
        """Keep nothing yet."""
        self.matrices: OrderedDict[tuple[object, Subspace, int, int], T] = OrderedDict()

    def get(self, space: Subspace, layer: int, width: int, size: int, make: Callable[[], T]) -> T:
        """A_l, of `size` bytes; made, after room was made for it, where this cell has not kept it."""
        key = (cell(), space, layer, width)
        if key not in self.matrices:
            while self.matrices and size + sum(a.nbytes for a in self.matrices.values()) > LARGEST_BYTES:
                self.matrices.popitem(last=False)
            self.matrices[key] = make()
        self.matrices.move_to_end(key)
        return self.matrices[key]

    def forget(self, whose: object) -> None:
        """Drop what a cell has kept."""
        for key in [key for key in self.matrices if key[0] is whose]:
            del self.matrices[key]


_kept: Kept[FloatArray] = Kept()


def matrix(space: Subspace, layer: int, width: int) -> FloatArray:
    """A_l as `generate` makes it, kept in main memory while in use."""
    size = 4 * space.tokens * width * space.dim
    return _kept.get(space, layer, width, size, lambda: generate(space, layer, width))


def forget(whose: object) -> None:
    """Drop the matrices in main memory that a cell (`harness.blackbox.cells`) has kept."""
    _kept.forget(whose)


def generate(space: Subspace, layer: int, width: int) -> FloatArray:
    """A_l: float32 (tokens * width, dim), from (seed, layer) alone.

    ``normal``: N(0, std^2 / dim), so that z ~ N(0, I) gives values of standard deviation std. ``uniform``:
    std * U(-1/sqrt(dim), 1/sqrt(dim)).
    """
    rng = np.random.Generator(np.random.Philox(key=[space.seed, layer]))
    shape = (space.tokens * width, space.dim)
    if space.distribution == "normal":
        a = rng.standard_normal(shape, dtype=np.float32)
    else:
        a = rng.random(shape, dtype=np.float32) * 2 - 1
    a *= np.float32(space.std[layer] / np.sqrt(space.dim))  # in place: it may be as large as memory allows
    return a
