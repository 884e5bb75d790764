"""Options of the command line that several commands share, each declared once; the CLI's own, like `harness.cli`.

A command that takes overrides names them in `overriding`, and gets one `Overrides`.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from harness.cli.complete import complete_tasks, complete_tracks
from harness.evaluation.overrides import Overrides, decisions
from harness.tracks.tiers import tier_named

Command = TypeVar("Command", bound=Callable[..., None])
NOTHING = Overrides()
"""The default of a command's `overrides`; `overriding` puts the given ones in its place."""

CELLS = "Which cells"
"""Heading in ``--help`` of the options that choose cells."""
REPLACED = "In place of the track's choices"
"""Heading in ``--help`` of the options that replace a choice of the track, or add to it."""
HOW = "How and where they run"
"""Heading in ``--help`` of the options that change no result."""

DataDir = Annotated[Path | None, typer.Option("--data", help="Data directory, e.g. a competition kit.")]
StagedDir = Annotated[
    Path | None, typer.Option("--from", help="Directory that `harness fetch` filled; default ~/.cache/harness.")
]


@dataclass(frozen=True)
class _Shared:
    """How one field of `Overrides` is given."""

    parameter: str
    """Of the command's function."""
    annotation: Any
    read: Callable[[Any], Any] = lambda value: value
    """Converts the value from typer to the field's value."""


def _tuple(given: list[Any] | None) -> tuple[Any, ...]:
    return tuple(given or ())


OPTIONS: dict[str, _Shared] = {
    "data": _Shared(
        "data",
        Annotated[
            Path | None,
            typer.Option("--data", help="Data directory, e.g. a competition kit.", rich_help_panel=REPLACED),
        ],
    ),
    "model": _Shared(
        "model",
        Annotated[
            str | None,
            typer.Option(
                "--model", help="Another model: a directory in hub format, or a hub id.", rich_help_panel=REPLACED
            ),
        ],
    ),
    "staged": _Shared(
        "staged",
        Annotated[
            Path | None,
            typer.Option(
                "--from", help="Directory that `harness fetch` filled; default ~/.cache/harness.", rich_help_panel=HOW
            ),
        ],
    ),
    "device": _Shared(
        "device",
        Annotated[
            str | None,
            typer.Option(
                "--device", help="cpu or cuda; default the track's, which alone is ranked.", rich_help_panel=REPLACED
            ),
        ],
    ),
    "backend": _Shared(
        "backend",
        Annotated[
            str | None,
            typer.Option(
                "--backend",
                help="torch, onnxruntime (float32, encoder models; harness\\[onnx]), or openai (a server, see "
                "--endpoint); another than the track's never ranks.",
                rich_help_panel=REPLACED,
            ),
        ],
    ),
    "endpoint": _Shared(
        "endpoint",
        Annotated[
            str | None,
            typer.Option(
                "--endpoint",
                help="With --backend openai: the address of a server that speaks the OpenAI protocol, http://HOST:PORT "
                "(docs/endpoints.md). Its key comes from the environment alone, HARNESS_ENDPOINT_KEY.",
                metavar="URL",
                rich_help_panel=REPLACED,
            ),
        ],
    ),
    "served_model": _Shared(
        "served_model",
        Annotated[
            str | None,
            typer.Option(
                "--served-model",
                help="Name of the model on the server; default the only one.",
                metavar="NAME",
                rich_help_panel=REPLACED,
            ),
        ],
    ),
    "concurrency": _Shared(
        "concurrency",
        Annotated[
            int,
            typer.Option(
                "--concurrency", help="Requests to the server at once.", min=1, max=256, rich_help_panel=REPLACED
            ),
        ],
    ),
    "tasks": _Shared(
        "task",
        Annotated[
            list[str] | None,
            typer.Option(
                "--task", help="Only this task; repeatable.", rich_help_panel=CELLS, autocompletion=complete_tasks
            ),
        ],
        _tuple,
    ),
    "splits": _Shared(
        "split",
        Annotated[
            list[int] | None, typer.Option("--split", help="Only this split; repeatable.", rich_help_panel=CELLS)
        ],
        _tuple,
    ),
    "calls": _Shared(
        "calls",
        Annotated[
            int | None,
            typer.Option(
                "--calls", help="Another budget, in calls, for a trial; never ranked.", rich_help_panel=REPLACED
            ),
        ],
    ),
    "shots": _Shared(
        "shots",
        Annotated[
            int | None,
            typer.Option(
                "--shots",
                help="Other examples per class, train and dev, where splits are drawn; a trial.",
                rich_help_panel=REPLACED,
            ),
        ],
    ),
    "seed": _Shared(
        "seed", Annotated[int, typer.Option("--seed", help="Seed of the run.", min=0, rich_help_panel=CELLS)]
    ),
    "repeat": _Shared(
        "repeat",
        Annotated[
            int,
            typer.Option(
                "--repeat",
                help="Number of the repeat: other chance of the submission's own.",
                min=0,
                rich_help_panel=CELLS,
            ),
        ],
    ),
    "present_splits": _Shared(
        "present_splits",
        Annotated[
            bool, typer.Option("--present-splits", help="Skip splits the data directory lacks.", rich_help_panel=CELLS)
        ],
    ),
    "white_box": _Shared(
        "white_box",
        Annotated[
            bool,
            typer.Option(
                "--white-box",
                help="Allow references that need gradients. They run in this process, unsandboxed, with the model's "
                "weights: only for code you trust. Listed, never ranked.",
                rich_help_panel=HOW,
            ),
        ],
    ),
    "p0": _Shared(
        "p0",
        Annotated[
            Path | None,
            typer.Option(
                "--p0",
                help="A pre-trained prompt for the pair tasks; listed as external, never ranked with pure.",
                rich_help_panel=REPLACED,
            ),
        ],
    ),
    "test_data": _Shared(
        "test_data",
        Annotated[
            Path | None,
            typer.Option(
                "--test-data",
                help="Directory of private test sets to score on instead: <Task>/test.tsv, or <task>/mini/test.jsonl. "
                "Stored apart; `harness leaderboard` sets them against the public ones.",
                rich_help_panel=REPLACED,
            ),
        ],
    ),
    "sandbox": _Shared(
        "sandbox",
        Annotated[
            str | None,
            typer.Option(
                "--sandbox",
                help="Tier of isolation, A, B, B' or 0, instead of the best there is here.",
                rich_help_panel=HOW,
            ),
        ],
        tier_named,
    ),
}
"""One option for each field of `Overrides`, in the order in which ``--help`` lists them."""
TRIED = ("data", "model", "staged", "device", "tasks", "splits")
"""Fields by which `harness check` finds the model, the data and the cell of one real query."""
REPLAYED = tuple(name for name, decision in decisions().items() if decision.replayed == "given")
"""Fields that a replay cannot take from the stored run."""


def overriding(*names: str, helps: dict[str, str] | None = None) -> Callable[[Command], Command]:
    """Give a command the options of these fields of `Overrides`, in the place of its parameter `overrides`.

    Args:
        *names: the fields that the command takes.
        helps: what ``--help`` says of a field where the command means something of its own by it.

    Returns:
        A decorator for the command, to stand below typer's own.
    """
    taken = {name: option for name, option in OPTIONS.items() if name in names}
    defaults = {each.name: each.default for each in fields(Overrides)}

    def decorated(command: Command) -> Command:
        hints = get_type_hints(command, localns={"Overrides": Overrides}, include_extras=True)
        parameters: list[inspect.Parameter] = []
        for own in inspect.signature(command).parameters.values():
            if own.name == "overrides":
                parameters += [_parameter(option, defaults[name], helps or {}, name) for name, option in taken.items()]
            else:
                parameters.append(own.replace(annotation=hints[own.name]))

        @functools.wraps(command)
        def run(**given: Any) -> None:
            chosen = {name: option.read(given.pop(option.parameter)) for name, option in taken.items()}
            command(**given, overrides=Overrides(**chosen))

        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # typer reads it
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        return run  # type: ignore[return-value]  # the same command, called by typer

    return decorated


def _parameter(option: _Shared, default: Any, helps: dict[str, str], name: str) -> inspect.Parameter:
    annotation, default = option.annotation, None if default == () else default
    if name in helps:
        kind, info = annotation.__origin__, copy.copy(annotation.__metadata__[0])  # with its bounds and names
        info.help = helps[name]
        annotation = Annotated[kind, info]
    return inspect.Parameter(
        option.parameter, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=annotation
    )


TrackName = Annotated[
    str,
    typer.Option(
        "--track",
        "-t",
        help="A track that ships (see `harness tracks`), or a .toml file.",
        autocompletion=complete_tracks,
    ),
]
TasksDir = Annotated[
    Path | None,
    typer.Option(
        "--tasks",
        envvar="HARNESS_TASKS",
        help="Folder of tasks to look into first, each with a task.toml; default: tasks beside the track's file.",
    ),
]
Organiser = Annotated[
    bool,
    typer.Option(
        "--organiser",
        help="Show what the track's \\[competition] keeps back until it closes; for the organiser's eyes.",
    ),
]
Labels = Annotated[
    str,
    typer.Option(
        "--labels",
        help="With which test labels scores are computed: corrected (harness rescore), original, those on which runs "
        "were scored, or the id of a correction.",
    ),
]
StoreUrl = Annotated[str, typer.Option("--store", help="Results database: a SQLite file, or a SQLAlchemy URL.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
Options = Annotated[
    list[str] | None, typer.Option("--config", "-c", help="NAME=VALUE of the submission's Config; repeatable.")
]
Teams = Annotated[
    list[str] | None,
    typer.Option(
        "--team",
        help="Whose entry it is: entries of two teams are two, whatever they are called. Once for all folders, or once "
        "for each, in their order.",
        metavar="TEAM",
    ),
]
Names = Annotated[
    list[str] | None,
    typer.Option(
        "--as",
        help="Name of the entry instead of the folder's; once for each folder, in their order.",
        metavar="NAME",
    ),
]
