"""What is stored of runs and cells: the same bytes as ever, and readable from every older version."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
from made_up import key

from harness.results.records import CellRecord, Fingerprint, RunKey, Usage, cell_record, run_key
from harness.results.status import FIRST_MARKS, MARKS

FULL = CellRecord(
    config={"dim": 5}, calls_total=40, rows_total=1_280, rows_spent=736, train_rows=32, queries=7, level=1,
    tokens=9_000, bytes_up=50_000, bytes_down=6_000, declared_bytes=1_700, nominal_up=30_000, nominal_down=5_888,
    lm_s=1.5, refused=1, worker_peak_mb=80.5, referee_peak_mb=600.25, worker_exit=0, output="done\n",
    note={"loss": 0.5}, history=((32, {"loss": 0.7}), (64, {"loss": 0.5})), marks=MARKS, template="{a} It was {mask} .",
    words=(" bad", " good"), shots_sha256=("a", "b"), sandbox="A", isolation={"tier": "A", "canaries": {}}, seed=3,
    tuning_s=2.5, test_s=0.5, probe=Fingerprint("c", (1.0, -0.5)),
)  # fmt: skip
STORED = (
    '{"detail": "", "config": {"dim": 5}, "calls_total": 40, "rows_total": 1280, "rows_spent": 736, "train_rows": 32, '
    '"queries": 7, "level": 1, "tokens": 9000, "bytes_up": 50000, "bytes_down": 6000, "declared_bytes": 1700, '
    '"nominal_up": 30000, "nominal_down": 5888, "lm_s": 1.5, "waited_s": 0.0, "refused": 1, "rejected": 0, '
    '"worker_peak_mb": 80.5, "referee_peak_mb": 600.25, "worker_exit": 0, "output": "done\\n", "note": {"loss": 0.5}, '
    '"history": [[32, {"loss": 0.7}], [64, {"loss": 0.5}]], '
    '"marks": [0.00390625, 0.015625, 0.0625, 0.125, 0.25, 0.5, 1.0], "template": "{a} It was {mask} .", '
    '"words": [" bad", " good"], "shots_sha256": ["a", "b"], "sandbox": "A", '
    '"isolation": {"tier": "A", "canaries": {}}, "seed": 3, "access": "black-box", "tuning_s": 2.5, "test_s": 0.5, '
    '"device_peak_mb": null, "probe": {"sha256": "c", "logits": [1.0, -0.5]}}'
)
"""As the version before typed records stored it."""


def test_a_cell_is_stored_as_it_always_was() -> None:
    assert FULL.to_json() == STORED
    assert cell_record(STORED) == FULL


def test_of_uploaded_predictions_nothing_but_that_is_stored() -> None:
    assert CellRecord(access="predictions").to_json() == '{"access": "predictions"}'


def test_a_cell_of_the_first_version_gets_defaults_for_later_fields() -> None:
    """It stored neither offers, marks, nominal bytes nor fingerprints."""
    later = {
        "declared_bytes", "nominal_up", "nominal_down", "waited_s", "refused", "history", "marks", "template", "words",
        "isolation", "access", "device_peak_mb", "probe",
    }  # fmt: skip
    first = {name: value for name, value in json.loads(STORED).items() if name not in later}
    found = cell_record(json.dumps(first))
    assert (found.history, found.probe, found.nominal_up, found.declared_bytes) == (None, None, None, None)
    assert (found.marks, found.access, found.waited_s) == (FIRST_MARKS, "black-box", 0.0)
    assert (found.rows_spent, found.note, found.sandbox) == (736, {"loss": 0.5}, "A")


def test_a_field_that_a_newer_version_stores_is_passed_over() -> None:
    assert cell_record(json.dumps(json.loads(STORED) | {"mood": "good"})) == FULL
    assert run_key(json.dumps(dataclasses.asdict(key()) | {"mood": "good"})) == key()


def test_a_loss_that_is_no_number_comes_back() -> None:
    """A reference may diverge, and Python's JSON holds it."""
    text = dataclasses.replace(FULL, note={"loss": math.nan}).to_json()
    assert math.isnan(cell_record(text).note["loss"])


def test_half_of_a_surrogate_pair_in_the_output_comes_back() -> None:
    """A worker's output may be cut there, and Python's JSON holds it."""
    text = dataclasses.replace(FULL, output="\ud83d").to_json()
    assert cell_record(text).output == "\ud83d"


@pytest.mark.parametrize("text", ["", "[]", '{"rows_spent": "many"}', '{"access": "nobody"}', '{"history": [[1]]}'])
def test_what_is_no_record_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"Expect|Invalid"):
        cell_record(text)


def test_every_cell_says_what_its_queries_add_up_to() -> None:
    """No sum may be counted without being stored."""
    assert {each.name for each in dataclasses.fields(Usage)} <= {each.name for each in dataclasses.fields(CellRecord)}


BASE = RunKey(
    entry="bbt[dim=5]", submission_sha256="ab" * 32, options=(("dim", "5"),), track="mini",
    track_fingerprint="0123456789abcdef", rules=3, model="m", model_sha256="cd" * 32, data="embedded",
    data_sha256="ef" * 8, device="cpu", seed=0, environment_sha256="12" * 8,
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "8dba89a6533d3783"),
        ({"modified": ("model", "calls"), "calls": 40}, "6b9adbf9a0c84787"),
        ({"access": "white-box"}, "2ec28d070b48001f"),
        ({"external": "mnli p0"}, "899fc77583aca493"),
        ({"access": "predictions"}, "b963fb1c26fbf4a5"),
        ({"modified": ("data", "test_data", "backend")}, "45839b7175db8a5f"),
        ({"seed": 7}, "b867b984dee42bb5"),
    ],
)
def test_runs_have_the_names_they_always_had(changes: dict[str, object], name: str) -> None:
    run = dataclasses.replace(BASE, **changes)
    assert run.id == name
    assert run_key(json.dumps(dataclasses.asdict(run))) == run
