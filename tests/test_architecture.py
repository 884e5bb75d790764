"""The folders of `harness` are its layers; only the command line prints; a submission knows the contract alone."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import harness
import harness.solving
from harness.sandbox.submission import find

ROOT = Path(harness.__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "harness").rglob("*.py"))
SUBMISSIONS = sorted((ROOT / "submissions").glob("*/*.py"))
STANDARD = sys.stdlib_module_names

ROOMS = (
    "errors < contract < solving tracks < results < blackbox < lm sandbox < evaluation leaderboard < service testing"
    " < cli"
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


def test_what_solvers_share_knows_the_contract_and_numerics_alone() -> None:
    """So a worker needs no more for it."""
    for path in (ROOT / "harness" / "solving").glob("*.py"):
        for name in imports(path, run=False):
            top, *below = name.split(".")
            if top == "harness":
                assert below[0] in {"contract", "errors", "heads", "solving"}, f"{path} imports {name}"
            else:
                assert top in {"numpy", "cma", "sklearn", *STANDARD}, f"{path} imports {name}"


def test_what_solvers_share_is_exported_and_explained() -> None:
    """Every public function and class says what goes in and what comes out, by the headings of Google's style."""
    assert harness.solving.__all__ == sorted(harness.solving.__all__)
    for name in harness.solving.__all__:
        shared = getattr(harness.solving, name)
        if not isinstance(shared, type) and not callable(shared):
            continue  # an alias of a type
        assert "Example" in str(shared.__doc__), name
        public = [each for key, each in vars(shared).items() if key[0] != "_"]
        for each in public if isinstance(shared, type) else [shared]:
            function = getattr(each, "__func__", each)
            if not inspect.isfunction(function):
                continue
            arguments = [key for key in inspect.signature(function).parameters if key not in {"self", "cls"}]
            page = str(function.__doc__)
            assert "Args:" in page or not arguments, f"{name}: {function.__name__}"
            assert all(f"{key}: " in page for key in arguments), f"{name}: {function.__name__}"
            returned = inspect.signature(function).return_annotation
            assert re.search("Returns:|Yields:", page) or returned == "None", f"{name}: {function.__name__}"


@pytest.mark.parametrize("path", SUBMISSIONS, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_a_submission_imports_the_contract_and_numerics_alone(path: Path) -> None:
    allowed = {"harness", "numpy", "scipy", "cma", "nevergrad", "sklearn", "torch"}
    allowed |= {beside.stem for beside in path.parent.glob("*.py")}
    public = {*harness.__all__, "solving", *(f"solving.{name}" for name in harness.solving.__all__)}
    if find(path.parent).access == "white-box":
        allowed |= {"peft"}
        public |= {
            "evaluation.white_box",
            *(f"evaluation.white_box.{name}" for name in ("Predictor", "Recipe", "WhiteBox")),
        }
    for name in imports(path):
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
