"""Candidates that change weights, computed: vectors and thin products together, all else in place and taken back.

Biases, norms, LoRA and adapters of the families of `EncoderBackbone` are computed for a whole population at once. So
are walks of low rank: the steps that candidates have in common are written into the model, and each candidate's own
steps are thin products. What is left is computed candidate by candidate: the original tensors are copied, each
candidate's values are written into the model, its forward pass is computed, and the copies are written back. The
model's own bits return, whatever was computed in between. Layers that are changed in place are computed in the format
in which the model was loaded, because a change that is smaller than a step of int8 would be rounded away.
"""

from __future__ import annotations

import contextlib
from collections import Counter, OrderedDict
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import repeat, takewhile
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

import numpy as np
import torch

from harness.blackbox.cells import cell
from harness.blackbox.checkpoints import checkpoint
from harness.blackbox.memory import require
from harness.blackbox.model import Forwarded
from harness.blackbox.projection import LARGEST_BYTES
from harness.blackbox.weights import MOST_UNFOLDED, TOGETHER
from harness.contract import Coordinates, Prompt
from harness.errors import QueryError
from harness.lm import edits, noise
from harness.lm.backbones import families, groups
from harness.lm.backbones.linear import in_blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from harness.contract import SoftPrompts, WeightFacts, Weights, WeightSpace
    from harness.lm.backbones.edited import LayerEdit
    from harness.lm.backbones.groups import Slot
    from harness.lm.backbones.plain import PlainBackbone

T = TypeVar("T")
Run: TypeAlias = "Callable[[SoftPrompts | None, int, tuple[LayerEdit | None, ...]], Forwarded]"
"""A forward pass: soft prompts, candidates, and what each layer's candidates change."""
_MOST_WALKED = 4
"""Models' worth of changes that are kept, so that walks go on there; one that was dropped is walked from its start."""


@dataclass(frozen=True)
class _Walked:
    """Where a walk has come to, so that the next query goes on there."""

    streams: bytes
    coefficients: bytes
    change: torch.Tensor  # (elements,)


class Tuner:
    """Changes the weights of one model for as long as a query takes."""

    def __init__(self, model: Any, backbone: PlainBackbone, device: str, block: int | None) -> None:
        """Take the transformers model and the backbone that computes it; `block` is as in `in_blocks`."""
        self._model, self._backbone, self._device, self._block = model, backbone, device, block
        self._directions: OrderedDict[tuple[object, WeightSpace], torch.Tensor] = OrderedDict()
        self._walked: dict[tuple[object, WeightSpace, int], _Walked] = {}
        """By cell, space, and which of the walks of this space in a sum it is: they are held at the same time."""
        self._noise: dict[object, tuple[WeightSpace, int, torch.Tensor]] = {}
        self._slots: dict[WeightSpace, tuple[Slot, ...]] = {}
        self._published = backbone.layout
        self._now: tuple[Callable[[], None], Callable[[], None]] | None = None
        """What writes the present change into the model, and what takes it back; None while there is none."""

    @cached_property
    def facts(self) -> tuple[WeightFacts, ...]:
        """What is published about the weights; nothing where they cannot be changed."""
        return groups.facts(self._model) if self._backbone.changeable else ()

    def count(self, space: WeightSpace) -> int:
        """How many parameters a space changes or adds.

        Raises:
            QueryError: this model cannot have it.
        """
        if not self._backbone.changeable:
            raise QueryError("weights cannot be changed where ONNX Runtime computes; take --backend torch")
        if space.group == "adapter" and not self._backbone.takes_edits:
            has = {each.group for each in self.facts}
            raise QueryError(
                f"no adapter in a model of type {self._model.config.model_type} here: only the packed path of BERT and "
                f"its kin has one. Take {' or '.join(['lora', *(each for each in ('biases', 'norms') if each in has)])}"
            )
        return sum(slot.size for slot in self._of(space))

    def forget(self, whose: object) -> None:
        """Drop what a cell has kept."""
        for key in [key for key in self._directions if key[0] is whose]:
            del self._directions[key]
        for walk in [walk for walk in self._walked if walk[0] is whose]:
            del self._walked[walk]
        self._noise.pop(whose, None)

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Within the block, the model is as it was published.

        At a checkpoint of a long query, the same thread may compute another one, and the change of the first may be in
        the model.
        """
        if self._now is None:
            yield
            return
        now, self._now = self._now, None
        put, take_back = now
        take_back()
        try:
            with self._backbone.laid_out(self._published):
                yield
        finally:
            put()
            self._now = now

    def forward(self, weights: Weights, run: Run) -> Forwarded:
        """Compute all candidates."""
        takes, numbered = self._backbone.takes_edits, _numbered(weights.parts)
        together = [(part, nth) for part, nth in numbered if takes and part.space.group in TOGETHER]
        in_place = [(part, nth) for part, nth in numbered if not takes or part.space.group not in TOGETHER]
        others = [part for part, _ in in_place]
        with torch.no_grad():
            own = [self._edits(part, nth) for part, nth in together]
            layers = len(families.layers(self._model))
            if not others:
                return run(weights.prompts, len(weights), edits.joined(layers, own))
            if all(len(part.z) == 1 or self._thin(part) for part in others):
                with self._in_place([part.space for part in others]) as write:
                    bases, more = zip(*(self._base(part, nth) for part, nth in in_place), strict=True)
                    with write(bases, often=len(weights) > 1):
                        return run(weights.prompts, len(weights), edits.joined(layers, [*own, *more]))
            beside = edits.joined(layers, own)

            def each(k: int, prompts: SoftPrompts | None, candidates: int) -> Forwarded:
                return run(prompts, candidates, tuple(edit and edit.of(slice(k, k + 1)) for edit in beside))

            return _joined(self._one_by_one(weights, others, each))

    def one_by_one(
        self,
        weights: Weights,
        run: Callable[[SoftPrompts | None, int], T],
        goes_on: Callable[[], bool] = lambda: True,
    ) -> list[T]:
        """What `run` gives while each candidate's change is in the model.

        Args:
            weights: candidates.
            run: gets the soft prompts with which the changed model is computed, and how many they are.
            goes_on: asked before each change; where it says no, this change and all after it are left out.

        Returns:
            One result for each change that was in the model.
        """
        with torch.no_grad():
            return self._one_by_one(weights, weights.parts, lambda _k, prompts, count: run(prompts, count), goes_on)

    def _one_by_one(
        self,
        weights: Weights,
        parts: Sequence[Weights],
        run: Callable[[int, SoftPrompts | None, int], T],
        goes_on: Callable[[], bool] = lambda: True,
    ) -> list[T]:
        """What `run` gives while the changes of some parts of each candidate are in the model."""
        count, found = max(len(part.z) for part in weights.parts), list[T]()
        with self._in_place([part.space for part in parts]) as write:
            each = [self._for_each(part, count, nth) for part, nth in _numbered(parts)]
            for k in takewhile(lambda _k: goes_on(), range(count)):
                with write([next(changes) for changes in each]):
                    found += [run(k, prompts, candidates) for prompts, candidates in _prompts_of(weights, k, count)]
        return found

    def _of(self, space: WeightSpace) -> tuple[Slot, ...]:
        found = self._slots.get(space)  # threads count parameters without the device's lock
        if found is None:
            if len(self._slots) >= 64:  # noqa: PLR2004 - a few spaces are in use at a time
                self._slots.clear()
            found = self._slots[space] = groups.slots(self._model, space)
        return found

    # ── changes ──────────────────────────────────────────────────────────────────────────────────────────────

    def _each(self, weights: Weights, nth: int) -> Iterator[torch.Tensor]:
        """The change of each candidate of the weights, (elements,), in units of the slots. `nth` is as in `_walk`."""
        space = weights.space
        if weights.streams is None:
            directions, scale = self._matrix(space), space.std / space.dim**0.5
            for z in torch.from_numpy(np.array(weights.z)).to(self._device):
                yield (z * scale) @ directions
            return
        shared = _shared(weights)
        base = self._walk(space, weights.streams[0, :shared], weights.z[0, :shared], nth)
        for streams, z in zip(weights.streams[:, shared:], weights.z[:, shared:], strict=True):
            change = base.clone()
            self._step(change, space, streams, z)
            yield change.mul_(space.std)

    def _for_each(self, part: Weights, count: int, nth: int) -> Iterator[torch.Tensor]:
        """The change of each of `count` candidates; a single one is the same for all."""
        return self._each(part, nth) if len(part.z) == count else repeat(next(iter(self._each(part, nth))), count)

    def _thin(self, part: Weights) -> bool:
        """Whether the candidates' own steps are thin products and vectors, which are computed together."""
        space = part.space
        if part.streams is None or not space.low_rank or not self._backbone.takes_edits:
            return False
        fits = space.rank * (part.z.shape[1] - _shared(part)) <= edits.MOST_RANK
        return fits and self._own_bytes(part) <= MOST_UNFOLDED and edits.can_be_thin(self._model, self._of(space))

    def _own_bytes(self, part: Weights) -> int:
        """What the candidates' own steps of low rank take as thin products and vectors."""
        rank = part.space.rank * (part.z.shape[1] - _shared(part))
        sizes = (sum(slot.shape) * rank if len(slot.shape) > 1 else slot.size for slot in self._of(part.space))
        return 4 * len(part.z) * sum(sizes)

    def _base(self, part: Weights, nth: int) -> tuple[torch.Tensor, dict[int, LayerEdit]]:
        """The change that all candidates of a part have in common, and what each has of its own."""
        if len(part.z) == 1 or _shared(part) == part.z.shape[1]:  # one candidate, or several that are the same
            return next(iter(self._each(part, nth))), {}
        shared, space = _shared(part), part.space
        streams, z = cast("Any", part.streams), part.z
        require(2 * self._own_bytes(part))  # drawn, and laid out for each candidate
        base = self._walk(space, streams[0, :shared], z[0, :shared], nth) * space.std
        slots = self._of(space)
        return base, edits.of_steps(self._model, slots, space, streams[:, shared:], z[:, shared:], self._device)

    def _walk(self, space: WeightSpace, streams: Any, z: Any, nth: int = 0) -> torch.Tensor:
        """The change after some steps, in units of the space's std. It goes on from where the cell was before.

        What is given is changed when the walk goes on, so those who hold it at one time differ in `nth`.
        """
        key = cell(), space, nth
        known, streams, z = self._walked.get(key), np.ascontiguousarray(streams), np.ascontiguousarray(z)
        s, c = streams.tobytes(), z.astype(np.float32).tobytes()
        size = sum(slot.size for slot in self._of(space))
        if known and s.startswith(known.streams) and c.startswith(known.coefficients):
            done, change = len(known.streams) // 4, known.change
        else:
            require(4 * 4 * size)
            most = _MOST_WALKED * sum(p.numel() for p in self._model.parameters())
            while self._walked and size + sum(len(each.change) for each in self._walked.values()) > most:
                self._walked.pop(next(iter(self._walked)))
            done, change = 0, torch.zeros(size, device=self._device)
        self._walked.pop(key, None)  # until all steps are made, it is neither here nor there
        self._step(change, space, streams[done:], z[done:])
        self._walked[key] = _Walked(s, c, change)
        return change

    def _step(self, change: torch.Tensor, space: WeightSpace, streams: Any, z: Any) -> None:
        """Add steps to `change`, one after the other."""
        for stream, c in zip(streams.tolist(), z.tolist(), strict=True):
            if c:
                change.add_(self._stream(space, stream), alpha=c)

    def _stream(self, space: WeightSpace, stream: int) -> torch.Tensor:
        """Unit noise of one stream, (elements,). The last one is kept: a step back and forth draws it once."""
        known = self._noise.get(cell())
        if known and known[:2] == (space, stream):
            return known[2]
        self._noise.clear()
        drawn = noise.draw(self._of(space), space, [stream], self._device)[0]
        self._noise[cell()] = (space, stream, drawn)
        return drawn

    def _matrix(self, space: WeightSpace) -> torch.Tensor:
        """The directions of coordinates, (dim, elements)."""
        key = (cell(), space)
        if key not in self._directions:
            size = 4 * space.dim * sum(slot.size for slot in self._of(space))
            while self._directions and size + sum(a.nbytes for a in self._directions.values()) > LARGEST_BYTES:
                self._directions.popitem(last=False)
            require(size)
            self._directions[key] = noise.draw(self._of(space), space, range(space.dim), self._device)
        self._directions.move_to_end(key)
        return self._directions[key]

    def _all(self, weights: Weights, nth: int) -> torch.Tensor:
        """The changes of all candidates of the weights at once, (candidates, elements)."""
        if weights.streams is not None:
            return torch.stack(list(self._each(weights, nth)))
        space = weights.space
        directions, z = self._matrix(space), torch.from_numpy(np.array(weights.z)).to(self._device)
        size = directions.shape[1]
        return in_blocks(lambda rows: rows @ directions, size, self._block, z * (space.std / space.dim**0.5))

    # ── together ─────────────────────────────────────────────────────────────────────────────────────────────

    def _edits(self, weights: Weights, nth: int) -> dict[int, LayerEdit]:
        """What candidates of one space change in each layer."""
        space, slots = weights.space, self._of(weights.space)
        require(3 * 4 * len(weights.z) * sum(slot.size for slot in slots))  # changes, what they begin at, their parts
        changes = self._all(weights, nth)
        if space.added:
            changes = changes + noise.start(slots, space, self._device)
        return edits.of_changes(self._model, slots, changes)

    # ── in place ─────────────────────────────────────────────────────────────────────────────────────────────

    @contextlib.contextmanager
    def _in_place(self, spaces: Sequence[WeightSpace]) -> Iterator[Callable[..., Any]]:
        """Give a function that writes a candidate's change of each space into the model as long as its block lasts."""
        each, blocks = [self._of(space) for space in spaces], families.layers(self._model)
        slots = [slot for some in each for slot in some]
        require(3 * 4 * sum(slot.size for slot in slots))  # the originals, a change, and its noise
        begun = [
            noise.start(some, space, self._device) if space.added else None
            for some, space in zip(each, spaces, strict=True)
        ]
        held: dict[int, tuple[torch.nn.Parameter, torch.Tensor]] = {}
        for slot in slots:
            target = slot.parameter
            if target is None and slot.beside:
                target = groups.matrix(self._model, blocks[cast("int", slot.layer)], slot.beside).parameter
            if target is not None and id(target) not in held:
                held[id(target)] = (target, target.detach().clone())
        layers_alone = all(slot.layer is not None for slot in slots)
        depths = {slot.layer for slot in slots} if layers_alone else range(len(blocks))

        def take_back() -> None:
            for target, original in held.values():
                target.data.copy_(original)

        def put(changes: Sequence[torch.Tensor]) -> None:
            for some, change, start in zip(each, changes, begun, strict=True):
                self._write(some, blocks, change if start is None else start + change)

        @contextlib.contextmanager
        def write(changes: Sequence[torch.Tensor], often: bool = False) -> Iterator[None]:
            checkpoint()
            try:
                put(changes)
                layout = self._backbone.laid_out_anew(cast("Any", depths), often)
                with self._backbone.laid_out(layout, same_head=layers_alone):
                    self._now = partial(put, changes), take_back
                    yield
            finally:
                self._now = None
                take_back()

        yield write

    def _write(self, slots: Sequence[Slot], blocks: Sequence[Any], whole: torch.Tensor) -> None:
        """Add a change to the model's parameters, in float32 whatever their format is."""
        first, waiting = 0, None
        for slot in slots:
            values = (whole[first : first + slot.size] * slot.unit).view(slot.shape)
            first += slot.size
            if slot.parameter is not None and slot.parameter.dtype == torch.float32:
                slot.parameter.data.add_(values)
            elif slot.parameter is not None:
                slot.parameter.data.copy_(slot.parameter.data.float() + values)
            elif slot.part == "A":
                waiting = values
            elif slot.beside and waiting is not None:
                found = groups.matrix(self._model, blocks[cast("int", slot.layer)], slot.beside)
                target = found.view(found.parameter.data)
                target.copy_(target.float() + values @ waiting)


def _numbered(parts: Sequence[Weights]) -> list[tuple[Weights, int]]:
    """Each part with the number of parts of its space before it: which of the walks of this space it is."""
    seen: Counter[WeightSpace] = Counter()
    found = []
    for part in parts:
        found.append((part, seen[part.space]))
        seen[part.space] += 1
    return found


def _shared(walks: Weights) -> int:
    """Steps that all walks have in common at their beginning."""
    agreed = (walks.streams == cast("Any", walks.streams)[:1]) & (walks.z == walks.z[:1])
    return int(np.logical_and.accumulate(agreed.all(axis=0)).sum())


def _prompts_of(weights: Weights, k: int, count: int) -> Iterator[tuple[SoftPrompts | None, int]]:
    """The soft prompts with which weight candidate k of `count` is computed, and how many they are."""
    prompts = weights.prompts
    if prompts is None or len(prompts) == 1:
        yield prompts, 1
    elif count == 1:
        yield prompts, len(prompts)
    elif isinstance(prompts, Prompt):
        yield Prompt(prompts.values[k : k + 1], prompts.mode), 1
    else:
        yield Coordinates(prompts.space, prompts.z[k : k + 1]), 1


def _joined(parts: Sequence[Forwarded]) -> Forwarded:
    features = None if parts[0].features is None else np.concatenate([cast("Any", part.features) for part in parts])
    return Forwarded(np.concatenate([part.logits for part in parts]), features, parts[0].lengths)
