"""What differs between families of models: the kind, the place of the layers, how a batch is run, and the head.

All functions work on the transformers model itself and keep gradients. So the black box and the white-box references
run the same computation.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from harness.lm.kinds import kind_named

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from harness.lm.backbones.base import Batch, Kind

Edit: TypeAlias = "Callable[[int, torch.Tensor], torch.Tensor]"
"""From the depth and the input of a layer, (texts, tokens, width), to the input that replaces it."""


@dataclass(frozen=True)
class _Family:
    layers: Callable[[Any], Iterable[Any]]
    """The modules of the layers in the order in which they run, one for each depth. For an encoder-decoder model, the
    encoder's."""
    transform: Callable[[Any, torch.Tensor], torch.Tensor] = lambda _model, h: h
    """What the head computes from a state before the product with the output embeddings."""


def _albert_layers(model: Any) -> list[Any]:
    """The layers of the group that runs at each depth, by the rule of transformers."""
    config, groups = model.config, model.albert.encoder.albert_layer_groups
    per_group = config.num_hidden_layers / config.num_hidden_groups
    return [layer for at in range(config.num_hidden_layers) for layer in groups[int(at / per_group)].albert_layers]


def _roberta_head(model: Any, h: torch.Tensor) -> torch.Tensor:
    head = model.lm_head
    return head.layer_norm(F.gelu(head.dense(h)))  # type: ignore[no-any-return]


def _albert_head(model: Any, h: torch.Tensor) -> torch.Tensor:
    head = model.predictions
    return head.LayerNorm(head.activation(head.dense(h)))  # type: ignore[no-any-return]


def _distilbert_head(model: Any, h: torch.Tensor) -> torch.Tensor:
    return model.vocab_layer_norm(model.activation(model.vocab_transform(h)))  # type: ignore[no-any-return]


def _t5_head(model: Any, h: torch.Tensor) -> torch.Tensor:
    return h * model.config.d_model**-0.5 if model.config.scale_decoder_outputs else h


_FAMILIES = {
    "albert": _Family(_albert_layers, _albert_head),
    "bart": _Family(lambda m: m.model.encoder.layers),
    "bert": _Family(lambda m: m.bert.encoder.layer, lambda m, h: m.cls.predictions.transform(h)),
    "distilbert": _Family(lambda m: m.distilbert.transformer.layer, _distilbert_head),
    "gpt2": _Family(lambda m: m.transformer.h),
    "llama": _Family(lambda m: m.model.layers),
    "roberta": _Family(lambda m: m.roberta.encoder.layer, _roberta_head),
    "t5": _Family(lambda m: m.encoder.block, _t5_head),
}


def kind(config: Any) -> Kind:
    """How a model with this transformers configuration is read.

    Raises:
        ModelError: its family is not supported. The message lists the supported ones.
    """
    return kind_named(config.model_type)


def layers(model: Any) -> list[Any]:
    """The layer that runs at each depth, first to last. For an encoder-decoder model, its encoder's layers.

    ALBERT runs the same module at several depths, so the module is in the list once for each depth.
    """
    return list(_family(model.config).layers(model))


def edit_inputs(model: Any, edit: Edit) -> list[Any]:
    """Let `edit` change each layer's input in every forward pass, until the returned handles are removed."""
    depths: dict[Any, list[int]] = {}
    for depth, layer in enumerate(layers(model)):
        depths.setdefault(layer, []).append(depth)
    return [layer.register_forward_pre_hook(_hook(own, edit), with_kwargs=True) for layer, own in depths.items()]


def _hook(depths: list[int], edit: Edit) -> Callable[..., Any]:
    """The hook of a module that runs at `depths`, one after the other, in each forward pass."""
    calls = itertools.cycle(depths)

    def hook(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        depth = next(calls)
        if args:
            return (edit(depth, args[0]), *args[1:]), kwargs
        return args, kwargs | {"hidden_states": edit(depth, kwargs["hidden_states"])}

    return hook


def states(model: Any, batch: Batch) -> torch.Tensor:
    """Final hidden states at the read positions (texts, reads, width). The model runs as it is, without prompts.

    For an encoder-decoder model the first read is in the decoder and the others are in the encoder.
    """
    mask = batch.mask.long()
    if batch.decoder is None:
        out = model.base_model(input_ids=batch.ids, attention_mask=mask, position_ids=batch.positions)
        return _at(out.last_hidden_state, batch.read)
    encoded = model.get_encoder()(input_ids=batch.ids, attention_mask=mask).last_hidden_state
    decoded = model.get_decoder()(
        input_ids=batch.decoder, encoder_hidden_states=encoded, encoder_attention_mask=mask, use_cache=False
    ).last_hidden_state
    return torch.cat([_at(decoded, batch.read[:, :1]), _at(encoded, batch.read[:, 1:])], dim=1)


def transform(model: Any, h: torch.Tensor) -> torch.Tensor:
    """What the head computes from states (..., width) before the product with the output embeddings."""
    return _family(model.config).transform(model, h)


def head(model: Any, h: torch.Tensor) -> torch.Tensor:
    """Logits of the whole vocabulary from states: (..., width) -> (..., vocabulary)."""
    out: torch.Tensor = model.get_output_embeddings()(transform(model, h))
    return out + model.final_logits_bias[0] if hasattr(model, "final_logits_bias") else out


def head_bias(model: Any) -> torch.Tensor | None:
    """The head's bias (vocabulary,), or None if the family has none: T5, GPT-2, Llama."""
    if hasattr(model, "final_logits_bias"):  # BART's, a buffer
        return model.final_logits_bias[0]  # type: ignore[no-any-return]
    return model.get_output_embeddings().bias  # type: ignore[no-any-return]


def _family(config: Any) -> _Family:
    kind_named(config.model_type)  # raises if the family is not supported
    return _FAMILIES[config.model_type]


def _at(hidden: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """(texts, tokens, width) at (texts, reads) -> (texts, reads, width)."""
    return hidden.gather(1, positions[:, :, None].expand(-1, -1, hidden.shape[2]))
