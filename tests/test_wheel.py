"""The wheel contains everything that an installation outside the checkout needs."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by hatchling and unpacked as pip would."""
    pytest.importorskip("hatchling", reason="hatchling is in the extra `dev`")
    built = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(built)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = built.glob("*.whl")
    site = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def run(unpacked: Path, tmp_path: Path, code: str) -> str:
    """Run code that sees the unpacked wheel before the checkout, from another directory."""
    program = f"import sys; sys.path.insert(0, {str(unpacked)!r})\n{code}"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_tracks_and_tasks_load_outside_the_checkout(unpacked: Path, tmp_path: Path) -> None:
    code = """
import harness, harness.tracks.examples, harness.tracks.tasks, harness.tracks.track
assert harness.__file__.startswith(sys.path[0]), harness.__file__
for name in harness.tracks.track.track_names(): harness.tracks.track.load_track(name)
assert len(harness.tracks.tasks.task_names()) == 9
for name in sorted(harness.tracks.track.load_track("mini").tasks):
    file = harness.tracks.tasks.load_task(name)
    print(name, len(harness.tracks.examples.load_test(file, harness.tracks.examples.Source("embedded"))))
"""
    counts = {"dbpedia": 210, "qnli": 200, "qqp": 200, "snli": 300, "sst2": 200}
    assert run(unpacked, tmp_path, code).splitlines() == [f"{name} {rows}" for name, rows in counts.items()]


def test_the_head_lies_in_the_wheel_with_its_checksum_and_card(unpacked: Path) -> None:
    folder = unpacked / "harness" / "models" / "minilm-mlm"
    assert {path.name for path in folder.iterdir()} >= {"head.safetensors", "checksum.json", "MODEL_CARD.md"}


def test_the_wheel_has_what_a_report_says_about_columns(unpacked: Path) -> None:
    text = (unpacked / "harness" / "_leaderboard.md").read_text(encoding="utf-8")
    assert "\n## CSV\n" in text
    assert "\n## Cells\n" in text


def test_the_wheel_carries_no_results_tests_or_submissions(unpacked: Path) -> None:
    found = {path.name for path in unpacked.iterdir()}
    assert found == {"harness", *(name for name in found if name.endswith(".dist-info"))}


def test_the_embedded_model_loads_from_the_wheel(unpacked: Path, tmp_path: Path) -> None:
    code = "from harness.lm import embedded\nmodel, _ = embedded.load()\nprint(model.config.hidden_size)"
    assert run(unpacked, tmp_path, code).strip() == "384"


def test_the_schema_of_the_leaderboards_json_lies_in_the_wheel(unpacked: Path) -> None:
    schema = unpacked / "harness" / "leaderboard" / "leaderboard.schema.json"
    assert '"$schema"' in schema.read_text(encoding="utf-8")
