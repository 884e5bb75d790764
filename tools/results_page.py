"""The text of a results page. Pure: what is measured in, Markdown out."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.leaderboard.divisions import level_name
from harness.leaderboard.headline import cheaper
from harness.leaderboard.pareto import cost
from harness.leaderboard.speed import speed_up
from harness.leaderboard.stats import LEVEL
from harness.leaderboard.terminal import notes, shown_rank
from harness.sandbox.submission import folder_of
from harness.solving.metrics import is_text
from harness.tracks.track import track_tasks
from tools import published
from tools.measured import race
from tools.text_section import section

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from harness.leaderboard.entries import CellScore, Entry
    from tools.measured import Measured
    from tools.text_section import Row

SEED = 0
"""Of the resampled cells of the speed-up: the same facts give the same interval."""
SUBMISSIONS = Path(__file__).resolve().parent.parent / "submissions"
PAIRS = (("ajo", "bbtv2"), ("bbtv2", "bbt"), ("bbt", "manual"), ("bbt", "random_search"), ("house", "ajo"))
"""Which differences are shown: first minus second."""
TEXT_PAIRS = (
    ("bbt", "manual"),
    ("bbt", "random_search"),
    ("bbtv2", "bbt"),
    ("lora_es", "bbt"),
    ("icl", "manual"),
    ("instruction_search", "manual"),
    ("prompt_tuning[preset=text]", "icl"),
    ("lora[preset=text]", "prompt_tuning[preset=text]"),
)
"""The same of a track whose tasks are answered by text."""
ABLATIONS = (
    ("ajo", "ajo[head=false]"),
    ("ajo", "ajo[joint=false]"),
    ("ajo[epochs=30]", "ajo"),
    ("ajo[head=false]", "bbtv2"),
)
"""The same of AJO's parts, where they were run."""
NO_FINDINGS = "<!-- findings -->\nNot written yet.\n<!-- end findings -->"


def page(measured: Measured, findings: str = NO_FINDINGS, losses: Sequence[Row] = ()) -> str:
    """The whole page; `losses` are those of the cells of text tasks."""
    text = writes(measured)
    sections = (
        _head(measured),
        _ranking(measured),
        _efficiency(measured),
        _references(measured),
        _missing(measured),
        _differences(measured),
        section(losses, table) if losses else "",
        "" if text else _speed_up(measured),
        "" if text else _published(measured),
        _accuracies(measured),
        _chance(measured),
        f"## Findings\n\n{findings}",
        _commands(measured),
        _machines(measured),
    )
    return "\n\n".join(section for section in sections if section) + "\n"


def writes(measured: Measured) -> bool:
    """Whether the tasks of the track are answered by text."""
    return any(is_text(file.metric) for file in track_tasks(measured.track).values())


def _head(measured: Measured) -> str:
    track, ranking = measured.track, measured.ranking
    splits = sorted({entry.task(task)[2] for entry in ranking.entries for task in entry.tasks})
    files = track_tasks(track)
    metrics = [f"{task} {files[task].metric.replace('_', '-').replace('f1', 'F1')}" for task in ranking.tasks]
    short = [spec.calls for spec in track.tasks.values()]
    generations = " to ".join(map(str, dict.fromkeys((min(short) // 20, max(short) // 20))))
    few = (
        f"\n\nThese budgets are {generations} generations of 20 candidates. That is too few "
        "for CMA-ES to learn\nanything of a covariance at d = 500; the track `mini-long` has the published budgets."
        if max(short) < 1000 and not writes(measured)  # noqa: PLR2004 - the published ones are 3,000 and 8,000
        else ""
    )
    make, failed = ("results-text", "0") if writes(measured) else ("results", "the majority class")
    return f"""# Measured results: track `{track.name}`

{track.title}. This page has all ranked submissions and white-box references.
`make {make}` writes it from the published facts; only the findings are written by hand. The commands at the end
measure it again.

Scores are in points ({", ".join(metrics)}). ± is the sample standard
deviation over splits ({" or ".join(map(str, splits))} per task). Brackets are {LEVEL:.0%} intervals, from the variance
between splits and between test items ([statistics.md](statistics.md)).
They hold for these tasks and this model. A failed cell counts as {failed}.{few}"""


def _ranking(measured: Measured) -> str:
    entries = [entry for entry in measured.ranking.entries if not entry.white_box]
    columns = ("rank", "submission", "access", *measured.ranking.tasks, "average", "calls", "min", "failed")
    standings = [measured.ranking.standing(entry) for entry in entries]
    ranks = [standing.rank for standing in standings if standing and standing.rank]
    rows = [
        (
            shown_rank(entry, standing, ranks),
            f"`{entry.name}`",
            level_name(entry.access),
            *_scores(measured, entry),
            f"{entry.calls:,.0f}",
            _minutes(entry),
            entry.failed,
        )
        for entry, standing in zip(entries, standings, strict=True)
    ]
    note = "Entries that share a rank, as `3=`, cannot be told apart from each other "
    note += "([statistics.md](statistics.md)). Calls and minutes of tuning are sums over cells. "
    note += "Minutes can be compared on one machine only (see the end)."
    note += _timed_out(entries) + _apart(measured, entries)
    lines = [line for line in notes(measured.ranking, measured.ranking.divisions[0])[1:] if line]
    told = "".join(f"\n- {line[0].upper()}{line[1:]}." for line in lines)
    less = cheaper(measured.ranking, measured.ranking.divisions[0])
    first = f"**For less:** {less}.\n\n" if less else ""
    return f"## Ranking\n\n{first}{table(columns, rows)}\n\n{note}\n{told}".rstrip()


def _efficiency(measured: Measured) -> str:
    title = "## Efficiency"
    found = measured.ranking.efficiency(measured.ranking.divisions[0])
    if found is None:
        return f"{title}\n\nNot known: there is no complete run of `manual`, and no frozen score of the bare template."
    entries = {entry.name: entry for entry in measured.ranking.entries}
    ranks = [standing.rank for standing in found.entries.values() if standing.rank]
    rows = [
        (
            shown_rank(entries[name], standing, ranks),
            f"`{name}`",
            standing.average.points(),
            f"{entries[name].average * 100:.1f}",
            f"{entries[name].calls:,.0f}",
            f"{cost(entries[name], 'tokens'):,.0f}",
            f"{cost(entries[name], 'bytes') / 1e6:,.1f}",
            _minutes(entries[name]),
        )
        for name, standing in found.entries.items()
    ]
    columns = ("rank", "submission", "efficiency", "average", "calls", "tokens", "MB", "min")
    note = (
        "The second list: the mean of the test score over log(calls), from the first call to the budget, with the bare "
    )
    note += "template before the first answer ([statistics.md](statistics.md#efficiency)). Ranks follow the same rule."
    return f"{title}\n\n{note}\n\n{table(columns, rows)}"


def _references(measured: Measured) -> str:
    entries = [entry for entry in measured.ranking.entries if entry.white_box]
    columns = ("reference", *measured.ranking.tasks, "average", "min", "failed")
    rows = [(f"`{e.name}`", *_scores(measured, e), _minutes(e), e.failed) for e in entries]
    text = "These methods use gradients through the model. They are outside the competition's rules and have no rank."
    return f"## White-box references\n\n{text}{_timed_out(entries)}\n\n{table(columns, rows)}" if rows else ""


def _timed_out(entries: Sequence[Entry]) -> str:
    """A sentence about cells that a faster machine might have ended otherwise; empty where there are none."""
    found = [f"`{entry.name}` in {entry.statuses['timeout']}" for entry in entries if entry.statuses.get("timeout")]
    text = " The clock ended some cells, and their last answer until then was scored:"
    return f"{text} {', '.join(found)}." if found else ""


def _apart(measured: Measured, entries: Sequence[Entry]) -> str:
    """A sentence about entries of other divisions, which are not compared with the others; empty without any."""
    main = measured.ranking.divisions[0]
    apart = [f"`{entry.name}` ({entry.division.title})" for entry in entries if entry.division != main]
    text = (
        f" Ranks are those of {main.title}. Entries of other divisions are not compared with these, and have ranks of"
    )
    return f"{text} their own or, without isolation, none: {', '.join(apart)}." if apart else ""


def _missing(measured: Measured) -> str:
    entries = measured.ranking.entries
    wanted = {(cell.task, cell.split) for entry in entries if not entry.white_box for cell in entry.cells}
    wanted |= set(measured.track.planned)
    lines = []
    for entry in entries:
        lacks = sorted(wanted - {(cell.task, cell.split) for cell in entry.cells})
        if lacks:
            lines.append(f"- `{entry.name}` lacks cells ({len(lacks)}): {', '.join(f'{t}/{n}' for t, n in lacks)}")
    never = sorted({path.parent.name for path in SUBMISSIONS.glob("*/submission.py")} - _folders(measured))
    if never and not writes(measured):  # most submissions do not run on text tasks
        lines.append(f"- no run at all: {', '.join(f'`{name}`' for name in never)}")
    if measured.ranking.left_out:
        lines.append(
            f"- {measured.ranking.left_out} runs are left out: they have other data or another model, seed or track "
            "version, or are trials"
        )
    return "## Missing\n\n" + "\n".join(lines) if lines else ""


def _differences(measured: Measured) -> str:
    tasks = measured.found.tasks if measured.found else measured.ranking.tasks
    rows = []
    ablations = (pair for pair in ABLATIONS if measured.difference(*pair))
    pairs = TEXT_PAIRS if writes(measured) else PAIRS
    for first, second in (*pairs, *ablations):
        found = [measured.difference(first, second, task) for task in (*tasks, None)]
        rows.append(
            (f"`{first}` - `{second}`", *("-" if each is None else each.difference.points("+") for each in found))
        )
    absent = sorted({name for pair in pairs for name in pair if measured.interval(name) is None})
    told = ""
    if not writes(measured):
        told = (
            " The report of the competition says that AJO is 6.6 points above\nBBTv2 on average (RoBERTa-large, the "
            "official budgets)."
        )
    note = f"\n\nNo complete run of {', '.join(f'`{name}`' for name in absent)}." if absent else ""
    return f"""## Differences

Differences are in points, paired in splits and test items, and adjusted for all pairs of complete entries, references
included. If an interval contains 0, the order is open.{told}

{table(("difference", *tasks, "average"), rows)}{note}"""


def _speed_up(measured: Measured) -> str:
    title = "## Speed-up of AJO over BBTv2"
    if measured.interval("ajo") is None or measured.interval("bbtv2") is None:
        return f"{title}\n\nNot available without complete runs of `ajo` and `bbtv2`."
    shares = race(measured.cells("ajo"), measured.cells("bbtv2"))
    if shares is None:
        return f"{title}\n\nNot recorded: at least one of these cells was run before every offered answer was stored."
    if not shares.tasks:
        return f"{title}\n\nNot available: no cell of `bbtv2` has a dev score."
    found = speed_up(shares.system, shares.reference, np.random.default_rng(SEED))
    rows = [
        (task, f"{np.isfinite(a).sum()} of {len(a)}", f"{_capped(a):.1%}", f"{_capped(b):.1%}")
        for task, a, b in zip(shares.tasks, shares.system, shares.reference, strict=True)
    ]
    x, none = found.ratio, shares.without_target
    left_out = f" Cells that are left out because `bbtv2` offers no dev score in them: {none}." if none else ""
    return f"""{title}

The target in a cell is the dev score of the last answer that `bbtv2` offers there. For each of the two methods, the
table has the calls until an offered answer reaches the target, as a share of the budget; mean over splits, then tasks.
If `ajo` never reaches the target, the whole budget counts, and the ratio is then an upper bound. Dev scores are known
only where a submission looks, so shares are coarse.{left_out} The competition's report says about 1.3.

**{x.value:.2f} times [{x.low:.2f}, {x.high:.2f}]** (bootstrap over splits within tasks);
`ajo` gets there in {found.reached} of {found.cells} cells.

{table(("task", "`ajo` gets there", "`ajo` budget share", "`bbtv2` budget share"), rows)}"""


def _capped(shares: Any) -> float:
    return float(np.minimum(shares, 1.0).mean())


def _published(measured: Measured) -> str:
    columns = ["method"]
    for task in published.TASKS:
        columns += [f"{task} published", f"{task} here"]
    rows = []
    for entry in measured.ranking.entries:
        if entry.name in published.SCORES:
            here = [_accuracy(entry, task) for task in published.TASKS]
            both = zip(published.SCORES[entry.name], here, strict=True)
            rows.append((f"`{entry.name}`", *(cell for pair in both for cell in pair)))
    text = """\
The published numbers are for RoBERTa-large, 16 examples per class, three splits, 8,000 calls unless said otherwise,
and accuracy on all three tasks; the gradient methods have no budget of calls. The numbers of this project are for the
track's model, data and budgets, and accuracy, too. Compare the orders and not the numbers."""
    return f"## Beside the published numbers\n\n{text}\n\n{table(columns, rows)}" if rows else ""


def _commands(measured: Measured) -> str:
    lines = "\n".join(_command(measured, entry) for entry in measured.ranking.entries)
    text = "These commands fill an empty `results/harness.db`"
    if any(_data(measured, entry) for entry in measured.ranking.entries):
        text += "; `DIR` is a directory in the competition kit's layout"
    make = "make results-text" if writes(measured) else "make results"
    return f"## How to measure it again\n\n{text}:\n\n```\n{lines}\n{make} RESULTS=results/harness.db\n```"


def _command(measured: Measured, entry: Entry) -> str:
    key = measured.runs.by_id[entry.run].key
    words = ["harness", "evaluate", f"submissions/{folder_of(entry.name)}"]
    words += ["--track", measured.track.name] if measured.track.name != "mini" else []
    words += ["--white-box"] if entry.white_box else []
    words += ["--data", "DIR"] if _data(measured, entry) else []
    partial = set(entry.tasks) != set(measured.track.tasks)
    words += [word for task in entry.tasks if partial for word in ("--task", task)]
    words += ["--seed", str(key.seed)] if key.seed else []
    repeats = max(len(cell.repeats) for cell in entry.cells)
    words += ["--repeats", str(repeats)] if repeats > 1 else []
    words += [word for name, value in key.options for word in ("--config", f"{name}={value}")]
    return shlex.join(words)


def _machines(measured: Measured) -> str:
    where: dict[tuple[str, ...], list[str]] = {}
    for entry in measured.ranking.entries:
        where.setdefault(_environment(entry), []).append(f"`{entry.name}`")
    key = measured.runs.by_id[measured.ranking.entries[0].run].key
    run = (
        f"Model {key.model} (SHA-256 {key.model_sha256[:16]}), "
        f"data {key.data.partition(':')[0]} ({key.data_sha256}), "
        f"track version {key.track_fingerprint}, rules {key.rules}, "
        f"seed {key.seed}, device {key.device}."
    )
    lines = [f"- {', '.join(names)}: {'; '.join(facts)}" for facts, names in where.items()]
    return "## Machine and versions\n\n" + "\n".join([run, "", *lines])


def _environment(entry: Entry) -> tuple[str, ...]:
    facts = entry.environment
    packages = " ".join(f"{name} {version}" for name, version in sorted(facts.get("packages", {}).items()))
    sandbox = " ".join(sorted({cell.record.sandbox for cell in entry.cells}))
    named = [f"{name} {facts[name]}" for name in ("machine", "cpu", "threads", "python") if name in facts]
    return (*named, f"sandbox {sandbox}", packages)


def _scores(measured: Measured, entry: Entry) -> list[str]:
    """Mean ± std per task, then the average with its interval; no average where cells are missing."""
    found = measured.interval(entry.name)
    average = found.points() if found else "-"
    return [*(_mean_std(entry, task) for task in measured.ranking.tasks), average]


def _mean_std(entry: Entry, task: str) -> str:
    if task not in entry.tasks:
        return "-"
    mean, std, splits = entry.task(task)
    return f"{mean * 100:.1f} ± {std * 100:.1f}" if splits > 1 else f"{mean * 100:.1f}"


def _accuracy(entry: Entry, task: str) -> str:
    """Mean ± std over splits of the accuracy on a task, whatever its metric."""
    values = [cell.accuracy for cell in entry.cells if cell.task == task]
    known = [100 * value for value in values if value is not None]
    if not known:
        return "-"
    return f"{np.mean(known):.1f} ± {np.std(known, ddof=1):.1f}" if len(known) > 1 else f"{known[0]:.1f}"


def _chance(measured: Measured) -> str:
    """How much repeats of a cell differ, where some were run."""
    rows = []
    for entry in measured.ranking.entries:
        cells = [cell for cell in entry.cells if cell.repeats]
        if cells:
            stds = [_std_of_repeats(cell) for cell in cells]
            among = [entry.task(task)[1] for task in entry.tasks if entry.task(task)[2] > 1]
            rows.append(
                (
                    f"`{entry.name}`",
                    min(len(cell.repeats) for cell in cells),
                    len(cells),
                    f"{100 * np.sqrt(np.mean(np.square(stds))):.1f}",
                    f"{100 * np.sqrt(np.mean(np.square(among))):.1f}" if among else "-",
                )
            )
    if not rows:
        return ""
    columns = ("submission", "repeats", "cells", "std of repeats", "std of splits")
    text = """Cells that were run several times on the same split, with other chance of the submission's own
(`--repeats`). The third column of numbers is the standard deviation between repeats of a cell, in points, the last one
that between the means of splits, pooled over cells and tasks. Scores are means over repeats. Intervals contain what is
left of this chance, as a part of what splits differ by."""
    return f"## Chance of the optimiser\n\n{text}\n\n{table(columns, rows)}"


def _std_of_repeats(cell: CellScore) -> float:
    return float(np.std([each.score for each in cell.repeats], ddof=1))


def _accuracies(measured: Measured) -> str:
    """Accuracy of all entries, for comparisons with the papers."""
    scored = [task for task, file in track_tasks(measured.track).items() if file.metric == "macro_f1"]
    columns = ("submission", *(task for task in measured.ranking.tasks if task in scored))
    rows = [(f"`{e.name}`", *(_accuracy(e, task) for task in columns[1:])) for e in measured.ranking.entries]
    text = "Accuracy on the tasks that are ranked by macro-F1, for comparison with papers."
    return f"## Accuracy\n\n{text}\n\n{table(columns, rows)}" if len(columns) > 1 else ""


def _minutes(entry: Entry) -> str:
    return f"{entry.wall_s / 60:.1f}"


def _data(measured: Measured, entry: Entry) -> bool:
    """Whether the run needs a data directory to be named."""
    return bool(measured.runs.by_id[entry.run].key.data != "embedded")


def _folders(measured: Measured) -> set[str]:
    return {folder_of(entry.name) for entry in measured.ranking.entries}


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table, without a line's end after its last row."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
