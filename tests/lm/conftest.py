"""What tests against a real llama.cpp server share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from llama_server import llama_server, quantised_weights

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def gguf() -> Path:
    """The file with the quantised weights."""
    return quantised_weights()


@pytest.fixture(scope="module")
def quantised(gguf: Path) -> Iterator[str]:
    """The address of a server with the quantised weights."""
    with llama_server(gguf) as url:
        yield url
