"""The attack on the last layer finds what is there, through the meter, and a submission can make it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import outer_models
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import InputError
from harness.evaluation.overrides import Overrides
from harness.evaluation.run import Evaluation
from harness.leaks.extraction import extract
from harness.leaks.intervals import share
from harness.leaks.last_layer import Collected, steal, steps
from harness.results.store import Store
from harness.tracks.defences import Defences
from harness.tracks.track import load_track

if TYPE_CHECKING:
    from pathlib import Path

    from outer_models import Arena

DIMENSIONS = outer_models.WIDTH - 1
"""Behind a LayerNorm states sum to 0. The random model has no bias, which would be a dimension in its place."""
THE_PROBE = """
def tune(lm, task, shots, rng, config):
    words = [word for word in lm.vocabulary() if word.isalpha()][:64]
    texts = lambda: [(" ".join(rng.choice(words, 8)),) for _ in shots.train.texts]
    q = np.concatenate([lm.logits(None, texts(), words=words)[0] for _ in range(5)]).astype(float)
    s = np.linalg.svd(q - q.mean(axis=1, keepdims=True), compute_uv=False)
    falls = np.log(s[1:-2]) - np.log(s[2:-1])
    lm.log(width=int(falls.argmax()) + 2)
    yield Answer.of(task)
"""


def made_up(rows: int, words: int, width: int, rng: np.random.Generator) -> tuple[Collected, np.ndarray]:
    head, bias = rng.standard_normal((words, width)), rng.standard_normal(words)
    seen, unseen = rng.standard_normal((2, max(rows, 40), width)) + 3.0
    names = tuple(f"w{i}" for i in range(words))
    normalised = rng.standard_normal((rows, 1))  # what log-probabilities take off: no dimension more
    return Collected(names, seen[:rows] @ head.T + bias + normalised), unseen[:40] @ head.T + bias


@settings(deadline=None, max_examples=25)
@given(st.integers(3, 20), st.integers(0, 1000))
def test_the_width_and_the_subspace_of_any_head_are_found(width: int, seed: int) -> None:
    found, unseen = made_up(2 * width + 4, 4 * width, width, np.random.default_rng(seed))
    stolen = steal(found, unseen, width + 1, 2 * width + 4, 8)  # the bias is one dimension more
    assert stolen.width == width + 1
    assert stolen.width_error == 0
    assert stolen.subspace_error < 1e-8
    assert stolen.explained > 1 - 1e-8
    assert stolen.agreement.value == 1


def test_fewer_rows_than_the_width_steal_a_part() -> None:
    found, unseen = made_up(40, 80, 20, np.random.default_rng(0))
    errors = [steal(found, unseen, 21, rows, 8).subspace_error for rows in (8, 12, 16, 20)]
    assert errors == sorted(errors, reverse=True)
    assert 0.1 < errors[0] < 1
    assert steal(found, unseen, 21, 12, 8).width == 0
    assert steal(found, unseen, 21, 12, 8).width_error == 1


def test_the_steps_of_a_curve_end_with_all_rows() -> None:
    assert steps(7) == []
    assert steps(8) == [8]
    assert steps(30) == [8, 11, 16, 23, 30]


def test_intervals_of_shares_are_those_of_clopper_and_pearson() -> None:
    assert (share(0, 0).low, share(0, 0).high) == (0, 1)
    assert share(0, 10).high == pytest.approx(1 - 0.025 ** (1 / 10))
    assert share(10, 10).low == pytest.approx(0.025 ** (1 / 10))


def test_the_attack_is_metered_and_finds_the_width(tiny_track: Path) -> None:
    store = Store("sqlite://")
    evaluation = Evaluation(load_track(str(tiny_track)), Overrides(tasks=("sst2",), splits=(1,)), store)
    found = extract(evaluation, evaluation.cells[0], store, rows=48, words=64)
    assert found.rows_spent == 48
    assert found.calls_spent == 6
    (run,) = store.runs()
    (cell,) = store.open_cells(run.id)
    assert sum(row.rows for row in store.ledger(cell.attempt)) == 48
    assert found.last is not None
    assert found.width == outer_models.WIDTH
    assert found.last.width == DIMENSIONS
    assert found.last.width_error == 1 / 16
    assert found.last.subspace_error < 1e-4
    assert found.last.agreement.value > 0.95
    again = extract(evaluation, evaluation.cells[0], store, rows=48, words=64)
    assert again.curve == found.curve
    store.close()


def test_the_budget_ends_the_attack(tiny_track: Path) -> None:
    store = Store("sqlite://")
    choices = Overrides(tasks=("sst2",), splits=(1,), calls=3)
    evaluation = Evaluation(load_track(str(tiny_track)), choices, store)
    found = extract(evaluation, evaluation.cells[0], store, rows=200, words=64)
    assert found.rows_spent == 24
    with pytest.raises(InputError, match="at least 8 rows"):
        extract(evaluation, evaluation.cells[0], store, rows=2)
    with pytest.raises(InputError, match="the vocabulary has"):
        extract(evaluation, evaluation.cells[0], store, rows=20, words=1_000_000)
    store.close()


def test_a_submission_in_the_sandbox_can_make_the_attack(arena: Arena) -> None:
    """The exposure is known: docs/leaks.md. `harness.tracks.defences` closes it."""
    ran = arena.run(THE_PROBE)
    assert ran.status == "ok", ran.record.detail
    assert ran.record.rows_spent == 40
    assert dict(ran.record.log[0][1]) == {"width": DIMENSIONS}


def test_the_command_writes_what_it_shows(tiny_track: Path, tmp_path: Path) -> None:
    asked = ["leaks", "--track", str(tiny_track), "--task", "sst2", "--rows", "48", "--words", "64"]
    shown = CliRunner().invoke(app, [*asked, "--out", str(tmp_path)])
    assert shown.exit_code == 0, shown.output
    assert "logits of 49 other words" in shown.output
    machines = CliRunner().invoke(app, [*asked, "--json"])
    rows = json.loads(machines.stdout)["layer"]
    written = (tmp_path / "layer.csv").read_text(encoding="utf-8").splitlines()
    assert len(written) == len(rows) + 1
    assert rows[-1]["width"] == DIMENSIONS
    assert "logits of 49 other words" in machines.stderr


def test_the_ledger_of_the_attack_is_kept_where_a_database_is_named(tiny_track: Path, tmp_path: Path) -> None:
    url = tmp_path / "attack.db"
    asked = ["leaks", "--track", str(tiny_track), "--task", "sst2", "--rows", "16", "--words", "32"]
    done = CliRunner().invoke(app, [*asked, "--store", str(url)])
    assert done.exit_code == 0, done.output
    store = Store(str(url), create=False)
    (run,) = store.runs()
    assert run.key.entry.startswith("leaks")
    assert sum(cell.rows for cell in store.open_cells(run.id)) == 16
    store.close()


def test_a_refusal_is_told_beside_json_too(tiny_track: Path, tmp_path: Path) -> None:
    """The table of a refused attack is empty; without the reason nobody knew why."""
    closed = tmp_path / "tiny.toml"
    text = tiny_track.read_text(encoding="utf-8") + "\n[defences]\nmost_texts = 1\nmost_rank = 1\n"
    closed.write_text(text, encoding="utf-8")
    asked = ["leaks", "--track", str(closed), "--task", "sst2", "--split", "1", "--rows", "16", "--words", "32"]
    done = CliRunner().invoke(app, [*asked, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["layer"] == []
    assert "refused: " in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["behaviour", "--rows", "16"], "--rows and --words go with layer alone"),
        (["--policy", "x.toml", "--words", "16"], "--rows and --words go with layer alone"),
        (["behaviour", "--policy", "x.toml"], "leave behaviour out"),
        (["stored", "--policy", "x.toml"], "leave stored out"),
    ],
)
def test_what_would_be_ignored_is_refused(words: list[str], said: str) -> None:
    done = CliRunner().invoke(app, ["leaks", *words])
    assert isinstance(done.exception, InputError)
    assert said in str(done.exception)


@pytest.mark.slow
def test_the_embedded_model_gives_its_last_layer_away_for_15_of_300_calls() -> None:
    store = Store("sqlite://")
    evaluation = Evaluation(load_track("mini"), Overrides(tasks=("sst2",), splits=(1,)), store)
    found = extract(evaluation, evaluation.cells[0], store)
    assert found.last is not None
    assert (found.calls_spent, found.last.width) == (15, 384)
    assert found.last.gap > 100
    assert found.last.subspace_error < 1e-3
    assert found.last.explained > 0.9999
    store.close()


def test_a_defence_closes_it_in_the_sandbox_too(arena: Arena) -> None:
    closed = Defences(words="task", hidden_states=False)
    ran = arena.run(THE_PROBE, defences=closed)
    assert ran.status == "crashed"
    assert "words are none of the task's 2 label words" in ran.record.detail
    assert ran.record.rows_spent == 0
    assert ran.record.asked is None


def test_what_a_cell_was_given_is_stored(arena: Arena) -> None:
    asked = arena.run(THE_PROBE).record.asked
    assert asked is not None
    assert (asked.words, asked.texts, asked.rows) == (64, 40, 40)
    assert asked.rank(outer_models.WIDTH) == outer_models.WIDTH


def test_a_cap_on_texts_is_gone_around_by_templates(tiny_track: Path) -> None:
    """Rows differ where their templates do; a cap on the rank counts rows and holds."""
    known = {}
    for name, defences in (("texts", Defences(most_texts=4)), ("rank", Defences(most_rank=4))):
        store = Store("sqlite://")
        track = msgspec.structs.replace(load_track(str(tiny_track)), given_defences=defences)
        evaluation = Evaluation(track, Overrides(tasks=("sst2",), splits=(1,)), store)
        found = extract(evaluation, evaluation.cells[0], store, rows=40, words=64)
        assert found.refused
        known[name] = found.rows_spent, found.last.share if found.last else 0.0
        store.close()
    assert known["texts"][0] == 40
    assert known["texts"][1] > 0.8
    assert known["rank"] == (4, 0.0), "no curve of less than 8 rows"
