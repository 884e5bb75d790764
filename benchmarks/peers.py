"""Peers, which a user could choose in place of the harness: the same weights in ONNX Runtime and OpenVINO.

Each peer gets the model in the way that its own documentation describes. The input of the first layer comes from torch,
so that a prompt can be added to it; the graph has all layers, the whole last one, and the head for the label words at
the position that is read. Rows, a candidate with a text, are sorted by length and padded to the longest of each batch
of `BATCH`.

Neither OpenVINO nor NNCF is a dependency of the project: ``pip install openvino nncf``.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from harness.lm.backbones import families

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.lm.backbones.base import Batch

BATCH = 16
"""Rows of a batch: the fastest of 4, 8, 16, 32, 64 and 320 for ONNX Runtime's int8 at a width of 384."""
INPUTS = ["states", "mask", "read"]
NEEDS = {"onnxruntime": ("onnx", "onnxruntime"), "openvino": ("openvino",)}
HOW = {
    "onnxruntime:float32": "graph of torch.onnx, fused by onnxruntime.transformers",
    "onnxruntime:int8": "quantize_dynamic: weights per output, 7 bits; activations per tensor, at run time",
    "openvino:float32": "convert_model, INFERENCE_PRECISION_HINT=f32",
    "openvino:bfloat16": "convert_model, INFERENCE_PRECISION_HINT=bf16",
    "openvino:int8": "nncf.quantize, SmoothQuant: weights per output; activations per tensor, calibrated before",
    "openvino:int8-dynamic": "nncf.compress_weights to 8 bits; activations per token in groups, at run time",
}


class MissingError(Exception):
    """A peer's package is not installed. The message names it."""


class Run(Protocol):
    """A compiled graph: states (rows, tokens, width), mask (rows, tokens), read (rows,) -> logits (rows, words)."""

    def __call__(self, states: np.ndarray, mask: np.ndarray, read: np.ndarray) -> np.ndarray:
        """Logits of a batch."""
        ...


class _Graph(torch.nn.Module):
    """The model from the input of its first layer to the logits of `words` at the position that is read."""

    def __init__(self, model: Any, words: tuple[int, ...]) -> None:
        super().__init__()
        self._model, self._words = model, torch.tensor(words)

    def forward(self, states: torch.Tensor, mask: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
        """(rows, tokens, width), (rows, tokens), (rows,) -> (rows, words)."""
        hooks = families.edit_inputs(self._model, lambda depth, x: states if depth == 0 else x)
        try:
            hidden = self._model.base_model(inputs_embeds=states, attention_mask=mask).last_hidden_state
        finally:
            for hook in hooks:
                hook.remove()
        at = read[:, None, None].expand(-1, 1, hidden.shape[2])
        return families.head(self._model, hidden.gather(1, at)[:, 0])[:, self._words]


@dataclass(frozen=True)
class Rows:
    """Candidates x texts as padded batches."""

    model: Any
    batch: Batch

    def embedded(self) -> torch.Tensor:
        """Input of the first layer without prompts: (texts, tokens, width)."""
        base = self.model.base_model
        with torch.inference_mode():
            if hasattr(base, "embeddings"):
                return base.embeddings(input_ids=self.batch.ids, position_ids=self.batch.positions)  # type: ignore[no-any-return]
            return base.get_input_embeddings()(self.batch.ids)  # type: ignore[no-any-return]

    def batches(self, prompts: torch.Tensor) -> list[tuple[np.ndarray, ...]]:
        """What the graph is given, one tuple of INPUTS for each batch of (candidate, text) in `order`."""
        embedded, lengths = self.embedded(), self.batch.mask.sum(1)
        span = slice(self.batch.start, self.batch.start + prompts.shape[1])
        found = []
        for candidates, texts in self.order(len(prompts)):
            longest = int(lengths[texts].max())
            states = embedded[texts, :longest]
            states[:, span] += prompts[candidates]
            mask, read = self.batch.mask[texts, :longest].long(), self.batch.read[texts, 0]
            found.append(tuple(t.contiguous().numpy() for t in (states, mask, read)))
        return found

    def order(self, candidates: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Candidates and texts of each batch, longest texts first."""
        texts = self.batch.mask.sum(1).argsort(descending=True, stable=True).repeat_interleave(candidates)
        members = torch.arange(candidates).repeat(len(self.batch.ids))
        return list(zip(members.split(BATCH), texts.split(BATCH), strict=True))

    def logits(self, run: Run, prompts: torch.Tensor) -> np.ndarray:
        """Logits (candidates, texts, words) under prompts (candidates, prompt tokens, width) for the first layer."""
        parts = [run(*batch) for batch in self.batches(prompts)]
        out = np.empty((len(prompts), len(self.batch.ids), parts[0].shape[1]), dtype=np.float32)
        for (candidates, texts), part in zip(self.order(len(prompts)), parts, strict=True):
            out[candidates, texts] = part
        return out


def load(name: str, rows: Rows, words: tuple[int, ...], prompts: torch.Tensor, threads: int) -> Run:
    """Convert and compile.

    Args:
        name: One of HOW.
        rows: The model, float32, and the texts it will be asked about.
        words: Vocabulary ids of the label words.
        prompts: (candidates, prompt tokens, width) to calibrate a quantisation with, on those texts; not the query's.
        threads: Threads the peer may use.

    Raises:
        MissingError: a package is not installed.
    """
    library, precision = name.split(":")
    needs = NEEDS[library] + (("nncf",) if name.startswith("openvino:int8") else ())
    if missing := [package for package in needs if find_spec(package) is None]:
        raise MissingError(f"{missing[0]} is not installed: pip install {' '.join(missing)}")
    samples = rows.batches(prompts)
    graph = _Graph(rows.model, words).eval()
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # of tracing and of conversions
        if library == "onnxruntime":
            return _onnxruntime(graph, samples[0], rows.model.config, precision, threads)
        return _openvino(graph, samples, precision, threads)


def _onnxruntime(graph: _Graph, sample: tuple[np.ndarray, ...], config: Any, precision: str, threads: int) -> Run:
    import onnx  # noqa: PLC0415 - an extra
    import onnxruntime  # noqa: PLC0415 - an extra
    from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415
    from onnxruntime.transformers import optimizer  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    with tempfile.TemporaryDirectory() as folder:
        path, small = Path(folder) / "model.onnx", Path(folder) / "int8.onnx"
        axes = {"states": {0: "rows", 1: "tokens"}, "mask": {0: "rows", 1: "tokens"}, "read": {0: "rows"}}
        torch.onnx.export(
            graph, tuple(map(torch.from_numpy, sample)), path, input_names=INPUTS, output_names=["logits"],
            dynamic_axes=axes | {"logits": {0: "rows"}}, opset_version=17, dynamo=False,
        )  # fmt: skip
        if config.model_type in {"bert", "roberta"}:
            fused = optimizer.optimize_model(
                str(path), model_type="bert", num_heads=config.num_attention_heads, hidden_size=config.hidden_size
            )
            fused.save_model_to_file(str(path))
        if precision == "int8":
            known = {"DefaultTensorType": onnx.TensorProto.FLOAT}  # of what fused operators give
            quantize_dynamic(
                path, small, per_channel=True, reduce_range=True, weight_type=QuantType.QInt8, extra_options=known
            )
            path = small
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    given = {entry.name for entry in session.get_inputs()}

    def run(*inputs: np.ndarray) -> np.ndarray:
        feed = {name: value for name, value in zip(INPUTS, inputs, strict=True) if name in given}
        return session.run(None, feed)[0]  # type: ignore[no-any-return]

    return run


def _openvino(graph: _Graph, samples: list[tuple[np.ndarray, ...]], precision: str, threads: int) -> Run:
    import openvino  # noqa: PLC0415 - no dependency of the project

    example = {name: torch.from_numpy(value) for name, value in zip(INPUTS, samples[0], strict=True)}
    model = openvino.convert_model(graph, example_input=example)
    settings: dict[str, Any] = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
    }
    if precision.startswith("int8"):
        model = _quantised(model, samples, precision)
    if precision == "int8-dynamic":
        settings["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = 32
    compiled = openvino.Core().compile_model(model, "CPU", settings)
    return lambda *inputs: np.array(compiled(list(inputs))[0])


def _quantised(model: Any, samples: list[tuple[np.ndarray, ...]], precision: str) -> Any:
    import nncf  # noqa: PLC0415 - no dependency of the project

    logging.getLogger("nncf").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):
        if precision == "int8-dynamic":
            return nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM)
        data = nncf.Dataset(samples, lambda sample: dict(zip(INPUTS, sample, strict=True)))
        return nncf.quantize(model, data, model_type=nncf.ModelType.TRANSFORMER)


@dataclass(frozen=True)
class Agreement:
    """Agreement of label-word logits with those of the plain path."""

    same: float
    """Share of rows with the same largest logit."""
    rms: float
    """Root mean square of the difference, over the standard deviation; each row's mean taken off before."""


def agreement(found: np.ndarray, expected: np.ndarray) -> Agreement:
    """Compare logits of shape (candidates, texts, words)."""
    same = float((found.argmax(-1) == expected.argmax(-1)).mean())
    a, b = (x - x.mean(-1, keepdims=True) for x in (found, expected))
    return Agreement(same, float(np.sqrt(((a - b) ** 2).mean()) / b.std()))


def timer(rows: Rows, run: Run, prompts: torch.Tensor) -> Callable[[], np.ndarray]:
    """What is timed: the whole query, from candidates' prompts to logits."""
    return lambda: rows.logits(run, prompts)
