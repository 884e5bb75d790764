"""A cheat: tries attacks of the modules beside it, and tells in its last answer's note which of them worked.

Each public function of a module is one attack. It gets the situation (`at`: paths, processes and ports that an
attacker would like to know, and lm, task and shots), and returns evidence if it got through: what it read or did.
None, or an exception, is a failure. A generator takes the place of `tune`.

    harness evaluate tests/system/attacks/cheat --config attacks=labels.read_the_labels --config situation=JSON
"""

from __future__ import annotations

import importlib
import inspect
import json
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from harness import Answer

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Config:
    """What is tried, and what is told."""

    attacks: str = ""
    """``module.function``, several with commas."""
    situation: str = "{}"
    """JSON of what the attacks are told."""


def tune(lm: Any, task: Any, shots: Any, rng: Any, config: Config) -> Iterator[Answer]:
    """Try the attacks one after another."""
    at = SimpleNamespace(lm=lm, task=task, shots=shots, rng=rng, **json.loads(config.situation))
    yield Answer.of(task)
    note: dict[str, float] = {}
    for attack in config.attacks.split(","):
        module, _, name = attack.partition(".")
        attempt = getattr(importlib.import_module(module), name)
        if inspect.isgeneratorfunction(attempt):
            yield from attempt(at)
            return
        try:
            evidence = attempt(at)
            print(f"{attack}: {f'escaped: {evidence!r:.200}' if evidence else 'blocked'}", flush=True)
        except BaseException as problem:
            evidence = None
            print(f"{attack}: blocked: {type(problem).__name__}: {problem}"[:300], flush=True)
        note[attack] = float(bool(evidence))
        yield Answer.of(task, **note)
