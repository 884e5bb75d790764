"""Llama, its kin and GPT-2, computed here from the loaded weights, without work whose result nobody reads.

The mathematics is that of the plain path (tests compare both). Only work is left out:

- There are no pad tokens. The tokens of all texts form one row, and attention finds each text's own tokens in it.
- The prompt and the tokens before it are in the row once. A token does not see later tokens, so a shared beginning has
  the same states under every text. Whether it is shared is found by comparing tokens.
- Candidates are computed together. Below the first layer where their prompts differ, they are computed once.
- The last layer is computed at the read positions alone.

On a CPU, if products are computed in blocks of equal size, a row's numbers are the same to the last bit whatever rows
share its query. For that reason only the prompt is shared. Texts often begin alike, but how far they do depends on
which texts are in the query.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from harness.lm.backbones import families
from harness.lm.backbones.base import LONGEST
from harness.lm.backbones.linear import ROWS, Int8Linear, Linear, in_blocks
from harness.lm.backbones.packing import SLOTS
from harness.lm.backbones.plain import PlainBackbone

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.lm.backbones.base import Batch

ROTARY = ("llama", "mistral", "qwen2", "qwen3")
"""Families with rotary embeddings and gated layers. Qwen 2 adds biases, Qwen 3 norms of queries and keys."""
FAMILIES = (*ROTARY, "gpt2")
"""Families that this module computes."""
_ROPE = {"default", "linear", "llama3", "yarn"}
"""Kinds of rotary embeddings whose angles depend only on a token's position."""
_GELU = {"gelu_new", "gelu_pytorch_tanh"}


class DecoderBackbone(PlainBackbone):
    """The fast path for `FAMILIES`. Head and statistics come from the plain path."""

    bounded = together = True

    def __init__(
        self,
        model: Any,
        zero_head_bias: bool = False,
        chunk_tokens: int = 4096,
        batch_invariant: bool = False,
        int8: bool = False,
    ) -> None:
        """Lay out the weights. Attention gets at most `chunk_tokens` keys at once, or the keys of one candidate.

        Each text's keys include those of the shared tokens. With `batch_invariant`, on a CPU, a row's numbers do not
        depend on the rows that share its query. With `int8`, products are those of `Int8Linear`.
        """
        super().__init__(model, zero_head_bias)
        self._chunk_tokens = chunk_tokens
        self._block = ROWS if batch_invariant else None
        self._lay_out = _gpt2 if model.config.model_type == "gpt2" else _llama
        linear = Int8Linear if int8 else Linear
        self.layout = [self._lay_out(block, linear) for block in families.layers(model)]

    @staticmethod
    def fits(model: Any) -> bool:
        """Whether this module computes the model's family and everything that its configuration asks for."""
        config = model.config
        if config.model_type in ROTARY:
            window = getattr(config, "sliding_window", None)
            whole = window is None or window >= LONGEST  # no input is longer than such a window
            return config.hidden_act == "silu" and config.rope_parameters["rope_type"] in _ROPE and whole
        if config.model_type == "gpt2":
            return config.activation_function in _GELU and not config.add_cross_attention
        return False

    def hidden(self, batch: Batch) -> torch.Tensor:
        """See `Backbone`. The layers below the first one where candidates differ are computed once."""
        row = packed(batch, self.shared(batch))
        if row is None:
            return super().hidden(batch)
        apart = next((depth for depth, values in enumerate(batch.prompts) if len(values) > 1), self.layers)
        at_once = max(1, self._chunk_tokens // row.keys)
        with torch.inference_mode():
            x, rotation = self._embedded(row)
            x = self._through(x, range(apart), batch, row, rotation)
            if apart == self.layers:
                return x.float().expand(batch.candidates, -1, -1, -1)
            out = x.new_empty(batch.candidates, *batch.read.shape, self.width, dtype=torch.float32)
            for first in range(0, batch.candidates, at_once):
                members = slice(first, first + at_once)
                prompts = tuple(values[members] if len(values) > 1 else values for values in batch.prompts)
                some = replace(batch, prompts=prompts)
                out[members] = self._through(x, range(apart, self.layers), some, row, rotation).float()
            return out

    def shared(self, batch: Batch) -> int:
        """How many tokens of a batch are computed once for all its texts: the prompt's, and those of its prefix."""
        return max(batch.prefix, batch.start + batch.prompts[0].shape[1] if batch.prompts else 0)

    def _through(
        self,
        x: torch.Tensor,
        depths: range,
        batch: Batch,
        row: _Row,
        rotation: tuple[torch.Tensor, ...],
        keep: Callable[[int, torch.Tensor], None] = lambda _depth, _kv: None,
    ) -> torch.Tensor:
        """Run the layers `depths`: (1 or candidates, tokens, width); after the last, (..., texts, reads, width).

        `keep` gets each layer's keys and values: (1 or candidates, tokens, 2 * key heads, head width).
        """
        for depth in depths:
            if depth < len(batch.prompts):
                x = _prompted(x, batch, depth)
            layer = self.layout[depth]
            qkv = layer.projected(x, rotation, self._block)
            keep(depth, qkv[:, :, layer.heads :])
            if depth < self.layers - 1:
                x = layer.finished(x, _attended(row, layer, qkv), self._block)
            else:
                x = layer.finished(x.index_select(1, row.reads.flatten()), _read(row, layer, qkv), self._block)
                x = self._normalized(x).view(len(x), *row.reads.shape, self.width)
        return x

    def _embedded(self, row: _Row) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """The first layer's input (1, tokens, width), and rotary cosines and sines (tokens, half a head's width)."""
        body, ids, positions = self._model.base_model, row.ids[None], row.positions[None]
        if self._model.config.model_type == "gpt2":
            return body.wte(ids) + body.wpe(positions), ()
        x = body.embed_tokens(ids)
        return x, tuple(t[0, :, : t.shape[-1] // 2] for t in body.rotary_emb(x, positions))

    def _normalized(self, x: torch.Tensor) -> torch.Tensor:
        body = self._model.base_model
        normalize = body.ln_f if self._model.config.model_type == "gpt2" else body.norm
        return normalize(x)  # type: ignore[no-any-return]


# ── texts in one row ─────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Group:
    """Texts that attend in one call. Their keys: the shared tokens, the text's own, and repetitions of its last."""

    slots: torch.Tensor  # (group, slots) int64, the packed token in each slot after the shared ones
    causal: torch.Tensor  # (slots, shared + slots) bool, which keys the token in each slot sees
    texts: torch.Tensor  # (group,) int64
    sees: torch.Tensor  # (group, 1, reads, shared + slots) bool, which keys the token at each read position sees


@dataclass(frozen=True)
class _Row:
    """The tokens of a batch: the shared ones once, then each text's own."""

    ids: torch.Tensor  # (tokens,) int64
    positions: torch.Tensor  # (tokens,) int64
    shared: int
    reads: torch.Tensor  # (texts, reads) int64, packed tokens
    groups: tuple[_Group, ...]
    back: torch.Tensor  # (own tokens,) int64, the index of each token in the concatenated slots of all groups
    by_group: torch.Tensor  # (texts,) int64, the index of each text in the concatenated texts of all groups

    @property
    def keys(self) -> int:
        """Number of keys in one candidate's attention. Those of the shared tokens count once for each text."""
        return self.shared + sum(group.sees.shape[0] * group.sees.shape[3] for group in self.groups)


def packed(batch: Batch, shared: int) -> _Row | None:
    """The batch as one row with its first `shared` tokens once, or None if texts differ in those tokens."""
    device, longest = batch.ids.device, batch.ids.shape[1]
    ids, positions, mask = batch.ids.cpu(), batch.positions.cpu(), batch.mask.cpu()
    same = (ids == ids[:1]) & (positions == positions[:1]) & mask
    if not bool(same[:, :shared].all()):
        return None
    own = mask & (torch.arange(longest) >= shared)
    lengths = mask.sum(dim=1)
    starts = shared + (lengths - shared).cumsum(dim=0) - (lengths - shared)
    at = torch.minimum(batch.read.cpu(), lengths[:, None] - 1)  # pad tokens are not read
    reads = torch.where(at < shared, at, starts[:, None] + at - shared)
    sizes = -(-lengths // SLOTS) * SLOTS - shared
    groups, order, back, before = [], [], torch.empty(int(own.sum()), dtype=torch.int64), 0
    for size in sorted(set(sizes.tolist())):
        texts = (sizes == size).nonzero()[:, 0]
        slot = torch.arange(size)
        room = (lengths[texts] - shared)[:, None]
        slots = (starts[texts][:, None] + torch.minimum(slot, room - 1)).clamp(min=0)
        held = slot < room
        back[slots[held] - shared] = before + torch.arange(slots.numel()).view_as(slots)[held]
        key = torch.arange(shared + size)
        causal, sees = key <= shared + slot[:, None], key <= at[texts][:, None, :, None]
        groups.append(_Group(slots.to(device), causal.to(device), texts.to(device), sees.to(device)))
        order.append(texts)
        before += slots.numel()
    return _Row(
        torch.cat([ids[0, :shared], ids[own]]).to(device),
        torch.cat([positions[0, :shared], positions[own]]).to(device),
        shared,
        reads.to(device),
        tuple(groups),
        back.to(device),
        torch.cat(order).argsort().to(device),
    )


def _prompted(x: torch.Tensor, batch: Batch, depth: int) -> torch.Tensor:
    value = batch.prompts[depth].to(x.dtype)  # (1 or candidates, prompt tokens, width)
    x = x.expand(max(len(x), len(value)), -1, -1).clone()
    span = slice(batch.start, batch.start + value.shape[1])
    x[:, span] = value if batch.mode == "prepend" and depth == 0 else x[:, span] + value
    return x


def _attended(row: _Row, layer: _Layer, qkv: torch.Tensor) -> torch.Tensor:
    """Attention of all tokens: (candidates, tokens, heads + 2 * key heads, head width) -> (..., tokens, width)."""
    first = qkv[:, : row.shared, : layer.heads]
    shared = [_attention(layer, first, qkv[:, : row.shared, layer.heads :], causal=True)] if row.shared else []
    own = []
    for group in row.groups:
        asked = _gathered(qkv[:, :, : layer.heads], group.slots)
        own.append(_group_attention(row, layer, qkv, asked, group, group.causal).flatten(1, 2))
    return torch.cat([*shared, torch.cat(own, dim=1).index_select(1, row.back)], dim=1)


def _read(row: _Row, layer: _Layer, qkv: torch.Tensor) -> torch.Tensor:
    """Attention at the read positions: -> (candidates, texts * reads, width)."""
    parts = []
    for group in row.groups:
        asked = _gathered(qkv[:, :, : layer.heads], row.reads[group.texts])
        parts.append(_group_attention(row, layer, qkv, asked, group, group.sees))
    return torch.cat(parts, dim=1).index_select(1, row.by_group).flatten(1, 2)


def _group_attention(
    row: _Row, layer: _Layer, qkv: torch.Tensor, queries: torch.Tensor, group: _Group, mask: torch.Tensor
) -> torch.Tensor:
    """Attention of `queries` (candidates, group, queries, heads, head width) -> (candidates, group, queries, width)."""
    candidates, texts = queries.shape[:2]
    kv = qkv[:, :, layer.heads :]
    shared = kv[:, None, : row.shared].expand(-1, texts, -1, -1, -1)
    kv = torch.cat([shared, _gathered(kv, group.slots)], dim=2).flatten(0, 1)
    if mask.ndim > 2:  # noqa: PLR2004 - one for each text
        mask = mask.repeat(candidates, 1, 1, 1)
    return _attention(layer, queries.flatten(0, 1), kv, mask).view(candidates, texts, queries.shape[2], -1)


def _gathered(x: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """Select from (candidates, tokens, ...) at (texts, slots) -> (candidates, texts, slots, ...)."""
    return x.index_select(1, at.flatten()).view(len(x), *at.shape, *x.shape[2:])


def _attention(
    layer: _Layer, q: torch.Tensor, kv: torch.Tensor, mask: torch.Tensor | None = None, causal: bool = False
) -> torch.Tensor:
    """Attention of q (rows, queries, heads, head width) to kv (rows, keys, 2 * key heads, head width).

    The result has the shape (rows, queries, width).
    """
    q, kv = q.transpose(1, 2), kv.transpose(1, 2)
    k, v = kv.chunk(2, dim=1)
    grouped = k.shape[1] < q.shape[1]
    out = F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal, scale=layer.scale, enable_gqa=grouped)
    return out.transpose(1, 2).flatten(2)


# ── layers ───────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Layer:
    """Weights of one pre-norm transformer layer. Query, key and value are one matrix."""

    heads: int
    head_width: int
    scale: float
    norm1: Callable[[torch.Tensor], torch.Tensor]
    qkv: Linear
    out: Linear
    norm2: Callable[[torch.Tensor], torch.Tensor]
    inner: Callable[[torch.Tensor], torch.Tensor]
    """The function from the normalised states to the input of `down`."""
    down: Linear
    norm_q: Callable[[torch.Tensor], torch.Tensor] | None = None
    norm_k: Callable[[torch.Tensor], torch.Tensor] | None = None
    """Norms of each head's queries and keys before they are rotated, or None."""

    def projected(self, x: torch.Tensor, rotation: tuple[torch.Tensor, ...], block: int | None) -> torch.Tensor:
        """Queries, keys and values, rotated if the model has rotary embeddings.

        (candidates, tokens, width) -> (candidates, tokens, heads + 2 * key heads, head width)
        """
        angles = (t.repeat(len(x), 1) for t in rotation)
        qkv = in_blocks(self._projected, self.qkv.width, block, x.flatten(0, 1), *angles)
        return qkv.view(*x.shape[:2], -1, self.head_width)

    def _projected(self, x: torch.Tensor, *rotation: torch.Tensor) -> torch.Tensor:
        out = self.qkv(self.norm1(x))
        if rotation:
            cos, sin = (t[:, None] for t in rotation)
            heads = out.view(len(out), -1, self.head_width)
            keys_end = (heads.shape[1] + self.heads) // 2
            if self.norm_q and self.norm_k:
                queries, keys = heads[:, : self.heads], heads[:, self.heads : keys_end]
                queries.copy_(self.norm_q(queries))
                keys.copy_(self.norm_k(keys))
            a, b = heads[:, :keys_end].chunk(2, dim=-1)
            moved = a * sin
            a.mul_(cos).addcmul_(b, sin, value=-1)
            b.mul_(cos).add_(moved)
        return out

    def finished(self, x: torch.Tensor, attended: torch.Tensor, block: int | None) -> torch.Tensor:
        """The layer's output from its input and its attention's output, all (candidates, rows, width)."""
        out = in_blocks(self._finished, x.shape[2], block, x.flatten(0, 1), attended.flatten(0, 1))
        return out.view(x.shape)

    def _finished(self, x: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        x = self.out.plus(attended, x)
        return self.down.plus(self.inner(self.norm2(x)), x)


def _llama(block: Any, linear: type[Linear]) -> _Layer:
    attention, mlp = block.self_attn, block.mlp
    gate, up = linear.joined(mlp.gate_proj), linear.joined(mlp.up_proj)
    return _Layer(
        attention.config.num_attention_heads,
        attention.head_dim,
        attention.scaling,
        _rms_norm(block.input_layernorm),
        linear.joined(attention.q_proj, attention.k_proj, attention.v_proj),
        linear.joined(attention.o_proj),
        _rms_norm(block.post_attention_layernorm),
        lambda x: up.times(x, gate.silu(x)),
        linear.joined(mlp.down_proj),
        *(_rms_norm(norm) for name in ("q_norm", "k_norm") if (norm := getattr(attention, name, None)) is not None),
    )


def _gpt2(block: Any, linear: type[Linear]) -> _Layer:
    attention = block.attn
    return _Layer(
        attention.num_heads,
        attention.head_dim,
        attention.scaling,
        block.ln_1,
        _transposed(linear, attention.c_attn),
        _transposed(linear, attention.c_proj),
        block.ln_2,
        _transposed(linear, block.mlp.c_fc).gelu_tanh,
        _transposed(linear, block.mlp.c_proj),
    )


def _rms_norm(module: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    weight = module.weight.detach()
    return lambda x: F.rms_norm(x, weight.shape, weight, module.variance_epsilon)


def _transposed(linear: type[Linear], module: Any) -> Linear:
    """The linear layer of a `Conv1D`, whose weight is (in, out)."""
    return linear(module.weight.T.contiguous(), module.bias)
