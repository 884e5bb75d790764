"""Imports go one way; only the command line prints; a submission knows the contract alone."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import harness
from harness.sandbox.submission import find

ROOT = Path(harness.__file__).resolve().parents[1]
SOURCES = sorted([*(ROOT / "harness").rglob("*.py"), *(ROOT / "leaderboard").rglob("*.py")])
SUBMISSIONS = sorted((ROOT / "submissions").glob("*/*.py"))
STANDARD = sys.stdlib_module_names

LAYERS = [
    {"errors", "heads"},
    {"contract"},
    {"solving", "status", "tables", "environment", "seals", "records"},
    {"tomlfile", "answer", "meter", "database"},
    {
        "tasks",
        "track",
        "data",
        "fetch",
        "predictions",
        "scaffold",
        "submission",
        "store",
        "listing",
        "migrate",
        "config_source",
        "known_plan",
    },
    {"lm"},
    {"sandbox", "overrides"},
    {"referee", "whitebox"},
    {"pretrain", "evaluate", "progress", "check", "doctor", "predict", "audit", "replay", "plan", "merge"},
    {"engines", "service"},
    {"cli", "options"},
]
"""Each module may import from its own layer and those above it in this list."""


def imports(path: Path, *, run: bool = True) -> set[str]:
    """Full names a file imports; without those for type checkers only, where `run`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = set()
    for node in ast.walk(tree):
        if run and isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            skipped |= {id(inner) for statement in node.body for inner in ast.walk(statement)}
    found = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
            found |= {f"{node.module}.{name.name}" for name in node.names}
    return found


def layer(module: str) -> int | None:
    return next((n for n, names in enumerate(LAYERS) if module in names), None)


@pytest.mark.parametrize("path", [p for p in SOURCES if p.is_relative_to(ROOT / "harness")], ids=str)
def test_imports_go_one_way(path: Path) -> None:
    own = path.relative_to(ROOT / "harness").parts[0].removesuffix(".py")
    if own == "__init__":
        return
    mine = layer(own)
    assert mine is not None, f"harness.{own} has no place in the layers; give it one"
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "leaderboard":
            assert own == "cli"
        if parts[0] == "harness" and len(parts) > 1:
            theirs = layer(parts[1])
            if theirs is None:  # a name of the package itself
                assert parts[1] in harness.__all__
            else:
                assert theirs <= mine, f"{path} imports {name}"


def test_the_leaderboard_imports_neither_torch_nor_the_language_model() -> None:
    for path in (ROOT / "leaderboard").glob("*.py"):
        assert not [n for n in imports(path) if n.split(".")[0] == "torch" or n.startswith("harness.lm")], path


@pytest.mark.parametrize(
    "module",
    [
        "harness",
        "harness.leaderboard.rank",
        "harness.results.store",
        "harness.sandbox.worker",
        "harness.cli",
        "harness.evaluation.engines.local",
    ],
)
def test_nothing_that_need_not_wait_for_torch_imports_it(module: str) -> None:
    program = f"import {module}, sys; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_public_names_are_exactly_all() -> None:
    tree = ast.parse(Path(harness.__file__).read_text(encoding="utf-8"))
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for name in node.names}
    assert imported == set(harness.__all__)
    assert harness.__all__ == sorted(harness.__all__)
    assert all(hasattr(harness, name) for name in harness.__all__)


@pytest.mark.parametrize("path", SUBMISSIONS, ids=lambda p: p.parent.name)
def test_a_submission_imports_the_contract_and_numerics_alone(path: Path) -> None:
    allowed = {"harness", "numpy", "scipy", "cma", "nevergrad", "sklearn", "torch"}
    public = set(harness.__all__)
    if find(path.parent).access == "white-box":
        allowed |= {"peft"}
        public |= {"whitebox", *(f"whitebox.{name}" for name in ("Predictor", "Recipe", "WhiteBox"))}
    for name in imports(path, run=False):
        top = name.split(".")[0]
        assert top in allowed or top in STANDARD, f"{path} imports {name}"
        if top == "harness":
            assert name == "harness" or name.removeprefix("harness.") in public, f"{path} imports {name}"


def test_only_the_command_line_prints() -> None:
    for path in [*SOURCES, *SUBMISSIONS]:
        calls = [
            node
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
        ]
        assert not calls, f"{path}:{calls[0].lineno} prints"


def test_a_submission_has_a_page_beside_it() -> None:
    for path in SUBMISSIONS:
        assert (path.parent / "README.md").is_file(), path.parent
