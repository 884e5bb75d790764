"""Any masked or causal transformers model, by its own forward with a hook on every layer.

The plain path: exact by construction, padded, all layers, whole last layer. It serves the families that
`encoder.py` does not, and tests hold `encoder.py` to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch

from harness.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.lm.backbone import Batch

_LAYERS = {
    "bert": "bert.encoder.layer",
    "roberta": "roberta.encoder.layer",
    "gpt2": "transformer.h",
    "llama": "model.layers",
}
_ROWS_AT_ONCE = 256
"""Rows for which all logits are held at once."""
_HEADS = {"bert": "cls.predictions.transform", "roberta": "lm_head"}


class PlainBackbone:
    """A transformers `*ForMaskedLM` or `*ForCausalLM` of a family named in `_LAYERS`."""

    def __init__(self, model: Any, zero_head_bias: bool = False) -> None:
        """Take the model as it is, in evaluation mode and frozen."""
        family = model.config.model_type
        if family not in _LAYERS:
            raise ModelError(f"models of type {family!r} are not supported; supported: {', '.join(sorted(_LAYERS))}")
        self.kind: Literal["masked", "causal"] = "masked" if family in _HEADS else "causal"
        self._model = model.eval().requires_grad_(requires_grad=False)
        self._family = family
        self._blocks = list(model.get_submodule(_LAYERS[family]))
        self._body = model.get_submodule(_LAYERS[family].split(".")[0])
        self._decoder = model.get_output_embeddings()
        self._zero_bias = zero_head_bias
        self.layers = len(self._blocks)
        self.width = int(model.config.hidden_size)

    def hidden(self, batch: Batch) -> torch.Tensor:
        """See `Backbone`."""
        candidates, texts = batch.candidates, len(batch.ids)
        rows = [self._run(batch, [layer[min(c, len(layer) - 1)] for layer in batch.prompts]) for c in range(candidates)]
        states = torch.stack(rows)  # (candidates, texts, tokens, width)
        index = batch.read[None, :, :, None].expand(candidates, texts, batch.read.shape[1], self.width)
        return torch.gather(states, 2, index)

    def layer_std(self, batch: Batch) -> list[float]:
        """See `Backbone`."""
        seen: list[float] = []
        self._run(
            batch,
            [layer[0] for layer in batch.prompts],
            lambda x: seen.append(float(x[batch.mask].float().std(correction=0))),
        )
        return seen

    def logits(self, hidden: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """See `Backbone`."""
        with torch.inference_mode():
            h = self._transform(hidden.to(self._decoder.weight.dtype)).float()
            out: torch.Tensor = h @ self._decoder.weight[words].float().T
            bias = self._decoder.bias
            return out if bias is None or self._zero_bias else out + bias[words].float()

    def normalizer(self, hidden: torch.Tensor) -> torch.Tensor:
        """See `Backbone`."""
        every = torch.arange(len(self._decoder.weight))
        flat = hidden.reshape(-1, self.width)
        parts = [self.logits(rows, every).logsumexp(dim=-1) for rows in torch.split(flat, _ROWS_AT_ONCE)]
        return torch.cat(parts).reshape(hidden.shape[:-1])

    def embedding_std(self) -> float:
        """See `Backbone`."""
        return float(self._model.get_input_embeddings().weight.float().std(correction=0))

    def _transform(self, h: torch.Tensor) -> torch.Tensor:
        head = self._model.get_submodule(_HEADS[self._family]) if self._family in _HEADS else None
        if self._family == "roberta":
            return head.layer_norm(torch.nn.functional.gelu(head.dense(h)))  # type: ignore[no-any-return, union-attr]
        return h if head is None else head(h)

    def _run(
        self, batch: Batch, prompts: list[torch.Tensor], watch: Callable[[torch.Tensor], None] | None = None
    ) -> torch.Tensor:
        """All final hidden states of one candidate: float32 (texts, tokens, width)."""

        def edit(depth: int) -> Callable[..., Any]:
            def hook(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
                x = args[0] if args else kwargs["hidden_states"]
                if depth < len(prompts):
                    x = x.clone()
                    span = slice(batch.start, batch.start + prompts[depth].shape[0])
                    value = prompts[depth].to(x.dtype)
                    x[:, span] = value if batch.mode == "prepend" and depth == 0 else x[:, span] + value
                if watch:
                    watch(x)
                return ((x, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": x})

            return hook

        handles = [
            block.register_forward_pre_hook(edit(depth), with_kwargs=True) for depth, block in enumerate(self._blocks)
        ]
        try:
            with torch.inference_mode():
                out = self._body(input_ids=batch.ids, attention_mask=batch.mask.long(), position_ids=batch.positions)
        finally:
            for handle in handles:
                handle.remove()
        return out.last_hidden_state.float()  # type: ignore[no-any-return]
