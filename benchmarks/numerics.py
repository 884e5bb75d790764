"""Scores of submissions under several numeric profiles: do number formats and the fast path change conclusions?

python benchmarks/numerics.py                                            manual and dect, all tasks and splits of mini
python benchmarks/numerics.py --profile packed32 --profile int8          two profiles
python benchmarks/numerics.py --submission submissions/bbt --calls 40    with a budget of 40 calls a task

Each profile is a copy of the track `mini` with another number format and forward; a submission is evaluated on all its
cells under each. Averages are in points with the 95 % interval over splits and test items that the leaderboard gives;
the difference is that to the first profile, transformers' own forward in float32. Numbers: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROFILES = {
    "plain32": ("float32", "plain"),
    "packed32": ("float32", "packed"),
    "padded16": ("bfloat16", "padded"),
    "int8": ("int8", "packed"),
    "packed16": ("bfloat16", "packed"),
    "invariant16": ("bfloat16", "invariant"),
}


def save_track(folder: Path, name: str, calls: int | None) -> Path:
    """The track `mini` with the numerics of a profile."""
    dtype, forward = PROFILES[name]
    text = (ROOT / "harness" / "tracks" / "builtin" / "mini.toml").read_text(encoding="utf-8")
    text = text.replace('name = "mini"', f'name = "{name}"').replace('dtype = "bfloat16"', f'dtype = "{dtype}"')
    text = re.sub(r"^formats = .*\n", "", text, flags=re.MULTILINE)
    if calls is not None:
        text = re.sub(r"calls = \d+", f"calls = {calls}", text)
    path = folder / f"{name}.toml"
    path.write_text(text + f'\n[numerics]\nforward = "{forward}"\n', encoding="utf-8")
    return path


def harness(*arguments: object) -> str:
    """Run a command of the harness and return its output."""
    command = [sys.executable, "-m", "harness.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def main() -> None:
    """Evaluate, print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--submission", action="append", type=Path, help="repeatable; default manual and dect")
    parser.add_argument("--profile", action="append", choices=PROFILES, help="repeatable; default all")
    parser.add_argument("--calls", type=int, help="budget of each task; default the track's")
    parser.add_argument("--config", action="append", default=[], help="NAME=VALUE for all submissions; repeatable")
    parser.add_argument("--split", action="append", default=[], help="only this split; repeatable")
    given = parser.parse_args()
    submissions = given.submission or [ROOT / "submissions" / name for name in ("manual", "dect")]
    print("| submission | profile | average | difference |\n|---|---|---|---|")
    first: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in given.profile or PROFILES:
            track = save_track(Path(folder), name, given.calls)
            store = ("--track", track, "--store", Path(folder) / f"{name}.db")
            options = [word for value in given.config for word in ("--config", value)]
            splits = [word for value in given.split for word in ("--split", value)]
            harness("evaluate", *submissions, *store, *options, *splits, "--json")
            board = json.loads(harness("leaderboard", *store, "--out", Path(folder) / f"{name}.csv", "--json"))
            for entry in board["entries"]:
                average = entry["average"]
                change = average - first.setdefault(entry["submission"], average)
                low, high = entry["average_low"], entry["average_high"]  # none of some splits alone
                interval = "" if low is None else f"[{100 * low:.1f}, {100 * high:.1f}]"
                print(f"| {entry['submission']} | {name} | {100 * average:.2f} {interval} | {100 * change:+.2f} |")


if __name__ == "__main__":
    main()
