"""Check the miniature data sets in tasks/<name>/mini: balanced, free of duplicates, not too easy.

A miniature is worth tuning on only if shallow cues do not solve it. Two classifiers look for such
cues, both logistic regressions (L2, C = 1, lbfgs) trained on pool and scored on test:

    bag of words   x = counts of the words of the text, or of one column of a pair
    word overlap   x = (|A & B| / |A | B|, |A & B| / |A|, |A & B| / |B|, len b - len a)

where a, b are the words of a pair, A, B their sets, and x is standardised. Near-duplicates are
found by J(r, s) = |G_r & G_s| / |G_r | G_s|, with G_r the word 5-grams of row r, its texts joined.

    python tools/check_miniatures.py --task sst2

Exit code 0: all checks passed; 1: one or more failed. Row numbers are line numbers, from 1.
"""

import argparse
import json
import operator
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import (  # type: ignore[import-untyped,unused-ignore]
    CountVectorizer,
)
from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped,unused-ignore]
from sklearn.preprocessing import StandardScaler  # type: ignore[import-untyped,unused-ignore]

WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")  # letters, digits, inner apostrophes: "don't" is one
GRAM = 5  # words in a shingle
JACCARD_LIMIT = 0.2  # 5-gram overlap at which two rows are near-duplicates
OPENING = 3  # words in an opening
ROWS_SHOWN = 12  # row numbers on a line of text; --json has all
WORDS_SHOWN = 6  # telling words of each class on a line of text
RELATIONS: dict[str, Callable[[float, float], bool]] = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
}
OVERLAP_FEATURES = ("Jaccard", "share of first", "share of second", "length difference")
DBPEDIA = (
    "Company EducationalInstitution Artist Athlete OfficeHolder MeanOfTransportation Building "
    "NaturalPlace Village Animal Plant Album Film WrittenWork"
)


@dataclass(frozen=True)
class TaskSpec:
    """What the miniature of a task has to be; an accuracy without a limit is only reported."""

    classes: tuple[str, ...]
    columns: tuple[str, ...]
    pool_rows: int
    test_rows: int
    bow_limit: float | None = None
    """Highest accuracy of a bag of words over all columns."""
    second_limit: float | None = None
    """Highest accuracy of a bag of words over the second column alone."""
    overlap_limit: float | None = None
    """Highest accuracy of word overlap between the two columns."""


SPECS: dict[str, TaskSpec] = {
    "sst2": TaskSpec(("negative", "positive"), ("sentence",), 80, 200, bow_limit=0.80),
    "dbpedia": TaskSpec(tuple(DBPEDIA.split()), ("text",), 280, 210),
    "snli": TaskSpec(
        ("Entailment", "Neutral", "Contradiction"),
        ("premise", "hypothesis"),
        120,
        300,
        second_limit=0.45,
        overlap_limit=0.60,  # in SNLI, too, a contradiction is often about something else
    ),
    "qqp": TaskSpec(("different", "duplicate"), ("question 1", "question 2"), 80, 200, overlap_limit=0.65),
    "qnli": TaskSpec(("entailment", "not_entailment"), ("question", "sentence"), 80, 200, overlap_limit=0.65),
}


@dataclass(frozen=True)
class Row:
    """One well-formed line of pool.jsonl or test.jsonl."""

    place: str
    """File and line number, such as "pool:17"."""
    texts: tuple[str, ...]
    label: str

    @property
    def joined(self) -> str:
        """The texts of the row, one after the other."""
        return " ".join(self.texts)


@dataclass(frozen=True)
class Check:
    """One requirement: it passes if `number relation limit` is true."""

    name: str
    number: float | None
    """What was measured; None if it could not be measured, which fails."""
    relation: str
    """A key of RELATIONS."""
    limit: float
    rows: tuple[str, ...] = ()
    """The rows to look at if it fails."""
    hint: str = ""
    """What to know about a failure, apart from its rows."""
    passed: bool = field(init=False)

    def __post_init__(self) -> None:
        """Compare the number with the limit."""
        passed = self.number is not None and RELATIONS[self.relation](self.number, self.limit)
        object.__setattr__(self, "passed", passed)


@dataclass(frozen=True)
class Report:
    """Numbers without a limit, for the reader."""

    name: str
    numbers: Mapping[str, float]


@dataclass(frozen=True)
class TaskResult:
    """All results for one task."""

    task: str
    checks: tuple[Check, ...]
    reports: tuple[Report, ...]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)


@dataclass(frozen=True)
class Guess:
    """How well a shallow classifier does on test."""

    accuracy: float
    rows: tuple[str, ...]
    """The rows it guesses right, the surest first."""
    hint: str
    """The features that tell each class best."""


# ---- reading ------------------------------------------------------------------------------------


def words_of(text: str) -> tuple[str, ...]:
    """The words of a text in lower case, apostrophes made straight."""
    return tuple(WORD.findall(text.lower().replace("\u2019", "'")))


def fault_of_text(text: object) -> str | None:
    """What is wrong with one text, or None."""
    if not isinstance(text, str) or not words_of(text):
        return "a text without words"
    if text != text.strip() or not text.isprintable() or "\ufffd" in text:
        return "a text with outer blanks, control characters or broken UTF-8"
    return None


def fault_of_line(line: str, spec: TaskSpec) -> str | None:
    """What is wrong with one line of a file, or None."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return "not JSON"
    if not isinstance(row, dict) or set(row) != {"texts", "label"}:
        return 'not an object of "texts" and "label"'
    texts = row["texts"]
    if not isinstance(texts, list) or len(texts) != len(spec.columns):
        return f"texts is not a list of {len(spec.columns)}"
    if row["label"] not in spec.classes:
        return f"unknown label {row['label']!r}"
    return next((fault for fault in map(fault_of_text, texts) if fault), None)


def read_rows(path: Path, spec: TaskSpec) -> tuple[Check, list[Row]]:
    """Read one file: the check of its format and the rows that are well-formed."""
    name = f"format of {path.name}, malformed lines"
    if not path.is_file():
        return Check(name, None, "=", 0, hint=f"no file {path}"), []
    lines = path.read_bytes().decode("utf-8", errors="replace").removesuffix("\n").split("\n")
    faults: dict[str, str] = {}
    rows: list[Row] = []
    for number, line in enumerate(lines, start=1):
        place = f"{path.stem}:{number}"
        fault = fault_of_line(line, spec)
        if fault:
            faults[place] = fault
        else:
            row = json.loads(line)
            rows.append(Row(place, tuple(row["texts"]), row["label"]))
    hint = "; ".join(f"{count} x {fault}" for fault, count in Counter(faults.values()).items())
    return Check(name, len(faults), "=", 0, tuple(faults), hint), rows


# ---- counts, order, duplicates ------------------------------------------------------------------


def check_count(split: str, rows: Sequence[Row], expected: int) -> Check:
    """As many well-formed rows as the task demands."""
    surplus = tuple(row.place for row in rows[expected:])
    return Check(f"rows in {split}", len(rows), "=", expected, surplus)


def check_balance(split: str, rows: Sequence[Row], spec: TaskSpec, expected: int) -> Check:
    """As many rows of each class; the number is the largest distance of a class from its share."""
    share = expected // len(spec.classes)
    places: dict[str, list[str]] = {name: [] for name in spec.classes}
    for row in rows:
        places[row.label].append(row.place)
    wrong = {name: len(of) for name, of in places.items() if len(of) != share}
    surplus = tuple(place for of in places.values() for place in of[share:])
    counts = ", ".join(f"{name} {count}" for name, count in wrong.items())
    hint = f"wanted {share} of each class, found {counts}" if wrong else ""
    distance = max(abs(len(of) - share) for of in places.values())
    return Check(f"balance of {split}, rows off", distance, "=", 0, surplus, hint)


def check_order(split: str, rows: Sequence[Row], spec: TaskSpec) -> Check:
    """Labels are not sorted: in k classes, neighbours share a label less than (1 + 1/k) / 2.

    In random order they do so with probability 1/k, in sorted order almost always.
    """
    name = f"order of {split}, neighbours with one label"
    limit = (1 + 1 / len(spec.classes)) / 2
    equal = [b.place for a, b in pairwise(rows) if a.label == b.label]
    number = len(equal) / (len(rows) - 1) if len(rows) > 1 else None
    hint = "these rows have the label of the row before" if equal else ""
    return Check(name, number, "<", limit, tuple(equal), hint)


def shingles(text: str) -> frozenset[tuple[str, ...]]:
    """The word 5-grams of a text; a shorter text is one shingle."""
    words = words_of(text)
    return frozenset(words[i : i + GRAM] for i in range(max(1, len(words) - GRAM + 1)))


def groups(items: Iterable[tuple[Hashable, int]]) -> list[list[int]]:
    """The indices that share a key, for each key with two or more."""
    found: dict[Hashable, list[int]] = defaultdict(list)
    for key, index in items:
        found[key].append(index)
    return [indices for indices in found.values() if len(indices) > 1]


def check_near_duplicates(rows: Sequence[Row]) -> Check:
    """No two rows share a fifth of their 5-grams; the number is the largest overlap."""
    grams = [shingles(row.joined) for row in rows]
    sharing = groups((gram, i) for i, of in enumerate(grams) for gram in of)
    pairs = sorted({pair for indices in sharing for pair in combinations(indices, 2)})
    overlap = {(i, j): len(grams[i] & grams[j]) / len(grams[i] | grams[j]) for i, j in pairs}
    near = sorted((p for p in pairs if overlap[p] >= JACCARD_LIMIT), key=lambda p: -overlap[p])
    places = tuple(f"{rows[i].place}~{rows[j].place} ({overlap[i, j]:.2f})" for i, j in near)
    largest = max(overlap.values(), default=0.0)
    return Check("near-duplicates, largest 5-gram Jaccard", largest, "<", JACCARD_LIMIT, places)


def check_repeats(rows: Sequence[Row], column: int, name: str) -> Check:
    """No text of a column occurs twice, case and punctuation aside."""
    same = groups((words_of(row.texts[column]), i) for i, row in enumerate(rows))
    places = tuple("=".join(rows[i].place for i in indices) for indices in same)
    repeats = sum(len(indices) - 1 for indices in same)
    return Check(f"repeated texts in {name}", repeats, "=", 0, places)


# ---- shallow classifiers ------------------------------------------------------------------------


def telling_features(model: Any, names: Sequence[str]) -> str:
    """The features with the largest weights of each class of a fitted model."""
    weights = np.asarray(model.coef_)  # (classes, features), or (1, features) for two classes
    if len(weights) == 1:
        weights = np.vstack([-weights, weights])
    best = np.argsort(-weights, axis=1, kind="stable")[:, :WORDS_SHOWN]
    return "; ".join(
        f"{label}: " + ", ".join(names[i] for i in row if weights[k, i] > 0)
        for k, (label, row) in enumerate(zip(model.classes_, best, strict=True))
    )


def guess(
    pool_x: Any,
    pool: Sequence[Row],
    test_x: Any,
    test: Sequence[Row],
    names: Sequence[str],
) -> Guess:
    """Train on the features of pool, (rows, features), and guess the labels of test."""
    model = LogisticRegression(C=1.0, solver="lbfgs", max_iter=2000)
    model.fit(pool_x, [row.label for row in pool])
    sureness = np.max(model.predict_proba(test_x), axis=1)  # (rows,)
    guesses = model.predict(test_x)
    right = [i for i, row in enumerate(test) if guesses[i] == row.label]
    right.sort(key=lambda i: -float(sureness[i]))
    places = tuple(test[i].place for i in right)
    return Guess(len(right) / len(test), places, telling_features(model, names))


def guess_by_words(pool: Sequence[Row], test: Sequence[Row], text_of: Callable[[Row], str]) -> Guess:
    """Guess the labels of test by the bag of words of a text of each row."""
    bag = CountVectorizer(analyzer=words_of)
    pool_x = bag.fit_transform([text_of(row) for row in pool])
    test_x = bag.transform([text_of(row) for row in test])
    return guess(pool_x, pool, test_x, test, list(bag.get_feature_names_out()))


def overlap_features(row: Row) -> tuple[float, float, float, float]:
    """The word overlap of a pair, in the order of OVERLAP_FEATURES."""
    first, second = (words_of(text) for text in row.texts)
    a, b = set(first), set(second)
    both = len(a & b)
    return both / len(a | b), both / len(a), both / len(b), len(second) - len(first)


def guess_by_overlap(pool: Sequence[Row], test: Sequence[Row]) -> Guess:
    """Guess the labels of test by the word overlap of the two texts of each row."""
    scaler = StandardScaler()
    pool_x = scaler.fit_transform(np.array([overlap_features(row) for row in pool]))
    test_x = scaler.transform(np.array([overlap_features(row) for row in test]))
    return guess(pool_x, pool, test_x, test, OVERLAP_FEATURES)


def judge_guess(name: str, found: Guess | None, limit: float | None) -> Check | Report:
    """A check of the accuracy where a limit is set, a report of it elsewhere."""
    name = f"accuracy by {name}"
    if limit is None:
        return Report(name, {"accuracy": found.accuracy} if found else {})
    if found is None:
        hint = "not measured: pool needs rows of two classes, and test one row"
        return Check(name, None, "<=", limit, hint=hint)
    hint = f"guessed right, surest first; what tells {found.hint}"
    return Check(name, found.accuracy, "<=", limit, found.rows, hint)


def judge_shallow_cues(pool: Sequence[Row], test: Sequence[Row], spec: TaskSpec) -> list[Check | Report]:
    """The accuracy of each shallow classifier on the task."""
    possible = len({row.label for row in pool}) > 1 and len(test) > 0

    def by_words(text_of: Callable[[Row], str]) -> Guess | None:
        return guess_by_words(pool, test, text_of) if possible else None

    bag = judge_guess("bag of words", by_words(lambda row: row.joined), spec.bow_limit)
    if len(spec.columns) == 1:
        return [bag]
    first, second = spec.columns
    overlap = guess_by_overlap(pool, test) if possible else None
    return [
        bag,
        judge_guess(f"bag of words of {first} only", by_words(lambda row: row.texts[0]), None),
        judge_guess(f"bag of words of {second} only", by_words(lambda row: row.texts[1]), spec.second_limit),
        judge_guess("word overlap", overlap, spec.overlap_limit),
    ]


# ---- reports ------------------------------------------------------------------------------------


def report_lengths(rows: Sequence[Row], column: int, name: str) -> Report:
    """The fewest, mean and most words of a text of a column."""
    lengths = [len(words_of(row.texts[column])) for row in rows]
    mean = sum(lengths) / len(lengths)
    return Report(f"words in {name}", {"min": min(lengths), "mean": mean, "max": max(lengths)})


def report_vocabulary(rows: Sequence[Row]) -> Report:
    """How many different words there are, and their share of all words."""
    words = [word for row in rows for word in words_of(row.joined)]
    size = len(set(words))
    return Report("vocabulary", {"words": size, "type-token ratio": size / len(words)})


def report_opening(rows: Sequence[Row], column: int, name: str) -> Report:
    """How many texts of a column begin with the most common three words."""
    openings = Counter(words_of(row.texts[column])[:OPENING] for row in rows)
    opening, count = openings.most_common(1)[0]
    title = f'most common opening of {name}, "{" ".join(opening)}"'
    return Report(title, {"rows": count, "share": count / len(rows)})


def report_style(rows: Sequence[Row], spec: TaskSpec) -> list[Report]:
    """Lengths per column and class, vocabulary, and openings, over pool and test together."""
    if not rows:
        return []
    reports: list[Report] = []
    for column, name in enumerate(spec.columns):
        reports.append(report_lengths(rows, column, name))
        for label in spec.classes:
            of_label = [row for row in rows if row.label == label]
            if of_label:
                reports.append(report_lengths(of_label, column, f"{name}, {label}"))
        reports.append(report_opening(rows, column, name))
    return [*reports, report_vocabulary(rows)]


# ---- a whole task -------------------------------------------------------------------------------


def check_task(name: str, tasks_dir: Path) -> TaskResult:
    """Check the miniature of one task; malformed lines fail and are left out of the rest."""
    spec = SPECS[name]
    mini = tasks_dir / name / "mini"
    pool_format, pool = read_rows(mini / "pool.jsonl", spec)
    test_format, test = read_rows(mini / "test.jsonl", spec)
    rows = [*pool, *test]
    cues = judge_shallow_cues(pool, test, spec)
    checks = [pool_format, test_format]
    for split, of, expected in (("pool", pool, spec.pool_rows), ("test", test, spec.test_rows)):
        checks.append(check_count(split, of, expected))
        checks.append(check_balance(split, of, spec, expected))
        checks.append(check_order(split, of, spec))
    checks.append(check_near_duplicates(rows))
    checks += [check_repeats(rows, i, column) for i, column in enumerate(spec.columns)]
    checks += [cue for cue in cues if isinstance(cue, Check)]
    reports = [cue for cue in cues if isinstance(cue, Report)]
    return TaskResult(name, tuple(checks), (*reports, *report_style(rows, spec)))


def format_number(number: float | None) -> str:
    """A count without decimals, a share with three."""
    if number is None:
        return "not measured"
    return str(number) if isinstance(number, int) else f"{number:.3f}"


def format_check(check: Check) -> str:
    """A line for the check and, if it failed, indented lines for the rows and the hint."""
    verdict = "ok  " if check.passed else "FAIL"
    number, limit = format_number(check.number), format_number(check.limit)
    line = f"  {verdict}  {check.name}: {number} (limit {check.relation} {limit})"
    if check.passed:
        return line
    if check.rows:
        more = len(check.rows) - ROWS_SHOWN
        shown = ", ".join(check.rows[:ROWS_SHOWN])
        line += f"\n          rows: {shown}" + (f" and {more} more" if more > 0 else "")
    return line + (f"\n          {check.hint}" if check.hint else "")


def format_report(report: Report) -> str:
    """One line for the report."""
    numbers = ", ".join(f"{name} {format_number(n)}" for name, n in report.numbers.items())
    return f"  info  {report.name}: {numbers or 'not measured'}"


def format_task(result: TaskResult) -> str:
    """All lines of one task, its verdict last."""
    failed = sum(not check.passed for check in result.checks)
    verdict = f"{failed} of {len(result.checks)} checks failed" if failed else "all checks passed"
    lines = [*map(format_check, result.checks), *map(format_report, result.reports)]
    return "\n".join([result.task, *lines, f"{result.task}: {verdict}"])


def format_json(results: Sequence[TaskResult]) -> str:
    """All results as one JSON object."""
    tasks = [{**asdict(result), "passed": result.passed} for result in results]
    return json.dumps({"passed": all(r.passed for r in results), "tasks": tasks}, indent=2)


def main(argv: Sequence[str] | None = None) -> int:
    """Check one task or all, print the findings, return the exit code."""
    parser = argparse.ArgumentParser(description="Check the miniature data sets of the tasks.")
    parser.add_argument("--task", choices=sorted(SPECS), help="check this task only")
    parser.add_argument("--tasks-dir", type=Path, default=Path(__file__).resolve().parents[1] / "tasks")
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    args = parser.parse_args(argv)
    results = [check_task(name, args.tasks_dir) for name in ([args.task] if args.task else SPECS)]
    text = format_json(results) if args.json else "\n\n".join(map(format_task, results))
    sys.stdout.write(text + "\n")
    return 0 if all(result.passed for result in results) else 1


if __name__ == "__main__":
    raise SystemExit(main())
