"""The wheel contains everything that an installation outside the checkout needs."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def wheel(folder: Path) -> Path:
    """Build the wheel into a folder."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by hatchling and unpacked as pip would."""
    pytest.importorskip("hatchling", reason="hatchling is in the extra `dev`")
    site = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel(tmp_path_factory.mktemp("dist"))) as archive:
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
assert len(harness.tracks.tasks.task_names()) == 17
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


def test_a_competition_is_held_with_an_installed_wheel(tmp_path: Path) -> None:
    """Made, evaluated and ranked outside any checkout, with a task of one's own."""
    pytest.importorskip("hatchling", reason="hatchling is in the extra `dev`")
    pytest.importorskip("pip", reason="the wheel is installed with pip")
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site)]
    subprocess.run([*install, str(wheel(tmp_path))], check=True, capture_output=True)
    rows = [f"{'good' if n % 2 else 'bad'},I saw film number {n}.\n" for n in range(40)]
    (elsewhere / "my.csv").write_text("label,sentence\n" + "".join(rows), encoding="utf-8")

    def harness(*arguments: str) -> str:
        command = [sys.executable, "-m", "harness.cli", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(site)}
        done = subprocess.run(command, cwd=elsewhere, env=environment, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    small = ["--shots", "4", "--splits", "1", "--calls", "20"]
    made = harness(
        "new-competition", "films", "--data", "my.csv", "--text", "sentence", "--label", "label", *small, "--no-check"
    )
    assert "now: harness new mysolver; harness evaluate submissions/mysolver --track films" in made
    harness("new", "mysolver")
    harness("evaluate", "submissions/mysolver", "--track", "films")
    assert "mysolver is the only complete entry" in harness("leaderboard", "--track", "films")
    code = f"import harness; print(harness.__file__.startswith({str(site)!r}))"
    assert run(site, elsewhere, code).strip() == "True"
