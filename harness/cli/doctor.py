"""Look at this machine: `doctor`."""

from __future__ import annotations

import typer
from rich.markup import escape

from harness.cli.console import out, print_json
from harness.cli.options import AsJson

commands = typer.Typer()


@commands.command()
def doctor(as_json: AsJson = False) -> None:
    """Look at this machine: versions, processor, embedded model, tracks, isolation."""
    from harness.evaluation.doctor import examine  # noqa: PLC0415 - imports torch

    findings = examine()
    if as_json:
        print_json([{"name": f.name, "good": f.good, "fact": f.fact, "advice": f.advice} for f in findings])
    else:
        for finding in findings:
            mark = "[green]ok  [/green]" if finding.good else "[yellow]note[/yellow]"
            out.print(
                f"{mark} {finding.name}: {escape(finding.fact)}"
                + (f"\n     {escape(finding.advice)}" if finding.advice else "")
            )
    if any(not finding.good and finding.fatal for finding in findings):
        raise typer.Exit(1)
