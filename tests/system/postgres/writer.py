"""A test process that writes as an evaluator does, without a model. Its first argument is the database."""

# ruff: noqa: T201 - each acknowledged row is told to the test
from __future__ import annotations

import sys

import numpy as np
from made_up import key

from harness.results.records import CellRecord, KeptAnswer, LedgerRow
from harness.results.store import Attempt, Store
from harness.tracks.examples import Source, examples_sha256, load_test
from harness.tracks.tasks import load_task

TEST = load_test(load_task("sst2"), Source("embedded"))
TOKENS = 3 << 30
"""More than 32 bits hold."""


def finish(attempt: Attempt, queries: int) -> bool:
    """End a cell after so many queries, with what its task and split alone decide."""
    facts = {
        "rows_spent": 8 * queries, "rows_total": 16 * queries, "train_rows": 8, "calls_total": 2 * queries,
        "queries": queries, "tokens": TOKENS * queries, "bytes_up": 10 * queries, "bytes_down": 20 * queries,
        "lm_s": sum([0.1] * queries, start=0.0), "level": 1, "access": "black-box", "sandbox": "made up",
        "tuning_s": 1.0, "detail": "",
    }  # fmt: skip
    predicted = np.random.default_rng(attempt.split).integers(2, size=len(TEST))
    kept = [
        KeptAnswer(mark, int(8 * queries * mark), f"{attempt.split} {mark}".encode(), predicted) for mark in (0.5, 1.0)
    ]
    return attempt.finish("ok", CellRecord(**facts), examples_sha256(TEST), TEST.labels, kept)


def cell(store: Store, run: str, split: int, queries: int = 4, *, tell: bool = False) -> bool:
    """Run a cell; whether it was the first to finish it."""
    attempt = store.begin(run, "sst2", split)
    for number in range(queries):
        attempt.record(LedgerRow(8, TOKENS, 10, 20, 0.1, 1, f"{split}/{number}"))
        if tell:
            print(attempt.number, number, flush=True)
    return finish(attempt, queries)


def main(url: str, what: str) -> None:
    store = Store(url)
    run = store.open_run(key(), {})
    if what == "cells":  # all processes the same ones, in orders of their own
        order = np.random.default_rng().permutation(12)
        print(sum(cell(store, run, int(split)) for split in order))
    else:
        cell(store, run, 0, queries=1_000_000, tell=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
