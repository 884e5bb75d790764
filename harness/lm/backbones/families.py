"""How a model of any supported family is run: its layers, its states and its head.

Most of it transformers' own interface tells: the base model, the list of as many modules as there are layers, and the
output embeddings. `_FAMILIES` holds the families that differ from that. All functions work on the transformers model
itself and keep gradients. So the black box and the white-box references run the same computation.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from harness.errors import ModelError
from harness.lm.kinds import kind_named

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from harness.lm.backbones.base import Batch, Kind

Edit: TypeAlias = "Callable[[int, torch.Tensor], torch.Tensor]"
"""From the depth and the input of a layer, (texts, tokens, width), to the input that replaces it."""


def _stacked(model: Any) -> Iterable[Any]:
    """The first list of `num_hidden_layers` modules in the base model; for an encoder-decoder model, in the encoder."""
    config = model.config
    body = model.get_encoder() if config.is_encoder_decoder else model.base_model
    for module in body.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == config.num_hidden_layers:
            return module
    raise ModelError(
        f"{type(model).__name__} has no list of {config.num_hidden_layers} layers; say where its layers are in "
        "harness/lm/backbones/families.py (docs/models.md, Add a family)"
    )


@dataclass(frozen=True)
class _Family:
    """What a family does in a way of its own."""

    layers: Callable[[Any], Iterable[Any]] = _stacked
    """The modules of the layers in the order in which they run, one for each depth. For an encoder-decoder model, the
    encoder's."""
    transform: Callable[[Any, torch.Tensor], torch.Tensor] = lambda _model, h: h
    """What the head computes from a state before the product with the output embeddings."""
    embedded: Callable[[Any], Any] = lambda _model: None
    """The module whose output is edited in place of the first layer's input, if other modules read it too."""
    final: Callable[[Any], Any] = lambda _model: None
    """The module whose input is the final state, if the base model goes on after the states."""
    output: Callable[[Any], tuple[torch.Tensor, torch.Tensor | None]] = lambda model: (
        model.get_output_embeddings().weight,
        model.get_output_embeddings().bias,
    )
    """The output embeddings (vocabulary, width) and their bias (vocabulary,)."""


def _albert_layers(model: Any) -> list[Any]:
    """The layers of the group that runs at each depth, by the rule of transformers."""
    config, groups = model.config, model.albert.encoder.albert_layer_groups
    per_group = config.num_hidden_layers / config.num_hidden_groups
    return [layer for at in range(config.num_hidden_layers) for layer in groups[int(at / per_group)].albert_layers]


def _albert_head(model: Any, h: torch.Tensor) -> torch.Tensor:
    head = model.predictions
    return head.LayerNorm(head.activation(head.dense(h)))  # type: ignore[no-any-return]


def _bart_output(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return model.get_output_embeddings().weight, model.final_logits_bias[0]  # the bias is a buffer (1, vocabulary)


def _deberta_head(model: Any, h: torch.Tensor) -> torch.Tensor:
    if model.legacy:
        return model.cls.predictions.transform(h)  # type: ignore[no-any-return]
    head = model.lm_predictions.lm_head
    return head.LayerNorm(head.transform_act_fn(head.dense(h)))  # type: ignore[no-any-return]


def _deberta_output(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Microsoft's own head multiplies with the input embeddings; transformers names its dense layer as the output."""
    head = model.cls.predictions.decoder if model.legacy else model.lm_predictions.lm_head
    weight = head.weight if model.legacy else model.get_input_embeddings().weight
    return weight, head.bias


def _distilbert_head(model: Any, h: torch.Tensor) -> torch.Tensor:
    return model.vocab_layer_norm(model.activation(model.vocab_transform(h)))  # type: ignore[no-any-return]


def _opt_head(model: Any, h: torch.Tensor) -> torch.Tensor:
    project = model.model.decoder.project_out
    return h if project is None else project(h)


def _roberta_head(model: Any, h: torch.Tensor) -> torch.Tensor:
    head = model.lm_head
    return head.layer_norm(F.gelu(head.dense(h)))  # type: ignore[no-any-return]


def _t5_head(model: Any, h: torch.Tensor) -> torch.Tensor:
    return h * model.config.d_model**-0.5 if model.config.scale_decoder_outputs else h


_DEBERTA = _Family(transform=_deberta_head, embedded=lambda m: m.deberta.embeddings, output=_deberta_output)
"""The first layer's input is edited where it is made, because the convolution of DeBERTa v2 reads it too."""
_ROBERTA = _Family(transform=_roberta_head)
_FAMILIES = {
    "albert": _Family(layers=_albert_layers, transform=_albert_head),
    "bart": _Family(output=_bart_output),
    "bert": _Family(transform=lambda m, h: m.cls.predictions.transform(h)),
    "camembert": _ROBERTA,
    "deberta": _DEBERTA,
    "deberta-v2": _DEBERTA,
    "distilbert": _Family(transform=_distilbert_head),
    "electra": _Family(transform=lambda m, h: m.generator_predictions(h)),
    "modernbert": _Family(transform=lambda m, h: m.head(h)),
    "mpnet": _ROBERTA,
    "opt": _Family(transform=_opt_head, final=lambda m: m.model.decoder.project_out),
    "roberta": _ROBERTA,
    "t5": _Family(transform=_t5_head),
    "xlm-roberta": _ROBERTA,
}
"""Families that differ from what transformers' interface tells. All others of `harness.lm.kinds` do not."""


def kind(config: Any) -> Kind:
    """How a model with this transformers configuration is read.

    Raises:
        ModelError: its family is not supported. The message lists the supported ones.
    """
    return kind_named(config.model_type)


def in_format(model: Any, device: str, dtype: torch.dtype) -> Any:
    """The model itself, on `device` and in `dtype`, but for the frequencies of rotary embeddings.

    They stay in float32, as transformers keeps them. In bfloat16 the angle of position 500 would be off by up to one
    radian. Module.float() fails for weights read from GGUF, so this calls Module.to().
    """
    kept = [
        (module, name, buffer.float())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
        if name.endswith("inv_freq")
    ]
    model = model.to(device, dtype)
    for module, name, buffer in kept:
        setattr(module, name, buffer.to(device))
    return model


def layers(model: Any) -> list[Any]:
    """The layer that runs at each depth, first to last. For an encoder-decoder model, its encoder's layers.

    ALBERT runs the same module at several depths, so the module is in the list once for each depth.
    """
    return list(_family(model.config).layers(model))


def edit_inputs(model: Any, edit: Edit) -> list[Any]:
    """Let `edit` change each layer's input in every forward pass, until the returned handles are removed."""
    depths: dict[Any, list[int]] = {}
    embedded = _family(model.config).embedded(model)
    for depth, layer in enumerate(layers(model)):
        if depth or embedded is None:
            depths.setdefault(layer, []).append(depth)
    hooks = [layer.register_forward_pre_hook(_hook(own, edit), with_kwargs=True) for layer, own in depths.items()]
    if embedded is not None:
        hooks.append(embedded.register_forward_hook(lambda _module, _args, out: edit(0, out)))
    return hooks


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
        return _at(_final(model, batch.ids, batch.positions, mask)[0], batch.read)
    encoded = model.get_encoder()(input_ids=batch.ids, attention_mask=mask).last_hidden_state
    decoded = model.get_decoder()(
        input_ids=batch.decoder, encoder_hidden_states=encoded, encoder_attention_mask=mask, use_cache=False
    ).last_hidden_state
    return torch.cat([_at(decoded, batch.read[:, :1]), _at(encoded, batch.read[:, 1:])], dim=1)


def following(
    model: Any, ids: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor, past: Any
) -> tuple[torch.Tensor, Any]:
    """Final states of tokens of a causal model, computed from the keys and values of those before.

    Args:
        model: the transformers model.
        ids: (texts, tokens) int64, the new tokens.
        positions: (texts, tokens) int64, their position ids.
        mask: (texts, earlier and new tokens) int64, 1 where there is a token.
        past: what the call for the tokens before returned; None if there are none.

    Returns:
        States (texts, tokens, width), and the new past.
    """
    return _final(model, ids, positions, mask, past_key_values=past, use_cache=True)


def transform(model: Any, h: torch.Tensor) -> torch.Tensor:
    """What the head computes from states (..., width) before the product with the output embeddings."""
    return _family(model.config).transform(model, h)


def output(model: Any) -> torch.Tensor:
    """The output embeddings (vocabulary, width of `transform`'s result)."""
    return _family(model.config).output(model)[0]


def head_bias(model: Any) -> torch.Tensor | None:
    """The head's bias (vocabulary,), or None if there is none, as in T5 and most causal models."""
    return _family(model.config).output(model)[1]


def finish(config: Any, logits: torch.Tensor) -> torch.Tensor:
    """What the head does to logits (...) after the bias: Granite divides them, Gemma 2 and 3 cap them."""
    scaling, cap = getattr(config, "logits_scaling", None), getattr(config, "final_logit_softcapping", None)
    if scaling is not None:
        logits = logits / scaling
    return logits if cap is None else torch.tanh(logits / cap) * cap


def head(model: Any, h: torch.Tensor) -> torch.Tensor:
    """Logits of the whole vocabulary from states: (..., width) -> (..., vocabulary)."""
    return finish(model.config, F.linear(transform(model, h), output(model), head_bias(model)))


def embedding_scale(model: Any) -> float:
    """The factor by which the model multiplies its word embeddings: Gemma's sqrt(width), Granite's multiplier, or 1."""
    own = getattr(model.get_input_embeddings(), "scalar_embed_scale", 1.0)
    return float(own) * float(getattr(model.config, "embedding_multiplier", 1.0))


def position_embeddings(model: Any) -> Any:
    """The module of a masked model's absolute position embeddings. None: positions are relative, or rotary."""
    return getattr(getattr(model.base_model, "embeddings", None), "position_embeddings", None)


def first_position(model: Any) -> int:
    """The position id of the first token: RoBERTa's kin count from the one behind their pad token's."""
    pad = getattr(position_embeddings(model), "padding_idx", None)
    return 0 if pad is None else int(pad) + 1


def _final(
    model: Any, ids: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor, **cache: Any
) -> tuple[torch.Tensor, Any]:
    """All final states (texts, tokens, width) of a model that is no encoder-decoder model, and its keys and values."""
    seen: list[torch.Tensor] = []
    last = _family(model.config).final(model)
    hook = None if last is None else last.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    try:
        out = model.base_model(input_ids=ids, attention_mask=mask, position_ids=positions, **cache)
    finally:
        if hook is not None:
            hook.remove()
    return (out.last_hidden_state if hook is None else seen[0]), getattr(out, "past_key_values", None)


def _family(config: Any) -> _Family:
    kind_named(config.model_type)  # raises if the family is not supported
    return _FAMILIES.get(config.model_type, _Family())


def _at(hidden: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """(texts, tokens, width) at (texts, reads) -> (texts, reads, width)."""
    return hidden.gather(1, positions[:, :, None].expand(-1, -1, hidden.shape[2]))
