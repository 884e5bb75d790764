"""BBT's cost table from stored facts, by the paper's own figures."""

from __future__ import annotations

import csv
import dataclasses
import io
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from harness.leaderboard.cost import Cost, cost_records, cost_table, costs
from harness.leaderboard.entries import CellScore, Entry
from harness.leaderboard.rank import Ranking
from harness.leaderboard.table import write_records
from harness.results.records import CellRecord

if TYPE_CHECKING:
    from pathlib import Path

SST2: dict[str, Any] = {
    "rows_spent": 64, "train_rows": 32, "tuning_s": 606.0, "worker_peak_mb": 30.0, "referee_peak_mb": 900.0,
    "device_peak_mb": 3000.0, "bytes_up": 5000, "declared_bytes": 3000, "bytes_down": 600,
    "nominal_up": 2 * (32 * 47 * 3 + 500 * 4), "nominal_down": 2 * 32 * 2 * 4,
}  # fmt: skip
"""Two calls of BBT as in the paper's Table 4: 32 texts of 47 tokens, 500 floats of z, two label words."""


def entry(*facts: dict[str, Any], white_box: bool = False, name: str = "bbt", device: str = "NVIDIA H200") -> Entry:
    cells = tuple(
        CellScore("sst2", n, "ok", 0.8 + 0.1 * n, {}, CellRecord(**SST2 | {"level": 1} | each))
        for n, each in enumerate(facts)
    )
    return Entry(1, name, "run", cells, 0, {}, white_box, device)


def one(*facts: dict[str, Any], **changes: Any) -> Cost:
    (cost,) = costs(Ranking("official", ("sst2",), (entry(*facts, **changes),), 0))
    return cost


def test_traffic_per_query_is_the_papers() -> None:
    """BBT's Table 4 says 6 KB up and 0.25 KB down a query for SST-2."""
    cost = one({})
    assert cost.nominal_up_b == 32 * 47 * 3 + 500 * 4 == 6512
    assert cost.nominal_down_b == 256
    assert cost.sent_up_b == (5000 + 3000) / 2
    assert cost.sent_down_b == 300


def test_means_are_over_splits_and_peaks_are_the_largest() -> None:
    """Traffic is weighted by queries."""
    more = {"tuning_s": 0.0, "worker_peak_mb": 40.0, "device_peak_mb": 1.0, "rows_spent": 192, "bytes_down": 200}
    cost = one({}, more)
    assert cost.splits == 2
    assert cost.score == pytest.approx(0.85)
    assert cost.training_min == pytest.approx(606 / 60 / 2)
    assert (cost.user_mb, cost.server_host_mb, cost.server_device_mb) == (40.0, 900.0, 3000.0)
    assert cost.sent_down_b == (600 + 200) / (2 + 6)
    assert (cost.deployment_efficient, cost.as_a_service) == (True, True)


def test_what_was_not_measured_is_empty() -> None:
    """No queries, no GPU, cells stored before there were such facts."""
    cost = one({"rows_spent": 0, "device_peak_mb": None})
    assert (cost.nominal_up_b, cost.sent_down_b, cost.server_device_mb) == (None, None, None)
    older = entry({})
    facts = {name: value for name, value in SST2.items() if name not in {"nominal_up", "declared_bytes"}}
    older = dataclasses.replace(older, cells=(dataclasses.replace(older.cells[0], record=CellRecord(**facts)),))
    (cost,) = costs(Ranking("official", ("sst2",), (older,), 0))
    assert (cost.nominal_up_b, cost.sent_up_b, cost.nominal_down_b) == (None, None, 256)


def test_a_reference_needs_its_own_model_and_is_no_service() -> None:
    """It has no process and no queries of its own."""
    cost = one({"rows_spent": 0, "worker_peak_mb": 0.0}, white_box=True)
    assert (cost.deployment_efficient, cost.as_a_service, cost.user_mb) == (False, False, None)


def test_records_and_table_say_the_same(tmp_path: Path) -> None:
    """Entries on other devices come last."""
    found = costs(Ranking("official", ("sst2",), (entry({}),), 0, (entry({"device_peak_mb": None}, device="cpu"),)))
    assert [cost.device for cost in found] == ["NVIDIA H200", "cpu"]
    write_records(cost_records(found), tmp_path / "cost.csv")
    with (tmp_path / "cost.csv").open(encoding="utf-8") as file:
        first, second = csv.DictReader(file)
    assert (first["deployment_efficient"], first["nominal_up_b"], first["training_min"]) == ("yes", "6512.0", "10.1")
    assert second["server_device_mb"] == ""
    console = Console(file=io.StringIO(), width=120, highlight=False)
    console.print(cost_table(found, "official"))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "6.36 / 3.91" in text
    assert "0.25 / 0.29" in text
    assert "3,000" in text
    assert all(len(line) <= 120 for line in text.splitlines())
