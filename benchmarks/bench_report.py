"""The time, size and loading time of a report, for a store of made-up entries on `mini`.

    python benchmarks/bench_report.py --entries 50 --splits 5
    python benchmarks/bench_report.py --entries 500 --splits 40                   # 100,000 cells
    python benchmarks/bench_report.py --entries 500 --splits 40 --store made.db   # filled once, and kept

The report is built twice: from nothing, and again after one more entry, with what the first one kept.
Every entry has all five tasks on the given number of splits. The store is filled by plain SQL through the project's own
tables, because one transaction per cell would take most of the time. Its rows have the form that `harness evaluate`
writes. Pages are then opened in headless Chromium by playwright.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import shutil
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np
import sqlalchemy as sa
from playwright.sync_api import sync_playwright

from harness.leaderboard.report.build import build
from harness.leaderboard.report.kept import Kept
from harness.results import tables
from harness.results.records import CellRecord, RunKey
from harness.results.status import MARKS
from harness.results.store import Store
from harness.tracks.examples import Source, load_test
from harness.tracks.tasks import load_task
from harness.tracks.track import Track, load_track


def track_with(splits: int) -> Track:
    """`mini` with more splits."""
    track = load_track("mini")
    names = tuple(range(1, splits + 1))
    tasks = {name: msgspec.structs.replace(spec, splits=names) for name, spec in track.tasks.items()}
    return msgspec.structs.replace(track, tasks=tasks)


def fill(path: Path, track: Track, entries: int, first: int = 0) -> None:
    """Write so many entries, the first of them with this number."""
    store, rng = Store(str(path)), np.random.default_rng(first)
    cell = first * sum(len(spec.splits) for spec in track.tasks.values())
    labels = {name: load_test(load_task(name), Source("embedded")).labels for name in track.tasks}
    engine = sa.create_engine(f"sqlite:///{path}")
    for number in range(first, first + entries):
        key = RunKey(
            f"entry_{number:03d}", f"{number:064x}", (), "mini", track.fingerprint, track.rules,
            "made-up", "m", "embedded", "d", "cpu", 0, "e",
        )  # fmt: skip
        run = store.open_run(key, {"packages": {"numpy": np.__version__}, "machine": "made up"})
        skill = 0.5 + 0.35 * rng.random()
        attempts, outcomes, incumbents = [], [], []
        for name, spec in track.tasks.items():
            classes = len(load_task(name).classes)
            for split in spec.splits:
                cell += 1
                place = {"attempt": cell, "run": run, "task": name, "split": split}
                attempts.append(place | {"started": 0.0})
                facts = record(rng, number).to_json()
                outcomes.append(place | {"status": "ok", "facts": facts, "test": name, "finished": 1.0})
                draws, other = rng.random(len(labels[name])), rng.integers(1, classes, len(labels[name]))
                for n, mark in enumerate(MARKS):
                    right = draws < skill - 0.02 * (len(MARKS) - 1 - n)
                    predicted = np.where(right, labels[name], (labels[name] + other) % classes).astype("<i2").tobytes()
                    of_mark = {"mark": mark, "rows": int(9_600 * mark), "predictions": predicted}
                    incumbents.append({"attempt": cell, "answer": "a"} | of_mark)
        with engine.begin() as connection:
            if number == 0:
                blobs = [{"test": name, "labels": own.astype("<i2").tobytes()} for name, own in labels.items()]
                connection.execute(tables.test_sets.insert(), blobs)
                connection.execute(tables.answers.insert(), [{"sha256": "a", "blob": b""}])
            connection.execute(tables.attempts.insert(), attempts)
            connection.execute(tables.outcomes.insert(), outcomes)
            connection.execute(tables.incumbents.insert(), incumbents)
    engine.dispose()
    store.close()


def record(rng: np.random.Generator, number: int) -> CellRecord:
    """A record of the size that real cells have: a dozen offers."""
    dev = [round(float(rng.random()), 4) for _ in range(12)]
    rows = np.linspace(0, 9_600, len(dev)).astype(int).tolist()
    return CellRecord(
        detail="640 rows asked, 384 of 9,600 left; yield an answer before the budget ends",
        config={"dim": 500, "population": 20}, calls_total=300, rows_total=9_600, rows_spent=9_216, train_rows=32,
        level=1 + number % 3, tokens=280_000, bytes_up=2_000_000, bytes_down=90_000, lm_s=16.0, worker_peak_mb=90.0,
        referee_peak_mb=900.0, history=tuple((n, {"dev": d, "loss": 0.5}) for n, d in zip(rows, dev, strict=True)),
        marks=MARKS, shots_sha256=(hashlib.sha256(b"").hexdigest(),) * 2, sandbox="process", tuning_s=16.7,
    )  # fmt: skip


def main() -> None:
    """Fill the store, build the report, and print the times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--entries", type=int, default=50)
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--store", type=Path, help="keep the store here; one that is there is taken as it is")
    parser.add_argument("--out", type=Path, help="keep the site here")
    parser.add_argument("--kept", type=Path, help="keep what was computed here")
    arguments = parser.parse_args()
    track = track_with(arguments.splits)
    with tempfile.TemporaryDirectory() as folder:
        database = arguments.store or Path(folder) / "results.db"
        if not database.exists():
            began = time.monotonic()
            fill(database, track, arguments.entries)
            print(f"store filled in {time.monotonic() - began:.0f} s")
        out = arguments.out or Path(folder) / "site"
        for _ in range(2):
            store = Store(str(database))
            entries = len(store.runs())
            cells = entries * sum(len(spec.splits) for spec in track.tasks.values())
            print(f"{entries} entries, {cells:,} cells; store {database.stat().st_size / 1e6:,.0f} MB", flush=True)
            cpu, kept = time.process_time(), Kept(arguments.kept or Path(folder) / "kept")
            built = build(store, track, out, Source("embedded"), Path(folder), kept)
            store.close()
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(f"report: {built.seconds:.1f} s, {time.process_time() - cpu:.1f} s of CPU time, {built.pages} pages, "
                  f"{built.bytes / 1e6:,.1f} MB; peak {peak:,.0f} MiB; computed anew: {dict(kept.computed)}",
                  flush=True)  # fmt: skip
            fill(database, track, 1, entries)
        names = ["index.html", "progress.html", "cost.html", "cells.html", "tasks/dbpedia.html"]
        largest = max(built.path.rglob("submissions/*.html"), key=lambda page: page.stat().st_size)
        pages = [*(built.path / name for name in names), largest]
        for page, (loaded, drawn) in zip(pages, opened(pages), strict=True):
            size = f"{page.relative_to(built.path)}: {page.stat().st_size / 1e3:,.0f} kB"
            print(f"  {size}; loaded after {loaded:.2f} s, plots drawn after {drawn:.2f} s")


def opened(pages: list[Path]) -> list[tuple[float, float]]:
    """Seconds until each page is loaded, and until its plots are drawn, in a Chromium without a cache."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    times = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for path in pages:
            page = browser.new_context().new_page()
            began = time.monotonic()
            page.goto(path.as_uri())
            loaded = time.monotonic() - began
            plots = page.locator("figure.plot").count()
            page.wait_for_function(f"document.querySelectorAll('.canvas .main-svg').length >= {plots}")
            times.append((loaded, time.monotonic() - began))
            page.context.close()
        browser.close()
    return times


if __name__ == "__main__":
    main()
