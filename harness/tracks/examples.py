"""Examples from the embedded miniatures, a competition kit directory, files of one's own, or public data sets.

Every source gives `Examples` with labels 0..K-1 in the task's class order. A bad row is an error with file and line.
Nothing is guessed, and nothing is dropped but the rows that a public data set marks as unlabelled (-1).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec
import numpy as np

from harness.contract import Examples, Shots, Text
from harness.errors import DataError
from harness.tracks.files import read_table
from harness.tracks.tasks import TaskFile, tasks_dir
from harness.tracks.text_examples import draw_text_shots, from_table, read_references

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.tracks.bbt_2022 import RowsOf2022
    from harness.tracks.tasks import FilesSource, HubSource, KitSource
    from harness.tracks.track import DataSource
    from harness.tracks.track_task import TrackTask


@dataclass(frozen=True)
class Source:
    """A data source, with its directory if it has one."""

    kind: DataSource
    directory: Path | None = None
    test: Path | None = None
    """A directory whose test sets stand in for the source's own: those nobody has seen, of `--test-data`."""
    all_splits: bool = False
    """Whether all splits of a kit directory are run, whatever the track names."""
    rows: RowsOf2022 | None = None
    """How BBT's code chooses rows of a public data set; None is this project's way."""

    def __str__(self) -> str:
        """Name for messages and stored runs: the kind and the names of directories."""
        name = self.kind if self.directory is None else f"{self.kind}:{self.directory.name}"
        return name if self.test is None else f"{name} + test:{self.test.name}"


class _Row(msgspec.Struct, frozen=True):
    """One line of a miniature. Other fields in it are notes of the writers."""

    texts: Text
    label: str


def load_shots(file: TaskFile, source: Source, split: int, spec: TrackTask) -> Shots:
    """Training and dev examples of one split.

    Raises:
        DataError: the split is missing, or a file is malformed.
    """
    if file.text is not msgspec.UNSET:
        return draw_text_shots(_texts(file, source, "pool"), spec.shots, spec.dev, f"{file.name}/{split}")
    if source.kind == "files":
        folder = _split_folder(file, source, split)
        ending = _files(file).format
        return Shots(read_file(folder / f"train.{ending}", file), read_file(folder / f"dev.{ending}", file))
    if source.kind == "kit":
        folder = _kit_folder(file, source) / str(split)
        if not folder.is_dir():
            there = ", ".join(map(str, kit_splits(file, source))) or "none"
            raise DataError(
                f"{folder}: split {split} of {file.title} is missing; this directory has {there}. "
                "Add the split, or run those present with --present-splits"
            )
        return Shots(read_tsv(folder / "train.tsv", file), read_tsv(folder / "dev.tsv", file))
    if source.rows is not None:
        return source.rows.shots(_hub(file, source, test=False), file, split, spec)
    pool = _mini(file, "pool") if source.kind == "embedded" else _hub(file, source, test=False)
    return draw_shots(pool, len(file.classes), spec.shots, spec.dev, f"{file.name}/{split}")


def load_pool(file: TaskFile, source: Source) -> Examples:
    """The whole training set of a public data set, in its order.

    Raises:
        DataError: it cannot be had, or is malformed.
    """
    return _hub(file, source, test=False)


def load_test(file: TaskFile, source: Source) -> Examples:
    """The held-out test set.

    Raises:
        DataError: it is missing or malformed.
    """
    if file.text is not msgspec.UNSET:
        return _texts(file, source, "test")
    if source.test is not None:
        return _private_test(file, source.test)
    if source.kind == "files":
        return read_file(data_folder(file, source) / f"test.{_files(file).format}", file)
    if source.kind == "kit":
        return read_tsv(_kit_folder(file, source) / "test.tsv", file)
    if source.kind == "embedded":
        return _mini(file, "test")
    return _hub(file, source, test=True) if source.rows is None else source.rows.kept(_hub(file, source, True), file)


def check_unseen(
    file: TaskFile, source: Source, shots: Sequence[Shots], read: Callable[[Text], Text] = lambda text: text
) -> None:
    """Check that the test sets of `--test-data` share no text with the public test set, with train or with dev.

    Texts are compared as `read` gives them: spaces, for example, or an uncased model's upper case make no other text.

    Raises:
        DataError: some texts are shared. The message names the first.
    """
    public: set[Text] = {text for each in shots for examples in (each.train, each.dev) for text in examples.texts}
    with contextlib.suppress(DataError):  # there may be no public test set to compare with
        public |= set(load_test(file, replace(source, test=None)).texts)
    private = load_test(file, source).texts
    known = set(map(read, public))
    seen = [number for number, text in enumerate(private, start=1) if read(text) in known]
    if seen:
        raise DataError(
            f"{source.test}: {len(seen):,} of {len(private):,} test texts of {file.title} are public, in the test set "
            f"or in a split, as the model reads them, the first in row {seen[0]:,}: "
            f"{private[seen[0] - 1][0][:60]!r}. Take them out"
        )


def splits_of(file: TaskFile, source: Source, spec: TrackTask, present_only: bool = False) -> list[int]:
    """Names of the splits to run.

    With `present_only`, splits that are missing in the kit directory are left out.

    Raises:
        DataError: no split is left.
    """
    if source.kind not in {"kit", "files"}:
        if spec.splits == "present":
            raise DataError(f"{file.title}: the track takes the splits of a kit directory; give one with --data DIR")
        return list(spec.splits)
    present = kit_splits(file, source) if source.kind == "kit" else file_splits(file, source)
    wanted = present if spec.splits == "present" or source.all_splits else list(spec.splits)
    chosen = [split for split in wanted if split in present] if present_only else wanted
    if not chosen and source.kind == "files":
        raise DataError(f"{data_folder(file, source)}: no split to run; splits/<split>/train and dev are expected")
    if not chosen:
        raise DataError(f"{_kit_folder(file, source)}: no split to run; expected <split>/train.tsv and <split>/dev.tsv")
    return chosen


def kit_splits(file: TaskFile, source: Source) -> list[int]:
    """Splits that a kit directory has for a task."""
    return _numbered(_kit_folder(file, source))


def file_splits(file: TaskFile, source: Source) -> list[int]:
    """Splits that lie in the folder of a task's own data."""
    folder = data_folder(file, source) / "splits"
    return _numbered(folder) if folder.is_dir() else []


def _numbered(parent: Path) -> list[int]:
    folders = parent.iterdir()
    return sorted(int(path.name) for path in folders if path.is_dir() and re.fullmatch("0|[1-9][0-9]*", path.name))


def draw_shots(pool: Examples, classes: int, train: int, dev: int, key: str) -> Shots:
    """Draw `train` + `dev` examples per class from a pool. The result is the same on every platform.

    Texts are ordered by the SHA-256 of key and text, so the draw depends neither on the order of the file nor on a
    library's random numbers. A text that occurs several times counts once, and a text with different labels is not
    used, so train and dev share no text. Labels alternate 0..K-1 in the result.

    Raises:
        DataError: a class has too few examples.
    """
    label_of: dict[Text, int] = {}
    for text, label in zip(pool.texts, pool.labels.tolist(), strict=True):
        label_of[text] = label if label_of.get(text, label) == label else -1
    by_class: list[list[Text]] = [[] for _ in range(classes)]
    for text in sorted(label_of, key=lambda text: hashlib.sha256(json.dumps([key, *text]).encode()).digest()):
        if label_of[text] >= 0:
            by_class[label_of[text]].append(text)
    for label, texts in enumerate(by_class):
        if len(texts) < train + dev:
            raise DataError(f"{key}: class {label} has {len(texts)} different texts, {train} + {dev} are needed")

    def rows(start: int, stop: int) -> Examples:
        texts = tuple(by_class[label][i] for i in range(start, stop) for label in range(classes))
        return Examples(texts, np.tile(np.arange(classes, dtype=np.int64), stop - start))

    return Shots(rows(0, train), rows(train, train + dev))


def examples_sha256(examples: Examples) -> str:
    """Digest of texts and labels, which is stored with every result."""
    said = examples.references or examples.labels.tolist()
    payload = json.dumps([[list(text), answer] for text, answer in zip(examples.texts, said, strict=True)])
    return hashlib.sha256(payload.encode()).hexdigest()


def read_tsv(path: Path, file: TaskFile) -> Examples:
    """Read the kit's TSV: no header, no quoting, text columns, then the label as written.

    Raises:
        DataError: missing or empty file, wrong number of columns, unknown label, undecodable bytes.
    """
    rows = []
    for number, line in enumerate(_lines(path), start=1):
        columns = line.split("\t")
        if len(columns) != file.fields + 1:
            raise DataError(
                f"{path}:{number}: {len(columns)} columns, {file.fields + 1} expected "
                f"({file.fields} of text, then the label)"
            )
        rows.append((tuple(columns[:-1]), columns[-1].strip(), number))
    return _examples(path, rows, _kit(file).labels)


def read_file(path: Path, file: TaskFile) -> Examples:
    """Read a CSV, TSV or JSONL file with named columns.

    Raises:
        DataError: missing or empty file, a column that is missing, a malformed row, or an unknown label.
    """
    files = _files(file)
    rows, problems = read_table(path, files.columns, files.label)
    if problems:
        raise DataError(str(problems[0]))
    return _examples(path, [(row.texts, row.label, row.line) for row in rows], file.written_labels)


def data_folder(file: TaskFile, source: Source) -> Path:
    """The folder of a task's own data: below the directory of the source, or else where its task.toml is."""
    if source.directory is not None:
        return source.directory / file.name
    return Path(file.folder) if isinstance(file.folder, str) else tasks_dir() / file.name


def source_at(kind: DataSource, directory: Path | None) -> Source:
    """The source of a track's data, or the one in a directory that was given: files if the track has files, or a kit.

    Args:
        kind: the track's own.
        directory: what `--data` names; None if nothing was given.
    """
    return Source(kind if directory is None or kind == "files" else "kit", directory)


def private_tests(file: TaskFile, directory: Path) -> list[Path]:
    """Where a directory with the layout of a kit or of `tasks/` may have the test set of a task."""
    kit = [] if file.kit is None else [directory / file.kit.folder / "test.tsv"]
    own = "mini/test.jsonl" if file.files is None else f"test.{file.files.format}"
    return [*kit, directory / file.name / own]


def _private_test(file: TaskFile, directory: Path) -> Examples:
    possible = private_tests(file, directory)
    here = [path for path in possible if path.is_file()]
    if len(here) != 1:
        wanted = " or ".join(map(str, possible))
        raise DataError(f"{directory} has {len(here)} test sets of {file.title}; one is expected, {wanted}")
    if here[0] != possible[-1]:
        return read_tsv(here[0], file)
    return _mini(file, "test", directory) if file.files is None else read_file(here[0], file)


def _texts(file: TaskFile, source: Source, part: str) -> Examples:
    """Texts and references of a miniature or a public data set; of ``--test-data``, those of the test set."""
    if source.kind == "hub" and not (source.test is not None and part == "test"):
        if file.text_hub is msgspec.UNSET:
            raise DataError(f"task {file.name} has no [hub] table; take a track with its miniature")
        return from_table(*_table(file, source, part == "test"), file.text_hub, part == "test")
    if source.kind not in {"embedded", "hub"}:
        raise DataError(f"task {file.name} is answered by text; its data are the miniature: leave out --data")
    own = Path(file.folder).parent if isinstance(file.folder, str) else tasks_dir()
    root = source.test if source.test is not None and part == "test" else own
    return read_references(root / file.name / "mini" / f"{part}.jsonl", file.fields)


def _mini(file: TaskFile, part: str, tasks: Path | None = None) -> Examples:
    own = Path(file.folder).parent if isinstance(file.folder, str) else tasks_dir()
    path = (tasks or own) / file.name / "mini" / f"{part}.jsonl"
    if not path.parent.is_dir():
        raise DataError(f"task {file.name} has no miniature, {path.parent} is missing; take a track on other data")
    rows = []
    for number, line in enumerate(_lines(path), start=1):
        try:
            row = msgspec.json.decode(line, type=_Row)
        except msgspec.DecodeError as problem:
            raise DataError(f'{path}:{number}: expected {{"texts": [...], "label": "..."}}: {problem}') from problem
        if len(row.texts) != file.fields:
            raise DataError(f"{path}:{number}: {len(row.texts)} texts, {file.fields} strings expected")
        rows.append((row.texts, row.label, number))
    return _examples(path, rows, file.classes)


def _table(file: TaskFile, source: Source, test: bool) -> tuple[dict[str, list[Any]], str]:
    """Columns of a public data set and their name: from the hub's cache, or from `source.directory/<task>`."""
    import datasets  # noqa: PLC0415 - seconds to import, and only this source needs it

    if file.hub is None:
        raise DataError(f"task {file.name} has no [hub] table; use another --data")
    hub, split = file.hub, file.hub.test if test else file.hub.train
    where = f"{hub.dataset}{f'/{hub.config}' if hub.config else ''}, split {split}"
    try:
        if source.directory is not None:
            table: Any = datasets.load_from_disk(str(source.directory / file.name))[split]
        else:
            table = datasets.load_dataset(hub.dataset, hub.config, split=split, revision=hub.revision)
        names = dict.fromkeys(name.partition(".")[0] for name in (*hub.columns, hub.label))
        return {name: table[name][:] for name in names}, where  # whole: reading rows takes many times as long
    except Exception as problem:
        raise DataError(
            f"{file.title}: {where} cannot be loaded: {type(problem).__name__}: {problem}. "
            "Fetch it with `harness fetch` on a machine with a network, or give a kit directory with --data DIR"
        ) from problem


def _hub(file: TaskFile, source: Source, test: bool) -> Examples:
    """Texts and labels of a public data set."""
    (table, where), hub = _table(file, source, test), cast("HubSource", file.hub)
    columns = [table[name] for name in (*hub.columns, hub.label)]
    labels = tuple(str(k) for k in range(len(file.classes)))
    rows = [(tuple(row[:-1]), str(row[-1]), n) for n, row in enumerate(zip(*columns, strict=True)) if row[-1] != -1]
    for texts, _, number in rows:
        if not all(isinstance(text, str) for text in texts):
            raise DataError(f"{where}:{number}: {texts} in columns {', '.join(hub.columns)}; strings expected")
    return _examples(where, rows, labels)


def _examples(where: object, rows: Sequence[tuple[Text, str, int]], names: tuple[str, ...]) -> Examples:
    if not rows:
        raise DataError(f"{where}: no rows; at least one example is expected")
    index = {name: k for k, name in enumerate(names)}
    for _, label, number in rows:
        if label not in index:
            raise DataError(f"{where}:{number}: unknown label {label!r}; expected one of {', '.join(names)}")
    labels = np.array([index[label] for _, label, _ in rows], dtype=np.int64)
    return Examples(tuple(texts for texts, _, _ in rows), labels)


def _kit_folder(file: TaskFile, source: Source) -> Path:
    if source.directory is None:
        raise DataError("this track reads a competition kit; say where it is with --data DIR")
    name = _kit(file).folder
    folder = source.directory / name
    if not folder.is_dir():
        raise DataError(f"{folder}: no such directory; expected {name}/<split>/train.tsv and dev.tsv")
    return folder


def _kit(file: TaskFile) -> KitSource:
    if file.kit is None:
        raise DataError(
            f"task {file.name} has no [kit] table: the competition kit lacks it; take a track on other data"
        )
    return file.kit


def _files(file: TaskFile) -> FilesSource:
    if file.files is None:
        raise DataError(f"task {file.name} has no [files] table: no files with named columns; take a track on others")
    return file.files


def _split_folder(file: TaskFile, source: Source, split: int) -> Path:
    folder = data_folder(file, source) / "splits" / str(split)
    if not folder.is_dir():
        there = ", ".join(map(str, file_splits(file, source))) or "none"
        raise DataError(f"{folder}: split {split} of {file.title} is missing; there are {there}")
    return folder


def _lines(path: Path) -> list[str]:
    """Lines of a UTF-8 file, which end in LF or CRLF. Any other character, and a lone CR, belongs to its line."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except UnicodeDecodeError as problem:
        line = problem.object.count(b"\n", 0, problem.start) + 1
        raise DataError(
            f"{path}:{line}: byte 0x{problem.object[problem.start]:02x} is not UTF-8; save as UTF-8"
        ) from problem
    except OSError as problem:
        raise DataError(f"{path}: cannot be read: {problem}") from problem
    lines = text.split("\n")
    return [line.removesuffix("\r") for line in (lines if lines[-1] else lines[:-1])]
