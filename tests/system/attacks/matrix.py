"""Prints which attacks get through where: attack x tier x user, as a Markdown table with counts and times.

    python tests/system/attacks/matrix.py [--full]     # --full: a line for each attack, else one for each module

`·` blocked, `E` escaped, `-` cannot run here. `bare` is the positive control, without any sandbox.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from suite import NO_CONTROL, RULES, STATUS, WALLS, attacks  # noqa: E402
from users import User, command  # noqa: E402

COLUMNS: tuple[tuple[str, User], ...] = (
    ("bare", "user"), ("0", "user"),
    ("A", "root"), ("A", "user"), ("B", "root"), ("B", "user"), ("B'", "root"), ("B'", "user"),
)  # fmt: skip


def main() -> None:
    """Run everything and print the table."""
    walls, columns = attacks(*WALLS), {}
    for tier, user in COLUMNS:
        columns[tier, user] = _run(tier, user, walls)
    print("| attack |", " | ".join(f"{tier} {user}" for tier, user in COLUMNS), "|")
    print("|---|" + "---|" * len(COLUMNS))
    lines = walls if "--full" in sys.argv else WALLS
    for line in [*lines, "all"]:
        chosen = [a for a in walls if line in ("all", a, a.partition(".")[0])]
        print(f"| {line} |", " | ".join(_cell(columns[each][0], chosen) for each in COLUMNS), "|")
    print("| seconds |", " | ".join(f"{columns[each][1]:.0f}" for each in COLUMNS), "|")
    for tier, user in COLUMNS:
        through = [a for a, result in columns[tier, user][0].items() if result["escaped"]]
        if through and tier not in {"0", "bare"}:
            print(f"\nThrough tier {tier} as {user}: {', '.join(through)}")
    held, seconds = _run("best", "user", attacks(*RULES))
    right = [a for a, result in held.items() if not result["escaped"] and result["status"] in STATUS.get(a, {"ok"})]
    print(
        f"\nAttacks on the referee's rules (frames, answers, clocks): {len(right)} of {len(held)} ended as they must,"
    )
    print(f"{seconds:.0f} s. Attacks without a positive control: {len(NO_CONTROL)}.")


def _cell(results: dict[str, Any], chosen: list[str]) -> str:
    if not results:
        return "-"
    if len(chosen) == 1:
        return "E" if results[chosen[0]]["escaped"] else "·"
    through = sum(results[attack]["escaped"] for attack in chosen)
    return f"{len(chosen) - through} · {through} E" if through else f"{len(chosen)} ·"


def _run(tier: str, user: User, names: list[str]) -> tuple[dict[str, Any], float]:
    """Results by attack, none where this machine cannot; seconds."""
    began = time.monotonic()
    try:
        program = command(user, [sys.executable, str(HERE / "drive.py"), "--tier", tier, *names])
    except LookupError as problem:
        print(f"{tier} as {user}: {problem}", file=sys.stderr)
        return {}, 0.0
    alone = ["--alone"] if tier == "0" else []  # or what one attack breaks would be held against all
    done = subprocess.run([*program, *alone], capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{tier} as {user}: {done.stderr[-500:]}", file=sys.stderr)
    results = {each["attack"]: each for each in map(json.loads, done.stdout.splitlines())}
    return results if len(results) == len(names) else {}, time.monotonic() - began


if __name__ == "__main__":
    main()
