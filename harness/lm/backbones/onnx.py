"""The encoder families computed by ONNX Runtime, on its CPU or CUDA provider.

The graph is built from the loaded weights. It runs from the output of the embeddings to the hidden states that are
read. The prompts of all layers are inputs, so one graph serves every query. Candidates become a dimension only at the
layer where they first differ, and the last layer is computed at the read positions alone. Embeddings, head and
statistics come from the plain path.

The number format is float32. The CPU provider has no other format that computes the same numbers (its int8 does not).
Operators that ONNX itself lacks are the runtime's ``com.microsoft`` ones, which both providers have.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper

from harness.errors import ModelError
from harness.lm.backbones import families
from harness.lm.backbones.encoder import FAMILIES, EncoderBackbone, embedded
from harness.lm.backbones.plain import PlainBackbone

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.contract import FloatArray
    from harness.lm.backbones.base import Batch

_OPSET, _IR, _DOMAIN = 17, 8, "com.microsoft"
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_BERT = (
    "attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense",
    "attention.output.LayerNorm", "intermediate.dense", "output.dense", "output.LayerNorm",
)  # fmt: skip
"""Names of a layer's modules: query, key, value, output, its norm, up, down, its norm."""
_DISTILBERT = (
    "attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin",
    "sa_layer_norm", "ffn.lin1", "ffn.lin2", "output_layer_norm",
)  # fmt: skip


class OnnxBackbone(PlainBackbone):
    """The families of `EncoderBackbone` in float32 and with padding. The caller bounds the size of a batch."""

    together = True
    changeable = False

    def __init__(self, model: Any, zero_head_bias: bool = False, device: str = "cpu") -> None:
        """Build the graph and the session.

        Raises:
            ModelError: this backbone does not compute the family, the number format or the device.
        """
        super().__init__(model, zero_head_bias)
        name = type(model).__name__
        if not EncoderBackbone.fits(model):
            raise ModelError(f"{name}: backend onnxruntime supports {', '.join(FAMILIES)}; use --backend torch")
        if model.dtype != torch.float32:
            raise ModelError(f"{name} in {model.dtype}: backend onnxruntime computes in float32. Set model.dtype")
        provider, there = _PROVIDERS[device], onnxruntime.get_available_providers()
        if provider not in there:
            raise ModelError(
                f"onnxruntime {onnxruntime.__version__} has no {provider} here, only {', '.join(there)}; "
                "install onnxruntime-gpu, or give --device cpu"
            )
        graph = _graph(model, self.layers, self.width)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # leave the cores to torch's threads
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(value) for value in graph.weights.values()]
        options.add_external_initializers(list(graph.weights), values)
        self._kept = (graph.weights, values)  # the session reads this memory, so keep it alive
        self._session = onnxruntime.InferenceSession(graph.model(), options, providers=[provider])

    def hidden(self, batch: Batch) -> torch.Tensor:
        """See `Backbone`. Candidates share all computation below the first layer where their prompts differ."""
        with torch.inference_mode():
            x = embedded(self._model, batch.ids, batch.positions)
            tokens, count = batch.ids.shape[1], batch.prompts[0].shape[1] if batch.prompts else 1
            if batch.prompts and batch.mode == "prepend":
                x[:, batch.start : batch.start + count] = 0
        start = batch.start if batch.prompts else 0
        none = np.zeros((1, count, self.width), dtype=np.float32)
        given = [_array(values) for values in batch.prompts]
        feed = {
            "embedded": _array(x),
            "mask": _array(batch.mask).astype(np.int32),
            "read": _array(batch.read),
            "pads": np.array([0, start, 0, 0, tokens - start - count, 0], dtype=np.int64),
        }
        feed |= {f"prompt{n}": given[n] if n < len(given) else none for n in range(self.layers)}
        (out,) = self._session.run(None, feed)
        return torch.from_numpy(out).to(batch.ids.device).expand(batch.candidates, -1, -1, -1)


@dataclass
class _Graph:
    """Collects the nodes of a graph and the weights that they name."""

    width: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    weights: dict[str, FloatArray] = field(default_factory=dict)
    small: list[onnx.TensorProto] = field(default_factory=list)

    def input(self, name: str, kind: int, *shape: int | str) -> str:
        """Declare an input of the graph."""
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def add(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output and return the output's name."""
        name = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], domain=domain, **attributes))
        return name

    def weight(self, tensor: torch.Tensor) -> str:
        """Name a weight of the model. Its numbers stay outside the graph's own bytes."""
        name = f"w{len(self.weights)}"
        self.weights[name] = np.ascontiguousarray(_array(tensor))
        return name

    def integers(self, *values: int) -> str:
        """Add a constant (values,) int64."""
        name = f"i{len(self.small)}"
        self.small.append(helper.make_tensor(name, TensorProto.INT64, (len(values),), values))
        return name

    def shape(self, *parts: str | int) -> str:
        """Add a shape, made of constants and of names of (1,) int64 tensors."""
        return self.add("Concat", *(p if isinstance(p, str) else self.integers(p) for p in parts), axis=0)

    def norm(self, x: str, skip: str, bias: torch.Tensor, module: Any) -> str:
        """Add LayerNorm(x + bias + skip)."""
        parts = (self.weight(module.weight), self.weight(module.bias), self.weight(bias))
        return self.add("SkipLayerNormalization", x, skip, *parts, domain=_DOMAIN, epsilon=float(module.eps))

    def product(self, x: str, module: Any) -> str:
        """Add x @ weight.T, without the bias."""
        return self.add("MatMul", x, self.weight(module.weight.T))

    def model(self) -> bytes:
        """Serialise the graph for ONNX Runtime. The session gets the weights separately."""
        outside = [_outside(name, value.shape) for name, value in self.weights.items()]
        state = helper.make_tensor_value_info("hidden", TensorProto.FLOAT, [None, None, None, self.width])
        graph = helper.make_graph(self.nodes, "encoder", self.inputs, [state], [*self.small, *outside])
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_DOMAIN, 1)]
        return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=_IR).SerializeToString())


def _graph(model: Any, layers: int, width: int) -> _Graph:
    """Build the graph: embeddings, mask, reads and prompts -> states (1 or candidates, texts, reads, width)."""
    g = _Graph(width)
    x = g.input("embedded", TensorProto.FLOAT, "texts", "tokens", width)
    mask = g.input("mask", TensorProto.INT32, "texts", "tokens")
    read = g.input("read", TensorProto.INT64, "texts", "reads")
    pads = g.input("pads", TensorProto.INT64, 6)
    prompts = [g.input(f"prompt{n}", TensorProto.FLOAT, f"candidates{n}", "count", width) for n in range(layers)]
    texts, tokens, reads = (
        g.add("Slice", g.add("Shape", name), g.integers(at), g.integers(at + 1))
        for name, at in (("embedded", 0), ("embedded", 1), ("read", 1))
    )
    flat, by_candidate = g.shape(-1, tokens, width), g.shape(-1, texts, tokens, width)
    heads = int(model.config.num_attention_heads)
    parts = _DISTILBERT if model.config.model_type == "distilbert" else _BERT
    for depth, block in enumerate(families.layers(model)):
        query, key, value, out, norm1, up, down, norm2 = (block.get_submodule(part) for part in parts)
        shown = g.add("Unsqueeze", g.add("Pad", prompts[depth], pads), g.integers(1))  # (candidates, 1, tokens, width)
        x = g.add("Add", g.add("Reshape", x, by_candidate), shown)
        candidates = g.add("Slice", g.add("Shape", x), g.integers(0), g.integers(1))
        x = g.add("Reshape", x, flat)  # (rows, tokens, width), a row is a candidate x a text
        held = g.add("Expand", mask, g.shape(candidates, texts, tokens))
        held = g.add("Reshape", held, g.shape(-1, tokens))
        asks = x
        if depth == layers - 1:  # queries at the read positions only, keys and values at all
            at = g.add("Expand", read, g.shape(candidates, texts, reads))
            asks = g.add("GatherND", x, g.add("Reshape", at, g.shape(-1, reads, 1)), batch_dims=1)
        q, k, v = g.product(asks, query), g.product(x, key), g.product(x, value)
        bias = g.weight(torch.cat([query.bias, key.bias, value.bias]))
        attended = g.add("MultiHeadAttention", q, k, v, bias, held, domain=_DOMAIN, num_heads=heads)
        x = g.norm(g.product(attended, out), asks, out.bias, norm1)
        inner = g.add("BiasGelu", g.product(x, up), g.weight(up.bias), domain=_DOMAIN)
        x = g.norm(g.product(inner, down), x, down.bias, norm2)
    g.nodes.append(helper.make_node("Reshape", [x, g.shape(-1, texts, reads, width)], ["hidden"]))
    return g


def _outside(name: str, shape: Sequence[int]) -> onnx.TensorProto:
    """A weight that the graph refers to by name and that the session is given."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="weights")
    return tensor


def _array(tensor: torch.Tensor) -> Any:
    return tensor.detach().cpu().numpy()
