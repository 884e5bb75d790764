"""The client of the service keeps the same contract as every other black box."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from small_service import TASK, House, place, served

import harness
from harness import testing
from harness.testing import Subject

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.parametrize("check", testing.CHECKS, ids=lambda check: check.__name__)
def test_the_services_client_keeps_the_contract(check: Callable[[Subject], None], tmp_path: Path) -> None:
    """Behind a real socket; each check has a cell of its own."""
    house = House(tmp_path, calls=20)
    texts = place().shots.train.texts
    with served(house.app) as url, harness.connect(url, house.token, task=TASK.name, split=1) as box:
        check(Subject(lambda: box, TASK, texts))
    house.book.close()
