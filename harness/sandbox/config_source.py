"""Reads a submission's Config from its source, so that a wrong option is refused before anything is started.

The referee must never run a submission's code. It reads the syntax tree instead. A plain dataclass whose fields have
types of the contract or of Python says everything about its options. All other code is left to the worker, which
imports the submission and decides.
"""

from __future__ import annotations

import ast
import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_origin

from harness import contract
from harness.errors import SubmissionError
from harness.sandbox.presets import variants
from harness.sandbox.submission import parse_options, statements

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from harness.sandbox.submission import Submission

_BUILT_IN: dict[str, Any] = {"bool": bool, "float": float, "int": int, "str": str}


@dataclass(frozen=True)
class ConfigSource:
    """The fields of a Config, as far as the source shows them."""

    types: Mapping[str, Any]
    """Type of each field, if it could be read."""
    complete: bool
    """Whether these are all fields."""
    plain: bool
    """Whether the class also has no code of its own. Then an option is valid if its type accepts it."""

    def check(self, options: Mapping[str, str]) -> None:
        """Refuse options that the worker would refuse, with the same message, as far as the source shows.

        Args:
            options: value by name, as text.

        Raises:
            SubmissionError: a name that is no field, or a value that does not fit the field's type.
        """
        known = {name: text for name, text in options.items() if self.complete or name in self.types}
        fields = [(name, kind, dataclasses.field(default=None)) for name, kind in self.types.items()]
        parse_options(dataclasses.make_dataclass("Config", fields), known)


def check_options(submission: Submission, options: Mapping[str, str]) -> bool:
    """Refuse a submission's wrong options without running its code.

    Args:
        submission: the folder; its `submission.py` is parsed.
        options: value by name, as text.

    Returns:
        Whether this check is enough. If not, only the import in a worker can decide.

    Raises:
        SubmissionError: the Config would refuse an option.
    """
    found = read_config(submission)
    if found is None:
        return False
    try:
        for variant in variants(submission, options):
            found.check(variant)
    except SubmissionError as problem:
        raise SubmissionError(f"{submission.path}: {problem}") from None
    return found.plain


def read_config(submission: Submission) -> ConfigSource | None:
    """Read the Config of a submission from its source.

    Args:
        submission: the folder; its `submission.py` is parsed.

    Returns:
        Its fields; None unless the source has exactly one class of that name, and it is a plain dataclass.
    """
    body = statements(submission.path / "submission.py")
    found = [statement for statement in body if isinstance(statement, ast.ClassDef) and statement.name == "Config"]
    names = _Names(body)
    if len(found) != 1 or names.bound.count("Config") != 1 or not names.is_dataclass(found[0]):
        return None
    types: dict[str, Any] = {}
    complete, plain = True, True
    for statement in found[0].body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            kind = names.resolved(statement.annotation)
            if kind is None or not _is_default(statement.value):
                complete = False
            else:
                types[statement.target.id] = kind
        elif isinstance(statement, ast.FunctionDef):
            plain = False
        elif not (isinstance(statement, ast.Pass) or _is_constant(statement)):
            complete = False
    return ConfigSource(types, complete, complete and plain)


def _is_constant(statement: ast.stmt) -> bool:
    """Whether a statement is a docstring or another constant, which has no effect."""
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _is_default(value: ast.expr | None) -> bool:
    """Whether a field with this default is an ordinary one. With `field(init=False)` it is not."""
    return value is None or isinstance(value, ast.Constant | ast.UnaryOp | ast.Name)


class _Names:
    """The meaning of names in a source, if it is certain: a name is bound once, by an import of the contract."""

    def __init__(self, body: Sequence[ast.stmt]) -> None:
        self.bound = [name for statement in body for name in _bound(statement)]
        self._imported: dict[str, tuple[str, str]] = {}
        for statement in body:
            if isinstance(statement, ast.ImportFrom) and statement.level == 0:
                for name in statement.names:
                    self._imported[name.asname or name.name] = statement.module or "", name.name

    def is_dataclass(self, found: ast.ClassDef) -> bool:
        """Whether a class is decorated with `dataclasses.dataclass` alone, and has no bases."""
        if found.bases or found.keywords or len(found.decorator_list) != 1:
            return False
        decorator = found.decorator_list[0]
        if isinstance(decorator, ast.Call):
            decorator = decorator.func
        try:
            return isinstance(decorator, ast.Name) and self._origin(decorator.id) == ("dataclasses", "dataclass")
        except LookupError:
            return False

    def resolved(self, node: ast.expr) -> Any:
        """The type that an annotation names; None if the type is not known."""
        try:
            return self._resolved(node)
        except (LookupError, RecursionError, TypeError):
            return None

    def _resolved(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Constant) and node.value is None:
            return type(None)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            return Union[self._resolved(node.left), self._resolved(node.right)]  # noqa: UP007 - of values, not types
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
            if self._origin(node.value.id) != ("typing", "Literal"):
                raise LookupError
            items = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            return Literal[tuple(_constant(item) for item in items)]
        if not isinstance(node, ast.Name):
            raise TypeError
        if node.id in _BUILT_IN and node.id not in self.bound:
            return _BUILT_IN[node.id]
        module, name = self._origin(node.id)
        kind = getattr(contract, name, None)
        if module not in {"harness", "harness.contract"} or get_origin(kind) not in {Annotated, Literal}:
            raise LookupError
        return kind

    def _origin(self, name: str) -> tuple[str, str]:
        """Module and name that an import binds to `name`; LookupError if anything else may bind it, too."""
        if self.bound.count(name) != 1 or "*" in self.bound:
            raise LookupError
        return self._imported[name]


def _constant(node: ast.expr) -> Any:
    if not isinstance(node, ast.Constant):
        raise TypeError
    return node.value


def _bound(statement: ast.stmt) -> Iterator[str]:
    """Every name that a statement binds, in any scope below it. A name that is bound twice comes twice."""
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.alias):
            yield (node.asname or node.name).partition(".")[0]
        elif isinstance(node, ast.Global | ast.Nonlocal):
            yield from node.names
