"""Tasks as data: ``tasks/<name>/task.toml`` -> `TaskFile` -> `Task`. A new task is a folder, no code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from harness.contract import Metric, Task
from harness.errors import TaskError
from harness.tomlfile import line_of, read_toml

if TYPE_CHECKING:
    from collections.abc import Iterator

Kind = Literal["masked", "causal"]


class Cloze(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Template and label words, taken verbatim: a leading space in a word belongs to it."""

    template: str
    words: tuple[str, ...]


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One choice of wording, for masked and for causal models."""

    masked: Cloze
    causal: Cloze | None = None


class KitSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the competition kit lays this task out: ``<folder>/<split>/{train,dev}.tsv``, ``<folder>/test.tsv``."""

    folder: str
    labels: tuple[str, ...]
    """Labels as written in the files, in class order."""


class HubSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which public data set this task is."""

    dataset: str
    columns: tuple[str, ...]
    label: str
    train: str
    test: str
    config: str | None = None
    revision: str | None = None


class TaskFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A ``task.toml``, validated."""

    name: str
    title: str
    classes: tuple[str, ...]
    fields: Literal[1, 2]
    metric: Metric
    profiles: dict[str, Profile]
    kit: KitSource
    hub: HubSource | None = None

    def task(self, profile: str, kind: Kind) -> Task:
        """The task in the wording of `profile` for a masked or causal model.

        Raises:
            TaskError: the profile does not exist or has no wording for this kind of model.
        """
        found = self.profiles.get(profile)
        if found is None:
            raise TaskError(f"task {self.name}: no profile {profile!r}; there are {', '.join(sorted(self.profiles))}")
        cloze = found.masked if kind == "masked" else found.causal
        if cloze is None:
            raise TaskError(f"task {self.name}: profile {profile!r} has no [profiles.{profile}.{kind}]; add it")
        return Task(self.name, self.classes, self.metric, cloze.template, cloze.words, self.fields)


def tasks_dir() -> Path:
    """The folder of tasks: the checkout's, else the copy inside the installed package."""
    package = Path(__file__).resolve().parent
    checkout = package.parent / "tasks"
    return checkout if (package.parent / "pyproject.toml").is_file() else package / "_tasks"


def task_names(root: Path | None = None) -> list[str]:
    """Names of all tasks there are."""
    return sorted(path.parent.name for path in (root or tasks_dir()).glob("*/task.toml"))


def load_task(name: str, root: Path | None = None) -> TaskFile:
    """Read and validate one task.

    Raises:
        TaskError: unknown name, or a file that breaks a rule; the message has file, line and expectation.
    """
    root = root or tasks_dir()
    path = root / name / "task.toml"
    if not path.is_file():
        raise TaskError(f"no task {name!r} in {root}; there are {', '.join(task_names(root)) or 'none'}")
    file = read_toml(path, TaskFile, TaskError)
    problem = next(_problems(file, name), None)
    if problem:
        keys, message = problem
        raise TaskError(f"{path}:{line_of(path.read_text(encoding='utf-8'), keys)}: {message}")
    return file


def _problems(file: TaskFile, folder: str) -> Iterator[tuple[list[str], str]]:
    """Each broken rule as (keys, message)."""
    count = len(file.classes)
    if file.name != folder:
        yield ["name"], f"name is {file.name!r} but the folder is {folder!r}; make them equal"
    if count < 2 or len(set(file.classes)) != count:  # noqa: PLR2004
        yield ["classes"], f"{count} classes, {len(set(file.classes))} distinct; at least 2 distinct are needed"
    if not file.profiles:
        yield ["profiles"], "no profile; add [profiles.house] with `masked`"
    for name, profile in file.profiles.items():
        for kind, cloze in (("masked", profile.masked), ("causal", profile.causal)):
            found = _cloze_problem(cloze, file, kind == "causal") if cloze else None
            if found:
                yield ["profiles", name, kind], f"profiles.{name}.{kind}: {found}"
    labels = file.kit.labels
    if len(labels) != count or len(set(labels)) != count:
        message = f"kit.labels has {len(labels)} labels, {len(set(labels))} distinct, for {count} classes"
        yield ["kit", "labels"], f"{message}; a label of its own is needed for each"
    if file.hub and len(file.hub.columns) != file.fields:
        message = (
            f"hub.columns has {len(file.hub.columns)} columns for {file.fields} text fields; one for each is needed"
        )
        yield ["hub", "columns"], message


def _cloze_problem(cloze: Cloze, file: TaskFile, causal: bool) -> str | None:
    count, words = len(file.classes), cloze.words
    if len(words) != count or len(set(words)) != count:
        return f"{len(words)} words, {len(set(words))} distinct, for {count} classes; a word of its own for each"
    return template_problem(cloze.template, file.fields, causal)


def template_problem(template: str, fields: int, causal: bool) -> str | None:
    """Say what is wrong with a template, or None: it needs {mask} and each text field exactly once."""
    wanted = ["mask", "a"] + (["b"] if fields == 2 else [])  # noqa: PLR2004
    found = re.findall(r"\{([^{}]*)\}", template)
    unknown = sorted(set(found) - set(wanted))
    if unknown:
        return f"template {template!r} has the unknown field {{{unknown[0]}}}; known: {', '.join(wanted)}"
    for name in wanted:
        if found.count(name) != 1:
            return f"template {template!r} has {{{name}}} {found.count(name)} times; exactly once is needed"
    if causal and not template.endswith("{mask}"):
        return f"template {template!r} is for a causal model and must end with {{mask}}"
    return None
