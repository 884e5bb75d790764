"""Tasks as data: ``tasks/<name>/task.toml`` -> `TaskFile` -> `Task`. A new task needs a folder and no code.

The profiles ``kit-2022`` and ``paper-2022`` are the wordings of the competition kit and of BBT's reference code. There
a text is one string, ``"<p0> . <text> . It was <mask> ."``, with the fixed prompt tokens p0 in front. Here the server
puts p0's ids right after the start token, so a template holds what follows them, from the space on:
``" . {a} . It was {mask} ."``. A query without a prompt reads the same template without p0; on the track ``paper``
without the separator, either (`harness.tracks.track.PromptSpec`), as BBT's paper writes it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, cast, get_args

import msgspec

from harness.contract import ClassMetric, Metric, Task
from harness.errors import InputError, TaskError, did_you_mean
from harness.tracks.text_tasks import TextHub, TextSpec, TextTaskFile, text_problems, text_task
from harness.tracks.tomlfile import ENCODING, line_of, read_toml

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.contract import TextMetric, TextTask

Kind = Literal["masked", "causal", "seq2seq"]

OWN_PROFILE = "harness-2026"
"""This project's own wording."""
OWN_PROFILE_BEFORE = "house"
"""The first name of this wording, which is also the name of a solver. Track files and calls with it still work. A
track's fingerprint uses it (`harness.tracks.track.Track.fingerprint`), so runs from before the new name stay
comparable."""


class Tokens(Protocol):
    """What a language model tells about words; see `harness.lm.model.LanguageModel`."""

    @property
    def name(self) -> str:
        """Name of the model, for messages."""
        ...

    @property
    def words(self) -> tuple[str, ...]:
        """The word of each token id; "" if a query cannot ask for the token."""
        ...

    def word_ids(self, words: Sequence[str]) -> list[list[int]]:
        """Token ids of each word."""
        ...


class Cloze(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Template and label words, used exactly as written. A leading space belongs to its word."""

    template: str
    words: tuple[str, ...]
    first_piece: bool = False
    """Whether a word stands for its first token, as in the reference code; see `TaskFile.task`."""


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One wording, for masked and for causal models."""

    masked: Cloze
    causal: Cloze | None = None


class KitSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The layout of this task in the competition kit: ``<folder>/<split>/{train,dev}.tsv``, ``<folder>/test.tsv``."""

    folder: str
    labels: tuple[str, ...]
    """Labels as they are written in the files, in class order."""


class HubSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The public data set of this task."""

    dataset: str
    columns: tuple[str, ...]
    label: str
    train: str
    test: str
    config: str | None = None
    revision: str | None = None
    line_break: str | None = None
    """How the data set writes a line break inside a text; BBT's code reads a space there."""


class FilesSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The data in the task's own folder, as files with named columns (`harness.tracks.files`).

    They are ``test``, ``splits/<split>/train`` and ``splits/<split>/dev``.
    """

    columns: tuple[str, ...]
    """Names of the columns that hold the texts, in the order of ``{a}`` and ``{b}``. Other columns are notes."""
    label: str
    """Name of the column that holds the label."""
    format: Literal["csv", "tsv", "jsonl"] = "csv"
    """Ending and format of all files of the task."""
    labels: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    """Labels as they are written in the files, in class order; without the key they are the names of the classes."""


class TaskFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A ``task.toml``, validated."""

    name: str
    title: str
    classes: tuple[str, ...]
    fields: Literal[1, 2]
    metric: Metric
    profiles: dict[str, Profile]
    kit: KitSource | None = None
    """None if the competition kit does not have this task."""
    hub: HubSource | None = None
    files: FilesSource | None = None
    """None if no data lie in the task's folder as files with named columns."""
    folder: str | msgspec.UnsetType = msgspec.UNSET
    """The absolute path of the task's folder, where it is not one of those that ship. It is not in the file."""
    text: TextSpec | msgspec.UnsetType = msgspec.UNSET
    """Of a task whose answer is text, which has no classes and no cloze; see `harness.tracks.text_tasks`."""
    text_hub: TextHub | msgspec.UnsetType = msgspec.UNSET
    """The public data set of a text task. In the file it is the table ``[hub]``, and `hub` says the same."""

    @property
    def substance(self) -> bytes:
        """What scores depend on in the file, as bytes: classes, metric and wordings, without title and data."""
        counted: list[object] = [self.classes, self.fields, self.metric, self.profiles]
        if self.text is not msgspec.UNSET:
            counted.append(self.text)
        return msgspec.json.encode(counted, order="deterministic")

    @property
    def written_labels(self) -> tuple[str, ...]:
        """The labels in the task's own files, in class order."""
        named = self.files.labels if self.files is not None else msgspec.UNSET
        return self.classes if named is msgspec.UNSET else named

    def by_first_piece(self, profile: str, kind: Kind) -> bool:
        """Whether the label words of a wording stand for their first tokens.

        Arguments and errors are those of `task`.
        """
        return self._cloze(profile, kind).first_piece

    def task(self, profile: str, kind: Kind, model: Tokens | None = None) -> Task:
        """The task in the wording of `profile`. All models but causal ones use the masked wording.

        With a `model`, each label word of a ``first_piece`` wording is replaced by the word of its first token. So all
        label words are single tokens of this model, and a submission sees the words that are read. Without a model the
        words stay as written, for people.

        Raises:
            TaskError: the profile does not exist or has no wording for this kind of model, or two first tokens are
                equal.
        """
        cloze = self._cloze(profile, kind)
        words = cloze.words
        if cloze.first_piece and model is not None:
            try:
                words = first_pieces(words, model)
            except TaskError as problem:
                raise TaskError(f"task {self.name}, profile {profile!r}: {problem}") from None
        return Task(self.name, self.classes, self.metric, cloze.template, words, self.fields)

    def wording(self, profile: str, kind: Kind, model: Tokens | None = None) -> Task | TextTask:
        """`task`, or the text task in the wording of `profile`.

        Raises:
            TaskError: as `task`; a text task needs a causal model.
        """
        if self.text is msgspec.UNSET:
            return self.task(profile, kind, model)
        return text_task(self.name, self.fields, cast("TextMetric", self.metric), self.text, profile, kind)

    def _cloze(self, profile: str, kind: Kind) -> Cloze:
        if self.text is not msgspec.UNSET:
            raise TaskError(f"task {self.name} is answered by text, and this is for tasks with classes; take another")
        found = self.profiles.get(OWN_PROFILE if profile == OWN_PROFILE_BEFORE else profile)
        if found is None:
            raise TaskError(f"task {self.name}: no profile {profile!r}; there are {', '.join(sorted(self.profiles))}")
        cloze = found.causal if kind == "causal" else found.masked
        if cloze is None:
            raise TaskError(f"task {self.name}: profile {profile!r} has no `{kind}`; add it to [profiles.{profile}]")
        return cloze


def first_pieces(words: Sequence[str], model: Tokens) -> tuple[str, ...]:
    """The word of the first token of each word. RoBERTa cuts ``Athlete`` into several tokens; the first is ``A``.

    In byte-pair encoding, the first token of a word, written alone, is again that single token.

    Raises:
        TaskError: two first tokens are equal, or one is not a word by itself.
    """
    pieces = tuple(model.words[ids[0]] if ids else "" for ids in model.word_ids(words))
    for n, piece in enumerate(pieces):
        if not piece:
            raise TaskError(f"the first token of {words[n]!r} is not a word of {model.name}; choose another word")
        if piece in pieces[:n]:
            pair = f"{words[pieces.index(piece)]!r} and {words[n]!r}"
            raise TaskError(f"{pair} both begin with the token {piece!r} of {model.name}; choose another profile")
    return pieces


def tasks_dir() -> Path:
    """The folder of tasks: the checkout's, else the copy inside the installed package."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parent / "tasks"
    return checkout if (package.parent / "pyproject.toml").is_file() else package / "_tasks"


def task_names(root: Path | None = None) -> list[str]:
    """Names of all tasks."""
    return sorted(path.parent.name for path in (root or tasks_dir()).glob("*/task.toml"))


def load_task(name: str, root: Path | None = None) -> TaskFile:
    """Read and validate one task.

    Args:
        name: the name of its folder.
        root: the folder that holds the task's folder; None is the one of the tasks that ship.

    Raises:
        TaskError: the name is unknown, or the file breaks a rule. The message names file, line and expectation.
    """
    path = (root or tasks_dir()) / name / "task.toml"
    if not path.is_file():
        there = task_names(root)
        known = ", ".join(there) or "none"
        raise TaskError(f"no task {name!r}{did_you_mean(name, there)} in {path.parents[1]}; there are {known}")
    file = _read(path)
    problem = next(task_problems(path, file), None)
    if problem:
        raise TaskError(problem)
    return file if root is None else msgspec.structs.replace(file, folder=str(path.parent.absolute()))


def _read(path: Path) -> TaskFile:
    """A task file of either kind; one with a table ``[text]`` is that of a text task."""
    content = path.read_text(encoding=ENCODING, errors="replace")
    if not re.search(r"^\s*(\[text[].]|text\s*=)", content, flags=re.MULTILINE):
        return read_toml(path, TaskFile, TaskError)
    own = read_toml(path, TextTaskFile, TaskError)
    for keys, message in text_problems(own):
        raise TaskError(f"{path}:{line_of(path.read_text(encoding=ENCODING), keys)}: {message}")
    file = TaskFile(own.name, own.title, (), own.fields, own.metric, {}, text=own.text)
    if own.hub is None:
        return file
    given = own.hub
    hub = HubSource(
        given.dataset, given.columns, given.references, given.train, given.test, given.config, given.revision
    )
    return msgspec.structs.replace(file, hub=hub, text_hub=given)


def find_task(name: str, root: Path | None) -> TaskFile:
    """The task of this name in `root`, if it is there, or else among those that ship.

    Args:
        name: the name of its folder.
        root: a folder of tasks that is searched first; None if there is none.

    Raises:
        TaskError: it is in neither, or its file breaks a rule.
    """
    if root is None or (root / name / "task.toml").is_file():
        return load_task(name, root)
    if name not in task_names():
        here = ", ".join(task_names(root)) or "no task"
        raise TaskError(f"no task {name!r}: {root} has {here}, and those that ship are {', '.join(task_names())}")
    return load_task(name)


def task_problems(path: Path, file: TaskFile) -> Iterator[str]:
    """Each rule that a task file breaks, with the path and line."""
    text = path.read_text(encoding=ENCODING)
    for keys, message in _problems(file, path.absolute().parent.name):
        yield f"{path}:{line_of(text, keys)}: {message}"


def with_metric(file: TaskFile, metric: Metric | msgspec.UnsetType | None) -> TaskFile:
    """A task file with the metric of a track or a stored cell; its own where there is none."""
    return msgspec.structs.replace(file, metric=metric) if isinstance(metric, str) else file


def outside_sets() -> dict[str, TaskFile]:
    """Public sets that no track tests on, for `harness pretrain-prompt`, in SNLI's wording and label order."""
    glue, snli = load_task("qqp").hub, load_task("snli")
    revision = glue.revision if glue else None
    columns = ("premise", "hypothesis")
    mnli = HubSource("nyu-mll/glue", columns, "label", "train", "validation_matched", "mnli", revision)
    return {"mnli": msgspec.structs.replace(snli, name="mnli", title="MNLI", hub=mnli, kit=None)}


def outside_set(name: str) -> TaskFile:
    """One of `outside_sets`.

    Raises:
        InputError: there is no set of this name.
    """
    known = outside_sets()
    if name not in known:
        raise InputError(f"--source {name!r}: choose one of {', '.join(known)}")
    return known[name]


def _problems(file: TaskFile, folder: str) -> Iterator[tuple[list[str], str]]:
    """Each broken rule as (keys, message)."""
    count = len(file.classes)
    if file.name != folder:
        yield ["name"], f"name is {file.name!r} but the folder is {folder!r}; make them equal"
    if file.text is not msgspec.UNSET:
        return
    if file.text_hub is not msgspec.UNSET:
        yield ["text_hub"], "unknown field `text_hub`; a public data set is the table [hub]"
    yield from _class_problems(file, count)
    if not file.profiles:
        yield ["profiles"], f"no profile; add [profiles.{OWN_PROFILE}] with `masked`"
    for name, profile in file.profiles.items():
        for kind, cloze in (("masked", profile.masked), ("causal", profile.causal)):
            found = _cloze_problem(cloze, file, kind == "causal") if cloze else None
            if found:
                yield ["profiles", name, kind], f"profiles.{name}.{kind}: {found}"
    if file.folder is not msgspec.UNSET:
        yield ["folder"], "unknown field `folder`: a task's folder is where its task.toml is"
    yield from _source_problems(file)


def _class_problems(file: TaskFile, count: int) -> Iterator[tuple[list[str], str]]:
    if count < 2 or len(set(file.classes)) != count:  # noqa: PLR2004
        yield ["classes"], f"{count} classes, {len(set(file.classes))} distinct; at least 2 distinct are needed"
    if file.metric not in get_args(ClassMetric):
        yield ["metric"], f"metric {file.metric} compares texts; with classes it is {', '.join(get_args(ClassMetric))}"
    if file.metric == "f1" and count != 2:  # noqa: PLR2004
        yield ["metric"], f"metric f1 compares class 1 with class 0, and there are {count} classes; use macro_f1"


def _source_problems(file: TaskFile) -> Iterator[tuple[list[str], str]]:
    count = len(file.classes)
    labels = file.kit.labels if file.kit else None
    if labels is not None and (len(labels) != count or len(set(labels)) != count):
        message = f"kit.labels has {len(labels)} labels, {len(set(labels))} distinct, for {count} classes"
        yield ["kit", "labels"], f"{message}; a label of its own is needed for each"
    for table, source in (("hub", file.hub), ("files", file.files)):
        if source and len(source.columns) != file.fields:
            message = f"{table}.columns has {len(source.columns)} columns for {file.fields} text fields"
            yield [table, "columns"], f"{message}; one for each is needed"
    if file.files:
        yield from _files_problems(file, file.files)


def _files_problems(file: TaskFile, files: FilesSource) -> Iterator[tuple[list[str], str]]:
    columns, labels, count = (*files.columns, files.label), file.written_labels, len(file.classes)
    if len(set(columns)) != len(columns):
        yield ["files", "columns"], f"files.columns and files.label name {', '.join(columns)}; each must be another"
    if len(labels) != count or len(set(labels)) != count:
        message = f"files.labels has {len(labels)} labels, {len(set(labels))} distinct, for {count} classes"
        yield ["files", "labels"], f"{message}; a label of its own is needed for each"


def _cloze_problem(cloze: Cloze, file: TaskFile, causal: bool) -> str | None:
    count, words = len(file.classes), cloze.words
    if len(words) != count or len(set(words)) != count:
        return f"{len(words)} words, {len(set(words))} distinct, for {count} classes; a word of its own for each"
    return template_problem(cloze.template, file.fields, causal)


def template_problem(template: str, fields: int, causal: bool) -> str | None:
    """Say what is wrong with a template, or return None. It needs {mask} and each text field exactly once."""
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
