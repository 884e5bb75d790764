"""Every way a cell may end, each by a small submission in a real worker process."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from made_up import key
from outer_models import CALLS, ROWS, TRAIN_ROWS

from harness.errors import StoreError
from harness.evaluation.referee import run_cell
from harness.lm.fingerprint import probe
from harness.results import tables
from harness.results.digests import chained
from harness.results.status import COUNTS, MARKS
from harness.sandbox.submission import find
from harness.solving.metrics import majority_prediction

if TYPE_CHECKING:
    from outer_models import Arena, Run

SEARCH = "tune = search"


def sums(run: Run) -> int:
    return sum(row.rows for row in run.ledger)


def test_a_tune_that_returns_is_ok(arena: Arena) -> None:
    run = arena.run("""
        def tune(lm, task, shots, rng, config):
            yield Answer.of(task)
    """)
    assert run.status == "ok"
    assert run.ledger == []
    assert run.verdict.score is not None
    assert run.record.rows_spent == 0
    assert run.record.config == {"step": 1.0}
    assert run.record.worker_peak_mb > 10
    assert run.record.worker_exit == 0
    assert run.record.device_peak_mb is None
    assert run.record.probe == probe(arena.lm, arena.cell().task)


def test_a_note_that_is_not_finite_costs_no_answer(arena: Arena) -> None:
    """It discarded the cell, with a message about JSON."""
    run = arena.run("""
        def tune(lm, task, shots, rng, config):
            yield Answer.of(task, loss=float("nan"), dev=0.5)
    """)
    assert run.status == "ok"
    assert run.record.note == {"dev": 0.5}
    assert "note 'loss' is nan" in run.record.output


def test_the_budget_ends_a_search_exactly(arena: Arena) -> None:
    run = arena.run(SEARCH)
    assert run.status == "budget_exhausted"
    assert sums(run) == run.record.rows_spent == ROWS
    assert run.record.queries == CALLS // 2
    assert run.record.nominal_down == 4 * 2 * ROWS  # a float for each label word
    prompts = 2 * ROWS  # in `tokens`, but nobody uploads p0
    assert run.record.nominal_up == 3 * (run.record.tokens - prompts) + CALLS * 4 * 4  # and four floats of z a call
    assert 0 < run.record.declared_bytes < run.record.nominal_up
    assert run.record.level == 1
    assert "loss" in run.record.note


def test_answers_are_kept_at_fixed_fractions_of_the_budget(arena: Arena) -> None:
    run = arena.run(
        """
        def tune(lm, task, shots, rng, config):
            for number in range(100):
                yield Answer((Member(task.template, task.words, shift=(number * 1.0, 0.0)),))
                lm.logits(None, shots.train.texts)
    """,
        calls=16,
    )
    blobs = {mark: run.store.answer(run.stored.run, "sst2", 1, mark) for mark in MARKS}
    from harness.solving.answers import from_bytes

    shifts = {mark: from_bytes(blob).members[0].shift[0] for mark, blob in blobs.items() if blob}  # type: ignore[index]
    assert shifts == {1 / 256: 0, 1 / 64: 0, 1 / 16: 1, 1 / 8: 2, 1 / 4: 4, 1 / 2: 8, 1.0: 16}
    assert set(run.stored.predictions) == set(run.stored.record.marks) == set(MARKS)
    assert all(len(p) == len(run.stored.labels) for p in run.stored.predictions.values())
    assert (run.stored.predictions[1.0] == 0).all()


def test_a_mark_without_an_answer_has_no_predictions(arena: Arena) -> None:
    run = arena.run("""
        def tune(lm, task, shots, rng, config):
            lm.logits(None, shots.train.texts * 3)
            yield Answer.of(task)
    """)
    assert set(run.stored.predictions) == {1 / 2, 1.0}


def test_time_is_up_with_an_answer(arena: Arena) -> None:
    run = arena.run(
        """
        def tune(lm, task, shots, rng, config):
            yield Answer.of(task)
            time.sleep(60)
    """,
        wall_s=4,
    )
    assert run.status == "timeout"
    assert run.verdict.score is not None
    assert run.record.tuning_s < 10


def test_time_is_up_without_an_answer(arena: Arena) -> None:
    run = arena.run(
        """
        def tune(lm, task, shots, rng, config):
            time.sleep(60)
            yield
    """,
        wall_s=3,
    )
    assert run.status == "no_answer"
    assert "wall-clock" in run.record.detail
    assert run.stored.predictions == {}


def test_an_end_without_a_single_answer_has_a_status_of_its_own(arena: Arena) -> None:
    run = arena.run("""
        def tune(lm, task, shots, rng, config):
            lm.logits(None, shots.dev.texts)
            return
            yield
    """)
    assert run.status == "no_answer"
    assert run.verdict.score is None
    assert sums(run) == 8


def test_a_crash_keeps_its_traceback_and_what_was_printed(arena: Arena) -> None:
    run = arena.run("""
        def tune(lm, task, shots, rng, config):
            yield Answer.of(task)
            print("about to fall", flush=True)
            raise LookupError("lost my way")
    """)
    assert run.status == "crashed"
    assert "LookupError: lost my way" in run.record.detail
    assert 'submission.py", line' in run.record.detail
    assert "about to fall" in run.record.output
    assert run.status not in COUNTS
    assert run.verdict.score is None


@pytest.mark.parametrize("leave", ["sys.exit(0)", "os._exit(0)", "os._exit(3)", "os.kill(os.getpid(), signal.SIGSEGV)"])
def test_leaving_before_the_end_is_a_crash(arena: Arena, leave: str) -> None:
    run = arena.run(f"""
        def tune(lm, task, shots, rng, config):
            yield Answer.of(task)
            {leave}
    """)
    assert run.status == "crashed"
    assert run.record.detail


def test_closing_every_descriptor_is_a_crash(arena: Arena) -> None:
    run = arena.run("""
        def tune(lm, task, shots, rng, config):
            yield Answer.of(task)
            os.closerange(0, 64)
            lm.logits(None, shots.train.texts)
    """)
    assert run.status == "crashed"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("import a_module_that_is_not_there", "cannot be imported or configured:\nTraceback"),
        ("raise ValueError('at import')", "cannot be imported or configured:\nTraceback"),
        ("nothing = 1", "tune"),
        ("tune = search\nConfig = 3", "Config"),
        ("tune = search\nos._exit(7)", "exit code 7"),
        ("tune = search\nsys.exit(0)", "SystemExit"),
    ],
)
def test_a_submission_that_cannot_be_imported_is_a_status_of_its_cell(arena: Arena, body: str, why: str) -> None:
    run = arena.run(body)
    assert run.status == "crashed"
    assert run.record.detail.startswith(f"{arena.folder / 'entry'}: ")
    assert why in run.record.detail
    assert (run.record.config, run.stored.predictions, run.verdict.score) == ({}, {}, None)


@pytest.mark.parametrize("options", [{"step": "wide"}, {"width": "3"}])
def test_an_option_that_does_not_fit_is_a_status_of_its_cell(arena: Arena, options: dict[str, str]) -> None:
    run = arena.run(SEARCH, options)
    assert run.status == "crashed"
    assert next(iter(options)) in run.record.detail


def test_options_reach_the_submission(arena: Arena) -> None:
    run = arena.run(
        """
        def tune(lm, task, shots, rng, config):
            assert config.step == 0.5
            yield Answer.of(task)
    """,
        {"step": "0.5"},
    )
    assert run.record.config == {"step": 0.5}


@pytest.mark.parametrize(
    "answer",
    [
        "'positive'",
        "None",
        "Answer(())",
        "Answer((Member(task.template, task.words[:1]),))",
        "Answer((Member('no mask in it: {a}', task.words),))",
        "Answer((Member(task.template, ('antidisestablishmentarianism', 'good')),))",
        "Answer((Member(task.template, task.words, Prompt(np.zeros((2, 1, 2, 16)))),))",
        "Answer((Member(task.template, task.words, Prompt(np.full((1, 1, 2, 16), np.nan))),))",
        "Answer((Member(task.template, task.words, shift=(1.0,)),))",
        "Answer((Member(task.template, task.words, alpha=0.5),))",
        "Answer((Member(task.template, ('x' * 300, 'y')),))",
    ],
)
def test_an_answer_that_breaks_the_contract_has_a_status_of_its_own(arena: Arena, answer: str) -> None:
    run = arena.run(f"""
        def tune(lm, task, shots, rng, config):
            yield {answer}
    """)
    assert run.status == "invalid_answer"
    assert run.record.detail


def test_an_answer_over_the_size_limit_is_invalid(arena: Arena) -> None:
    run = arena.run(
        """
        def tune(lm, task, shots, rng, config):
            wide = Subspace(6000, (1.0,), 2, 0).at(np.ones(6000))
            yield Answer(tuple(Member(task.template, task.words, wide) for _ in range(60)))
    """,
        answer_mb=1,
    )
    assert run.status == "invalid_answer"
    assert "bytes" in run.record.detail


@pytest.mark.parametrize(
    "garbage",
    [
        "b'garbage that is no frame, but long enough to look like one'",
        "struct.pack('<I', 2**32 - 1) + b'x' * 100",
        "struct.pack('<I', 0)",
        "struct.pack('<I', 5) + b'\\x93abcd'",
    ],
)
def test_garbage_on_the_socket_is_a_protocol_error(arena: Arena, garbage: str) -> None:
    run = arena.run(f"""
        def tune(lm, task, shots, rng, config):
            yield Answer.of(task)
            os.write(int(sys.argv[1]), {garbage})
            time.sleep(30)
    """)
    assert run.status == "protocol_error"
    assert run.verdict.score is None
    assert run.record.tuning_s < 25


def test_more_memory_than_the_limit_is_out_of_memory(arena: Arena) -> None:
    run = arena.run(
        """
        def tune(lm, task, shots, rng, config):
            yield Answer.of(task)
            held = [np.ones(2**25) for _ in range(100)]
            yield Answer.of(task, note=len(held))
    """,
        memory_gb=2,
    )
    assert run.status == "out_of_memory"
    assert "MemoryError" in run.record.detail


def test_a_worker_killed_from_outside_is_out_of_memory_as_the_kernel_does_it(arena: Arena) -> None:
    run = arena.run(
        """
        def tune(lm, task, shots, rng, config):
            yield Answer.of(task)
            os.kill(os.getpid(), signal.SIGKILL)
    """,
        tier="0",
    )  # in all others it cannot
    assert run.status == "out_of_memory"
    assert "killed" in run.record.detail


def test_swallowing_the_refusal_for_ever_ends_by_the_budget(arena: Arena) -> None:
    run = arena.run("""
        def tune(lm, task, shots, rng, config):
            yield Answer.of(task)
            while True:
                try:
                    lm.logits(None, shots.train.texts * 100)
                except BudgetExhausted as refused:
                    assert refused.rows_asked == 800 and refused.rows_left == 80
    """)
    assert run.status == "budget_exhausted"
    assert run.ledger == []
    assert run.record.rows_spent == 0
    assert run.record.refused == 1001


def test_swallowing_the_refusal_and_asking_for_less_is_allowed(arena: Arena) -> None:
    run = arena.run("""
        def tune(lm, task, shots, rng, config):
            yield Answer.of(task)
            try:
                lm.logits(None, shots.train.texts * 11)
            except BudgetExhausted:
                lm.logits(None, shots.train.texts * 10)
    """)
    assert run.status == "ok"
    assert sums(run) == ROWS


def test_malformed_queries_cost_nothing_and_can_be_caught(arena: Arena) -> None:
    run = arena.run("""
        def tune(lm, task, shots, rng, config):
            texts = shots.train.texts
            bad = (
                lambda: lm.logits(None, texts, words=["antidisestablishmentarianism"]),
                lambda: lm.logits(None, texts, words=[]),
                lambda: lm.logits(None, texts, words=["x" * 1000]),
                lambda: lm.logits(None, texts, words=[3]),
                lambda: lm.logits(None, texts, template="no mask"),
                lambda: lm.logits(None, texts, template="{a} {mask}" + "x" * 5000),
                lambda: lm.logits(None, texts, template=7),
                lambda: lm.logits(None, []),
                lambda: lm.logits(None, [(1,)]),
                lambda: lm.logits(None, [("a", "b")]),
                lambda: lm.logits([None], texts),
                lambda: lm.logits(None, [None]),
                lambda: lm.logits(Prompt(np.zeros((1, 1, 2, 17))), texts),
                lambda: lm.logits(Prompt(np.zeros((1, 1, 2, 16)), mode="multiply"), texts),
                lambda: lm.logits(Prompt(np.full((1, 1, 2, 16), np.inf)), texts),
                lambda: lm.logits(Subspace(4, (1.0,), 2, seed=-1).at(np.zeros(4)), texts),
                lambda: lm.logits(Subspace(4, (1.0,), 99, seed=0).at(np.zeros(4)), texts),
                lambda: lm.outputs(None, texts, features="some"),
                lambda: lm.word_ids([None]),
            )
            for number, ask in enumerate(bad):
                try:
                    ask()
                except QueryError:
                    continue
                raise AssertionError(f"query {number} was answered")
            assert lm.budget.rows_left == lm.budget.rows_total
            yield Answer.of(task)
    """)
    assert run.record.detail == ""
    assert run.status == "ok"
    assert run.ledger == []


def test_numpy_strings_and_lists_are_texts_and_words_too(arena: Arena) -> None:
    run = arena.run("""
        def tune(lm, task, shots, rng, config):
            texts = [list(np.array(text)) for text in shots.train.texts]
            a = lm.logits(None, texts, words=list(np.array(task.words)))
            b = lm.logits(None, [text for (text,) in shots.train.texts])
            assert (a == b).all() and a.shape == (1, 8, 2)
            yield Answer.of(task)
    """)
    assert run.record.detail == ""


def test_a_flood_on_stdout_is_capped_and_binary_is_harmless(arena: Arena) -> None:
    run = arena.run("""
        def tune(lm, task, shots, rng, config):
            yield Answer.of(task)
            for _ in range(300):
                os.write(1, bytes(range(256)) * 256)
            os.write(1, b"the end")
    """)
    assert run.status == "ok"
    assert len(run.record.output) <= 8 << 10
    assert run.record.output.endswith("the end")


def test_a_child_of_the_submission_does_not_outlive_its_cell(arena: Arena) -> None:
    note = arena.folder / "child"
    run = arena.run(
        f"""
        def tune(lm, task, shots, rng, config):
            yield Answer.of(task)
            child = subprocess.Popen(["sleep", "600"])
            open({str(note)!r}, "w").write(f"{{child.pid}} {{os.getpid()}}")
    """,
        tier="0",
    )  # in all others it can have none
    assert run.status == "ok"
    pids = [int(word) for word in note.read_text().split()]
    deadline = time.monotonic() + 5
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in pids)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] not in "ZX"
    except OSError:
        return False


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(arena: Arena) -> None:
    first, second, other = arena.run(SEARCH), arena.run(SEARCH), arena.run(SEARCH, seed=1)
    digests = [[row.sha256 for row in run.ledger] for run in (first, second, other)]
    assert digests[0] == digests[1]
    assert not set(digests[0]) & set(digests[2])
    for mark in MARKS:
        assert (first.stored.predictions[mark] == second.stored.predictions[mark]).all()
    assert first.verdict.score == second.verdict.score


def test_the_hash_chain_can_be_recomputed_and_notices_a_change(arena: Arena) -> None:
    import hashlib

    run = arena.run(SEARCH)
    start = hashlib.sha256(f"{run.stored.run}/sst2/1/{run.stored.attempt}".encode()).hexdigest()
    with run.store.snapshot() as raw:
        links = list(raw.execute(sa.select(tables.queries.c.chain).order_by(tables.queries.c.number)).scalars())
    link = start
    for row, stored in zip(run.ledger, links, strict=True):
        link = chained(link, vars(row))
        assert stored == link
    assert chained(start, vars(run.ledger[0]) | {"rows": 1}) != links[0]


def test_a_job_larger_than_the_socket_buffer_arrives(arena: Arena) -> None:
    import msgspec

    cell = arena.cell()
    big = msgspec.structs.replace(cell.spec, shots=19, dev=20)
    import dataclasses

    long = dataclasses.replace(cell.task, classes=("n" * 300_000, "p" * 300_000))
    run = arena.store.open_run(key(), {})
    attempt = arena.store.begin(run, "sst2", 1)
    found = find(arena.submission("def tune(lm, task, shots, rng, config):\n    yield Answer.of(task)"))
    changed = dataclasses.replace(cell, spec=big, task=long)
    verdict = run_cell(changed, found, {}, arena.lm, attempt, lambda _rows, _note: None)
    assert verdict.status == "ok"


def test_a_store_that_fails_ends_the_run_and_the_worker(arena: Arena) -> None:
    class Full:
        run, task, split, number = "r", "sst2", 1, 1

        def record(self, row: object) -> None:
            raise StoreError("disk full")

    arena.store.open_run(key(), {})
    found = find(arena.submission(SEARCH))
    before = set(children())
    with pytest.raises(StoreError, match="disk full"):
        run_cell(arena.cell(), found, {}, arena.lm, Full(), lambda _rows, _note: None)  # type: ignore[arg-type]
    assert set(children()) <= before


def children() -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == os.getpid():
            found.append(int(path.parent.name))
    return found


def test_a_failed_cell_is_never_better_than_the_majority_class(arena: Arena) -> None:
    from harness.leaderboard.rank import score_cell

    run = arena.run("""
        def tune(lm, task, shots, rng, config):
            yield Answer.of(task)
            raise ValueError
    """)
    labels = run.stored.labels
    assert score_cell(run.stored).score == (majority_prediction(labels) == labels).mean()


def test_the_price_of_a_call_is_the_training_set(arena: Arena) -> None:
    run = arena.run("""
        def tune(lm, task, shots, rng, config):
            assert (len(shots.train), len(shots.dev)) == (8, 8)
            assert lm.budget.calls_total == 10 and lm.budget.train_rows == 8
            lm.logits(None, shots.train.texts)
            assert lm.budget.calls_left == 9
            lm.outputs(None, shots.dev.texts[:4], features="cls")
            assert lm.budget.calls_left == 8.5
            yield Answer.of(task)
    """)
    assert run.record.detail == ""
    assert [row.level for row in run.ledger] == [0, 3]
    assert run.record.train_rows == TRAIN_ROWS


def test_a_configuration_of_odd_values_is_stored_as_it_prints(arena: Arena) -> None:
    run = arena.run("""
        @dataclass(frozen=True)
        class Config:
            box: float = float("inf")
            widths: tuple = (1, 2.5)
            table: object = range(3)
            name: object = np.str_("x")

        def tune(lm, task, shots, rng, config):
            yield Answer.of(task)
    """)
    assert run.record.config == {"box": "inf", "widths": [1, 2.5], "table": "range(0, 3)", "name": "np.str_('x')"}
