"""Fixtures for several folders of tests."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from outer_models import Arena
    from postgres_server import Server

    from harness.lm.model import LanguageModel

hypothesis.settings.register_profile("same", derandomize=True)  # the same examples in every run
hypothesis.settings.register_profile("explore", max_examples=1000)
hypothesis.settings.load_profile(os.environ.get("HARNESS_EXAMPLES", "same"))


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The user's cache, so that no test reads from or writes into the real one."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def tiny_track(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A track file on a tiny random model."""
    import outer_models

    folder = tmp_path_factory.mktemp("tiny")
    return outer_models.save_track(folder, outer_models.save_model(folder / "model"))


@pytest.fixture(scope="session")
def tiny_lm(tiny_track: Path) -> LanguageModel:
    """The tiny random model."""
    import outer_models

    return outer_models.load_tiny(tiny_track)


@pytest.fixture
def arena(tmp_path: Path, tiny_track: Path, tiny_lm: LanguageModel) -> Iterator[Arena]:
    """See `outer_models.Arena`."""
    import outer_models

    made = outer_models.Arena(tmp_path, tiny_track, tiny_lm)
    yield made
    made.store.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server; the test is skipped where there is none."""
    pytest.importorskip("psycopg", reason='needs psycopg: pip install -e ".[postgres]"')
    from postgres_server import Server, Unavailable

    try:
        server = Server()
    except Unavailable as reason:
        pytest.skip(str(reason))
    yield server
    server.close()


@pytest.fixture(scope="module")
def gguf() -> Path:
    """The file with the quantised weights of the track api; the test is skipped where it or llama.cpp is not there."""
    from llama_server import quantised_weights

    return quantised_weights()


@pytest.fixture(scope="module")
def quantised(gguf: Path) -> Iterator[str]:
    """The address of a llama.cpp server with the quantised weights."""
    from llama_server import llama_server

    with llama_server(gguf) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a results database may be made, of each kind."""
    if request.param == "sqlite":
        return str(tmp_path / "deep" / "results.db")
    server: Server = request.getfixturevalue("postgres")
    return server.database()
