"""A real llama.cpp server in a process of its own, for slow tests."""

from __future__ import annotations

import contextlib
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from harness.errors import ModelError
from harness.lm.packages import located
from harness.tracks.track import load_track

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVER = """
import sys, time, xllamacpp
given = xllamacpp.CommonParams()
given.model.path, given.n_ctx, given.n_parallel, given.port, given.verbosity = sys.argv[1], 2048, 2, 0, -1
given.cpuparams.n_threads = 1  # more would wait for each other on busy cores
server = xllamacpp.Server(given)
print(server.listening_address, file=sys.stderr, flush=True)
sys.stdin.read()
"""


def quantised_weights() -> Path:
    """The GGUF file of the track api; the test is skipped where it or the server is not installed."""
    for package in ("xllamacpp", "gguf"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}; pip install xllamacpp gguf accelerate")
    try:
        return next(Path(located(load_track("api").model.source)).glob("*.gguf"))
    except ModelError as problem:
        pytest.skip(str(problem))


def dequantised(source: Path, target: Path) -> Path:
    """Write the weights of a GGUF file as float32, everything else as it is."""
    import gguf

    reader = gguf.GGUFReader(source)
    named = reader.fields["general.architecture"]
    writer = gguf.GGUFWriter(target, bytes(named.parts[named.data[0]]).decode())
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        value = 0 if name == "general.file_type" else field.contents()
        writer.add_key_value(name, value, field.types[0], field.types[-1] if len(field.types) > 1 else None)
    for tensor in reader.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        writer.add_tensor(tensor.name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


@contextlib.contextmanager
def llama_server(weights: Path) -> Iterator[str]:
    """A server in a process of its own, and its address."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, str(weights)],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        assert process.stdin is not None
        try:
            yield next(line.strip() for line in process.stderr if line.startswith("http://"))
        finally:
            process.kill()
