"""What the model keeps for one participant's cell is found by no other participant and in no other cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from small_service import TASK, House

from harness.blackbox import projection
from harness.blackbox.wire import Array
from harness.contract import Subspace
from harness.service.messages import QueryBody

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from harness.service.queries import Place


def test_the_time_of_a_query_does_not_tell_what_others_have_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A projection that one has made is made again for the next one, and once only for each cell of each token."""
    made, usual = [], projection.generate

    def counted(space: Subspace, layer: int, width: int) -> Any:
        made.append(layer)
        return usual(space, layer, width)

    monkeypatch.setattr(projection, "generate", counted)
    house = House(tmp_path)
    alice, bob = (house.book.token(token) for token in (house.token, house.book.new_token("bob")))
    first, second = (house.handler.places[TASK.name, split] for split in (1, 2))

    def ask(token: Any, place: Place) -> int:
        before = len(made)
        info = place.info
        space = Subspace(7, (1.0,), info.prompt_tokens, seed=20_261_130)
        z = np.ones((1, 1, 7), np.float32)
        asked = QueryBody("train", prompt=Array.of(z), space=space)
        house.handler.query(token, place, asked, b"", None)
        return len(made) - before

    assert [ask(alice, first) for _ in range(3)] == [1, 0, 0]
    assert [ask(bob, first) for _ in range(2)] == [1, 0]
    assert [ask(alice, second) for _ in range(2)] == [1, 0]
    assert ask(alice, first) == 0
