"""Random projections: a submission declares them, and they are generated here from the seed and cached. Pure numpy."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import numpy as np

from harness.blackbox.cells import cell
from harness.blackbox.checkpoints import checkpoint
from harness.blackbox.memory import require
from harness.errors import QueryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.contract import FloatArray, Subspace


class _Sized(Protocol):
    @property
    def nbytes(self) -> int: ...


T = TypeVar("T", bound=_Sized)

LARGEST_BYTES = 6 << 30
"""Most memory the matrices of one subspace may take."""
_BLOCK = 1 << 24
"""Values that are drawn at once."""


def check_space(space: Subspace, layers: int, width: int, tokens: int, most: int = LARGEST_BYTES) -> None:
    """Refuse a subspace the model cannot show or the server cannot hold: one of more than `most` bytes.

    Raises:
        QueryError: the subspace is refused. The message gives the numbers.
    """
    if not layers:
        raise QueryError(
            "this model takes text and no soft prompts: it is an endpoint. Ask with prompts=None, and change the "
            "template and the label words"
        )
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
    size, most = 4 * space.layers * space.dim * space.tokens * width, min(most, LARGEST_BYTES)
    if size > most:
        raise QueryError(f"projections of {size / 2**30:,.1f} GiB; {most / 2**30:.3g} GiB are allowed. Lower dim")


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
    """A_l as `generate` computes it, cached in main memory."""
    size = 4 * space.tokens * width * space.dim
    return _kept.get(space, layer, width, size, lambda: generate(space, layer, width))


def forget(whose: object) -> None:
    """Drop the matrices in main memory that a cell (`harness.blackbox.cells`) has kept."""
    _kept.forget(whose)


def generate(space: Subspace, layer: int, width: int) -> FloatArray:
    """A_l, float32 (tokens * width, dim), computed from (seed, layer) alone.

    ``normal``: N(0, std^2 / dim), so that z ~ N(0, I) gives values of standard deviation std. ``uniform``:
    std * U(-1/sqrt(dim), 1/sqrt(dim)).

    Raises:
        MemoryError: this machine has too little memory for it.
    """
    rng = np.random.Generator(np.random.Philox(key=[space.seed, layer]))
    shape = (space.tokens * width, space.dim)
    require(4 * math.prod(shape))
    a = np.empty(shape, dtype=np.float32)
    scale = np.float32(space.std[layer] / np.sqrt(space.dim))
    for rows in _blocks(*shape):  # each in place: the matrix may be as large as memory allows
        block = a[rows]
        if space.distribution == "normal":
            rng.standard_normal(dtype=np.float32, out=block)
        else:
            rng.random(dtype=np.float32, out=block)
            block *= 2
            block -= 1
        block *= scale
        checkpoint()
    return a


def _blocks(rows: int, columns: int) -> Iterator[slice]:
    """Cut a matrix into rows of at most `_BLOCK` values together; one row may have more."""
    step = max(1, _BLOCK // columns)
    for first in range(0, rows, step):
        yield slice(first, first + step)
