"""`harness doctor`: what this machine has, what it lacks, and how to add what is missing."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from harness.errors import HarnessError
from harness.evaluation.environment import environment
from harness.sandbox import best_tier, probes
from harness.tracks.track import load_track, track_names

_GAINS = {
    "bfloat16": "A population's forward passes are about 6.5 times as fast as transformers' own (AMX)",
    "int8": "A population's forward passes are about 2.3 times as fast as transformers' own (AVX2; more with VNNI)",
    "float32": "A population's forward passes are about 1.5 times as fast as transformers' own",
}
"""Measured with `benchmarks/bench_lm.py --case mini/sst2/bbt`; the table is in benchmarks/README.md."""


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    name: str
    good: bool
    fact: str
    advice: str = ""
    fatal: bool = False


def examine() -> list[Finding]:
    """Check everything that an evaluation needs."""
    facts = environment()
    versions = ", ".join(f"{name} {value}" for name, value in facts["packages"].items())
    absent = [name for name, value in facts["packages"].items() if value == "absent"]
    return [
        Finding("python", sys.version_info >= (3, 11), facts["python"], "", fatal=True),
        Finding("packages", not absent, versions, "run: make setup" if absent else "", fatal=True),
        _processor(facts),
        _formats(),
        _device(),
        _embedded(),
        _tracks(),
        _isolation(),
    ]


def _isolation() -> Finding:
    """The isolation tier of workers on this machine, tried now, and what would give a better one."""
    try:
        found = best_tier.best()
    except HarnessError as problem:
        return Finding("isolation", good=False, fact=str(problem), fatal=True)
    layers = {"bubblewrap": probes.namespaces(), "Landlock": probes.landlock(), "seccomp": probes.seccomp()}
    held = found.isolation
    fact = f"tier {found.tier}, worker uid {held.uid}, {len(held.canaries)} canaries blocked; "
    fact += ", ".join(f"{name}: {what}" for name, (what, _) in layers.items())
    advice = [f"{name}: {what}" for name, (_, what) in layers.items() if what]
    for tier, why in found.refused.items():
        advice.append(f"not {tier}: {why.splitlines()[0].removeprefix(f'tier {tier}: ')}")
    if found.tier == "0":
        advice.insert(0, "nothing is isolated: run only submissions you have read; their runs are not ranked")
    return Finding("isolation", found.tier == "A", fact, "\n     ".join(advice))


def _processor(facts: dict[str, object]) -> Finding:
    import torch  # noqa: PLC0415 - seconds to import

    name = torch.cpu.get_capabilities().get("cpu_name", "a CPU")
    return Finding("processor", good=True, fact=f"{name}, {facts['cpu']}, {facts['threads']} threads")


def _formats() -> Finding:
    """The number format of the embedded model on this machine, the reason for it, and its speed."""
    from harness.lm import formats  # noqa: PLC0415 - imports torch

    try:
        offered = load_track("mini").model.allowed
    except HarnessError as problem:
        return Finding("number format", good=False, fact=str(problem))
    processor = formats.here()
    choice = formats.fastest(offered, processor, int8=True)
    others = ", ".join(name for name in offered if name != choice.format)
    fact = f"{choice.format}: {choice.why}; to mini and kit it is equal to {others}. {_GAINS[choice.format]}"
    capped = os.environ.get("ONEDNN_MAX_CPU_ISA")
    advice = f"ONEDNN_MAX_CPU_ISA={capped} hides what the processor may have; unset it" if capped else ""
    return Finding("number format", not capped, fact, advice)


def _device() -> Finding:
    import torch  # noqa: PLC0415

    if not torch.cuda.is_available():
        return Finding("gpu", good=True, fact=f"none that torch {torch.__version__} sees; mini and kit need none")
    memory = torch.cuda.get_device_properties().total_memory
    return Finding("gpu", good=True, fact=f"{torch.cuda.get_device_name()}, {memory / 2**30:.0f} GiB")


def _embedded() -> Finding:
    try:
        from harness.lm import embedded  # noqa: PLC0415

        return Finding("embedded model", good=True, fact=f"minilm-mlm, sha256 {embedded.weights_sha256()[:16]}…")
    except (HarnessError, ImportError, OSError) as problem:
        return Finding("embedded model", good=False, fact=str(problem), advice="run: make setup", fatal=True)


def _tracks() -> Finding:
    import torch  # noqa: PLC0415

    try:
        tracks = [load_track(name) for name in track_names()]
    except HarnessError as problem:
        return Finding("tracks", good=False, fact=str(problem), fatal=True)
    here = {"cpu", *([torch.cuda.get_device_name()] if torch.cuda.is_available() else [])}
    others = [track.name for track in tracks if not any(map(track.ranks, here))]
    advice = f"on {', '.join(others)}, runs of this machine are listed apart, not ranked" if others else ""
    return Finding("tracks", good=True, fact=", ".join(track.name for track in tracks), advice=advice)
