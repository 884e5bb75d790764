"""The commands in docs/service.md work, and its solver runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import typer.main
from small_service import TASK, House, served

from harness.cli import app

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "service.md").read_text(encoding="utf-8")


def test_every_command_of_the_page_is_accepted() -> None:
    commands = re.findall("^harness .*", PAGE, flags=re.MULTILINE)
    assert len(commands) == 8
    for line in commands:
        words = shlex.split(line, comments=True)[1:]
        command = typer.main.get_command(app).commands[words[0]]  # type: ignore[attr-defined]
        command.make_context(words[0], words[1:], resilient_parsing=False).close()


def test_the_solver_of_the_page_spends_its_budget_and_hands_in_an_answer(house: House) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    with served(house.app) as url:
        program = block.replace("http://127.0.0.1:8000", url).replace("alice.…", house.token).replace("sst2", TASK.name)
        names: dict[str, object] = {}
        exec(program, names)  # noqa: S102 - our own page
        names["box"].close()  # type: ignore[attr-defined]
    (account,) = house.book.unscored("fake 0123")
    assert account.rows_spent == account.rows_total  # 10 calls: two generations of five
