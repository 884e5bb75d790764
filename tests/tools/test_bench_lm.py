"""The benchmark of forward passes runs, and its two paths agree."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "bench_lm.py"


def bench(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *options], capture_output=True, text=True, check=False)


def test_an_unknown_case_is_refused_and_all_cases_are_listed() -> None:
    refused, listed = bench("--case", "mini/sst3/*"), bench("--list")
    assert refused.returncode == 2
    assert "no case matches mini/sst3/*; --list shows them" in refused.stderr
    assert "roberta-large/dbpedia/bbtv2-mid" in listed.stdout.split()


@pytest.mark.slow
def test_ours_and_the_plain_path_give_the_same_logits_in_float32(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    options = ("--dtype", "float32", "--candidates", "3", "--texts", "5", "--repeats", "1", "--threads", "1")
    done = bench("--case", "mini/qqp/bbt", "--case", "mini/qqp/bbtv2-mid", *options, "--json", str(out))
    assert done.returncode == 0, done.stderr
    cases = json.loads(out.read_text())["cases"]
    assert [case["case"] for case in cases] == ["mini/qqp/bbt", "mini/qqp/bbtv2-mid"]
    for case in cases:
        assert case["difference"] < 1e-4
        assert case["ratio"] > 0
        assert case["tokens_useful"] <= case["tokens_padded"]
