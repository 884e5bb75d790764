"""A service on the fake model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

pytest.importorskip("fastapi", reason='needs pip install -e ".[service]"')

from small_service import House

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """See `House`."""
    made = House(tmp_path)
    yield made
    made.book.close()
