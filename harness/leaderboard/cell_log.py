"""What happened in one cell: how it ended, what it printed, its queries and its answers. For `harness log`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import accumulate, groupby
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from harness.blackbox.weights import parts_of, soft
from harness.contract import Coordinates
from harness.errors import HarnessError, InputError, did_you_mean
from harness.leaderboard.divisions import level_name
from harness.leaderboard.rank import score_cell
from harness.leaderboard.table import finite
from harness.results.status import COUNTS, FAILED, MEANING
from harness.solving import answers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.contract import Member
    from harness.results.records import LedgerRow, Run, StoredCell
    from harness.results.store import Store

_ENDS = 10
"""Queries that are shown of the beginning and of the end of a long list."""


@dataclass(frozen=True)
class KeptMember:
    """One classifier of a stored answer, for people."""

    template: str
    words: tuple[str, ...]
    prompt: str
    """What is put in: the kind of prompt and its size."""
    head: str | None
    scale: tuple[float, ...] | None
    shift: tuple[float, ...] | None


@dataclass(frozen=True)
class Kept:
    """The answer that stood at a mark of the budget."""

    mark: float
    """Fraction of the budget; 1 is the final answer."""
    calls: float | None
    """Calls that were used when it was offered; None where nothing was metered."""
    score: float | None
    """On the test set, from 0 to 1."""
    note: dict[str, float]
    members: tuple[KeptMember, ...]


@dataclass(frozen=True)
class CellLog:
    """All that is stored of one cell."""

    run: Run
    cell: StoredCell
    score: float | None
    """On the test set, from 0 to 1; a failed cell counts as `FAILED` says. None if its task is not known here."""
    queries: tuple[LedgerRow, ...]
    kept: tuple[Kept, ...]


def log_of(store: Store, run: Run, task: str, split: int) -> CellLog:
    """Everything about a finished cell.

    Raises:
        InputError: the run has no such cell. The message names those that it has.
    """
    cells = store.cells(run.id)
    found = next((cell for cell in cells if (cell.task, cell.split) == (task, split)), None)
    if found is None:
        raise InputError(_not_there(store, run, cells, f"{task}/{split}"))
    try:
        scored = score_cell(found)
        score, at = scored.score, scored.anytime
    except HarnessError:
        score, at = None, {}
    each = found.record.train_rows or None
    kept = []
    for mark, rows in sorted(found.rows.items()):
        blob = store.answer(run.id, task, split, mark)
        answer = answers.from_bytes(blob) if blob else None
        members = tuple(map(_kept_member, answer.members)) if answer else ()
        note = dict(answer.note) if answer else {}
        kept.append(Kept(mark, rows / each if each else None, at.get(mark), note, members))
    return CellLog(run, found, score, tuple(store.ledger(found.attempt)), tuple(kept))


def _not_there(store: Store, run: Run, cells: Sequence[StoredCell], place: str) -> str:
    """Why there is nothing to show of a cell."""
    for cell in store.open_cells(run.id):
        if f"{cell.task}/{cell.split}" == place:
            return (
                f"{place} of run {run.id} ({run.key.label}) is not finished: {cell.rows:,} rows are answered since "
                f"{_time(cell.started)}. It runs, or it was interrupted; harness watch follows it, and the same "
                "harness evaluate begins an interrupted one anew"
            )
    there = [f"{cell.task}/{cell.split}" for cell in cells]
    has = f"it has {', '.join(there)}" if there else "no cell of it is finished"
    return f"run {run.id} ({run.key.label}) has no cell {place}{did_you_mean(place, there)}; {has}"


def _kept_member(member: Member) -> KeptMember:
    prompt, inner = "none, the bare template", soft(member.prompt)
    if isinstance(inner, Coordinates):
        space = inner.space
        prompt = f"{space.layers} x {space.dim} coordinates of a subspace, {space.tokens} tokens, {space.mode}"
    elif inner is not None:
        layers, tokens, width = inner.values.shape[1:]
        prompt = f"values, {layers} layers x {tokens} tokens x {width}, {inner.mode}"
    for part in parts_of(member.prompt):
        changed, terms = part.space, part.z.shape[1]
        kind = "coordinates" if part.streams is None else "steps"
        where = f"layers {', '.join(map(str, changed.layers))}" if changed.layers else "all layers"
        prompt = "none" if inner is None and ";" not in prompt else prompt
        prompt += f"; weights of group {changed.group}, {where}, at {terms:,} {kind}"
    head = (
        None if member.head is None else f"{type(member.head).__name__} on {member.features}, weight {member.alpha:g}"
    )
    return KeptMember(member.template, member.words, prompt, head, member.scale, member.shift)


def record(log: CellLog) -> dict[str, Any]:
    """All of it as plain data, for JSON."""
    found = {
        "run": log.run.id,
        "entry": log.run.key.label,
        "track": log.run.key.track,
        "task": log.cell.task,
        "split": log.cell.split,
        "status": log.cell.status,
        "score": None if log.score is None else round(log.score, 6),
        "finished": _time(log.cell.finished),
        "facts": log.cell.record.plain(),
        "queries": query_records(log),
        "answers": [asdict(each) for each in log.kept],
    }
    return dict(finite(found))


def query_records(log: CellLog) -> list[dict[str, Any]]:
    """A flat record for each answered query, in order."""
    each = log.cell.record.train_rows or 1
    sums = accumulate(row.rows for row in log.queries)
    return [
        {
            "query": number,
            "rows": row.rows,
            "calls": round(row.rows / each, 4),
            "calls_so_far": round(total / each, 4),
            "tokens": row.tokens,
            "bytes_up": row.bytes_up,
            "bytes_down": row.bytes_down,
            "seconds": round(row.seconds, 6),
            "level": row.level,
            "sha256": row.sha256,
        }
        for number, (row, total) in enumerate(zip(log.queries, sums, strict=True))
    ]


def cell_records(store: Store, run: Run) -> list[dict[str, Any]]:
    """A flat record for each finished cell of a run, in order of task and split, with the reason of a failure."""
    found = []
    for cell in store.cells(run.id):
        try:
            score = round(score_cell(cell).score, 4)
        except HarnessError:
            score = None
        of = cell.record
        found.append(
            {
                "task": cell.task,
                "split": cell.split,
                "status": cell.status,
                "score": score,
                "calls": round(of.calls_spent, 2) if of.train_rows else None,
                "budget_calls": of.calls_total or None,
                "seconds": round(of.tuning_s, 2),
                "printed_bytes": len(of.output.encode("utf-8", "replace")),
                "why": last_line(of.detail) or None,
            }
        )
    return found


def last_line(text: str) -> str:
    """The last line of a traceback or a reason, which names the error."""
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else ""


def heading(log: CellLog) -> list[str]:
    """The facts of a cell, a line each."""
    cell, of, key = log.cell, log.cell.record, log.run.key
    score = "no score" if log.score is None else f"{100 * log.score:.1f} points"
    if cell.status not in COUNTS:
        score += f" (a failed cell {FAILED})"
    modified = f", with {', '.join(key.modified)} replaced (a trial)" if key.modified else ""
    metered = (
        f"{of.calls_spent:,.1f} of {of.calls_total:,} calls in {of.queries:,} queries, {of.refused:,} refused, "
        f"{of.rejected:,} malformed"
        if of.train_rows and of.rows_total
        else "not metered"
    )
    if of.forwards is not None:  # of a reference
        limit = f" of {of.rows_total:,}" if of.rows_total else ", without a limit"
        metered = f"{of.forwards:,} forward passes{limit}; a row of a gradient step is three"
    lines = [
        f"{key.label}, run {log.run.id}, track {key.track}{modified}: {cell.task}/{cell.split}",
        f"status    {cell.status}: {MEANING.get(cell.status, '')}",
        f"score     {score}, finished {_time(cell.finished)}",
        f"budget    {metered}",
        f"time      {of.tuning_s:.1f} s of tuning, {of.lm_s:.1f} s of them the model's; {of.test_s:.1f} s of testing",
        f"config    {', '.join(f'{name}={value!r}' for name, value in of.config.items()) or 'none'}",
        f"sandbox   {of.sandbox}",
    ]
    if of.replaced:
        lines.append(f"before    it had failed: {', '.join(of.replaced)} (--again replaced that)")
    return lines


def queries_table(log: CellLog, *, every: bool = False) -> Table:
    """The answered queries; of a long list the first and the last ones, unless `every`."""
    rows = query_records(log)
    cut = not every and len(rows) > 2 * _ENDS
    made = Table(box=None, pad_edge=False)
    for name in ("query", "rows", "calls", "calls so far", "tokens", "seconds", "level"):
        made.add_column(name, justify="right")
    for number, row in enumerate(rows):
        if cut and number == _ENDS:
            made.add_row("...", *[""] * 6)
        if not cut or number < _ENDS or number >= len(rows) - _ENDS:
            cells = (f"{row['rows']:,}", f"{row['calls']:,.1f}", f"{row['calls_so_far']:,.1f}", f"{row['tokens']:,}")
            made.add_row(str(row["query"]), *cells, f"{row['seconds']:.3f}", level_name(row["level"]))
    return made


def answers_table(log: CellLog) -> Table:
    """The kept answers, one line for each that stood at marks of the budget."""
    made = Table(box=None, pad_edge=False)
    for name, side in (
        ("at", "right"),
        ("calls", "right"),
        ("test score", "right"),
        ("note", "left"),
        ("answer", "left"),
    ):
        made.add_column(name, justify="right" if side == "right" else "left", overflow="fold")
    for _, group in groupby(log.kept, key=lambda each: each.calls):
        stood = list(group)
        each = stood[-1]
        note = ", ".join(f"{name} {value:.4g}" for name, value in each.note.items())
        first = each.members[0] if each.members else None
        more = f", and {len(each.members) - 1} more like it" if len(each.members) > 1 else ""
        words = f", {_words(first.words)}" if first is not None and first.words else ""
        shown = "" if first is None else f"{first.template!r}{words}; prompt: {first.prompt}{more}"
        if first is not None and first.head:
            shown += f"; head: {first.head}"
        calls = "" if each.calls is None else f"{each.calls:,.1f}"
        score = "" if each.score is None else f"{100 * each.score:.1f}"
        at = " to ".join(dict.fromkeys(f"{100 * mark:.3g}" for mark in (stood[0].mark, each.mark)))
        made.add_row(f"{at} %", calls, score, escape(note), escape(shown))
    return made


def _words(words: Sequence[str]) -> str:
    return f"words {', '.join(word.strip() for word in words)}"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
