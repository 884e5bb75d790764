"""Low-rank factors beside an encoder's linear layers, and their merging into plain weights."""

from __future__ import annotations

import torch


class LowRank(torch.nn.Module):
    """y = W x + b + B (A x); B starts at zero."""

    def __init__(self, linear: torch.nn.Linear, rank: int, generator: torch.Generator) -> None:
        """Keep the layer unchanged; A and B are trained."""
        super().__init__()
        self.linear = linear
        self.down = torch.nn.Parameter(
            torch.randn(rank, linear.in_features, generator=generator) / linear.in_features**0.5
        )
        self.up = torch.nn.Parameter(torch.zeros(linear.out_features, rank))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Both paths, added."""
        sum_: torch.Tensor = self.linear(x) + (x @ self.down.T) @ self.up.T
        return sum_


def add_low_rank(encoder: torch.nn.Module, rank: int, seed: int) -> list[torch.nn.Parameter]:
    """Add factors to every linear layer and return the parameters that are trained."""
    generator = torch.Generator().manual_seed(seed)
    made: list[torch.nn.Parameter] = []
    for name, module in list(encoder.named_modules()):
        if isinstance(module, torch.nn.Linear):
            parent = encoder.get_submodule(name.rpartition(".")[0])
            wrapped = LowRank(module, rank, generator)
            setattr(parent, name.rpartition(".")[2], wrapped)
            made += [wrapped.down, wrapped.up]
    return made


def merged_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The state dict with plain names, W + B A in place of W."""
    state = dict(model.state_dict())
    for name, module in model.named_modules():
        if isinstance(module, LowRank):
            state[f"{name}.weight"] = (module.linear.weight + module.up @ module.down).detach()
            if module.linear.bias is not None:
                state[f"{name}.bias"] = module.linear.bias.detach()
            for part in ("down", "up", "linear.weight", "linear.bias"):
                state.pop(f"{name}.{part}", None)
    return state
