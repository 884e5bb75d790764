"""The command line: thin, and the only package that prints. One file holds one group of commands."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from importlib.metadata import version
from typing import Annotated

import typer
from rich.markup import escape

from harness.cli.ablate import commands as ablate
from harness.cli.author import commands as author
from harness.cli.bench import commands as bench
from harness.cli.console import err
from harness.cli.doctor import commands as doctor
from harness.cli.endpoint import commands as endpoint
from harness.cli.evaluate import commands as evaluate
from harness.cli.organiser import commands as organiser
from harness.cli.ranking import commands as ranking
from harness.cli.results import commands as results
from harness.cli.rulings import commands as rulings
from harness.cli.serve import commands as serve
from harness.errors import HarnessError, InputError
from harness.evaluation.environment import DISTRIBUTION

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A competition in a box for gradient-free tuning of language models.\n\n"
    "Start with [bold]harness evaluate submissions/bbt[/bold], then [bold]harness leaderboard[/bold]. "
    "Write your own: [bold]harness new mysolver[/bold] and [bold]harness check submissions/mysolver[/bold].",
    epilog="Exit codes: 0 done, 1 it failed, 2 something given was wrong, 130 interrupted.",
)
for group in (evaluate, ablate, bench, ranking, author, organiser, results, rulings, serve, endpoint, doctor):
    app.add_typer(group)


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
