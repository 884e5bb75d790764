"""Attacks on the referee by submissions, in real workers: none gets through, and each is a real one.

The drivers run in processes of their own, as root in a private mount namespace or as an ordinary user: see README.md.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from suite import DEADLY, KNOWN, NO_CONTROL, RULES, STATUS, WALLS, attacks, title  # noqa: E402
from users import command  # noqa: E402

if TYPE_CHECKING:
    from users import User

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the walls are Linux's")
HERE_USER: User = "user" if os.geteuid() else "root"
FREE = {"frames.send_a_field_twice"}
"""Prints an answer that it paid for."""


@cache
def _driven(user: User, tier: str, names: tuple[str, ...]) -> dict[str, dict[str, Any]] | str:
    """Results by attack, or why there are none."""
    try:
        program = command(user, [sys.executable, str(HERE / "drive.py"), "--tier", tier, *names])
    except LookupError as problem:
        return str(problem)
    done = subprocess.run(program, capture_output=True, text=True, timeout=550, check=False)
    results = {each["attack"]: each for each in map(json.loads, done.stdout.splitlines())}
    last = done.stderr.strip().splitlines()[-1:] or [""]
    if done.returncode == 1 and last[0].startswith("tier "):
        return last[0]
    assert done.returncode == 0, done.stderr[-3000:]
    return results


def driven(user: User, tier: str, *modules: str) -> dict[str, dict[str, Any]]:
    """Results of all attacks of modules; skips where this machine cannot run them so."""
    found = _driven(user, tier, tuple(attacks(*modules)))
    if isinstance(found, str):
        pytest.skip(found)
    return found


def problem(result: dict[str, Any]) -> str:
    """What is wrong with how an attack on the walls ended; empty where it was blocked as it must be."""
    if (result["tier"], result["user"], result["attack"]) in KNOWN:
        return ""
    if result["escaped"]:
        return f"{result['attack']} escaped: {result['how']}"
    if result["status"] not in STATUS.get(result["attack"], {"ok"}):
        return f"{result['attack']}: status {result['status']}, {result['facts']['detail'][-500:]}"
    return ""


@pytest.mark.parametrize("attack", attacks(*WALLS))
def test_an_attack_on_the_walls_is_blocked(attack: str) -> None:
    """In the best tier of this machine, as the user who runs the tests."""
    result = driven(HERE_USER, "best", *WALLS)[attack]
    assert result["sandbox"] == result["tier"]
    assert not problem(result)


@pytest.mark.slow
@pytest.mark.parametrize("user", ["root", "user"])
@pytest.mark.parametrize("tier", ["A", "B", "B'"])
def test_the_walls_of_every_tier_hold(tier: str, user: User) -> None:
    results = driven(user, tier, *WALLS)
    assert set(results) == set(attacks(*WALLS))
    assert not [each for result in results.values() if (each := problem(result))]


@pytest.mark.slow
@pytest.mark.parametrize("attack", [attack for attack in attacks(*WALLS) if attack not in NO_CONTROL])
def test_the_attack_is_a_real_one(attack: str) -> None:
    """The positive control: without a sandbox it works for an ordinary user."""
    result = driven("user", "bare", *WALLS)[attack]
    assert result["escaped"], result["how"]


@pytest.mark.slow
@pytest.mark.parametrize("attack", attacks(*RULES))
def test_an_attack_on_the_referee_ends_as_it_must(attack: str) -> None:
    result = driven(HERE_USER, "best", *RULES)[attack]
    facts = result["facts"]
    assert result["status"] in STATUS.get(attack, {"ok"}), facts["detail"][-1000:] + facts["output"][-500:]
    assert not result["escaped"], result["how"]
    assert result["ledger"] == facts["rows_spent"] <= result["rows"]
    assert len(facts["output"]) <= 64 << 10
    assert attack in FREE or not {"Result", "Done"} & set(facts["output"].replace("'", " ").split())
    assert facts["tuning_s"] < 30
    assert "late" not in facts["note"]
    assert "never refused" not in facts["output"]


@pytest.mark.slow
@pytest.mark.parametrize("attack", ["frames.pipeline", "frames.pipeline_from_two_threads"])
def test_pipelined_queries_get_exactly_the_budget(attack: str) -> None:
    result = driven(HERE_USER, "best", *RULES)[attack]
    assert result["ledger"] == result["facts"]["note"]["answered"] == result["rows"]


@pytest.mark.slow
def test_a_permutation_of_the_labels_is_scored_as_it_is() -> None:
    """Nobody looks for the order of the classes that would fit best."""
    results = driven(HERE_USER, "best", *RULES)
    plain = results["replies.keep_the_labels_in_order"]["score"]
    assert results["replies.permute_the_labels"]["score"] == pytest.approx(1 - plain)
    assert plain != pytest.approx(0.5)


def test_what_is_said_of_attacks_names_attacks() -> None:
    known = set(attacks(*WALLS, *RULES))
    assert len(known) > 130
    assert {*NO_CONTROL, *STATUS, *DEADLY, *(attack for _, _, attack in KNOWN)} <= known
    assert all(title(attack) for attack in known)


@pytest.mark.skipif(HERE_USER != "root", reason="needs root")
@pytest.mark.parametrize("tier", ["0", "bare"])
def test_an_attack_without_a_sandbox_never_runs_as_root(tier: str) -> None:
    program = [sys.executable, str(HERE / "drive.py"), "--tier", tier, "labels.read_the_labels"]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ordinary user" in done.stderr
    assert done.stdout == ""
