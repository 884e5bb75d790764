"""The groups of parameters that candidates change, in a model of any family: which tensors, in which order.

`harness.contract.weights` says what each group is. Parameters are found by what they are (the names and shapes of
transformers); only the matrices beside which a LoRA stands are named by family.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch

from harness.contract import WeightFacts
from harness.errors import QueryError
from harness.lm.backbones import families

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.contract import Beside, WeightGroup, WeightSpace

Part: TypeAlias = Literal["changed", "A", "B", "D", "d", "U", "u"]
"""What a tensor is: a parameter of the model, or one that a group adds."""


@dataclass(frozen=True)
class Slot:
    """One tensor that a space changes or adds."""

    layer: int | None
    """None for what stands in no layer."""
    shape: tuple[int, ...]
    part: Part = "changed"
    parameter: torch.nn.Parameter | None = None
    """That is changed; None for one that is added."""
    beside: Beside | None = None
    unit: float = 1.0
    """The scale in which an added tensor is measured."""

    @property
    def size(self) -> int:
        """Number of elements."""
        return torch.Size(self.shape).numel()


@dataclass(frozen=True)
class Matrix:
    """Where a matrix (out, in) of a layer is in the model."""

    parameter: torch.nn.Parameter
    rows: tuple[int | None, int | None] = (None, None)
    """The matrix's own outputs, from and to, where one parameter holds several matrices."""
    transposed: bool = False
    """Whether the parameter is (in, out)."""

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and inputs."""
        out, inside = self.view(self.parameter).shape
        return out, inside

    def view(self, values: torch.Tensor) -> torch.Tensor:
        """The matrix (out, in) within a tensor that is laid out as the parameter."""
        return (values.T if self.transposed else values)[slice(*self.rows)]


_BERT: dict[Beside, str] = {
    "query": "attention.self.query", "key": "attention.self.key", "value": "attention.self.value",
    "output": "attention.output.dense", "up": "intermediate.dense", "down": "output.dense",
}  # fmt: skip
_DISTILBERT: dict[Beside, str] = {
    "query": "attention.q_lin", "key": "attention.k_lin", "value": "attention.v_lin", "output": "attention.out_lin",
    "up": "ffn.lin1", "down": "ffn.lin2",
}  # fmt: skip
_LLAMA: dict[Beside, str] = {
    "query": "self_attn.q_proj", "key": "self_attn.k_proj", "value": "self_attn.v_proj", "output": "self_attn.o_proj",
    "up": "mlp.up_proj", "down": "mlp.down_proj",
}  # fmt: skip
_GPT2: dict[Beside, str] = {
    "query": "attn.c_attn", "key": "attn.c_attn", "value": "attn.c_attn", "output": "attn.c_proj", "up": "mlp.c_fc",
    "down": "mlp.c_proj",
}  # fmt: skip
_MATRICES = {
    **dict.fromkeys(("bert", "camembert", "electra", "roberta", "xlm-roberta"), _BERT),
    "distilbert": _DISTILBERT,
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "smollm3", "olmo2"), _LLAMA),
    "gpt2": _GPT2,
}


def modules(model: Any) -> dict[Beside, str]:
    """The modules of a layer that hold its matrices, by the names of the contract; empty where they are not known."""
    return _MATRICES.get(model.config.model_type, {})


def norms(model: Any) -> tuple[str, str]:
    """The norms of a layer of the families that `EncoderBackbone` computes."""
    if model.config.model_type == "distilbert":
        return "sa_layer_norm", "output_layer_norm"
    return "attention.output.LayerNorm", "output.LayerNorm"


def matrix(model: Any, block: Any, beside: Beside) -> Matrix:
    """The matrix of one layer that goes by this name.

    Raises:
        QueryError: it is not known where a model of this family has it.
    """
    names = modules(model)
    if not names:
        raise QueryError(
            f"no lora beside the matrices of {model.config.model_type}; families that have one: "
            f"{', '.join(sorted(_MATRICES))}. Take the group attention, biases or norms"
        )
    weight = block.get_submodule(names[beside]).weight
    if names is not _GPT2:
        return Matrix(weight)
    width, at = model.config.hidden_size, ("query", "key", "value")
    if beside not in at:
        return Matrix(weight, transposed=True)
    first = at.index(beside) * width
    return Matrix(weight, (first, first + width), transposed=True)


def slots(model: Any, space: WeightSpace) -> tuple[Slot, ...]:
    """The tensors that a space changes or adds, in the order in which noise numbers them.

    Raises:
        QueryError: the space is malformed, or this model cannot have it. The message says why.
    """
    if space.problem:
        raise QueryError(f"weight space: {space.problem}")
    blocks, name = families.layers(model), model.config.model_type
    if space.layers and space.layers[-1] >= len(blocks):
        raise QueryError(f"weight space: layers {space.layers}; the model has {len(blocks)}, from 0")
    if space.group == "all" and not space.layers:
        return tuple(Slot(None, tuple(p.shape), parameter=p) for p in model.parameters())
    if len({id(block) for block in blocks}) < len(blocks):
        raise QueryError(f"{name} has one layer at several depths, so it cannot be changed by layer; take group all")
    chosen = space.layers or range(len(blocks))
    if space.group == "lora":
        found = [slot for n in chosen for beside in space.beside for slot in _lora(model, blocks[n], n, beside, space)]
    elif space.group == "adapter":
        found = [slot for n in chosen for slot in _adapter(int(model.config.hidden_size), n, space.rank)]
    else:
        found = [Slot(n, tuple(p.shape), parameter=p) for n in chosen for p in _of_group(blocks[n], space.group)]
    if not found:
        raise QueryError(f"a model of type {name} has no {space.group} in layers {space.layers or 'at all'}")
    return tuple(found)


def _lora(model: Any, block: Any, layer: int, beside: Beside, space: WeightSpace) -> Iterator[Slot]:
    out, inside = matrix(model, block, beside).shape
    yield Slot(layer, (space.rank, inside), "A", None, beside, inside**-0.5)
    yield Slot(layer, (out, space.rank), "B", None, beside)


def _adapter(width: int, layer: int, inner: int) -> Iterator[Slot]:
    yield Slot(layer, (inner, width), "D", unit=width**-0.5)
    yield Slot(layer, (inner,), "d")
    yield Slot(layer, (width, inner), "U")
    yield Slot(layer, (width,), "u")


def _is_norm(module: Any) -> bool:
    return isinstance(module, torch.nn.LayerNorm) or type(module).__name__.endswith("Norm")


_HAS: dict[WeightGroup, Callable[[str, torch.nn.Parameter, bool], bool]] = {
    "biases": lambda name, p, _norm: name.endswith("bias") and p.ndim == 1,
    "norms": lambda _name, _p, norm: norm,
    "attention": lambda name, p, _norm: p.ndim > 1 and _attends(name),
    "feed_forward": lambda name, p, _norm: p.ndim > 1 and not _attends(name),
    "all": lambda _name, _p, _norm: True,
}


def _attends(name: str) -> bool:
    return "attention" in name.lower() or "attn" in name.lower()


def _of_group(block: Any, group: WeightGroup) -> Iterator[torch.nn.Parameter]:
    """Parameters of one layer that are of a group, in the model's order."""
    norms = {id(p) for module in block.modules() if _is_norm(module) for p in module.parameters(recurse=False)}
    for name, parameter in block.named_parameters():
        if _HAS[group](name, parameter, id(parameter) in norms):
            yield parameter


def facts(model: Any) -> tuple[WeightFacts, ...]:
    """What is published about a model's weights: sizes and root mean squares, and no weight."""
    blocks = families.layers(model)
    found = []
    if len({id(block) for block in blocks}) == len(blocks):
        groups: tuple[WeightGroup, ...] = ("biases", "norms", "attention", "feed_forward")
        for group in groups:
            each = [WeightFacts(group, n, *_measured(_of_group(block, group))) for n, block in enumerate(blocks)]
            found += [one for one in each if one.parameters]
    return (*found, WeightFacts("all", -1, *_measured(model.parameters())))


def _measured(parameters: Iterator[torch.nn.Parameter]) -> tuple[int, float]:
    """Number of parameters, and their root mean square."""
    count, squares = 0, 0.0
    for parameter in parameters:
        count += parameter.numel()
        squares += float(parameter.detach().double().square().sum())
    return count, (squares / count) ** 0.5 if count else 0.0
