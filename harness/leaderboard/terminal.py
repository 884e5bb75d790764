"""The ranking as tables for the terminal: by score, by efficiency, and notes on which differences are significant."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from rich.bar import Bar
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from harness.errors import counted
from harness.leaderboard.divisions import ACCESS, ceilings
from harness.leaderboard.headline import headline, tied
from harness.leaderboard.pareto import cost, money
from harness.leaderboard.stats import FEWEST_DF

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.leaderboard.entries import Division, Entry
    from harness.leaderboard.rank import Ranking
    from harness.leaderboard.standing import Standing, Standings

BAR = 50
"""Characters of a bar that stands for 100 points."""
LONGEST_NAME = 40
"""Characters of a name beside its bar."""


def terminal_table(ranking: Ranking) -> Group:
    """For each division its table by score, what differences in it are worth, and its table by efficiency.

    Main division first. Readable at 100 columns. White-box references close the first table.
    """
    references = [entry for entry in (*ranking.entries, *ranking.elsewhere) if entry.white_box]
    contestants = [entry for entry in (*ranking.entries, *ranking.elsewhere) if not entry.white_box]
    shown: list[Table | Text] = []
    for number, division in enumerate(ranking.divisions):
        entries = [entry for entry in contestants if entry.division == division] + ([] if number else references)
        of_several = f": {division.title}" if len(ranking.divisions) > 1 else ""
        shown += [Text(line, style="bold") for line in filter(None, [headline(ranking, division)])]
        shown.append(_table(f"track {ranking.track}{of_several}", ranking, entries))
        shown += [Text(line, style="dim") for line in notes(ranking, division)]
        shown += [Text(line, style="bold") for line in known_texts(entries)]
        shown += _efficiency(f"track {ranking.track}{of_several}: efficiency", ranking, division)
    labels = [Text(line, style="bold") for line in ranking.labels]
    return Group(
        *labels, *shown, *withdrawn_lines(ranking), *(Text(line, style="dim") for line in replaced_lines(ranking))
    )


def known_texts(entries: Iterable[Entry]) -> list[str]:
    """The entries that queried test texts, in words."""
    return [
        f"{entry.name} queried {counted(entry.test_texts, 'test text')} over its cells, which no cell gives: see "
        "docs/leaderboard.md"
        for entry in entries
        if entry.test_texts
    ]


def withdrawn_lines(ranking: Ranking) -> list[Text]:
    """Entries that were taken out of the ranking, struck through, with the reason."""
    return [
        Text.assemble((each.name, "strike"), f" withdrawn on {day(each.made)}: {each.reason}")
        for each in ranking.withdrawn
    ]


def replaced_lines(ranking: Ranking) -> list[str]:
    """The cases in which the newest run of a name replaced other content, in words."""
    lines = []
    for each in ranking.replaced:
        others = ", ".join(sha256[:12] for sha256 in each.older)
        lines.append(
            f"{each.name}: its newest run counts, of content {each.sha256[:12]}; it replaced runs of {others}. Entries "
            "of different teams are told apart by evaluate --team"
        )
    return lines


def day(at: float) -> str:
    """The date of a time in Unix seconds, in UTC."""
    return f"{dt.datetime.fromtimestamp(at, dt.UTC):%Y-%m-%d}"


def bars(ranking: Ranking) -> Table:
    """A bar for each complete contestant, from 0 to 100 points, best first; the leader and its ties are bold."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column("submission", overflow="ellipsis", no_wrap=True, max_width=LONGEST_NAME)
    table.add_column("bar")
    table.add_column("points", justify="right", no_wrap=True)
    for division in ranking.divisions:
        alike = [entry.name for entry in tied(ranking, division)]
        for place, entry in enumerate(ranking.complete(division)):
            first = not place or entry.name in alike
            name = Text(_apart(entry) if entry in ranking.elsewhere else entry.name, style="bold" if first else "")
            bar = Bar(100, 0, 100 * entry.average, width=BAR, color="green" if first else "default")
            table.add_row(name, bar, f"{entry.average * 100:.1f}")
    return table


def shown_rank(entry: Entry, standing: Standing | None, ranks: list[int]) -> str:
    """Shared rank as people see it, ``3=`` where others in `ranks` have it, too; ``-`` where there is none."""
    if standing is None:
        return str(entry.rank or "-")
    if standing.rank is None:
        return "-"
    return f"{standing.rank}=" if ranks.count(standing.rank) > 1 else str(standing.rank)


def notes(ranking: Ranking, division: Division) -> list[str]:
    """What the ranks of a division mean, what it can tell, and who is first where less access is allowed."""
    whole = ranking.standings(division)
    if whole is None or len(whole.names) == 1:
        return []
    lines = ["[95 % interval over splits and test items]"]
    if whole.ranked:
        lines[0] += "  = cannot be told apart from anybody of the same rank"
    else:
        lines.append(no_ranks(whole))
    if whole.power:
        lines.append(f"what this can tell: {whole.power.sentence()}")
    else:
        lines.append("what this can tell is not known: most of its entries predict exactly the same")
    if not whole.ranked:
        return lines
    for level in ceilings(ranking.complete(division))[:-1]:
        found = ranking.standings(division, level)
        lines.append(f"first up to {ACCESS[level]}: {', '.join(found.first)}" if found else "")
    return lines


def no_ranks(standings: Standings) -> str:
    """The reason why a list has no ranks, only intervals, in words."""
    splits = [task.splits for task in standings.scores.tasks]
    return (
        f"no ranks, intervals alone: {len(splits)} x {min(splits)} (tasks x splits) show too little of how entries vary"
        f" between splits; ranks need two splits of each task at least, and {FEWEST_DF} more splits than tasks in all"
    )


def _table(title: str, ranking: Ranking, entries: list[Entry]) -> Table:
    table = _empty(title)
    for task in ranking.tasks:
        table.add_column(task, justify="right", no_wrap=True)
    table.add_column("average", justify="right", style="bold", no_wrap=True)
    table.add_column("calls", justify="right")
    table.add_column("min", justify="right")
    table.add_column("runs", justify="right")
    states = [_state(entry) for entry in entries]
    if any(states):
        table.add_column("failed", justify="right")
    standings = [ranking.standing(entry) for entry in entries]
    ranks = [standing.rank for standing in standings if standing and standing.rank]
    for entry, standing, state in zip(entries, standings, states, strict=True):
        table.add_row(
            "white-box" if entry.white_box else shown_rank(entry, standing, ranks),
            escape(_apart(entry) if entry in ranking.elsewhere else entry.name),
            *(f"{entry.task(task)[0] * 100:.1f}" if task in entry.tasks else "-" for task in ranking.tasks),
            _average(entry, standing),
            f"{entry.calls:,.0f}",
            f"{entry.wall_s / 60:.1f}",
            f"{entry.runs:,}",
            *([state] if any(states) else []),
        )
    return table


def _efficiency(title: str, ranking: Ranking, division: Division) -> list[Table | Text]:
    """The second list of a division with the costs, or the reason why there is none."""
    found = ranking.efficiency(division)
    complete = {entry.name: entry for entry in ranking.complete(division)}
    if found is None:
        if ranking.standings(division) is None:
            return []
        missing = "no efficiency list: the bare template's score is not known for these runs; run submissions/manual"
        return [Text(missing if ranking.bare is None else "no efficiency list: answers were not kept", style="dim")]
    table = _empty(title)
    table.add_column("efficiency", justify="right", style="bold", no_wrap=True)
    currency = [ranking.prices.currency] if ranking.prices else []
    for name in ("average", "calls", "tokens", "MB", "min", *currency):
        table.add_column(name, justify="right", no_wrap=True)
    ranks = [each.rank for each in found.entries.values() if each.rank]
    for name, standing in found.entries.items():
        entry = complete[name]
        spent = money(entry, ranking.prices)
        table.add_row(
            shown_rank(entry, standing, ranks),
            escape(_apart(entry) if entry in ranking.elsewhere else name),
            standing.average.points(),
            f"{entry.average * 100:.1f}",
            f"{entry.calls:,.0f}",
            f"{cost(entry, 'tokens'):,.0f}",
            f"{cost(entry, 'bytes') / 1e6:,.1f}",
            f"{entry.wall_s / 60:.1f}",
            *([] if spent is None else [f"{spent:,.2f}"]),
        )
    said = (
        "efficiency: mean score over log(calls) from the first call to the budget; the bare template before an answer"
    )
    return [table, Text(said, style="dim")]


def _empty(title: str) -> Table:
    table = Table(title=escape(title), title_justify="left", box=None, pad_edge=False)
    table.add_column("#", justify="right")
    table.add_column("submission", overflow="fold")
    return table


def _apart(entry: Entry) -> str:
    """Name of an entry that is listed apart, with the reason."""
    return f"{entry.name} on {entry.device}" + (f" with {entry.external}" if entry.external else "")


def _average(entry: Entry, standing: Standing | None) -> str:
    return f"{entry.average * 100:.1f}" if standing is None else standing.average.points()


def _state(entry: Entry) -> str:
    to_run = f"+{entry.missing} to run" if entry.missing else ""
    return " ".join(filter(None, [str(entry.failed or ""), to_run]))
