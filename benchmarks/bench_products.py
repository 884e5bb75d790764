"""The cost of a layer's parts on one CPU thread: products, fused operations, and attention by the length of texts.

    python benchmarks/bench_products.py
    python benchmarks/bench_products.py --causal

Times are processor time, the smallest of --repeats calls. `Linear` lays weights out once for oneDNN and fuses what
follows a product; "as they are" is torch.nn.functional.linear. Attention is torch's own over 1,024 tokens in texts of
one length, as it is and with the length rounded up to 16 and masked, which is what packing does. Last, all products of
a layer of width 1,024: of one layer again and again, whose weights are in the cache then, and of 24 layers in turn, as
in a pass. With `--causal`, instead, the products of SmolLM2-135M in float32: those of a layer, and that with the
vocabulary.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F  # noqa: N812 - torch's own convention

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.lm.backbones.linear import Linear
from harness.lm.backbones.packing import SLOTS

if TYPE_CHECKING:
    from collections.abc import Callable

SHAPES = ((384, 1024), (384, 2048), (1024, 1024), (1024, 2048), (1024, 4096))
LENGTHS = (63, 64, 65, 72, 80, 95, 96)
TOKENS, HEADS, HEAD = 1024, 16, 64
CAUSAL = {"layer": ((960, 576), (576, 576), (1536, 576), (1536, 576), (576, 1536)), "vocabulary": ((49152, 576),)}
CAUSAL_ROWS = (16, 64, 700, 2700)
STACK, STACK_WIDTH, STACK_ROWS = 24, 1024, (512, 1024, 2048)


def least_ms(compute: Callable[[], object], repeats: int) -> float:
    """Milliseconds of processor time of the fastest call."""
    times = []
    for _ in range(repeats + 1):
        before = time.process_time()
        compute()
        times.append(time.process_time() - before)
    return min(times[1:]) * 1e3


def products(width: int, rows: int, repeats: int) -> list[float]:
    """Products up and down: plain, laid out, the following operation alone, and both fused."""
    x, inner = (torch.randn(rows, n, dtype=torch.bfloat16) for n in (width, 4 * width))
    ups = torch.randn(4 * width, width, dtype=torch.bfloat16), torch.randn(4 * width, dtype=torch.bfloat16)
    downs = torch.randn(width, 4 * width, dtype=torch.bfloat16), torch.randn(width, dtype=torch.bfloat16)
    up, down = Linear(*ups), Linear(*downs)
    cases: list[Callable[[], object]] = [
        lambda: F.linear(x, *ups), lambda: up(x), lambda: F.gelu(inner), lambda: up.gelu(x),
        lambda: F.linear(inner, *downs), lambda: down(inner), lambda: x + x, lambda: down.plus(inner, x),
    ]  # fmt: skip
    return [least_ms(case, repeats) for case in cases]


def attention(length: int, repeats: int) -> tuple[float, float]:
    """Attention at the given length, and at the rounded length with a mask."""
    texts, slots = TOKENS // length, -(-length // SLOTS) * SLOTS
    plain, padded = (torch.randn(texts, HEADS, n, HEAD, dtype=torch.bfloat16) for n in (length, slots))
    mask = (torch.arange(slots) < length)[None, None, None]
    return (
        least_ms(lambda: F.scaled_dot_product_attention(plain, plain, plain), repeats),
        least_ms(lambda: F.scaled_dot_product_attention(padded, padded, padded, attn_mask=mask), repeats),
    )


def layers(rows: int, count: int, repeats: int) -> float:
    """Milliseconds of a layer's products, `count` layers in turn."""

    def linear(out: int, given: int) -> Linear:
        return Linear(torch.randn(out, given, dtype=torch.bfloat16), torch.randn(out, dtype=torch.bfloat16))

    width = STACK_WIDTH
    x = torch.randn(rows, width, dtype=torch.bfloat16)
    stack = [
        (linear(width, width), linear(2 * width, width), linear(width, width), linear(4 * width, width),
         linear(width, 4 * width)) for _ in range(count)
    ]  # fmt: skip

    def through() -> None:
        for q, kv, out, up, down in stack:
            kv(x)
            attended = out.plus(q(x), x)
            down.plus(up.gelu(attended), attended)

    return least_ms(through, repeats) / count


def causal(shapes: tuple[tuple[int, int], ...], rows: int, repeats: int) -> tuple[float, float]:
    """Milliseconds of float32 products of these weights (out, in): as they are, and laid out."""
    found = [0.0, 0.0]
    for out, given in shapes:
        x, weight = torch.randn(rows, given), torch.randn(out, given)
        laid_out = Linear(weight, None)
        found[0] += least_ms(lambda x=x, weight=weight: F.linear(x, weight), repeats)  # type: ignore[misc]
        found[1] += least_ms(lambda x=x, linear=laid_out: linear(x), repeats)  # type: ignore[misc]
    return found[0], found[1]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--causal", action="store_true", help="the products of SmolLM2-135M alone")
    given = parser.parse_args()
    repeats = given.repeats
    torch.set_num_threads(1)
    with torch.inference_mode():
        if given.causal:
            print("rows | ms of the products: as they are, laid out | GFLOP/s of both")
            for name, shapes in CAUSAL.items():
                for rows in CAUSAL_ROWS[: 2 if name == "vocabulary" else None]:
                    times = causal(shapes, rows, repeats)
                    work = 2 * rows * sum(out * width for out, width in shapes)
                    print(f"{name:10} {rows:5} | {'  '.join(f'{ms:6.2f} {work / ms / 1e6:4.0f}' for ms in times)}")
            return
        print("ms; up: as it is, laid out, GELU alone, with GELU; down: as it is, laid out, addition alone, with it")
        for width, rows in SHAPES:
            found = products(width, rows, repeats)
            rate = 2 * rows * width * 4 * width / found[1] / 1e9
            print(f"{width:5} {rows:5} | {'  '.join(f'{ms:6.2f}' for ms in found)} | up laid out {rate:.2f} TFLOP/s")
        print(f"length | attention over {TOKENS} tokens: as it is, rounded up to {SLOTS} | ms")
        for length in LENGTHS:
            print(f"{length:6} | {'  '.join(f'{ms:6.2f}' for ms in attention(length, repeats))}")
        print(f"rows | us a row for a layer's products, width {STACK_WIDTH}: one layer, {STACK} in turn | TFLOP/s")
        for rows in STACK_ROWS:
            found = [layers(rows, count, repeats) for count in (1, STACK)]
            rates = "  ".join(f"{24 * rows * STACK_WIDTH**2 / ms / 1e9:.2f}" for ms in found)
            print(f"{rows:5} | {'  '.join(f'{1e3 * ms / rows:6.2f}' for ms in found)} | {rates}")


if __name__ == "__main__":
    main()
