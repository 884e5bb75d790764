"""The tables of `harness leaks`, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.leaks.behaviour import Copies
    from harness.leaks.extraction import Extraction
    from harness.leaks.membership import Found

_SHOWN_RATE = 0.1
"""False positives at which `told` shows what is found; an entry has too few others for a smaller share."""


def layer(found: Extraction) -> Table:
    """The curve of one cell."""
    table = _table(
        f"{found.task}/{found.split}: the last layer, stolen by rows",
        *("rows", "calls", "width found", "gap", "subspace error", "R² of other words", "top-1 agreement"),
    )
    for each in found.curve:
        table.add_row(
            f"{each.rows:,}", f"{each.calls:.2f}", str(each.width or "—"), f"{each.gap:,.1f}",
            f"{each.subspace_error:.2g}", f"{each.explained:.4f}", str(each.agreement),
        )  # fmt: skip
    return table


def layer_line(found: Extraction) -> str:
    """A line that sums a curve up."""
    last = found.last
    if last is None:
        return f"{found.task}/{found.split}: nothing was given"
    said = f"the hidden width, {last.width}," if last.width == found.width else "no exact width"
    return (
        f"{found.rows_spent:,} rows, {found.calls_spent:.1f} of {found.calls_total:,} calls, gave {said} and the "
        f"logits of {last.words - last.known:,} other words on unseen texts with R² {last.explained:.6f}"
    )


def policies(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The records of `harness.leaks.policy`."""
    table = _table(
        "what policies cost and prevent",
        *("policy", "solver", "points", "lost [95 %]", "failed cells", "last layer known", "prevented"),
        left=2,
    )
    for row in rows:
        lost = "" if row["lost"] is None else _points(row["lost"], row["lost_low"], row["lost_high"])
        prevented = "—" if row["prevented"] is None else f"{100 * row['prevented']:.1f} %"
        table.add_row(
            row["policy"], escape(row["solver"]), f"{100 * row['average']:.1f}", escape(lost),
            f"{row['failed_cells']} of {row['cells']}", f"{100 * row['share_of_last_layer']:.1f} %", prevented,
        )  # fmt: skip
    return table


def behaviour(found: Copies) -> Table:
    """How well students copy one victim."""
    table = _table(
        f"{escape(found.entry)} on {found.task}/{found.split}, accuracy {100 * found.victim_accuracy:.1f}: students on "
        f"{found.judged_on} unseen texts",
        *("texts", "student", "queries", "agreement [95 %]", "accuracy [95 %]"),
        left=2,
    )
    for each in found.found:
        agreement = _percent(each.agreement, each.agreement_low, each.agreement_high)
        accuracy = _percent(each.accuracy, each.accuracy_low, each.accuracy_high)
        table.add_row(each.texts, each.student, str(each.queries), escape(agreement), escape(accuracy))
    return table


def membership(entry: str, task: str, found: Sequence[Found]) -> Table:
    """What attacks tell of the labelled examples."""
    table = _table(
        f"{escape(entry)} on {task}, {found[0].answers} answers: members that are found",
        *("attack", "members", "false positives", "found [95 %]", "AUC [95 %]"),
        left=2,
    )
    for each in found:
        auc = f"{each.auc:.3f} [{each.auc_low:.3f}, {each.auc_high:.3f}]"
        found_share = _percent(each.found, each.low, each.high)
        table.add_row(each.attack, each.members, f"{each.false_positives:.0%}", escape(found_share), escape(auc))
    return table


def told(rows: Sequence[Mapping[str, Any]]) -> Table:
    """What the stored answers of entries tell of their labelled examples: the records of `told_by_few`."""
    table = _table(
        "stored answers, by their own other splits (RMIA): members that are found at 10 % false positives; chance is "
        "10 % and an AUC of 0.5",
        *("entry", "members", "answers", "texts", "found [95 %]", "AUC [95 %]"),
        left=2,
    )
    for row in rows:
        if row["false_positives"] != _SHOWN_RATE:
            continue
        auc = f"{row['auc']:.3f} [{row['auc_low']:.3f}, {row['auc_high']:.3f}]"
        table.add_row(
            escape(row["entry"]), row["members"], str(row["answers"]), f"{row['member_texts']:,}",
            escape(_percent(row["found"], row["low"], row["high"])), escape(auc),
        )  # fmt: skip
    return table


def _table(title: str, *columns: str, left: int = 0) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for place, name in enumerate(columns):
        table.add_column(name, justify="left" if place < left else "right", overflow="fold")
    return table


def _points(value: float, low: float, high: float) -> str:
    return f"{100 * value:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def _percent(value: float, low: float, high: float) -> str:
    return f"{100 * value:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
