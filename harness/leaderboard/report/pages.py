"""The contents of each page: facts in, (path, template, values) out. Pure; the templates escape all text."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.leaderboard.disclosure import members
from harness.leaderboard.divisions import ACCESS, ceilings
from harness.leaderboard.headline import headline
from harness.leaderboard.report import page_curves, page_history, pairs, plots
from harness.leaderboard.report.facts import confusion, predictions
from harness.leaderboard.report.written import has_classes, written
from harness.leaderboard.stats import LEVEL
from harness.leaderboard.terminal import day, no_ranks, replaced_lines, shown_rank
from harness.results.forgetting import means
from harness.results.status import COUNTS, FAILED, MEANING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from markupsafe import Markup

    from harness.contract import IntArray
    from harness.leaderboard.entries import CellScore
    from harness.leaderboard.report.facts import Compared, Facts, System, TaskFacts

LONGEST_LIST = 20
"""Number of wrong predictions that a page lists for a task."""
MOST_LISTED = 10
"""Number of entries in the list up to an access level."""
MOST_OFFERS = 500
"""Number of offers in the table below a convergence plot."""
FEW_SPLITS = 10
"""Largest number of splits that have columns of their own on a task's page."""
WIDEST = 30
"""Largest range of the ranking's bars in points, so that the best entries can be told apart."""
LEVELS = {name.split()[0]: name for name in ACCESS}
"""Access levels: from the CSV's name to words."""

Page = tuple[str, str, dict[str, Any]]
"""Path, template, values."""


@dataclass(frozen=True)
class Hard:
    """A test text that is often predicted wrongly."""

    texts: tuple[str, ...]
    label: str
    wrong: int
    cells: int
    taken: str
    """The predicted classes, most frequent first."""


@dataclass(frozen=True)
class Axis:
    """The scale of the ranking's bars, in points."""

    low: int
    high: int

    def at(self, share: float) -> float:
        """Position of a score on the axis in percent. A score beyond the axis is at its end."""
        place = 100 * (100 * share - self.low) / (self.high - self.low)
        return round(min(max(place, 0.0), 100.0), 2)


def pages(
    facts: Facts,
    readmes: dict[str, tuple[Markup, bool]],
    rules: Markup | None,
    figures: bool,
    own: Callable[[System], Markup],
) -> Iterator[Page]:
    """All pages.

    For each run, `readmes` has its README and whether its folder has changed since the run. `own` gives the part of an
    entry's page that is made of `entry`.
    """
    yield "index.html", "ranking.html", ranking(facts) | {"figures": figures, "failed": FAILED}
    yield "progress.html", "progress.html", page_curves.progress(facts) | {"figures": figures}
    yield "cost.html", "cost.html", page_curves.costs(facts) | {"figures": figures}
    yield "pairs.html", "pairs.html", pairs.matrix(facts)
    yield "history.html", "history.html", page_history.history(facts) | {"figures": figures}
    yield "cells.html", "cells.html", cells(facts)
    yield "leaks.html", "leaks.html", {
        "rows": facts.disclosed, "told": {run: members(one) for run, one in facts.told.items()},
        "slugs": {s.entry.run: s.slug for s in facts.systems},
    }  # fmt: skip
    yield "tasks.html", "tasks.html", {"tasks": [(task, _best(facts, name)) for name, task in facts.tasks.items()]}
    yield "rules.html", "rules.html", {"text": rules}
    for name in facts.tasks:
        yield f"tasks/{name}.html", "task.html", task_page(facts, name) | {"figures": figures}
    for path, values in pairs.pages(facts):
        yield path, "pair.html", values
    for system in facts.systems:
        values = submission(facts, system, *readmes.get(system.entry.run, (None, False)))
        yield f"submissions/{system.slug}.html", "submission.html", values | {"own": own(system)}


def site(facts: Facts) -> dict[str, Any]:
    """Values that are the same on every page."""
    newest = max((system.run.started for system in facts.systems), default=0.0)
    day = dt.datetime.fromtimestamp(newest, dt.UTC)
    return {
        "track": facts.track,
        "pages": [
            ("index.html", "Ranking"),
            ("progress.html", "Progress"),
            ("cost.html", "Cost"),
            ("pairs.html", "Pairs"),
            ("history.html", "History"),
            ("cells.html", "Cells"),
            ("leaks.html", "Leaks"),
            ("tasks.html", "Tasks"),
            ("rules.html", "Rules"),
        ],
        "systems": len(facts.systems),
        "cells": sum(len(system.entry.cells) for system in facts.systems),
        "newest": f"{day.day} {day:%B %Y}" if facts.systems else "never",
    }


def tracks(found: Sequence[Facts]) -> list[dict[str, Any]]:
    """A site's tracks: for each, its main result and what it has."""
    return [
        {
            "track": facts.track,
            "headline": headline(facts.ranking, facts.lists[0].division) if facts.lists else None,
            "leaders": [system for system in facts.main if system.standing and system.standing.rank == 1],
            "systems": len(facts.systems),
            "cells": sum(len(system.entry.cells) for system in facts.systems),
        }
        for facts in found
    ]


def ranking(facts: Facts) -> dict[str, Any]:
    """A table for each division, and its lists by access level."""
    return {
        "lists": [_list(facts, compared) for compared in facts.lists],
        "several": len(facts.lists) > 1,
        "forgotten": {run: (*means(found), len(found)) for run, found in facts.forgotten.items()},
        "labels": facts.ranking.labels,
        "tasks": facts.ranking.tasks,
        "levels": LEVELS | {"white-box": "references"},
        "model": facts.systems[0].run.key.model if facts.systems else facts.track.model.source,
        "ranking": facts.ranking,
        "withdrawn": [(each, day(each.made)) for each in facts.ranking.withdrawn],
        "replaced": replaced_lines(facts.ranking),
        "gaps": facts.gaps,
        "level": f"{LEVEL:.0%}",
    }


def _list(facts: Facts, compared: Compared) -> dict[str, Any]:
    """One division: its rows with ranks, and the first entries up to each access level."""
    division, complete = compared.division, facts.ranking.complete(compared.division)
    by_name = {system.entry.name: system for system in compared.systems if system.standing}
    ranks = [system.standing.rank for system in compared.systems if system.standing and system.standing.rank]
    shared = {rank for rank, count in Counter(ranks).items() if count > 1}
    below = []
    for level in ceilings(complete)[:-1]:
        found = facts.ranking.standings(division, level)
        if found and found.ranked:
            within = [each.rank for each in found.entries.values() if each.rank]
            ordered = [
                (shown_rank(by_name[name].entry, found.entries[name], within), by_name[name]) for name in found.names
            ]
            below.append((ACCESS[level], ordered[:MOST_LISTED], len(ordered)))
    rows, previous = [], 1
    for system in compared.systems:
        rank = system.standing.rank if system.standing else None  # None, too, where the design carries no ranks
        rows.append((system, f"{rank}=" if rank in shared else rank or "\N{EN DASH}", rank not in {previous, None}))
        previous = rank or previous
    found = compared.standings
    return {
        "title": division.title,
        "rows": rows,
        "leader": compared.leader,
        "tied": [system for system in compared.systems if system.tied],
        "ranked": len(ranks),
        "accesses": sorted({system.record["access"] for system in compared.systems}),
        "axis": _axis(compared.systems),
        "tells": found.power.sentence() if found and found.power else None,
        "no_ranks": no_ranks(found) if found and not found.ranked else None,
        "headline": headline(facts.ranking, division),
        "pairs": {s.entry.run: path for s, path in pairs.others(facts, compared.leader)} if compared.leader else {},
        "efficiency": _efficient(compared),
        "currency": facts.ranking.prices.currency if facts.ranking.prices else None,
        "below": below,
    }


def _efficient(compared: Compared) -> list[tuple[System, str]]:
    """Entries by efficiency with the ranks shown; empty where it is not known."""
    if compared.efficiency is None:
        return []
    by_name = {system.entry.name: system for system in compared.systems if system.efficient}
    ordered = [by_name[name] for name in compared.efficiency.names]
    ranks = [system.efficient.rank for system in ordered if system.efficient and system.efficient.rank]
    return [(s, shown_rank(s.entry, s.efficient, ranks).replace("-", "\N{EN DASH}")) for s in ordered]


def cells(facts: Facts) -> dict[str, Any]:
    """How the cells of each entry ended."""
    rows, total = [], Counter[str]()
    for system in facts.systems:
        by_task = []
        for task in facts.ranking.tasks:
            found = Counter(each.status for each in system.entry.attempts if each.task == task)
            total += found
            failed = sorted((status, n) for status, n in found.items() if status not in COUNTS)
            by_task.append((sum(found[status] for status in COUNTS), failed))
        rows.append((system, by_task))
    statuses = [(status, meaning, status in COUNTS, total[status]) for status, meaning in MEANING.items()]
    return {"rows": rows, "tasks": facts.ranking.tasks, "statuses": statuses, "failed": FAILED}


def task_page(facts: Facts, name: str) -> dict[str, Any]:
    """A task: its scores, wording, examples and hardest texts."""
    task, spec = facts.tasks[name], facts.track.tasks.get(name)
    systems = [s for s in facts.systems if name in s.entry.tasks]
    ordered = sorted(systems, key=lambda s: (s.standing is None, -s.entry.task(name)[0], s.entry.name))
    every = sorted({cell.split for s in systems for cell in s.entry.cells if cell.task == name})
    splits = every if len(every) <= FEW_SPLITS else []
    by_split = [{cell.split: cell for cell in s.entry.cells if cell.task == name} for s in ordered]
    wording = task.file.wording(facts.track.profile, facts.track.model.kind)
    texts = task.shots.texts[0] if task.shots else None
    drawn = [s for s in ordered if s in facts.main]
    said = np.concatenate([predictions(s.entry.cells, name) for s in systems])  # (cells, items)
    counts = np.bincount(task.labels, minlength=len(task.file.classes)).tolist() if task.file.classes else ()
    return {
        "task": task,
        "name": name,
        "spec": spec,
        "profile": facts.track.profile,
        "splits": [f"split {split}" for split in splits],
        "many": len(every) if not splits else 0,
        "rows": [(s, [own.get(n) for n in splits]) for s, own in zip(ordered, by_split, strict=True)],
        "counts": COUNTS,
        "progress": plots.progress(drawn, facts.curves, name, beside=facts.beside) if drawn else None,
        "table": page_curves.over_calls(facts, drawn, name) if drawn else None,
        "wording": wording,
        "example": _filled(wording.template, texts) if texts else None,
        "classes": list(zip(task.file.classes, wording.words, counts, strict=True)),
        "examples": _examples(task),
        "hidden": facts.hidden,
        "hard": None if task.test is None or not task.file.classes else _mistakes(task, said)[0],
    }


def submission(facts: Facts, system: System, readme: Markup | None, changed: bool) -> dict[str, Any]:
    """An entry: its place among the others, its runs, and its README. What its cells alone say is in `entry`."""
    entry = system.entry
    tried = [each for each in facts.history.runs[::-1] if each.run.key.label == entry.name]
    return {
        "s": system,
        "leader": next(compared.leader for compared in facts.lists if system in compared.systems),
        "access": LEVELS[system.record["access"]],
        "tasks": entry.tasks,
        "others": pairs.others(facts, system),
        "tried": page_history.rows(facts, tried),
        "readme": readme,
        "changed": changed,
    }


def entry(facts: Facts, system: System) -> dict[str, Any]:
    """What an entry's own cells say: convergence, how they ended, mistakes, configuration."""
    own = system.entry
    matrices, mistakes = [], []
    for name in (name for name in own.tasks if has_classes(facts.tasks[name])):
        task, said = facts.tasks[name], predictions(own.cells, name)
        matrices.append(_matrix(task, said))
        mistakes.append((name, *((None, 0) if task.test is None else _mistakes(task, said))))
    offers = [(c.task, c.split, calls, dev) for c in own.cells for calls, dev in plots.offered(c)]
    return {
        "s": system,
        "convergence": None if own.white_box else plots.convergence(own.cells, own.tasks),
        "offers": offers[:MOST_OFFERS],
        "more_offers": max(0, len(offers) - MOST_OFFERS),
        "counts": COUNTS,
        "matrices": matrices,
        "mistakes": mistakes,
        "written": list(filter(None, (written(facts.tasks[name], own.cells) for name in own.tasks))),
        "ran": _ran(system),
        "config": _config(own.cells),
        "versions": sorted(own.environment.get("packages", {}).items()),
        "hidden": facts.hidden,
    }


def _matrix(task: TaskFacts, said: IntArray) -> dict[str, Any]:
    """A confusion matrix with the share of each row that a cell holds."""
    counts = confusion(said, task.labels, len(task.file.classes))
    shares = np.round(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), 3)
    rows = [list(zip(*pair, strict=True)) for pair in zip(counts.tolist(), shares.tolist(), strict=True)]
    named = list(zip(task.file.classes, rows, strict=True))
    return {"task": task.file.name, "cells": len(said), "classes": task.file.classes, "rows": named}


def _config(cells: Sequence[CellScore]) -> list[tuple[str, str]]:
    """Options with their values, task by task where a preset has different ones."""
    found = []
    for name in sorted(cells[0].record.config):
        by_value: dict[str, list[str]] = {}
        for cell in cells:
            tasks = by_value.setdefault(str(cell.record.config.get(name)), [])
            tasks += [] if cell.task in tasks else [cell.task]
        values = [f"{value} ({', '.join(tasks)})" for value, tasks in by_value.items()]
        found.append((name, next(iter(by_value)) if len(by_value) == 1 else ", ".join(values)))
    return found


def _ran(system: System) -> list[tuple[str, str]]:
    """What identifies the run, in words."""
    key, environment, record = system.run.key, system.entry.environment, system.record
    started = dt.datetime.fromtimestamp(system.run.started, dt.UTC)
    metered = [
        ("Calls", f"{record['calls']:,.2f}".removesuffix(".00")),
        ("Tokens", f"{record['tokens']:,}"),
        ("Bytes", f"{record['bytes_up']:,} up, {record['bytes_down']:,} down"),
        ("Answering", f"{record['lm_s']:,.1f} s in the model"),
    ]
    said = [
        ("Run", system.entry.run),
        ("Team", key.team),
        ("Runs of this entry", f"{system.entry.runs:,}"),
        ("Test texts queried", "" if system.entry.test_texts is None else f"{system.entry.test_texts:,}"),
        ("Submission, SHA-256", key.submission_sha256),
        ("Preset", dict(key.options).get("preset", "")),
        ("Options", ", ".join(f"{name}={value}" for name, value in key.options)),
        ("Model", f"{key.model}, SHA-256 {key.model_sha256}"),
        ("Data", f"{key.data}, SHA-256 {key.data_sha256}"),
        ("Track", f"{key.track}, fingerprint {key.track_fingerprint}, rules {key.rules}"),
        ("Seed", str(key.seed)),
        ("Device", key.device),
        ("Sandbox", record["sandbox"]),
        ("Started", f"{started:%Y-%m-%d %H:%M} UTC"),
        *([] if system.entry.white_box else metered),
        ("Tuning", f"{record['wall_s']:,.1f} s"),
        ("Machine", " ".join(str(environment[key]) for key in ("machine", "cpu") if environment.get(key))),
        ("Threads", str(environment.get("threads", ""))),
        ("Python", str(environment.get("python", ""))),
    ]
    return [(name, value) for name, value in said if value]


def _best(facts: Facts, task: str) -> System | None:
    """The system with the highest score on a task in the main division."""
    ranked = [system for system in facts.main if task in system.entry.tasks]
    return max(ranked, key=lambda system: system.entry.task(task)[0], default=None)


def _axis(systems: Sequence[System]) -> Axis:
    """The range of all intervals in multiples of 5 points. Entries far below the best are off the axis."""
    limits = [(100 * s.average.low, 100 * s.average.high) for s in systems if s.average] or [(0.0, 100.0)]
    highest = max(high for _, high in limits)
    lowest = min((low for low, _ in limits if low > highest - WIDEST), default=highest - WIDEST)
    low, high = int(lowest // 5 * 5), int(-(-highest // 5) * 5)
    return Axis(low, max(high, low + 5))


def _mistakes(task: TaskFacts, said: IntArray) -> tuple[list[Hard], int]:
    """Test texts that are most often wrong, at most as many as are listed, and how many more there are."""
    texts = task.test.texts if task.test else ()
    wrong = (said != task.labels).sum(axis=0)
    order = [int(n) for n in np.argsort(-wrong, kind="stable") if wrong[n]]
    hard = []
    for n in order[:LONGEST_LIST]:
        taken = Counter(said[said[:, n] != task.labels[n], n].tolist()).most_common(3)
        names = ", ".join(f"{task.file.classes[k]} ({times})" for k, times in taken)
        hard.append(Hard(tuple(texts[n]), task.file.classes[task.labels[n]], int(wrong[n]), len(said), names))
    return hard, len(order) - len(hard)


def _examples(task: TaskFacts, most: int = 6) -> list[tuple[tuple[str, ...], str]]:
    """Training examples, of different classes if there are several."""
    if task.shots is None:
        return []
    if task.shots.references:
        return [(tuple(text), right[0]) for text, right in zip(task.shots.texts, task.shots.references, strict=True)][
            :most
        ]
    labels = task.shots.labels.tolist()
    first_of_class = [labels.index(k) for k in dict.fromkeys(labels)]
    order = [*first_of_class, *(n for n in range(len(labels)) if n not in first_of_class)]
    return [(tuple(task.shots.texts[n]), task.file.classes[labels[n]]) for n in order[:most]]


def _filled(template: str, texts: tuple[str, ...]) -> str:
    """The template filled with an example's texts."""
    return template.replace("{mask}", "[MASK]").replace("{a}", texts[0]).replace("{b}", texts[-1])
