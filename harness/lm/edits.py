"""Changes of weights as edits of layers, which a whole population shares one forward pass with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from harness.blackbox.noise import product_unit
from harness.lm import noise
from harness.lm.backbones import families, groups
from harness.lm.backbones.edited import LayerEdit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.contract import FloatArray, WeightSpace
    from harness.contract.weights import Streams
    from harness.lm.backbones.groups import Slot

MOST_RANK = 64
"""Widest thin product that candidates of low rank are computed by. Above, they are computed one by one."""


def joined(layers: int, some: Sequence[dict[int, LayerEdit]]) -> tuple[LayerEdit | None, ...]:
    """The edits of each layer that several changes make together; none where there is no change."""
    found: dict[int, LayerEdit] = {}
    for edits in some:
        for layer, edit in edits.items():
            found[layer] = found[layer].plus(edit) if layer in found else edit
    return tuple(found.get(depth) for depth in range(layers)) if found else ()


def of_changes(model: Any, slots: Sequence[Slot], changes: torch.Tensor) -> dict[int, LayerEdit]:
    """Edits by layer, of changes (candidates, elements) of biases, norms, LoRAs or adapters."""
    names = [_names(model, block) for block in families.layers(model)]
    edits: dict[int, LayerEdit] = {}
    first, waiting = 0, None
    for slot in slots:
        layer = cast("int", slot.layer)
        edit = edits.setdefault(layer, LayerEdit())
        values = (changes[:, first : first + slot.size] * slot.unit).view(-1, *slot.shape)
        first += slot.size
        if slot.part == "A":
            waiting = values
        elif slot.part == "B" and slot.beside and waiting is not None:
            edit.lora[slot.beside] = (waiting, values)
        elif slot.part in {"D", "d", "U", "u"}:
            edits[layer] = LayerEdit(adapter=(*edit.adapter, values))
        else:
            _put(edit, names[layer][id(slot.parameter)], values)
    return edits


def can_be_thin(model: Any, slots: Sequence[Slot]) -> bool:
    """Whether an edit of layers can hold steps of low rank of all these tensors."""
    names = [_names(model, block) for block in families.layers(model)]
    return all(slot.layer is not None and id(slot.parameter) in names[slot.layer] for slot in slots)


def of_steps(
    model: Any, slots: Sequence[Slot], space: WeightSpace, streams: Streams, z: FloatArray, device: str
) -> dict[int, LayerEdit]:
    """Edits by layer, of steps of low rank: thin products for matrices, vectors for biases and norms.

    Args:
        model: transformers' model.
        slots: its tensors that the space changes.
        space: of low rank.
        streams: of each candidate's steps (candidates, steps).
        z: their coefficients (candidates, steps).
        device: where they are drawn.
    """
    names = [_names(model, block) for block in families.layers(model)]
    different, where = np.unique(streams, return_inverse=True)
    drawn = different.tolist()
    at = torch.from_numpy(where.reshape(streams.shape)).to(device)  # (candidates, steps)
    c = torch.from_numpy(np.array(z, dtype=np.float32)).to(device) * space.std
    edits: dict[int, LayerEdit] = {}
    for t, slot in enumerate(slots):
        edit = edits.setdefault(cast("int", slot.layer), LayerEdit())
        kind, name = names[cast("int", slot.layer)][id(slot.parameter)]
        if noise.thin(slot, space):
            rows, columns = noise.factors(slot, t, space, drawn, device)  # (streams, rows or columns, rank)
            scale = c * float(product_unit(space.distribution, space.rank))
            out = (rows[at] * scale[:, :, None, None]).transpose(1, 2).flatten(2)  # (candidates, out, steps * rank)
            edit.lora[name] = columns[at].transpose(2, 3).flatten(1, 2), out
        else:
            vectors = noise.vector(slot, t, space, drawn, device)
            _put(edit, (kind, name), torch.einsum("cs,cse->ce", c, vectors[at]))
    return edits


def _put(edit: LayerEdit, place: tuple[str, Any], values: torch.Tensor) -> None:
    kind, name = place
    (edit.biases if kind == "bias" else edit.norms)[name] = values


def _names(model: Any, block: Any) -> dict[int, tuple[str, Any]]:
    """What `LayerEdit` calls the matrices, biases and norms of a layer, by their identity."""
    found: dict[int, tuple[str, Any]] = {}
    for beside, name in groups.modules(model).items():
        module = block.get_submodule(name)
        found[id(module.weight)] = ("matrix", beside)
        if module.bias is not None:
            found[id(module.bias)] = ("bias", beside)
    for n, name in enumerate(groups.norms(model)):
        norm = block.get_submodule(name)
        found |= {id(norm.weight): ("norm", (n, "weight")), id(norm.bias): ("norm", (n, "bias"))}
    return found
