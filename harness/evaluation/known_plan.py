"""Remembers the identity of a run from the last time its model was loaded, to see quickly that nothing is left to run.

The identity of a run holds the digest of the loaded weights, the number of threads and the instruction set. To know
them, torch must be imported and the model loaded. The identity is then kept in the user's cache, under a digest of all
its inputs. The same command looks there first. If the store has every cell under the kept identity, there is nothing
to do. Otherwise the model is loaded and the identity is computed again, so the cached identity never gets into a
result.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from harness.evaluation.environment import PACKAGES, REFERENCE_PACKAGES, package_version
from harness.evaluation.overrides import backend_of
from harness.lm.packages import located
from harness.results.records import RunKey  # noqa: TC001 - msgspec reads the types
from harness.sandbox.submission import Access  # noqa: TC001
from harness.tracks.staging import default_directory

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.evaluation.preparation import Preparation

_HARNESS = Path(__file__).resolve().parents[1]
_MOST = 256
"""Number of files that are kept. The oldest are deleted first."""
_BACKENDS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino")
_SWITCHES = ("ATEN_", "CUDA_", "DNNL_", "GOMP_", "KMP_", "MALLOC_", "MKL_", "ONEDNN_", "OMP_", "OPENBLAS_", "TORCH_")
"""Prefixes of environment variables that change threads, instruction sets or kernels."""
_PROCESSOR = (
    "vendor_id",
    "cpu family",
    "model",
    "model name",
    "stepping",
    "flags",
    "Features",
    "CPU implementer",
    "CPU part",
)


class KnownPlan(msgspec.Struct, frozen=True):
    """The parts of a `harness.evaluation.run.Plan` that are known only after the model is loaded."""

    base: RunKey
    environments: dict[Access, dict[str, Any]]
    numerics: dict[str, Any]


def directory() -> Path:
    """The directory that holds the kept plans."""
    return default_directory() / "plans"


def key_of(prepared: Preparation) -> str | None:
    """Digest of everything that determines the identity of a run.

    Args:
        prepared: track, choices and data.

    Returns:
        The digest. None if the model's files are not on this machine, if a server computes, or if the device is a
        GPU, because its driver would have to be asked.
    """
    model = None if backend_of(prepared.track) == "openai" else _model(prepared.track.model.source)
    if model is None or prepared.kind != "cpu":
        return None
    choices = prepared.choices
    p0 = None if choices.p0 is None else hashlib.sha256(choices.p0.read_bytes()).hexdigest()
    known = {
        "track": [prepared.given.name, prepared.given.fingerprint, prepared.track.fingerprint],
        "choices": [
            choices.calls,
            choices.seed,
            choices.shots,
            p0,
            list(choices.modified(prepared.given)),
            choices.repeat,
        ],
        "data": [prepared.data, prepared.data_sha256],
        "model": model,
        "program": _files((_HARNESS,), ".py"),
        "packages": {name: package_version(name) for name in (*PACKAGES, *REFERENCE_PACKAGES, *_BACKENDS)},
        "machine": _machine(),
        **({"allowed": prepared.allowed} if prepared.allowed else {}),
    }
    return hashlib.sha256(msgspec.json.encode(known, order="deterministic")).hexdigest()


def read(key: str) -> KnownPlan | None:
    """The plan that is kept under a key; None if there is no readable one."""
    try:
        return msgspec.json.decode((directory() / f"{key}.json").read_bytes(), type=KnownPlan)
    except (OSError, msgspec.DecodeError):
        return None


def write(key: str, plan: KnownPlan) -> None:
    """Keep a plan. If the cache cannot be written, the next command loads the model again."""
    path = directory() / f"{key}.json"
    beside = path.with_name(f".{key}.{os.getpid()}")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(msgspec.json.encode(plan))
        beside.replace(path)
        for old in sorted(path.parent.glob("*.json"), key=lambda file: file.stat().st_mtime)[:-_MOST]:
            old.unlink(missing_ok=True)


def _model(source: str) -> Any:
    """Facts that show whether a model's files have changed, without reading the weights; None for a hub id."""
    if source == "embedded":
        return _files(
            (_HARNESS / "models",)
        )  # the encoder's own package is among `PACKAGES`, and its files are checked
    source = located(source)
    return _files((Path(source).resolve(),)) if Path(source).is_dir() else None


def _files(folders: Iterable[Path], suffix: str = "") -> list[tuple[str, int, int, int, int]]:
    """Name, size, times and inode number of every file. Writing to a file changes its time of change."""
    found = [path for folder in folders for path in sorted(folder.rglob(f"*{suffix}")) if path.is_file()]
    facts = [(str(path), path.stat()) for path in found]
    return [(name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino) for name, stat in facts]


def _machine() -> dict[str, Any]:
    """The facts from which torch chooses the number of threads and the instruction set."""
    given = {name: value for name, value in os.environ.items() if name.startswith(_SWITCHES)}
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    facts: set[str] = set()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
        facts = {line for line in lines if line.partition(":")[0].strip() in _PROCESSOR}
    return {
        "system": [*platform.uname()[:1], *platform.uname()[2:]],
        "python": platform.python_version(),
        "switches": given,
        "cores": cores,
        "processor": sorted(facts),
    }
