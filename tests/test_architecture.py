"""The folders of `harness` are its layers; only the command line prints; a submission knows the contract alone."""

from __future__ import annotations

import ast
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
    " < problems < leaks < cli"
)
"""A room may import from the rooms left of its own `<`, and from itself; also for types."""
FLOOR = {room: floor for floor, rooms in enumerate(ROOMS.split(" < ")) for room in rooms.split()}


def imports(path: Path) -> set[str]:
    """Full names that a file imports, those for type checkers included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module or ""} | {f"{node.module}.{name.name}" for name in node.names}
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT / "harness")))
def test_imports_go_one_way(path: Path) -> None:
    own = path.relative_to(ROOT / "harness").parts[0].removesuffix(".py")
    rooms = {name.split(".")[1] for name in imports(path) if name.startswith("harness.")} - {own, *harness.__all__}
    if own != "__init__":
        assert not [room for room in rooms if FLOOR[room] >= FLOOR[own]], path


def modules_of(path: Path) -> set[Path]:
    """Files of `harness` that a file imports, those for type checkers included."""
    candidates = {ROOT / Path(*name.split(".")) for name in imports(path) if name.startswith("harness.")}
    return {file for each in candidates for file in (each.with_suffix(".py"), each / "__init__.py") if file in SOURCES}


def test_no_module_imports_itself_over_others() -> None:
    waiting = {path: modules_of(path) - {path} for path in SOURCES}
    while free := {path for path, needed in waiting.items() if not needed}:
        waiting = {path: needed - free for path, needed in waiting.items() if path not in free}
    assert not waiting, {str(a.relative_to(ROOT)): [str(b.relative_to(ROOT)) for b in n] for a, n in waiting.items()}


def test_the_house_stays_small() -> None:
    at_the_top = [path for path in (ROOT / "harness").iterdir() if not path.name.startswith(("_tasks", "__pycache__"))]
    assert len(at_the_top) <= 18
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert not {str(path): lines for path, lines in lengths.items() if lines > 400}


def test_the_leaderboard_imports_neither_torch_nor_the_language_model() -> None:
    for path in (ROOT / "harness" / "leaderboard").rglob("*.py"):
        assert not [n for n in imports(path) if n.split(".")[0] == "torch" or n.startswith("harness.lm")], path


def test_the_top_level_leaderboard_holds_no_code() -> None:
    assert not list((ROOT / "leaderboard").rglob("*.py"))


def test_what_solvers_share_knows_the_contract_and_numerics_alone() -> None:
    for path in (ROOT / "harness" / "solving").glob("*.py"):
        tops = {name.split(".")[0] for name in imports(path)}
        assert not tops - STANDARD - {"harness", "numpy", "cma", "sklearn", "msgspec", "safetensors"}, path


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


def test_no_two_test_files_have_one_name() -> None:
    """Pytest imports them by name: the second one would not be collected."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
