"""The command line: thin, and the only package that prints. One file holds one group of commands."""

from __future__ import annotations

import contextlib
import errno
import inspect
import os
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from harness.cli.ablate import commands as ablate
from harness.cli.author import commands as author
from harness.cli.bench import commands as bench
from harness.cli.compare import commands as compare
from harness.cli.competition import commands as competition
from harness.cli.console import err
from harness.cli.doctor import commands as doctor
from harness.cli.endpoint import commands as endpoint
from harness.cli.evaluate import commands as evaluate
from harness.cli.forget import commands as forget
from harness.cli.leaks import commands as leaks
from harness.cli.organiser import commands as organiser
from harness.cli.ranking import commands as ranking
from harness.cli.report import commands as report
from harness.cli.results import commands as results
from harness.cli.rulings import commands as rulings
from harness.cli.runs import commands as runs
from harness.cli.serve import commands as serve
from harness.errors import HarnessError, InputError
from harness.evaluation.environment import DISTRIBUTION

if TYPE_CHECKING:
    from typer.models import CommandInfo

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A competition in a box for gradient-free tuning of language models.\n\n"
    "Start with [bold]harness evaluate submissions/bbt[/bold], then [bold]harness leaderboard[/bold]. "
    "Write your own: [bold]harness new mysolver[/bold] and [bold]harness check submissions/mysolver[/bold].",
    epilog="Exit codes: 0 done, 1 it failed, 2 something given was wrong, 130 interrupted. See docs/author.md.",
)
PANELS = {
    "Write a submission": ("new", "check", "predict"),
    "Run it": ("evaluate", "ablate", "bench", "plan"),
    "See what came of it": ("leaderboard", "compare", "runs", "log", "watch", "report", "forget"),
    "Models, tracks, tasks and data": (
        "tracks",
        "tasks",
        "fetch",
        "pretrain-prompt",
        "import-prompt",
        "endpoint",
        "headroom",
        "doctor",
    ),
    "Hold a competition": (
        *("new-competition", "serve", "score", "rescore"),
        *("withdraw", "cap", "freeze", "rulings"),
        "leaks",
    ),
    "Results databases": ("audit", "replay", "merge", "migrate"),
}
"""How `harness --help` groups the commands. One that is in no group stands at the end."""


def _name(info: CommandInfo) -> str:
    return info.name or str(getattr(info.callback, "__name__", "")).replace("_", "-")


def _place(info: CommandInfo) -> int:
    order = [name for names in PANELS.values() for name in names]
    return order.index(_name(info)) if _name(info) in order else len(order)


def flowing(text: str) -> str:
    """A docstring whose paragraphs are one line each, so that help breaks lines where the terminal ends."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


for group in (
    evaluate, ablate, bench, ranking, compare, report, runs, author, organiser, competition, results, rulings, serve,
    endpoint, doctor, leaks, forget,
):  # fmt: skip
    app.registered_commands += group.registered_commands
app.registered_commands.sort(key=_place)
for each in app.registered_commands:
    each.help = flowing(inspect.getdoc(each.callback) or "") if each.callback else each.help
    panel = next((title for title, names in PANELS.items() if _name(each) in names), None)
    each.rich_help_panel = panel or "More"


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"harness {version(DISTRIBUTION)}")
        raise typer.Exit


@app.callback()
def harness(
    _: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Hold the options that stand before a command."""


def main() -> None:
    """Run the command line; errors made on purpose are one message and exit code 1 (2 for wrong input)."""
    try:
        try:
            app(prog_name="harness")
        finally:
            sys.stdout.flush()  # here an error is handled like any other; at the interpreter's end it is not
    except OSError as problem:
        if problem.errno not in _NO_ROOM:
            raise
        with contextlib.suppress(OSError), open(os.devnull, "w", encoding="utf-8") as nowhere:  # noqa: PTH123 - no path
            os.dup2(nowhere.fileno(), sys.stdout.fileno())  # the rest of its buffer is discarded
        err.print(
            f"[red]error:[/red] what was to be written has no room: {problem.strerror}. Free some, or write elsewhere, "
            "and run the same command again; what is in the results database stays",
            soft_wrap=True,
        )
        sys.exit(1)
    except HarnessError as problem:
        from harness.evaluation.progress import printable  # noqa: PLC0415

        err.print(f"[red]error:[/red] {escape(printable(str(problem)))}", soft_wrap=True)
        sys.exit(2 if isinstance(problem, InputError) else 1)
