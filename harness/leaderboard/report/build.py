"""Writes the site beside its place and then moves it there, so that nobody sees half a site."""

from __future__ import annotations

import os
import re
import shutil
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from harness.errors import HarnessError, InputError
from harness.leaderboard.exports import exported, tidy_entry
from harness.leaderboard.formats import Format
from harness.leaderboard.report.facts import gather
from harness.leaderboard.report.figures import draw_all
from harness.leaderboard.report.kept import Kept
from harness.leaderboard.report.pages import entry, pages, site, tracks
from harness.leaderboard.report.prose import LONGEST, rendered
from harness.leaderboard.table import as_csv, write_document, write_text
from harness.sandbox.presets import identity_sha256
from harness.sandbox.submission import find, folder_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.leaderboard.entries import Entry
    from harness.leaderboard.report.facts import Facts, System
    from harness.results.records import RunKey
    from harness.results.store import Store
    from harness.sandbox.submission import Submission
    from harness.tracks.examples import Source
    from harness.tracks.track import Track

HERE = Path(__file__).parent
PACKAGE = HERE.parent.parent
ROOT = PACKAGE.parent
"""The checkout, if this is one."""
COLUMNS = ROOT / "docs" / "leaderboard.md"
"""The page with the columns in a checkout; in a package it is `PACKAGED`."""
PACKAGED = PACKAGE / "_leaderboard.md"
MARKER = ".harness-report"
"""The file that marks a directory as a report, which the next report may replace."""
METRICS = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "f1": "F1",
    "chrf": "chrF, mean over texts",
    "bleu": "BLEU, mean over texts",
    "rouge_l": "ROUGE-L, mean over texts",
    "exact_match": "exact match",
    "token_f1": "F1 of tokens, mean over texts",
}


@dataclass(frozen=True)
class Part:
    """One track of a site."""

    track: Track
    source: Source
    """Where the track's texts are."""


@dataclass(frozen=True)
class Built:
    """The result of writing a report."""

    path: Path
    pages: int
    bytes: int
    seconds: float


def build(
    store: Store,
    track: Track,
    out: Path,
    source: Source,
    submissions: Path,
    kept: Kept | None = None,
    hidden: bool = False,
) -> Built:
    """Write the report of a track to the directory `out`, and replace the report that is there.

    Args:
        store: the results database.
        track: the track.
        out: a new or empty directory, or an older report.
        source: where the track's texts are.
        submissions: the folder in which the folders of entries are looked up, for their READMEs.
        kept: what earlier reports computed; by default everything is computed anew.
        hidden: leave the test texts out.

    Raises:
        InputError: `out` is neither a report nor an empty directory, or it cannot be written.
    """
    return build_site(store, [Part(track, source)], out, submissions, kept, hidden=hidden)


def build_site(
    store: Store,
    parts: Sequence[Part],
    out: Path,
    submissions: Path,
    kept: Kept | None = None,
    *,
    hidden: bool = False,
    live: bool = False,
) -> Built:
    """Write the report of one track, or of several with a page that leads to each.

    The report of one track lies in `out`; of several, each lies in the folder of its name, and all share ``assets``.
    With `live`, pages ask the server that they come from for news (`harness.leaderboard.report.live`), and there are
    no figures for papers. The other arguments and errors are those of `build`.
    """
    began = time.monotonic()
    out = out.resolve()
    if out.exists() and not (out / MARKER).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and is not a report; name a new or empty directory with --out")
    beside = out.parent / f".{out.name}.{os.getpid()}"
    try:
        beside.mkdir(parents=True)
        kept = kept or Kept()
        found = [gather(store, part.track, part.source, kept, hidden) for part in parts]
        count = _write_site(found, submissions, beside, kept, live)
        kept.tidy()
        size = sum(file.stat().st_size for file in beside.rglob("*") if file.is_file())
        _move(beside, out)
    except OSError as problem:
        raise InputError(f"{out} cannot be written: {problem}") from problem
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return Built(out, count, size, time.monotonic() - began)


def environment() -> Environment:
    """The templates' environment: everything is escaped, an unknown name is an error, and None is empty."""
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: "" if value is None else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "points": lambda share: f"{100 * share:.1f}",
        "tenth": lambda value: f"{value:,.1f}",
        "commas": lambda value: f"{value:,.0f}" if value == 0 or value >= 1 else f"{value:.2g}",
        "breakable": breakable,
        "metric": METRICS.__getitem__,
        "brief": lambda text: text.strip().splitlines()[-1][:40] if text.strip() else "",
        "unescaped": lambda text: Markup(text).unescape(),  # noqa: S704 - escaped again by the template
    }
    return made


def breakable(name: str) -> Markup:
    """A name with places for line breaks after punctuation, because a break inside a word is hard to read."""
    parts = re.split(r"(?<=[_\[,=/])", name)
    return Markup("<wbr>").join(parts)


def _write_site(found: Sequence[Facts], submissions: Path, folder: Path, kept: Kept, live: bool) -> int:
    """Write all files and return the number of pages."""
    (folder / "assets").mkdir()
    for file in (HERE / "static").iterdir():
        shutil.copyfile(file, folder / "assets" / file.name)
    (folder / "assets" / "plotly.min.js").write_text(get_plotlyjs(), encoding="utf-8")
    (folder / MARKER).write_text("A report by `harness report`, which may replace this directory.\n", encoding="utf-8")
    if len(found) == 1:
        return _write(found[0], submissions, folder, kept, {"up": "", "live": live})
    count = 1
    for facts in found:
        own = folder / facts.track.name
        own.mkdir()
        count += _write(facts, submissions, own, kept, {"up": "../", "live": live})
    place = {"root": "", "up": "", "current": "", "live": live, "tracks": tracks(found), "site": None}
    text = environment().get_template("tracks.html").render(place)
    (folder / "index.html").write_text(text, encoding="utf-8")
    return count


def _write(facts: Facts, submissions: Path, folder: Path, kept: Kept, where: dict[str, Any]) -> int:
    """Write the files of a track and return the number of pages."""
    for name in ("pairs", "submissions", "tasks"):
        (folder / name).mkdir()
    write_document(facts.document, folder / "ranking.csv", folder / "ranking.json")
    write_text(_cells(facts, kept), folder / "cells.csv")
    write_text(exported(facts.ranking, Format.LATEX), folder / "ranking.tex")
    write_text(exported(facts.ranking, Format.MARKDOWN), folder / "ranking.md")
    write_text(_columns(), folder / "columns.md")
    drawn = not where["live"] and draw_all(facts, folder / "figures")
    templates, count = environment(), 0
    common: dict[str, Any] = {"site": site(facts)} | where
    texts = {name: task.texts_sha256 for name, task in facts.tasks.items()}

    def own(system: System) -> Markup:
        """The part of an entry's page that no other entry changes."""
        decided_by = (facts.digests[system.entry.run], system.entry.run, system.entry.runs, texts, facts.hidden)
        made = templates.get_template("entry.html")
        return Markup(kept.value("entry", decided_by, str, lambda: made.render(entry(facts, system))))  # noqa: S704 - by a template

    for path, template, values in pages(facts, _readmes(facts, submissions), _rules(), drawn, own):
        place = {"root": "../" * path.count("/"), "current": path}
        text = templates.get_template(template).render(common | place | values)
        (folder / path).write_text(text, encoding="utf-8")
        count += 1
    return count


def _cells(facts: Facts, kept: Kept) -> str:
    """``cells.csv``: the lines of an entry are those that were kept, or new ones."""
    ranking = facts.ranking
    lines: list[str] = [] if facts.systems else [as_csv([])]
    for each in (*ranking.entries, *ranking.elsewhere):
        seed = ranking.identity.get("seed")
        decided_by = (facts.digests[each.run], each.run, each.division, ranking.bare, seed)
        text = kept.value("cells.csv", decided_by, str, partial(_lines, each, seed))
        lines.append(text if not lines else text.partition("\n")[2])
    return "".join(lines)


def _lines(each: Entry, seed: int | None) -> str:
    return as_csv(tidy_entry(each, seed))


def _readmes(facts: Facts, submissions: Path) -> dict[str, tuple[Markup, bool]]:
    """By run: the README of its entry, and whether its folder has changed since. Missing folders are left out."""
    found: dict[str, tuple[Markup, bool]] = {}
    known: dict[str, tuple[Markup, Submission]] = {}
    for system in facts.systems:
        name = folder_of(system.entry.name)
        if name not in known and Path(name).name == name:
            try:
                folder = find(submissions / name)
                text = (folder.path / "README.md").read_text(encoding="utf-8", errors="replace")[:LONGEST]
            except (HarnessError, OSError, ValueError):
                continue
            known[name] = rendered(text), folder
        if name in known:
            readme, folder = known[name]
            ran_it = _ran_it(folder, system.run.key)
            if ran_it or not system.run.key.team:  # a team's folder is not the one of this name
                found[system.entry.run] = readme, not ran_it
    return found


def _ran_it(folder: Submission, key: RunKey) -> bool:
    """Whether a folder is the one that a run was of, with the preset that it had."""
    try:
        return key.submission_sha256 in {identity_sha256(folder, dict(key.options)), folder.sha256_with_page}
    except HarnessError:  # the preset is gone
        return False


def _rules() -> Markup | None:
    """The rules and then the rules' reference; None outside a checkout."""
    files = (ROOT / "RULES.md", ROOT / "docs" / "rules-reference.md")
    if not all(file.is_file() for file in files):
        return None
    short, reference = (file.read_text(encoding="utf-8") for file in files)
    body = short.partition("\n")[2]
    return rendered(f"{body}\n#{reference}", under=0)  # the page has one h1: the second file's title is an h2


def _columns() -> str:
    """What the columns of the files beside the pages mean: the sections of the documentation about them."""
    text = (COLUMNS if COLUMNS.is_file() else PACKAGED).read_text(encoding="utf-8")
    start, end = text.index("\n## CSV\n"), text.index("\n## Cost\n")
    files = "The first table is of `ranking.csv` and of the entries of `ranking.json`; *Cells* is of `cells.csv`."
    linked = text[start:end] + text[text.index("\n## JSON\n") :]
    return f"# Columns\n\n{files}\n" + re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", linked)


def _move(made: Path, out: Path) -> None:
    """Move a finished site to its place. The old site is removed afterwards."""
    old = out.parent / f".{out.name}.{os.getpid()}.old"
    if out.exists():
        out.rename(old)
    made.rename(out)
    shutil.rmtree(old, ignore_errors=True)
