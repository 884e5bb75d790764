"""Ten minutes of measurements on a GPU: the GPU tests, rates at RoBERTa-large's shape, and possible speed-ups.

python benchmarks/gpu.py --out gpu.json                  on a machine with a CUDA device
python benchmarks/gpu.py --device cpu --model mini --seconds 2 --without tests,bench_lm      the script itself, anywhere

Each step runs in a process of its own, the most important first. Steps without time left are reported as skipped:

- `tests`: ``pytest -m gpu``.
- `bbt`, `bbtv2`: queries as BBT and BBTv2 send them, a population of 20 over 32 texts of SST-2, for --seconds; from
  them the time of 8,000 calls. BBT's candidates differ in layer 0, BBTv2's in one layer after the other.
- `bench_lm`: the ratio to the plain path, of ``bench_lm.py --device cuda``.
- `attention`: attention over packed texts, by our groups of like length, by padding, by `torch.nn.attention.varlen`.
- `graph`: a stack of encoder layers as single launches and as one captured CUDA graph.

The last two are not part of the package. They show what `harness/lm/backbones/encoder.py` would gain from either.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812 - torch's own convention

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import bench_lm

from harness.contract import Subspace
from harness.lm.backbones.packing import layout
from harness.lm.load import load_model
from harness.tracks.tasks import load_task
from harness.tracks.track import ModelSpec, Numerics

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.lm.model import LanguageModel

ROOT = Path(__file__).resolve().parent.parent
CALLS, POPULATION = 8_000, 20
TARGETS = {"bbt": 45.0, "bbtv2": 40.0}
"""Seconds for `CALLS` calls at RoBERTa-large's shape, of benchmarks/README.md."""
STEPS = ("tests", "bbt", "bbtv2", "bench_lm", "attention", "graph")
SHAPES = {"roberta-large": (16, 64, 24), "mini": (12, 32, 6)}
"""Heads, width of a head, layers."""
REPEATS = 20


def queries(lm: LanguageModel, prompt_tokens: int, texts: Sequence[Any], deep: bool, seconds: float) -> dict[str, Any]:
    """Send populations for some seconds, as BBT or, with `deep`, as BBTv2 does.

    Args:
        lm: the model.
        prompt_tokens: of each prompt.
        texts: of the training set.
        deep: whether candidates differ in one layer after the other, not in layer 0 alone.
        seconds: how long; at least one population for every layer that is varied.

    Returns:
        Calls, seconds, and the seconds that `CALLS` calls would take at this rate.
    """
    task = load_task("sst2").task("house", lm.kind, lm)
    encoded, words = lm.text_set(task.template, tuple(texts)), lm.single_ids(task.words)
    layers = lm.backbone.layers if deep else 1
    space = Subspace(bench_lm.DIM, (lm.embedding_std,) * layers, prompt_tokens, seed=bench_lm.SEED)
    rng = np.random.default_rng(bench_lm.SEED)
    z = np.repeat(rng.standard_normal((1, layers, bench_lm.DIM)), POPULATION, axis=0)

    def ask(layer: int) -> None:
        shown = z.copy()
        shown[1:, layer] = rng.standard_normal((POPULATION - 1, bench_lm.DIM))
        lm.forward(space.at(shown), encoded, words)  # ends with its result in main memory

    ask(0)  # projections are made, kernels chosen
    began, populations = time.perf_counter(), 0
    while populations < layers or time.perf_counter() - began < seconds:
        ask(populations % layers)
        populations += 1
    took = time.perf_counter() - began
    calls = populations * POPULATION
    return {"calls": calls, "seconds": took, "texts": len(texts), "seconds_for_8000": took / calls * CALLS}


def by_groups(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    """Attention of packed texts (tokens, heads, width) as the encoder has it: a call for each group of like lengths."""
    packed = layout(lengths, None, q.device)
    found = []
    for group in packed.groups:
        parts = [t[group.slots].transpose(1, 2) for t in (q, k, v)]  # (group, heads, slots, width)
        found.append(F.scaled_dot_product_attention(*parts, attn_mask=group.mask).transpose(1, 2).flatten(0, 1))
    return torch.cat(found)[packed.back]


def by_padding(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    """The same with all texts padded to the longest, in one call."""
    sizes = torch.tensor(lengths, device=q.device)
    held = torch.arange(max(lengths), device=q.device) < sizes[:, None]  # (texts, longest)
    padded = []
    for t in (q, k, v):
        room = t.new_zeros((*held.shape, *t.shape[1:]))
        room[held] = t
        padded.append(room.transpose(1, 2))
    out = F.scaled_dot_product_attention(*padded, attn_mask=held[:, None, None])
    return out.transpose(1, 2)[held]


def by_varlen(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    """The same by flash attention over packed texts, without slots or masks."""
    from torch.nn.attention.varlen import varlen_attn  # noqa: PLC0415 - not in every torch

    bounds = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32, device=q.device)
    longest = max(lengths)
    out = varlen_attn(q, k, v, bounds, bounds, longest, longest)
    return out if isinstance(out, torch.Tensor) else out[0]


def has_varlen(device: str, dtype: torch.dtype) -> bool:
    """Whether `by_varlen` can run: flash attention wants a GPU of compute capability 8 and a 16-bit format."""
    try:
        from torch.nn.attention.varlen import varlen_attn  # noqa: F401, PLC0415
    except ImportError:
        return False
    half = dtype in {torch.bfloat16, torch.float16}
    return device == "cuda" and half and torch.cuda.get_device_capability()[0] >= 8  # noqa: PLR2004


def attention(device: str, shape: tuple[int, int, int], lengths: Sequence[int]) -> dict[str, Any]:
    """Seconds of attention of one layer over packed texts, each way that runs here, and how far its result is off."""
    heads, width, _ = shape
    dtype = torch.bfloat16
    torch.manual_seed(bench_lm.SEED)
    q, k, v = (torch.randn((sum(lengths), heads, width), device=device, dtype=dtype) for _ in range(3))
    ways: dict[str, Callable[..., torch.Tensor]] = {"groups": by_groups, "padded": by_padding}
    if has_varlen(device, dtype):
        ways["varlen"] = by_varlen
    exact = by_groups(q.float(), k.float(), v.float(), lengths)
    found: dict[str, Any] = {"tokens": sum(lengths), "texts": len(lengths)}
    for name, way in ways.items():
        off = (way(q, k, v, lengths).float() - exact).abs().max().item()
        found[name] = {"ms": 1e3 * median_s(lambda way=way: way(q, k, v, lengths), device), "off": off}  # type: ignore[misc]
    if "varlen" not in ways:
        found["varlen"] = f"not run: {device}, torch {torch.__version__}"
    return found


def stack(device: str, shape: tuple[int, int, int], texts: int, tokens: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """A stack of post-norm encoder layers with random weights, (texts, tokens, width) -> the same; no step waits."""
    heads, head, layers = shape
    width = heads * head
    torch.manual_seed(bench_lm.SEED)

    def matrix(rows: int, columns: int) -> torch.Tensor:
        return torch.randn((rows, columns), device=device, dtype=torch.bfloat16) * columns**-0.5

    weights = [
        (matrix(3 * width, width), matrix(width, width), matrix(4 * width, width), matrix(width, 4 * width))
        for _ in range(layers)
    ]

    def run(x: torch.Tensor) -> torch.Tensor:
        for qkv, out, up, down in weights:
            q, k, v = F.linear(x, qkv).view(texts, tokens, 3, heads, head).permute(2, 0, 3, 1, 4)
            attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
            x = F.layer_norm(x + F.linear(attended, out), (width,))
            x = F.layer_norm(x + F.linear(F.gelu(F.linear(x, up)), down), (width,))
        return x

    return run


def graph(device: str, shape: tuple[int, int, int], texts: int, tokens: int) -> dict[str, Any]:
    """Seconds of a stack of layers launched step by step, and replayed as a captured graph where that can be done."""
    run = stack(device, shape, texts, tokens)
    x = torch.randn((texts, tokens, shape[0] * shape[1]), device=device, dtype=torch.bfloat16)
    with torch.inference_mode():
        found: dict[str, Any] = {"texts": texts, "tokens": tokens, "steps_ms": 1e3 * median_s(lambda: run(x), device)}
        if device != "cuda":
            return found | {"graph_ms": f"not run: {device}"}
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # libraries set themselves up outside of the capture
            run(x)
        torch.cuda.current_stream().wait_stream(aside)
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured):
            out = run(x)
        expected = run(x)
        captured.replay()
        torch.cuda.synchronize()
        off = (out.float() - expected.float()).abs().max().item()
        return found | {"graph_ms": 1e3 * median_s(captured.replay, device), "off": off}


def median_s(work: Callable[[], object], device: str) -> float:
    """Median seconds of `work`, including the wait for the device."""
    times = []
    for _ in range(REPEATS + 1):
        before = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - before)
    return statistics.median(times[1:])  # the first one chooses kernels


def measured(step: str, given: argparse.Namespace) -> dict[str, Any]:
    """One of the steps that run in this program."""
    model, shape = bench_lm.MODELS[given.model], SHAPES[given.model]
    texts = bench_lm.load_shots(
        load_task("sst2"), bench_lm.Source("embedded"), 1, bench_lm.TrackTask(calls=1, splits=(1,))
    ).train.texts
    if step in {"bbt", "bbtv2"}:
        spec = ModelSpec(bench_lm.source_of(given.model, given.cache), "bfloat16", "masked")
        lm = load_model(spec, model.prompt, device=given.device, numerics=Numerics())
        return queries(lm, model.prompt.tokens, texts, step == "bbtv2", given.seconds)
    rng = np.random.default_rng(bench_lm.SEED)
    lengths = (model.prompt.tokens + rng.integers(10, 60, size=64)).tolist()
    if step == "attention":
        return attention(given.device, shape, lengths)
    return {
        f"{texts} texts": graph(given.device, shape, texts, model.prompt.tokens + 30)
        for texts in ((1, 8) if given.small else (1, 8, 64))
    }


def started(step: str, given: argparse.Namespace, left_s: float) -> dict[str, Any]:
    """Run a step in a process of its own for at most `left_s`. Return its results, or why there are none."""
    out = given.out.with_suffix(f".{step}.json")
    out.unlink(missing_ok=True)
    commands = {
        "tests": ["-m", "pytest", str(ROOT / "tests" / "gpu"), "-m", "gpu", "-q", "-p", "no:cacheprovider"],
        "bench_lm": [
            str(ROOT / "benchmarks" / "bench_lm.py"),
            "--device",
            given.device,
            "--json",
            str(out),
            "--repeats",
            "3",
        ]
        + [word for method in ("bbt", "bbtv2-mid") for word in ("--case", f"{given.model}/sst2/{method}")]
        + ["--cache", str(given.cache)],
    }
    own = [__file__, "--step", step, "--out", str(out), "--device", given.device, "--model", given.model]
    own += ["--seconds", str(given.seconds), "--cache", str(given.cache), *["--small"] * given.small]
    began = time.perf_counter()
    try:
        done = subprocess.run(
            [sys.executable, *commands.get(step, own)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=left_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"skipped": f"no end in {left_s:.0f} s"}
    took = time.perf_counter() - began
    lines = (done.stdout + done.stderr).strip().splitlines()
    if done.returncode and step != "tests":
        return {"failed": lines[-5:], "took_s": took}
    if step == "tests":
        return {"passed": done.returncode == 0, "said": lines[-1:], "took_s": took}
    return json.loads(out.read_text(encoding="utf-8")) | {"took_s": took}


def rows(found: dict[str, dict[str, Any]], model: str) -> list[str]:
    """The results as a Markdown table."""
    table = ["| step | result |", "|---|---|"]
    for step, result in found.items():
        if "skipped" in result or "failed" in result:
            table.append(f"| {step} | {result.get('skipped') or 'failed: ' + ' / '.join(result['failed'])} |")
        elif step == "tests":
            table.append(f"| {step} | {'passed' if result['passed'] else 'FAILED'}: {' '.join(result['said'])} |")
        elif step in TARGETS:
            target = f" (target {TARGETS[step]:.0f} s)" if model == "roberta-large" else ""
            rate = f"{result['calls']:,} calls in {result['seconds']:.1f} s"
            text = f"{rate}, so {CALLS:,} in {result['seconds_for_8000']:.1f} s"
            table.append(f"| {step} | {text}{target} |")
        elif step == "bench_lm":
            for case in result["cases"]:
                text = f"{case['ratio']:.1f} x plain, {case['ours_rows_s']:,.0f} rows/s, {case['tflops']:.1f} TFLOP/s"
                table.append(f"| {case['case']} | {text}, {case['share']:.0%} of the ceiling |")
        elif step == "attention":
            ways = {name: way for name, way in result.items() if name in {"groups", "padded", "varlen"}}
            text = ", ".join(f"{n} {w['ms']:.3f} ms" if isinstance(w, dict) else f"{n} {w}" for n, w in ways.items())
            table.append(f"| attention, {result['texts']} texts, {result['tokens']:,} tokens | {text} |")
        else:
            for size, times in result.items():
                if isinstance(times, dict):
                    replayed = times["graph_ms"]
                    text = f"{replayed:.3f} ms" if isinstance(replayed, float) else replayed
                    table.append(f"| layers, {size} | step by step {times['steps_ms']:.3f} ms, graph {text} |")
    return table


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cpu", "cuda"))
    parser.add_argument("--model", default="roberta-large", choices=tuple(SHAPES))
    parser.add_argument("--seconds", type=float, default=60.0, help="of queries, for each of BBT and BBTv2")
    parser.add_argument("--limit-s", type=float, default=570.0, help="of all steps together; default 570")
    parser.add_argument("--without", default="", help="steps to leave out, with commas between")
    parser.add_argument("--small", action="store_true", help="small stacks of layers, for a CPU")
    parser.add_argument("--cache", type=Path, default=bench_lm.CACHE)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parsed = parser.parse_args(given)
    parsed.without = [step for step in parsed.without.split(",") if step]
    if unknown := set(parsed.without) - set(STEPS):
        parser.error(f"--without {', '.join(sorted(unknown))}: steps are {', '.join(STEPS)}")
    return parsed


def main() -> None:
    """Run one step and write it, or all of them and print the table."""
    given = arguments()
    if given.step is not None:
        given.out.write_text(json.dumps(measured(given.step, given)), encoding="utf-8")
        return
    if given.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit(
            f"torch {torch.__version__} sees no CUDA device; take a CUDA build on a machine with one, or --device cpu"
        )
    name = torch.cuda.get_device_name() if given.device == "cuda" else "cpu"
    end, found = time.perf_counter() + given.limit_s, {}
    about = {"device": name, "torch": torch.__version__, "model": given.model}
    for step in (step for step in STEPS if step not in given.without):
        found[step] = started(step, given, max(1.0, end - time.perf_counter()))
        print(f"{step}: {json.dumps(found[step])[:200]}", file=sys.stderr, flush=True)
        given.out.write_text(json.dumps({"about": about, "steps": found}, indent=1) + "\n", encoding="utf-8")
    print(f"{name}, torch {torch.__version__}, {given.model}'s shape\n")
    print("\n".join(rows(found, given.model)))


if __name__ == "__main__":
    main()
