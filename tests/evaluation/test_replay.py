"""A replay reproduces an honest run bit for bit, and names what was changed in any other."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from evaluating import Watcher
from made_up import key
from outer_models import write_submission

from harness.contract import Answer
from harness.errors import InputError
from harness.evaluation.overrides import Overrides
from harness.evaluation.replay import Replay, choices_of, replay, sampled
from harness.evaluation.run import Evaluation
from harness.results.finding import find_run
from harness.results.status import MARKS
from harness.results.store import Store
from harness.sandbox.submission import find
from harness.solving import answers
from harness.tracks.track import load_track

SEARCH = "tune = search"
UNSTABLE = """
def tune(lm, task, shots, rng, config):
    yield from search(lm, task, shots, np.random.default_rng(int.from_bytes(os.urandom(4), "little")), config)
"""


@pytest.fixture(scope="module")
def honest(tiny_track: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store of one run and the submission that made it."""
    folder = tmp_path_factory.mktemp("honest")
    evaluate(folder, tiny_track, SEARCH)
    return folder


def evaluate(folder: Path, track: Path, body: str, **choices: Any) -> None:
    store = Store(str(folder / "results.db"))
    Evaluation(load_track(str(track)), Overrides(**choices), store).run(
        find(write_submission(folder, body)), {}, Watcher()
    )
    store.close()


def again(folder: Path, track: Path, sample: int | None = None, name: str = "entry", **given: Any) -> Replay:
    store = Store(str(folder / "results.db"))
    try:
        run = find_run(store, name)
        cells = sampled(store, run.id, sample, np.random.default_rng(0))
        chosen = load_track(str(track))
        choices = choices_of(run.key, cells, chosen, Overrides(**given))
        return replay(store, run, cells, chosen, choices, find(folder / "entry"), Watcher())
    finally:
        store.close()


@pytest.fixture
def folder(honest: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(honest, tmp_path / "copy"))


def change(folder: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(folder / "results.db", isolation_level=None)) as raw:
        raw.execute("PRAGMA foreign_keys=OFF")
        raw.execute(statement, values)


def test_an_honest_run_is_reproduced_bit_for_bit(folder: Path, tiny_track: Path) -> None:
    before = (folder / "results.db").read_bytes()
    found = again(folder, tiny_track)
    assert (found.verdict, found.identity) == ("reproduced", ())
    assert [(cell.task, cell.split) for cell in found.cells] == [("sst2", 1), ("qqp", 1), ("sst2", 2)]
    for cell in found.cells:
        assert cell.queries == (5, 5)
        assert (cell.flipped, cell.drift, cell.difference) == (0, 0.0, "")
        assert cell.predictions == len(MARKS) * 200
    assert (folder / "results.db").read_bytes() == before


def test_a_sample_is_drawn_by_seed_and_never_larger_than_the_run(folder: Path, tiny_track: Path) -> None:
    store = Store(str(folder / "results.db"))
    run = find_run(store, "entry")
    draws = [[(c.task, c.split) for c in sampled(store, run.id, 2, np.random.default_rng(7))] for _ in range(2)]
    assert draws[0] == draws[1]
    assert len(draws[0]) == 2
    assert len(sampled(store, run.id, 99, np.random.default_rng(0))) == 3
    store.close()
    assert len(again(folder, tiny_track, sample=1).cells) == 1


def test_a_changed_reply_is_named_by_its_query(folder: Path, tiny_track: Path) -> None:
    """A reply that was edited before it was sent has another digest."""
    change(folder, "UPDATE queries SET sha256 = 'f00d' WHERE number = 3 AND attempt = 1")
    found = again(folder, tiny_track, sample=None)
    assert found.verdict == "not reproduced"
    assert [cell.difference.split(" then")[0] for cell in found.cells] == ["query 3: sha256 f00d", "", ""]


def test_queries_that_were_never_asked_are_found(folder: Path, tiny_track: Path) -> None:
    columns = "rows, tokens, bytes_up, bytes_down, seconds, level, sha256, chain"
    change(
        folder,
        f"INSERT INTO queries SELECT attempt, 5, {columns} FROM queries WHERE attempt = 1 AND number = 4",  # noqa: S608
    )
    assert "query 5: 6 queries then, 5 now" in {cell.difference for cell in again(folder, tiny_track).cells}


def test_predictions_that_are_not_of_the_answer_are_found(folder: Path, tiny_track: Path) -> None:
    store = Store(str(folder / "results.db"))
    labels = store.cells(find_run(store, "entry").id)[0].labels
    store.close()
    change(
        folder, "UPDATE incumbents SET predictions = ? WHERE attempt = 1 AND mark = 1", labels.astype("<i2").tobytes()
    )
    found = again(folder, tiny_track)
    by_cell = {(cell.task, cell.split): cell for cell in found.cells}
    assert by_cell["sst2", 1].verdict == "not reproduced"
    assert by_cell["sst2", 1].flipped > 20
    assert by_cell["sst2", 1].difference == "predictions at 1.0 of the budget: others now, from the same answer"
    assert by_cell["sst2", 2].verdict == "reproduced"


def test_an_answer_that_the_submission_does_not_give_is_found(folder: Path, tiny_track: Path) -> None:
    store = Store(str(folder / "results.db"))
    blob = store.answer(find_run(store, "entry").id, "sst2", 1)
    store.close()
    assert blob is not None
    other = answers.to_bytes(Answer(answers.from_bytes(blob).members, {"loss": 0.0}))
    change(folder, "INSERT INTO answers VALUES ('other', ?)", other)
    change(folder, "UPDATE incumbents SET answer = 'other' WHERE attempt = 1 AND mark = 1")
    differences = {cell.difference for cell in again(folder, tiny_track).cells}
    assert "answer at 1.0 of the budget: another one now" in differences


def test_an_answer_that_cannot_be_read_gives_no_prediction(folder: Path, tiny_track: Path) -> None:
    change(folder, "INSERT INTO answers VALUES ('other', x'00')")
    change(folder, "UPDATE incumbents SET answer = 'other' WHERE attempt = 1 AND mark = 1")
    assert {cell.flipped for cell in again(folder, tiny_track).cells} == {0, 200}


def test_another_model_is_told_by_identity_and_by_the_fixed_texts(
    folder: Path, tiny_track: Path, tmp_path: Path
) -> None:
    import safetensors.torch

    track = load_track(str(tiny_track))
    swapped = Path(shutil.copytree(track.model.source, tmp_path / "swapped"))
    weights = safetensors.torch.load_file(swapped / "model.safetensors")
    weights["bert.encoder.layer.0.output.dense.weight"] *= 1.5
    safetensors.torch.save_file(weights, swapped / "model.safetensors", metadata={"format": "pt"})
    found = again(folder, tiny_track, model=str(swapped))
    assert found.verdict == "not reproduced"
    assert any(line.startswith("model_sha256: ") for line in found.identity)
    for cell in found.cells:
        assert cell.drift is not None
        assert cell.drift > cell.rounding
        assert cell.difference.startswith("query 0: sha256 ")


def test_rounding_differences_are_distinguished_from_another_model(folder: Path, tiny_track: Path) -> None:
    """The fingerprint differs by less than rounding and the digest differs, as on another processor."""
    with closing(sqlite3.connect(folder / "results.db", isolation_level=None)) as raw:
        for attempt, text in raw.execute("SELECT attempt, facts FROM outcomes").fetchall():
            facts = json.loads(text)
            facts["probe"]["logits"][0] += 1e-5
            raw.execute("UPDATE outcomes SET facts = ? WHERE attempt = ?", (json.dumps(facts), attempt))
        raw.execute("UPDATE queries SET sha256 = 'other'")
    found = again(folder, tiny_track)
    assert found.verdict == "within rounding"
    assert {cell.flipped for cell in found.cells} == {0}


def test_a_submission_that_is_not_deterministic_is_not_reproduced(tiny_track: Path, tmp_path: Path) -> None:
    evaluate(tmp_path, tiny_track, UNSTABLE, tasks=("sst2",), splits=(1,))
    (cell,) = again(tmp_path, tiny_track).cells
    assert cell.verdict == "not reproduced"
    assert cell.difference.startswith("query 0: sha256 ")
    assert cell.flipped == 0, "its answers still give its predictions"


def test_a_budget_and_a_seed_given_to_evaluate_are_the_runs_own(tiny_track: Path, tmp_path: Path) -> None:
    evaluate(tmp_path, tiny_track, SEARCH, tasks=("sst2",), splits=(2,), calls=4, seed=5)
    found = again(tmp_path, tiny_track)
    assert found.verdict == "reproduced"
    assert [cell.queries for cell in found.cells] == [(2, 2)]


def test_what_cannot_be_replayed_says_why(folder: Path, tiny_track: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run 'nobody'"):
        again(folder, tiny_track, name="nobody")
    write_submission(folder, SEARCH + "\n# another byte")
    with pytest.raises(InputError, match=r"is not what ran.*--submission"):
        again(folder, tiny_track)
    write_submission(folder, SEARCH)
    other = tmp_path / "tiny.toml"
    other.write_text(tiny_track.read_text(encoding="utf-8").replace("wall_s = 60", "wall_s = 61"), encoding="utf-8")
    with pytest.raises(InputError, match="--track"):
        again(folder, other)
    with pytest.raises(InputError, match="it is predictions"):
        choices_of(dataclasses.replace(key(), access="predictions"), [], load_track(str(tiny_track)), Overrides())
    with pytest.raises(InputError, match="none of its cells is finished"):
        choices_of(key(), [], load_track(str(tiny_track)), Overrides())


def test_a_run_is_found_by_its_id_its_beginning_or_the_entrys_name(folder: Path) -> None:
    store = Store(str(folder / "results.db"))
    run = find_run(store, "entry")
    assert find_run(store, run.id) == find_run(store, run.id[:6]) == run
    assert run.key.entry == "entry"
    others = [store.open_run(dataclasses.replace(key(), seed=seed), {}) for seed in range(40)]
    begin = next(a[0] for a in others if sum(b[0] == a[0] for b in others) > 1)
    with pytest.raises(InputError, match=f"runs of .* begin with '{begin}'"):
        find_run(store, begin)
    with pytest.raises(InputError, match="no run ''"):
        find_run(store, "")
    store.close()


def test_results_are_plain_data(folder: Path, tiny_track: Path) -> None:
    assert json.loads(msgspec.json.encode(again(folder, tiny_track, sample=1)))["cells"][0]["split"] >= 1
