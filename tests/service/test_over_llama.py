"""`harness serve` and `harness.problem` over a real server, llama.cpp's, with real weights."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

import harness
from harness.contract import Answer
from harness.errors import QueryError
from harness.lm.endpoint.model import connect
from harness.results.audit import audit
from harness.results.store import Store
from harness.service.accounts import Accounts
from harness.tracks.track import load_track

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
TRACK = load_track("api")
CLOSE = 0.05
"""Largest difference between two answers of the server to the same request."""


@contextlib.contextmanager
def serving(url: str, folder: Path) -> Iterator[str]:
    """``harness serve`` in a process of its own, and its address."""
    command = ["serve", "--track", "api", "--task", "sst2", "--split", "1", "--port", "0", "--backend", "openai"]
    command += ["--endpoint", url, "--book", str(folder / "b.db"), "--store", str(folder / "r.db")]
    run = [sys.executable, "-c", "from harness.cli import main; main()", *command]
    with subprocess.Popen(run, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            lines = iter(process.stderr)
            found = next(at[1] for line in lines if (at := re.search(r"(http://127\.0\.0\.1:\d+)", line)))
            yield found
        finally:
            process.terminate()
            process.communicate(timeout=60)


def test_a_solver_over_http_tunes_a_model_over_http(quantised: str, tmp_path: Path) -> None:
    book = Accounts(str(tmp_path / "b.db"))
    token = book.new_token("alice")
    with serving(quantised, tmp_path) as service, harness.connect(service, token, task="sst2") as box:
        texts = box.shots.train.texts
        logits = box.logits(None, texts)
        lm = connect(TRACK.model, TRACK.prompt, quantised)
        ours = lm.outputs(None, texts, box.task.template, box.task.words, "mask").logits
        lm.close()
        assert np.abs((logits - ours)[0, :, 0] - (logits - ours)[0, :, 1]).max() < CLOSE
        with pytest.raises(QueryError, match="returns no hidden states"):
            box.outputs(None, texts)
        assert box.budget.rows_left == box.budget.rows_total - len(texts)
        box.submit(Answer.of(box.task))
        store, until = Store(str(tmp_path / "r.db")), time.monotonic() + 600
        while not store.runs() or not store.cells(store.runs()[0].id):
            assert time.monotonic() < until, "the answer was not scored"
            time.sleep(1)
    book.close()
    (run,) = store.runs()
    (cell,) = store.cells(run.id)
    assert run.key.device.startswith("endpoint llama.cpp")
    assert cell.record.billed is not None
    assert (cell.record.billed.sent, cell.record.billed.received) == (cell.record.tokens, len(texts))
    assert cell.record.billed.test_received == len(cell.labels)
    assert audit(store).findings == ()
    store.close()


def test_a_problem_searches_templates_over_a_real_server(quantised: str) -> None:
    templates = ("{a} . It was{mask}", "Review : {a} . In short , it was{mask}")
    with harness.problem(
        "sst2", track="api", space="template", templates=templates, budget=2, backend="openai", endpoint=quantised
    ) as problem:
        losses = [problem([0]), problem([1])]
        assert np.isfinite(losses).all()
        assert losses[0] != losses[1]
        assert problem.budget_left == 0
        assert 0.3 < (problem.test_score() or 0) <= 1
