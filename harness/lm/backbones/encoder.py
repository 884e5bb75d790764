"""BERT, RoBERTa and their kin, computed here from the loaded weights, without work whose result nobody reads.

The mathematics is that of the plain path (tests compare both). Only work is left out: texts are packed without pad
tokens; candidates that agree on the prompts of layers 0..l share one computation up to layer l; and the last layer is
computed at the read positions alone. With `batch_invariant`, on a CPU, a row's numbers are the same to the last bit
whatever rows share its query.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from harness.lm.backbones import families
from harness.lm.backbones.edited import Products, edited_layer
from harness.lm.backbones.linear import ROWS, Int8Linear, Linear, in_blocks
from harness.lm.backbones.packing import layout, parts
from harness.lm.backbones.plain import PlainBackbone
from harness.lm.backbones.threads import side_by_side

if TYPE_CHECKING:
    from harness.lm.backbones.base import Batch
    from harness.lm.backbones.edited import LayerEdit
    from harness.lm.backbones.packing import Layout

FAMILIES = ("bert", "camembert", "distilbert", "electra", "roberta", "xlm-roberta")
"""Families whose layers this module computes. They differ in names and in what stands before the first layer."""
_FEW = 256
"""Smallest number of tokens that a CPU thread computes at once, if there are so many. Fewer waste its matrix units."""


class EncoderBackbone(PlainBackbone):
    """The fast path for `FAMILIES`. Head and statistics come from the plain path."""

    bounded = together = True

    def __init__(
        self,
        model: Any,
        zero_head_bias: bool = False,
        chunk_tokens: int = 4096,
        packing: bool = True,
        batch_invariant: bool = False,
        int8: bool = False,
    ) -> None:
        """Lay out the weights. At most `chunk_tokens` tokens, padded or packed, pass a layer at once.

        On a CPU each thread gets at most half of them: the kernel maps the memory of an output above 32 MiB again in
        every call. With `int8`, products are those of `Int8Linear`.
        """
        super().__init__(model, zero_head_bias)
        self._heads = int(model.config.num_attention_heads)
        self._eps = float(model.base_model.embeddings.LayerNorm.eps)
        self._chunk_tokens, self._packing, self._block = chunk_tokens, packing, ROWS if batch_invariant else None
        self._lay_out = _distilbert if model.config.model_type == "distilbert" else _bert
        linear = Int8Linear if int8 else Linear
        self.layout = [self._lay_out(block, linear) for block in families.layers(model)]
        self.takes_edits = not batch_invariant

    @staticmethod
    def fits(model: Any) -> bool:
        """Whether this module computes the model's family and activation function."""
        config = model.config
        if config.model_type not in FAMILIES or getattr(config, "is_decoder", False):
            return False
        name = "activation" if config.model_type == "distilbert" else "hidden_act"
        return str(getattr(config, name)) == "gelu"

    def hidden(self, batch: Batch) -> torch.Tensor:
        """See `Backbone`. The layers below the first one where candidates differ are computed once for all texts."""
        lengths: list[int] = batch.mask.sum(1).tolist()
        apart = next((depth for depth in range(self.layers) if _apart(batch, depth)), self.layers)
        with torch.inference_mode():
            kept = batch.mask if self._packing else torch.ones_like(batch.mask)
            ids, positions = batch.ids[kept][:, None], batch.positions[kept][:, None]
            x = embedded(self._model, ids, positions).transpose(0, 1)  # (1, tokens, width)
            if apart:
                x = self._in_parts(x, range(apart), batch, lengths, 1)
            if apart < self.layers:
                return self._in_parts(x, range(apart, self.layers), batch, lengths, batch.candidates)
            return x.expand(batch.candidates, -1, -1, -1)

    def _in_parts(
        self, x: torch.Tensor, depths: range, batch: Batch, lengths: list[int], candidates: int
    ) -> torch.Tensor:
        """Run (1, tokens, width) through the layers `depths`, part by part.

        After the last layer, the result is what `hidden` returns.
        """
        longest = None if self._packing else batch.ids.shape[1]
        rooms = [longest or length for length in lengths]
        last = depths.stop == self.layers
        reads = (candidates, *batch.read.shape, self.width)
        out = x.new_empty(reads, dtype=torch.float32) if last else torch.empty_like(x)

        if x.device.type == "cpu":
            most = min(max(1, self._chunk_tokens // 2), max(_FEW, -(-sum(rooms) * candidates // 4)))
        else:
            most = self._chunk_tokens
        cuts = list(parts(rooms, candidates, most))
        runs = {(texts.start, texts.stop) for texts, _ in cuts}
        layouts = {first: layout(lengths[first:last], longest, x.device) for first, last in runs}

        def compute(texts: slice, members: slice) -> None:
            before = sum(rooms[: texts.start])
            tokens = slice(before, before + sum(rooms[texts]))
            prompts = tuple(values[members] if len(values) > 1 else values for values in batch.prompts)
            edits = tuple(edit and edit.of(members) for edit in batch.edits)
            own, some = layouts[texts.start], replace(batch, prompts=prompts, edits=edits)
            done = self._through(x[:, tokens], depths, some, own, batch.read[texts])
            if last:
                out[members, texts] = done.float()
            else:
                out[:, tokens] = done

        if x.device.type == "cpu":
            side_by_side(compute, cuts)
        else:
            for cut in cuts:
                compute(*cut)
        return out

    def _through(
        self,
        x: torch.Tensor,
        depths: range,
        batch: Batch,
        packed: Layout,
        read: torch.Tensor,
    ) -> torch.Tensor:
        """Run the layers `depths`: (1 or candidates, tokens, width).

        The last layer computes the read positions alone.
        """
        for depth in depths:
            if depth < len(batch.prompts):
                taken = batch.mode == "prepend" and depth == 0
                x = _prompted(x, batch.prompts[depth], packed, batch.start, replace=taken)
            reads = read if depth == self.layers - 1 else None
            edit = batch.edits[depth] if batch.edits else None
            if edit is None:
                x = self._layer(x, self.layout[depth], packed, reads)
            else:
                x = self._edited(x, self.layout[depth], edit, packed, reads)
        return x

    def _edited(
        self, x: torch.Tensor, layer: Products, edit: LayerEdit, packed: Layout, read: torch.Tensor | None
    ) -> torch.Tensor:
        """`_layer` with what candidates change."""
        at = None if read is None else torch.minimum(packed.starts[:, None] + read, packed.ends[:, None])
        return edited_layer(x, layer, edit, self._eps, at, lambda q, kv: self._attend(q, kv, packed, read is not None))

    def _layer(self, x: torch.Tensor, layer: Products, packed: Layout, read: torch.Tensor | None) -> torch.Tensor:
        """(candidates, tokens, width) -> the same, or with `read` (candidates, texts, reads, width)."""
        kv = in_blocks(layer.kv, 2 * self.width, self._block, x.reshape(-1, self.width)).view(*x.shape[:2], -1)
        if read is not None:  # queries at the read positions only, keys and values at all
            x = x[:, torch.minimum(packed.starts[:, None] + read, packed.ends[:, None])]
        rows = x.reshape(-1, self.width)
        q = in_blocks(layer.q, self.width, self._block, rows).view(x.shape)
        attended = self._attend(q, kv, packed, read is not None).reshape(-1, self.width)

        def rest(attended: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            x = F.layer_norm(layer.out.plus(attended, x), (self.width,), *layer.norm1, self._eps)
            inner = layer.up.gelu(x)
            return F.layer_norm(layer.down.plus(inner, x), (self.width,), *layer.norm2, self._eps)

        return in_blocks(rest, self.width, self._block, attended, rows).view(x.shape)

    def _attend(self, q: torch.Tensor, kv: torch.Tensor, packed: Layout, reads: bool) -> torch.Tensor:
        """Attention of each token, or each read position, in q to all tokens of its text. The result has q's shape."""
        candidates, found = len(q), []
        for group in packed.groups:
            slots = group.slots.flatten()
            asks = q[:, group.texts] if reads else q.index_select(1, slots)
            k, v = kv.index_select(1, slots).chunk(2, dim=-1)
            mask = group.mask if group.mask is None else group.mask.repeat(candidates, 1, 1, 1)
            heads = [self._split(t, candidates * len(group.texts)) for t in (asks, k, v)]
            out = F.scaled_dot_product_attention(heads[0], heads[1], heads[2], attn_mask=mask)
            found.append(out.transpose(1, 2).reshape(asks.shape))
        together = found[0] if len(found) == 1 else torch.cat(found, dim=1)
        return together.index_select(1, packed.by_group if reads else packed.back)

    def _split(self, t: torch.Tensor, texts: int) -> torch.Tensor:
        """Split rows, those of one text together, into heads: -> (texts, heads, tokens, head width)."""
        return t.reshape(texts, -1, self._heads, self.width // self._heads).transpose(1, 2)


def _apart(batch: Batch, depth: int) -> bool:
    """Whether candidates differ at the input of a layer or within it, if they did not before."""
    edit = batch.edits[depth] if batch.edits else None
    prompted = depth < len(batch.prompts) and len(batch.prompts[depth]) > 1
    return prompted or (edit is not None and edit.candidates > 1)


def embedded(model: Any, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """The input of the first layer: ids and positions (texts, tokens) -> (texts, tokens, width)."""
    x = model.base_model.embeddings(input_ids=ids, position_ids=positions)
    widen = getattr(model.base_model, "embeddings_project", None)  # ELECTRA's, if its embeddings are narrower
    return x if widen is None else widen(x)  # type: ignore[no-any-return]


def _prompted(x: torch.Tensor, values: torch.Tensor, packed: Layout, start: int, replace: bool) -> torch.Tensor:
    """Add values (1 or candidates, prompt tokens, width) to each text's tokens from `start` on.

    With `replace`, the values take the place of the tokens.
    """
    at = (packed.starts[:, None] + start + torch.arange(values.shape[1], device=x.device)).flatten()
    values = values.to(x.dtype).repeat(1, len(packed.starts), 1)
    x = x.expand(max(len(x), len(values)), -1, -1).clone()
    x[:, at] = values if replace else x[:, at] + values
    return x


def _bert(block: Any, linear: type[Linear]) -> Products:
    attention = block.attention
    return Products(
        linear.joined(attention.self.query),
        linear.joined(attention.self.key, attention.self.value),
        linear.joined(attention.output.dense),
        _pair(attention.output.LayerNorm),
        linear.joined(block.intermediate.dense),
        linear.joined(block.output.dense),
        _pair(block.output.LayerNorm),
    )


def _distilbert(block: Any, linear: type[Linear]) -> Products:
    attention = block.attention
    return Products(
        linear.joined(attention.q_lin),
        linear.joined(attention.k_lin, attention.v_lin),
        linear.joined(attention.out_lin),
        _pair(block.sa_layer_norm),
        linear.joined(block.ffn.lin1),
        linear.joined(block.ffn.lin2),
        _pair(block.output_layer_norm),
    )


def _pair(module: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return module.weight.detach(), module.bias.detach()
