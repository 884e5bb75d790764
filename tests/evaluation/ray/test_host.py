"""A host without a cluster: it unpacks submissions, runs cells at once, and reports errors."""

from __future__ import annotations

import dataclasses
import os
import pickle
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from outer_models import ROWS, write_submission

from harness.blackbox.lock import DeviceLock, waited_s
from harness.errors import InputError, SubmissionError
from harness.evaluation.engines import ray as on_ray
from harness.evaluation.engines.host import Host, Parcel
from harness.evaluation.engines.job import Job
from harness.evaluation.overrides import Overrides
from harness.evaluation.run import Evaluation
from harness.results.store import Store
from harness.sandbox.submission import find
from harness.tracks.track import load_track

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.evaluation.referee import Cell


def test_a_submission_arrives_as_it_was_sent(tmp_path: Path) -> None:
    place = write_submission(tmp_path, "tune = search")
    (place / "more").mkdir()
    (place / "more" / "data.bin").write_bytes(bytes(range(256)))
    sent = find(place)
    parcel = pickle.loads(pickle.dumps(Parcel.of(sent, {"step": "2"})))  # noqa: S301 - as Ray sends it
    (place / "submission.py").write_text("changed meanwhile = True", encoding="utf-8")
    assert parcel.unpack() == sent
    assert parcel.unpack().files == sent.files


def test_a_submission_that_changed_on_the_way_is_refused(tmp_path: Path) -> None:
    sent = find(write_submission(tmp_path, "tune = search"))
    parcel = Parcel.of(sent, {})
    other = dataclasses.replace(parcel, files=(*parcel.files, ("extra.py", b"")))
    with pytest.raises(SubmissionError, match="changed while it was sent"):
        other.unpack()


def test_a_thread_counts_what_it_waits_for_others_and_not_for_itself() -> None:
    turns, waits = DeviceLock(), {}

    def hold(name: str, delay_s: float) -> None:
        time.sleep(delay_s)
        before = waited_s()
        with turns, turns:
            time.sleep(0.2)
        waits[name] = waited_s() - before

    threads = [threading.Thread(target=hold, args=(name, delay)) for name, delay in (("first", 0.0), ("second", 0.05))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert waits["first"] < 0.05
    assert waits["second"] > 0.05


def run(evaluation: Evaluation, store: Store, path: Path, at_once: int) -> str:
    """Run all cells of a submission, several at once."""
    submission = find(path)
    opened = evaluation.plan.open(store, submission, {})

    def one(cell: Cell) -> Any:
        return evaluation.run_cell(opened.id, cell, submission, {}, lambda _rows, _note: None)

    with ThreadPoolExecutor(at_once) as pool:
        assert all(verdict.stored for verdict in pool.map(one, opened.todo))
    return opened.id


def test_cells_at_once_have_the_numbers_of_cells_one_by_one(tiny_track: Path, tmp_path: Path) -> None:
    """Every query and reply, to the last bit; and each ledger is whole."""
    path, facts = write_submission(tmp_path, "tune = search"), []
    for at_once in (1, 3):
        store = Store(str(tmp_path / f"{at_once}.db"))
        evaluation = Evaluation(load_track(str(tiny_track)), Overrides(), store)
        name = run(evaluation, store, path, at_once)
        cells = store.cells(name)
        assert [cell.record.rows_spent for cell in cells] == [ROWS] * 3
        ledgers = [[row.sha256 for row in store.ledger(cell.attempt)] for cell in cells]
        predictions = [{mark: p.tolist() for mark, p in cell.predictions.items()} for cell in cells]
        facts.append((name, ledgers, predictions, [cell.record.probe for cell in cells]))
        store.close()
    assert facts[0] == facts[1]


@pytest.mark.slow
def test_waiting_for_others_takes_nothing_from_a_cells_time(tiny_track: Path, tmp_path: Path) -> None:
    """Another thread holds the device for longer than the cell's time limit. The cell still ends by its budget."""
    store = Store(str(tmp_path / "results.db"))
    evaluation = Evaluation(load_track(str(tiny_track)), Overrides(tasks=("qqp",)), store)
    (cell,) = evaluation.cells
    cell = dataclasses.replace(cell, limits=msgspec.structs.replace(cell.limits, wall_s=20))
    submission, started = find(write_submission(tmp_path, "tune = search")), threading.Event()
    opened = evaluation.plan.open(store, submission, {})
    forward: Callable[..., Any] = evaluation.lm._forward
    calls = []

    def slow(*arguments: Any) -> Any:
        calls.append(time.monotonic())
        if len(calls) == 3:
            started.set()
        return forward(*arguments)

    def hog() -> None:
        started.wait(60)
        with evaluation.lm.device_lock:
            time.sleep(22)

    evaluation.lm._forward = slow  # type: ignore[method-assign]
    hogging = threading.Thread(target=hog)
    hogging.start()
    verdict = evaluation.run_cell(opened.id, cell, submission, {}, lambda _rows, _note: None)
    hogging.join()
    store.close()
    assert verdict.status == "budget_exhausted"
    assert verdict.record.waited_s > 15
    assert verdict.record.tuning_s < 20
    assert verdict.record.lm_s < 20


def test_a_host_answers_for_what_is_wrong_and_runs_what_is_right(
    tiny_track: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    url = str(tmp_path / "results.db")
    wrong = Host(load_track(str(tiny_track)), Overrides(tasks=("nothing",)), url, "1", isolated=True)
    assert isinstance(wrong.load(), InputError)
    host = Host(load_track(str(tiny_track)), Overrides(tasks=("qqp",)), url, "1", isolated=True)
    assert os.environ["OMP_NUM_THREADS"] == "1"
    loaded = host.load()
    assert not isinstance(loaded, Exception)
    store = Store(url)
    good = find(write_submission(tmp_path, "tune = search"))
    opened = loaded.plan.open(store, good, {})
    verdict = host.run_cell(Parcel.of(good, {}), opened.id, 0)
    assert verdict is not None
    assert not isinstance(verdict, Exception)
    assert verdict.status == "budget_exhausted"
    assert host.run_cell(Parcel.of(good, {}), opened.id, 0) is None
    bad = find(write_submission(tmp_path, "raise RuntimeError('no')", name="bad"))
    opened = loaded.plan.open(store, bad, {})
    failed = host.run_cell(Parcel.of(bad, {}), opened.id, 0)
    assert failed is not None
    assert not isinstance(failed, Exception)
    assert failed.status == "crashed"
    assert host.run_cell(Parcel.of(bad, {}), opened.id, 0) is None
    opened = loaded.plan.open(store, bad, {}, again=True)
    failed = host.run_cell(Parcel.of(bad, {}), opened.id, 0, opened.replaces(opened.todo[0]))
    assert failed is not None
    assert host.run_cell(Parcel.of(bad, {}), opened.id, 0, opened.replaces(opened.todo[0])) is None, "replaced once"
    assert [cell.record.replaced for cell in store.cells(opened.id)] == [("crashed",)]
    store.close()


def test_without_ray_the_next_step_is_said(tiny_track: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    store = Store(str(tmp_path / "results.db"))
    job = Job(load_track(str(tiny_track)), Overrides(), store, (), {})
    with pytest.raises(InputError, match=r'pip install -e "\.\[ray\]"'):
        on_ray.run(job, None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="--workers 0"):
        on_ray.run(job, None, on_ray.Cluster(workers=0))  # type: ignore[arg-type]
    store.close()
