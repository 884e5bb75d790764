"""Candidates that change the model's weights: points of a subspace of weights, or walks of seeded steps.

A submission never sees a weight. It names a group of parameters and a seed; the server draws the noise and adds it.

Noise. Every number comes from Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011),
a function from a key of two and a counter of four unsigned 32-bit words to four such words. For element e of tensor t
of a group, in stream s of a space with seed k:

    key     = (k mod 2**32, k >> 32)
    counter = (b mod 2**32, b >> 32, s, t)        b = e // 4 for ``normal``, e // 128 for ``rademacher``

``normal``: element e takes word e mod 4. The word's four bytes are added up (an Irwin-Hall sum, whose fourth moment is
2.7 where a normal one's is 3), 510 is taken off, and the integer is multiplied by the float32 number nearest to
1 / sqrt(21845): mean 0, variance 1, at most 3.46. ``rademacher``: element e takes bit e mod 32 of word
(e mod 128) // 32 and is +1 where it is set, else -1. Nothing is rounded before the one product, so the noise has the
same bits on every device. What a group adds to the model (LoRA's first matrix, the adapter's) starts at noise with
t + 2**31 in place of t and stream 0.

Noise of low rank (EGGROLL: Sarkar et al., "Evolution Strategies at the Hyperscale", arXiv 2511.16652). In a space of
rank r, the noise of a matrix of m rows and n columns is A B^T / sqrt(r). A (m, r) is noise as above with t, B (n, r)
with t + 2**30 in place of t. Of each, the integers before the product are taken, so that every sum of r products of
them is a whole number of at most 2**24 and exact in float32; it is multiplied by the float32 number nearest to
1 / (21845 sqrt(r)) for ``normal``, to 1 / sqrt(r) for ``rademacher``. Vectors have noise as above.

The order of tensors is that of the layers, and within a layer that of the model's parameters; those that a group adds
are named in `WeightSpace`. Elements are counted in row-major order.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import index
from typing import Annotated, TypeAlias, get_args

import msgspec
import numpy as np
import numpy.typing as npt

from harness.contract.arrays import Beside, FloatArray, Noise, WeightGroup
from harness.contract.prompts import Coordinates, Prompt

Streams: TypeAlias = npt.NDArray[np.uint32]

_ADDED = ("lora", "adapter")
_LOW_RANK = ("attention", "feed_forward", "all")
MOST_NOISE_RANK = 64
"""Up to here, sums of products of integers are exact in float32: 64 * 510**2 < 2**24."""
MOST_STREAM = 2**32 - 1
MOST_PARTS = 256
"""Most changes that a candidate adds up."""


class WeightSpace(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A group of the model's parameters, and seeded directions in which candidates change it.

    ``biases`` are all biases of the layers, those of norms included (BitFit, Ben Zaken et al., ACL 2022). ``norms`` are
    weights and biases of the layers' norms. ``attention`` and ``feed_forward`` are the matrices of the layers.
    ``all`` is every parameter of the model, or of the given layers.

    Two groups are added to the model. ``lora`` puts B (A x) beside each matrix in `beside` (Hu et al., ICLR 2022): A is
    (rank, in) and starts at noise / sqrt(in), B is (out, rank) and starts at 0; a change of A is measured in
    1 / sqrt(in). ``adapter`` puts x + U gelu(D x + d) + u behind each feed-forward part, before its residual sum
    (Houlsby et al., ICML 2019; the place is that of Pfeiffer et al., EACL 2021): D is (rank, width) like A, d, U and u
    start at 0. Tensors are in the order A, B and D, d, U, u. At z = 0 the model is the one that was published.

    With n_s the unit noise of stream s, coordinates z change the group by ``std / sqrt(dim) * sum_j z_j n_j``, so that
    z ~ N(0, I) changes it by standard deviation `std`. A walk changes it by ``std * sum_i c_i n_(s_i)``.

    Args:
        group: which parameters.
        dim: length of z; 0 where there are only walks.
        std: standard deviation of the change.
        seed: seed of the noise.
        layers: numbers of the layers, from 0, ascending; none means all.
        rank: rank of a ``lora``, inner width of an ``adapter``. For ``attention``, ``feed_forward`` and ``all`` it is
            the rank of each matrix's noise, at most 64; 0 is noise in every entry. 0 for ``biases`` and ``norms``.
        beside: the matrices of a ``lora``; for other groups it means nothing.
        distribution: of the noise.

    Example:
        ``WeightSpace("biases", 100, 0.5 * lm.info.weight_rms("biases"), seed=1, layers=(3, 4, 5))``
    """

    group: WeightGroup
    dim: Annotated[int, msgspec.Meta(ge=0, le=2**31)]
    std: float
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**62)]
    layers: Annotated[tuple[int, ...], msgspec.Meta(max_length=4096)] = ()
    rank: Annotated[int, msgspec.Meta(ge=0, le=2**16)] = 0
    beside: Annotated[tuple[Beside, ...], msgspec.Meta(max_length=6)] = ("query", "value")
    distribution: Noise = "normal"

    def __post_init__(self) -> None:
        """Convert numpy's numbers to Python's, as a space is sent, stored and compared."""
        for name in ("dim", "seed", "rank"):
            msgspec.structs.force_setattr(self, name, index(getattr(self, name)))
        msgspec.structs.force_setattr(self, "std", float(self.std))
        msgspec.structs.force_setattr(self, "layers", tuple(map(index, self.layers)))
        msgspec.structs.force_setattr(self, "beside", tuple(self.beside))

    @property
    def added(self) -> bool:
        """Whether the group is added to the model, and not changed in it."""
        return self.group in _ADDED

    @property
    def low_rank(self) -> bool:
        """Whether the noise of each matrix has low rank."""
        return self.rank > 0 and not self.added

    @property
    def problem(self) -> str | None:
        """What is wrong with the space whatever the model is, with the numbers; None if nothing is."""
        if self.group not in get_args(WeightGroup):
            return f"group {self.group!r}; one of {', '.join(get_args(WeightGroup))} expected"
        if self.distribution not in get_args(Noise) or not 0 <= self.std < 1e6:  # noqa: PLR2004 - False for NaN, too
            return f"{self.distribution!r} noise, std {self.std}; normal or rademacher, from 0 to 1e6 expected"
        if not (0 <= self.dim <= 2**31 and 0 <= self.seed <= 2**62 and 0 <= self.rank <= 2**16):
            return f"dim {self.dim}, seed {self.seed}, rank {self.rank}; at most 2**31, 2**62 and 2**16 are allowed"
        least, most = (1, 2**16) if self.added else (0, MOST_NOISE_RANK if self.group in _LOW_RANK else 0)
        if not least <= self.rank <= most:
            return f"rank {self.rank} for group {self.group!r}; {least} to {most:,} expected"
        if not self.beside or not set(self.beside) <= set(get_args(Beside)) or len(set(self.beside)) < len(self.beside):
            return f"a lora beside {self.beside}; some of {', '.join(get_args(Beside))} expected, each once"
        good = list(self.layers) == sorted(set(self.layers)) and min(self.layers, default=0) >= 0
        return None if good else f"layers {self.layers}; ascending numbers from 0 expected, each once"

    def at(self, z: npt.ArrayLike, prompts: Prompt | Coordinates | None = None) -> Weights:
        """Candidates at coordinates z.

        Args:
            z: (dim,) or (candidates, dim).
            prompts: soft prompts beside the weights, one for all candidates or one for each.

        Returns:
            Candidates that a query takes as it takes a `Prompt`.

        Raises:
            ValueError: z has another shape, or the space or the prompts do not fit.

        Example:
            ``lm.logits(space.at(rng.standard_normal((20, space.dim))), texts)``
        """
        array = np.asarray(z, dtype=np.float32)
        array = array[None] if array.ndim == 1 else array
        return Weights(self, array, None, prompts)

    def walk(
        self, streams: npt.ArrayLike, coefficients: npt.ArrayLike, prompts: Prompt | Coordinates | None = None
    ) -> Weights:
        """Candidates that are walks: each is a list of (stream, coefficient).

        What candidates have in common at their beginning is computed once. A step of coefficient 0 changes nothing, so
        walks of different lengths are filled up with such steps.

        Args:
            streams: (steps,) or (candidates, steps), whole numbers from 0 to 2**32 - 1.
            coefficients: the same shape.
            prompts: soft prompts beside the weights, one for all candidates or one for each.

        Returns:
            Candidates; those without a step are the model as it is.

        Raises:
            ValueError: the shapes differ, a stream is none, or the space or the prompts do not fit.

        Example:
            ``lm.logits(space.walk([*path, [s]], [*steps, [eps]]), texts)``
        """
        numbers, c = np.asarray(streams), np.asarray(coefficients, dtype=np.float32)
        if numbers.size and (numbers.dtype.kind not in "iu" or numbers.min() < 0 or numbers.max() > MOST_STREAM):
            found = f"{numbers.dtype} from {numbers.min()} to {numbers.max()}"
            raise ValueError(f"streams are {found}; whole numbers from 0 to 2**32 - 1 expected")
        numbers, c = (a[None] if a.ndim == 1 else a for a in (numbers, c))
        if c.ndim == 2 and not c.shape[1]:  # noqa: PLR2004 - (candidates, steps)
            numbers, c = np.zeros((len(c), 1)), np.zeros((len(c), 1), dtype=np.float32)
        return Weights(self, c, numbers.astype(np.uint32), prompts)


@dataclass(frozen=True)
class Weights:
    """Candidates that change weights, alone or together with soft prompts. Accepted wherever a `Prompt` is.

    ``a + b`` makes both changes: of other layers or groups, or of the same ones. One of them may be a single candidate,
    which then stands beside each candidate of the other. Two LoRAs beside a matrix, and two adapters behind a part, add
    what they give.

    Args:
        space: what is changed.
        z: (candidates, dim) coordinates, or (candidates, steps) the coefficients of walks.
        streams: of each step of a walk; None for coordinates.
        prompts: soft prompts beside the weights, one for all candidates or one for each.
        more: changes of other spaces that are made as well, each without prompts and without `more`.

    Raises:
        ValueError: the parts do not fit each other. The message gives the shapes.

    Example:
        ``lm.logits(low.at(best) + high.at(rng.standard_normal((20, high.dim))), texts)``
    """

    space: WeightSpace
    z: FloatArray  # (candidates, dim or steps)
    streams: Streams | None = None  # (candidates, steps)
    prompts: Prompt | Coordinates | None = None
    more: tuple[Weights, ...] = ()

    def __post_init__(self) -> None:
        """Refuse parts that do not fit each other."""
        if len(self.more) >= MOST_PARTS:
            raise ValueError(f"a sum of {len(self.more) + 1:,} changes; {MOST_PARTS} are allowed")
        for part in self.more:
            if not isinstance(part, Weights) or part.more or part.prompts is not None:
                raise ValueError("a change within a sum has prompts, is a sum itself or is no Weights; join them by +")
        if self.space.problem:
            raise ValueError(f"weight space: {self.space.problem}")
        shape = np.shape(self.z)
        if self.streams is None and (len(shape) != 2 or not shape[0] or shape[1] != self.space.dim or not shape[1]):  # noqa: PLR2004
            raise ValueError(f"weights at coordinates of shape {shape}; (candidates, {self.space.dim}) expected")
        if self.streams is not None and (len(shape) != 2 or np.shape(self.streams) != shape or not np.size(self.z)):  # noqa: PLR2004
            raise ValueError(
                f"a walk of {np.shape(self.streams)} streams and {shape} coefficients; (candidates, steps) expected"
            )
        if not isinstance(self.prompts, Prompt | Coordinates | None):
            raise ValueError(f"prompts are {type(self.prompts).__name__}; Prompt, subspace.at(z) or None expected")  # noqa: TRY004
        counts = [len(self.z), *(len(part.z) for part in self.more)]
        if set(counts) - {1, max(counts)}:
            raise ValueError(f"a sum of changes with {counts} candidates; 1 or as many as the others expected in each")
        if self.prompts is not None and len(self.prompts) not in {1, max(counts)} and max(counts) != 1:
            raise ValueError(f"{len(self.prompts)} prompts for {max(counts)} weight candidates; 1 or as many expected")

    def __len__(self) -> int:
        """Candidates."""
        return max(*(len(part.z) for part in (self, *self.more)), 0 if self.prompts is None else len(self.prompts))

    def __add__(self, other: Weights) -> Weights:
        """Candidates that make both changes.

        Args:
            other: changes; at most one of both has prompts, and each has one candidate or as many as the other.

        Returns:
            The candidates, with the changes in this order.

        Raises:
            ValueError: their numbers of candidates do not fit, both have prompts, or they are too many changes.
        """
        if not isinstance(other, Weights):
            return NotImplemented
        if self.prompts is not None and other.prompts is not None:
            raise ValueError("both changes have prompts; give the prompts to one of them")
        prompts = other.prompts if self.prompts is None else self.prompts
        return Weights(self.space, self.z, self.streams, prompts, (*self.more, *other.parts))

    @property
    def parts(self) -> tuple[Weights, ...]:
        """The changes that are added up, each of one space, without prompts."""
        return (Weights(self.space, self.z, self.streams), *self.more)


Prompts: TypeAlias = Prompt | Coordinates | Weights
"""What a query's candidates are: soft prompts, changes of weights, or both."""
