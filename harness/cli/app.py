"""The command line: thin, and the only package that prints. One file holds one group of commands."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated

import typer
from rich.markup import escape

from harness.cli.ablate import commands as ablate
from harness.cli.author import commands as author
from harness.cli.console import err
from harness.cli.doctor import commands as doctor
from harness.cli.evaluate import commands as evaluate
from harness.cli.organiser import commands as organiser
from harness.cli.ranking import commands as ranking
from harness.cli.results import commands as results
from harness.cli.serve import commands as serve
from harness.errors import HarnessError, InputError
from harness.evaluation.environment import DISTRIBUTION

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
for group in (evaluate, ablate, ranking, author, organiser, results, serve, doctor):
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
        app(prog_name="harness")
    except HarnessError as problem:
        from harness.evaluation.progress import printable  # noqa: PLC0415

        err.print(f"[red]error:[/red] {escape(printable(str(problem)))}", soft_wrap=True)
        sys.exit(2 if isinstance(problem, InputError) else 1)
