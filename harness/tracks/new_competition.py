"""Makes the folder of a competition for `harness new-competition`: a track, a task with its data, and a page."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np

from harness.contract import ClassMetric, Examples
from harness.errors import DataError, InputError, counted
from harness.tracks.dividing import Divided, Sizes, divide
from harness.tracks.files import Row, column_names, format_of, read_table, write_table
from harness.tracks.tasks import OWN_PROFILE, tasks_dir, template_problem
from harness.tracks.track import OF_FOLDER, track_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.tracks.files import Format

_SAMPLE = "sst2"
"""The task whose miniature is the data of a competition that is made without any."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_SHOWN = 5
_TEMPLATES = {1: ("{a} . It was {mask} .", "{a} . It was{mask}"), 2: ("{a} ? {mask} , {b}", "{a} {b} Answer:{mask}")}
"""Templates for masked and for causal models, by the number of texts."""


@dataclass(frozen=True)
class Wanted:
    """What the competition is to be."""

    data: Path | None = None
    """A labelled file; None takes one that ships."""
    text: tuple[str, ...] = ()
    """Names of the columns with the texts."""
    label: str = ""
    """Name of the column with the label."""
    test: Path | None = None
    """A labelled file with the same columns that is the test set; None draws one from `data`."""
    task: str = ""
    """Name of the task; empty is that of the data's file."""
    classes: tuple[str, ...] = ()
    """Names of the classes, in the order of the sorted labels; empty takes the labels."""
    words: tuple[str, ...] = ()
    """Label words in the same order; empty takes the names of the classes."""
    template: str = ""
    """Empty takes a usual one."""
    metric: str = "accuracy"
    calls: int = 300
    sizes: Sizes = Sizes(16, 16, 8)  # noqa: RUF009 - a frozen value
    model: str = "embedded"
    kind: str = "masked"
    """Of the model, as a track names it."""


@dataclass(frozen=True)
class Made:
    """What was made."""

    folder: Path
    task: str
    notes: tuple[str, ...]
    """What of the data was left out, in lines."""


def create(directory: Path, wanted: Wanted) -> Made:
    """Make the folder, whole or not at all.

    Args:
        directory: where; its last name is that of the track.
        wanted: what it is to be.

    Raises:
        InputError: the folder exists, or a name or an option cannot be used.
        DataError: the data cannot be read, or are too few. The message has the numbers.
    """
    name = directory.absolute().name
    if not _NAME.fullmatch(name) or name in track_names():
        taken = "is a track that ships" if name in track_names() else "cannot be a track's name"
        raise InputError(f"{name!r} {taken}; letters, digits, '-' and '_', up to 64, are a name of your own")
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise InputError(f"{directory} exists already and is not empty; choose another folder")
    wanted, form, given, test, sample = _given(wanted)
    classes, labels = _classes(given, wanted)
    words = _words(wanted, classes)
    metric = _metric(wanted.metric, len(classes))
    drawn = divide(
        wanted.task, classes, _examples(given, labels), None if test is None else _examples(test, labels), wanted.sizes
    )
    building = directory.with_name(f".{name}.new")
    shutil.rmtree(building, ignore_errors=True)
    try:
        _data(building / "tasks" / wanted.task, wanted, form, labels, drawn)
        task = _task_toml(wanted, form, classes, labels, words, metric)
        for place, text in (
            (building / "tasks" / wanted.task / "task.toml", task),
            (building / OF_FOLDER, _track_toml(name, wanted)),
            (building / "README.md", _readme(name, wanted, form, drawn, sample)),
        ):
            place.write_text(text, encoding="utf-8")
        if directory.is_dir():
            directory.rmdir()
        building.rename(directory)
    except OSError as problem:
        raise InputError(f"{directory} cannot be made: {problem}") from problem
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return Made(directory, wanted.task, drawn.notes)


def _given(wanted: Wanted) -> tuple[Wanted, Format, list[Row], list[Row] | None, bool]:
    """The wish with names for all that it left open, the format, the rows, the given test set, and whether it ships."""
    if wanted.data is None:
        if wanted.text or wanted.label or wanted.test or wanted.classes:
            raise InputError("--text, --label, --test and --classes are about a file of yours; name it with --data")
        rows = [_sample(part) for part in ("pool", "test")]
        words = wanted.words or ("bad", "great")
        found = _replace(wanted, text=("sentence",), label="label", task=wanted.task or "films", words=words)
        return found, "csv", rows[0], rows[1], True
    there = column_names(wanted.data)
    lacking = [name for name in (*wanted.text, wanted.label) if name and name not in there]
    if not wanted.text or not wanted.label or lacking:
        what = f"has no column {lacking[0]!r}" if lacking else "needs the names of its columns"
        if len(there) == 1 and ";" in there[0]:
            raise InputError(f"{wanted.data} separates fields by semicolons; save it with commas, or with tabs as .tsv")
        raise InputError(
            f"{wanted.data} {what}; it has {', '.join(there)}. Name the column of the text (twice for a pair) and that "
            "of the label: --text COLUMN --label COLUMN"
        )
    if len(wanted.text) > 2:  # noqa: PLR2004
        raise InputError(f"--text is given {len(wanted.text)} times; a task has one text, or a pair")
    task = wanted.task or re.sub(r"[^a-z0-9_-]+", "-", wanted.data.stem.lower()).strip("-_") or "task"
    if not _NAME.fullmatch(task):
        raise InputError(f"--task {task!r}: letters, digits, '-' and '_', up to 64, are a name")
    test = None if wanted.test is None else _rows(wanted.test, wanted)
    return _replace(wanted, task=task), format_of(wanted.data), _rows(wanted.data, wanted), test, False


def _replace(wanted: Wanted, **values: object) -> Wanted:
    from dataclasses import replace  # noqa: PLC0415 - its name says little beside str.replace

    return replace(wanted, **values)  # type: ignore[arg-type]  # fields of Wanted


def _sample(part: str) -> list[Row]:
    lines = (tasks_dir() / _SAMPLE / "mini" / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    return [Row(n, tuple(row["texts"]), row["label"]) for n, row in enumerate(found, start=1)]


def _rows(path: Path, wanted: Wanted) -> list[Row]:
    rows, problems = read_table(path, wanted.text, wanted.label)
    if problems:
        lines = [str(each) for each in problems[:_SHOWN]]
        more = [f"and {len(problems) - _SHOWN:,} more"] if len(problems) > _SHOWN else []
        raise DataError(f"{counted(len(problems), 'row')} cannot be used:\n" + "\n".join(lines + more))
    if not rows:
        raise DataError(f"{path}: no rows; at least one example is expected")
    return rows


def _classes(rows: Sequence[Row], wanted: Wanted) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the classes, and the labels as they are written, in class order."""
    found = {row.label for row in rows}
    numbers = all(re.fullmatch(r"-?[0-9]+", label) for label in found)
    labels = tuple(sorted(found, key=lambda label: (int(label) if numbers else 0, label)))
    if len(labels) < 2 or "" in labels:  # noqa: PLR2004
        what = "some rows have no label" if "" in labels else f"all rows have the label {labels[0]!r}"
        raise DataError(f"{wanted.data}: {what}; every row needs one of at least two labels in column {wanted.label!r}")
    if len(labels) > len(rows) // 4:
        raise DataError(
            f"{wanted.data}: column {wanted.label!r} has {len(labels):,} different values in {len(rows):,} rows; a "
            "label is one of a few classes. Is another column meant?"
        )
    classes = wanted.classes or labels
    if len(classes) != len(labels) or len(set(classes)) != len(classes):
        raise InputError(
            f"--classes names {len(classes)} classes, {len(set(classes))} distinct; the labels are "
            f"{', '.join(labels)}, and each needs a name of its own, in this order"
        )
    return classes, labels


def _words(wanted: Wanted, classes: Sequence[str]) -> tuple[str, ...]:
    words = wanted.words or tuple(name.lower() for name in classes)
    if len(words) != len(classes) or len(set(words)) != len(words):
        raise InputError(
            f"--words has {len(words)} words, {len(set(words))} distinct, for the classes {', '.join(classes)}; each "
            "needs a word of its own, in this order"
        )
    return tuple(f" {word.strip()}" for word in words)


def _metric(name: str, classes: int) -> ClassMetric:
    found = next((each for each in get_args(ClassMetric) if each == name), None)
    if found is None or (found == "f1" and classes != 2):  # noqa: PLR2004
        fitting = ", ".join(each for each in get_args(ClassMetric) if each != "f1" or classes == 2)  # noqa: PLR2004
        raise InputError(f"--metric {name}: {fitting} can score {classes} classes")
    return found  # type: ignore[no-any-return]  # of get_args


def _examples(rows: Sequence[Row], labels: Sequence[str]) -> Examples:
    index = {label: k for k, label in enumerate(labels)}
    unknown = next((row for row in rows if row.label not in index), None)
    if unknown is not None:
        there = ", ".join(labels)
        raise DataError(f"line {unknown.line} of the test set has the label {unknown.label!r}; the data have {there}")
    return Examples(tuple(row.texts for row in rows), np.array([index[row.label] for row in rows], dtype=np.int64))


def _data(folder: Path, wanted: Wanted, form: Format, labels: Sequence[str], drawn: Divided) -> None:
    files = {folder / f"test.{form}": drawn.test}
    for number, shots in drawn.shots.items():
        files[folder / "splits" / str(number) / f"train.{form}"] = shots.train
        files[folder / "splits" / str(number) / f"dev.{form}"] = shots.dev
    for path, examples in files.items():
        written = [labels[label] for label in examples.labels.tolist()]
        write_table(path, wanted.text, wanted.label, list(zip(examples.texts, written, strict=True)))


def _string(text: str) -> str:
    """A TOML string: JSON's escapes, and the one character that TOML forbids beyond them."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _list(texts: Sequence[str]) -> str:
    return f"[{', '.join(map(_string, texts))}]"


def _task_toml(
    wanted: Wanted,
    form: Format,
    classes: Sequence[str],
    labels: Sequence[str],
    words: Sequence[str],
    metric: ClassMetric,
) -> str:
    fields = len(wanted.text)
    masked, causal = _TEMPLATES[fields]
    if wanted.template:
        problem = template_problem(wanted.template, fields, causal=False)
        if problem:
            raise InputError(f"--template: {problem}")
        masked = wanted.template
        causal = masked if masked.endswith("{mask}") else causal
    renamed = "" if tuple(labels) == tuple(classes) else f"labels = {_list(labels)}  # as written in the files\n"
    return f"""# Every field is explained in docs/tasks.md.
name = {_string(wanted.task)}
title = {_string(wanted.task)}
classes = {_list(classes)}
fields = {fields}  # texts of one example
metric = {_string(metric)}

# Words are taken verbatim. The leading space belongs to the word, as models with byte-pair encoding write it.
[profiles.{OWN_PROFILE}]
masked = {{ template = {_string(masked)}, words = {_list(words)} }}
causal = {{ template = {_string(causal)}, words = {_list(words)} }}

[files]
format = {_string(form)}
columns = {_list(wanted.text)}
label = {_string(wanted.label)}
{renamed}"""


def _track_toml(name: str, wanted: Wanted) -> str:
    model = str(Path(wanted.model).absolute()) if Path(wanted.model).is_dir() else wanted.model
    formats = 'dtype = "bfloat16"\nformats = ["bfloat16", "int8", "float32"]'
    numbers = formats if model == "embedded" else f'kind = {_string(wanted.kind)}\ndtype = "float32"'
    splits = ", ".join(map(str, range(1, wanted.sizes.splits + 1)))
    return f"""# Every field is explained in docs/tracks.md.
name = {_string(name)}
title = {_string(f"{name}: {wanted.task}")}
rules = 1
profile = {_string(OWN_PROFILE)}
device = "cpu"

[model]
source = {_string(model)}
{numbers}

[data]
source = "files"

[prompt]
tokens = 8
first_id = 2000

[limits]
wall_s = 600
memory_gb = 4

[tasks.{wanted.task}]
calls = {wanted.calls}
splits = [{splits}]

# Dates and limits. They change no score, and may be changed at any time.
# [competition]
# opens = 2030-01-01T09:00:00Z
# closes = 2030-01-31T21:00:00Z
# attempts_per_day = 5
# public = "ranks"  # until it closes: "scores", "ranks" or "nothing"
"""


def _readme(name: str, wanted: Wanted, form: Format, drawn: Divided, sample: bool) -> str:
    first = next(iter(drawn.shots.values()))
    origin = (
        "The texts were written for the harness and are dedicated to the public domain (CC0 1.0)."
        if sample
        else f"The texts are from {wanted.data.name if wanted.data else 'a file'}."
    )
    sizes = f"{len(drawn.shots)} splits of {len(first.train)} training and {len(first.dev)} dev examples"
    return f"""# {name}

A competition in gradient-free tuning of a language model on the task `{wanted.task}`: {sizes}, and
{len(drawn.test):,} test texts. {origin}

```
harness tasks --check {name}                                  # what is wrong; label words, bias, zero-shot score
harness new mysolver                                          # a submission to start from
harness evaluate submissions/mysolver --track {name}
harness leaderboard --track {name}
```

| | |
|---|---|
| `track.toml` | model, budget, limits, dates: what is fixed for all submissions |
| `tasks/{wanted.task}/task.toml` | classes, template, label words, metric |
| `tasks/{wanted.task}/splits/N/train.{form}`, `dev.{form}` | the few-shot examples, for everybody |
| `tasks/{wanted.task}/test.{form}` | the test set, for the organiser alone |

**Participants** get this folder without `test.{form}`. To try a submission they put a file of their own in its place,
for example a copy of `splits/1/dev.{form}`; such runs have other data and are never ranked with the organiser's.
"""
