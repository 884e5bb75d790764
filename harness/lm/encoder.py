"""BERT, RoBERTa and DistilBERT, computed by ourselves over the loaded weights, without what nobody reads.

Differs from the plain path only in work left out, never in the mathematics (tests hold it to `plain.py`):
candidates that agree on the prompts of layers 0..l share one computation up to l, and the last layer is
computed at the read positions alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from harness.lm import families
from harness.lm.plain import PlainBackbone

if TYPE_CHECKING:
    from harness.lm.backbone import Batch

_ACTIVATION = {"bert": "hidden_act", "roberta": "hidden_act", "distilbert": "activation"}
"""Name of the activation in each family's configuration."""


@dataclass(frozen=True)
class _Layer:
    """Weights of one post-norm transformer layer, query, key and value in one matrix."""

    qkv: tuple[torch.Tensor, torch.Tensor]
    out: tuple[torch.Tensor, torch.Tensor]
    norm1: tuple[torch.Tensor, torch.Tensor]
    up: tuple[torch.Tensor, torch.Tensor]
    down: tuple[torch.Tensor, torch.Tensor]
    norm2: tuple[torch.Tensor, torch.Tensor]


class EncoderBackbone(PlainBackbone):
    """The fast path for the families in `_ACTIVATION`; head and statistics are the plain path's."""

    def __init__(self, model: Any, zero_head_bias: bool = False) -> None:
        """Fuse the projections of each layer; the weights are shared otherwise."""
        super().__init__(model, zero_head_bias)
        self._heads = int(model.config.num_attention_heads)
        self._embed = model.base_model.embeddings
        self._eps = float(self._embed.LayerNorm.eps)
        fuse = _fuse_distilbert if model.config.model_type == "distilbert" else _fuse
        self._fused = [fuse(block) for block in families.layers(model)]

    @staticmethod
    def fits(model: Any) -> bool:
        """Whether the model's family and activation are the ones computed here."""
        name = _ACTIVATION.get(model.config.model_type)
        return name is not None and getattr(model.config, name) == "gelu"

    def hidden(self, batch: Batch) -> torch.Tensor:
        """See `Backbone`."""
        with torch.inference_mode():
            embedded = self._embed(input_ids=batch.ids, position_ids=batch.positions)
            x: torch.Tensor = embedded[None]  # (1 or candidates, texts, tokens, width)
            mask = None if bool(batch.mask.all()) else batch.mask[:, None, None, :]  # (texts, 1, 1, tokens)
            for depth, layer in enumerate(self._fused):
                if depth < len(batch.prompts):
                    x = self._prompted(x, batch, depth)
                x = self._layer(x, layer, mask, batch.read if depth == self.layers - 1 else None)
            return x.float().expand(batch.candidates, -1, -1, -1)

    @staticmethod
    def _prompted(x: torch.Tensor, batch: Batch, depth: int) -> torch.Tensor:
        value = batch.prompts[depth].to(x.dtype)[:, None]  # (1 or candidates, 1, prompt tokens, width)
        x = x.expand(max(len(x), len(value)), -1, -1, -1).clone()
        span = slice(batch.start, batch.start + value.shape[2])
        x[:, :, span] = value if batch.mode == "prepend" and depth == 0 else x[:, :, span] + value
        return x

    def _layer(
        self, x: torch.Tensor, layer: _Layer, mask: torch.Tensor | None, read: torch.Tensor | None
    ) -> torch.Tensor:
        candidates, texts, tokens, width = x.shape
        weight, bias = layer.qkv
        if read is None:
            q, k, v = F.linear(x, weight, bias).chunk(3, dim=-1)
        else:  # only the read positions ask, all positions answer
            k, v = F.linear(x, weight[width:], bias[width:]).chunk(2, dim=-1)
            x = x.gather(2, read[None, :, :, None].expand(candidates, texts, read.shape[1], width))
            q = F.linear(x, weight[:width], bias[:width])
        if mask is not None:
            mask = mask.expand(candidates, *mask.shape).reshape(candidates * texts, 1, 1, tokens)
        attended = F.scaled_dot_product_attention(self._split(q), self._split(k), self._split(v), attn_mask=mask)
        attended = attended.transpose(1, 2).reshape(x.shape)
        x = F.layer_norm(x + F.linear(attended, *layer.out), (width,), *layer.norm1, self._eps)
        inner = F.gelu(F.linear(x, *layer.up))
        return F.layer_norm(x + F.linear(inner, *layer.down), (width,), *layer.norm2, self._eps)

    def _split(self, t: torch.Tensor) -> torch.Tensor:
        """(candidates, texts, tokens, width) -> (candidates * texts, heads, tokens, head width)."""
        return t.reshape(-1, t.shape[2], self._heads, t.shape[3] // self._heads).transpose(1, 2)


def _fuse(block: Any) -> _Layer:
    attention = block.attention
    return _Layer(
        _joined(attention.self.query, attention.self.key, attention.self.value),
        _pair(attention.output.dense),
        _pair(attention.output.LayerNorm),
        _pair(block.intermediate.dense),
        _pair(block.output.dense),
        _pair(block.output.LayerNorm),
    )


def _fuse_distilbert(block: Any) -> _Layer:
    attention = block.attention
    return _Layer(
        _joined(attention.q_lin, attention.k_lin, attention.v_lin),
        _pair(attention.out_lin),
        _pair(block.sa_layer_norm),
        _pair(block.ffn.lin1),
        _pair(block.ffn.lin2),
        _pair(block.output_layer_norm),
    )


def _pair(module: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return module.weight.detach(), module.bias.detach()


def _joined(*parts: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.cat([p.weight for p in parts]).detach(), torch.cat([p.bias for p in parts]).detach()
