"""A store with all kinds of entries that a report must handle, and the site of this store."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any

import numpy as np
from made_up import key

from harness.leaderboard.anytime import REFERENCES
from harness.leaderboard.report.build import Built, build
from harness.results.records import CellRecord, KeptAnswer
from harness.results.store import Store
from harness.tracks.examples import Source, load_test
from harness.tracks.tasks import load_task
from harness.tracks.track import load_track

if TYPE_CHECKING:
    from pathlib import Path

SCRIPT = "<script>window.hacked = true</script>"
IMAGE = '<img src="http://evil.example/x.png" onerror="window.hacked = true">'
HOSTILE = f"{SCRIPT}{IMAGE}[a=</script>]"
README = f"""# Evil {SCRIPT}

{IMAGE} and ![a picture](http://evil.example/y.png) and [click](javascript:alert(1)) and
[a paper](http://evil.example/paper) and [a page](../../docs/report.md) and <http://evil.example/auto>

| a | b |
|---|---|
| {SCRIPT} | `{IMAGE}` |

## Scores

    {SCRIPT}
"""
TRACK = load_track("mini")
CELLS = [(task, split) for task, spec in TRACK.tasks.items() for split in spec.splits]
CALLS = 100
FROZEN = tomllib.loads(REFERENCES.read_text(encoding="utf-8"))["mini"]
"""The runs that reference scores are kept for: those of the made-up store, so that there are targets."""


def add(
    store: Store,
    entry: str,
    right: float,
    status: str = "ok",
    cells: Any = CELLS,
    level: int = 1,
    sandbox: str = "process",
    **identity: Any,
) -> str:
    """A run that predicts about this share of the test texts correctly. Equal names and shares give equal runs."""
    same = {name: FROZEN[name] for name in ("track_fingerprint", "model_sha256", "data_sha256")}
    same |= {"track": "mini", "submission_sha256": f"{entry} {right}"}
    run = store.open_run(key(entry, **same | identity), {"packages": {"torch": "1"}, "cpu": SCRIPT})
    for task, split in cells:
        file = load_task(task)
        labels = load_test(file, Source("embedded")).labels
        rng = np.random.default_rng([split, len(labels), len(entry)])  # each entry errs in its own way
        draws, other = rng.random(len(labels)), rng.integers(1, len(file.classes), len(labels))
        facts = {
            "rows_spent": 3_200, "train_rows": 32, "calls_total": CALLS, "rows_total": 3_200, "tuning_s": 30.0,
            "level": 4 if identity.get("access") else level, "tokens": 70_000, "bytes_up": 5_000, "bytes_down": 6_000,
            "lm_s": 20.0, "sandbox": sandbox, "config": {"name": SCRIPT}, "detail": f"Traceback {SCRIPT}",
            "output": IMAGE, "worker_peak_mb": 40.0, "referee_peak_mb": 900.0,
            "history": [[0, {}], [320, {"dev": 0.5, "loss": 1.0}], [1_600, {"dev": 0.625}]],
        }  # fmt: skip
        kept = []
        for mark, rows, less in ((0.125, 320, 0.1), (0.25, 320, 0.1), (0.5, 1_600, 0.0), (1.0, 1_600, 0.0)):
            predicted = np.where(draws < right - less, labels, (labels + other) % len(file.classes))
            kept.append(KeptAnswer(mark, rows, b"answer", predicted))
        store.begin(run, task, split).finish(status, CellRecord(**facts), f"{task} texts", labels, kept)
    return run


def fill(store: Store) -> None:
    """Good, tied, poor, failed, partial, outside data, white-box, and hostile entries."""
    add(store, "good", 0.80)
    add(store, "nearly", 0.795)
    add(store, "poor", 0.60)
    add(store, HOSTILE, 0.55)
    add(store, "evil", 0.5)
    add(store, "crashed", 0.9, status="crashed")
    add(store, "partial", 0.7, cells=CELLS[:2])
    add(store, "outside", 0.7, external="a prompt from elsewhere")
    add(store, "tuned", 0.9, access="white-box")


def submissions(folder: Path) -> Path:
    """A folder of submissions with one malicious README."""
    evil = folder / "submissions" / "evil"
    evil.mkdir(parents=True)
    (evil / "submission.py").write_text("raise RuntimeError('never run by a report')\n", encoding="utf-8")
    (evil / "README.md").write_text(README, encoding="utf-8")
    return evil.parent


def made(folder: Path) -> Built:
    """The site of the whole store, in folder/site."""
    store = Store(str(folder / "results.db"))
    fill(store)
    try:
        return build(store, TRACK, folder / "site", Source("embedded"), submissions(folder))
    finally:
        store.close()
