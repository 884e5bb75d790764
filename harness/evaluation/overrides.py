"""The choices that may override those of a track, and what each override means for the identity and replay of a run.

A command-line option that changes what is computed is a field of `Overrides`, and every field states its `Decision`.
The decisions determine the identity of a run, the plan's digest, the paths that are sent to other machines, and the
replay of a run. So a new option is one field and cannot be forgotten in any of these places.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.results.records import RunKey, StoredCell
    from harness.tracks.tiers import Tier
    from harness.tracks.track import Track

Identity: TypeAlias = Literal["modified", "seed", "repeat", "device", "external", "access", "cell", "part"]
"""How a run with this override is distinguished from one without it. ``modified``: the override's name is in
`RunKey.modified`, and the run is never ranked with the track. ``seed``, ``repeat``, ``device``, ``external``,
``access``: that field of `RunKey` records it. ``cell``: each cell's record has it. ``part``: it chooses which cells run
or where files are. It is not in any identity, because it changes no result."""
Planned: TypeAlias = Literal["value", "name", "no"]
"""How it enters the digest in a line of a plan: by its value, by the last name of its path, or not at all."""
Replayed: TypeAlias = Literal["stored", "given", "no"]
"""Where a replay takes it from: the stored run, the command line, or nowhere."""


@dataclass(frozen=True)
class Decision:
    """The meaning of one override."""

    identity: Identity
    planned: Planned
    replayed: Replayed


def _decision(identity: Identity, *, planned: Planned, replayed: Replayed) -> dict[str, Decision]:
    """A decision as a field's metadata."""
    return {"decision": Decision(identity, planned, replayed)}


@dataclass(frozen=True)
class Overrides:
    """Plain data that is sent to each process that loads a model. None means the track's own choice.

    `RunKey.modified` lists names in the order of these fields and is part of a run's id. So a new field with the
    identity ``modified`` must come after the others that have it.
    """

    model: str | None = field(default=None, metadata=_decision("modified", planned="name", replayed="given"))
    """A directory in hub format, or a hub id."""
    calls: int | None = field(default=None, metadata=_decision("modified", planned="value", replayed="stored"))
    """Budget of every task."""
    data: Path | None = field(default=None, metadata=_decision("modified", planned="name", replayed="given"))
    """Directory of the data. A kit directory is no override on a track that takes kits (`DataSpec.takes_kit`)."""
    test_data: Path | None = field(default=None, metadata=_decision("modified", planned="name", replayed="given"))
    """Directory of test sets that replace the data's own. Such a run is compared with the public one."""
    backend: str | None = field(default=None, metadata=_decision("modified", planned="value", replayed="stored"))
    """``torch``, ``onnxruntime``, or ``openai`` for a served model, which is no change of a track with an endpoint."""
    shots: int | None = field(default=None, metadata=_decision("modified", planned="value", replayed="stored"))
    """Number of training examples per class, and also of dev examples, if the splits are drawn here."""
    seed: int = field(default=0, metadata=_decision("seed", planned="value", replayed="stored"))
    repeat: int = field(default=0, metadata=_decision("repeat", planned="value", replayed="stored"))
    """Number of the repeat. Each repeat has its own seed, and the score of a cell is the mean over its repeats."""
    device: str | None = field(default=None, metadata=_decision("device", planned="value", replayed="no"))
    """``cpu`` or ``cuda``. The device used is stored, and only runs on the track's device are ranked."""
    endpoint: str | None = field(default=None, metadata=_decision("device", planned="value", replayed="given"))
    """Address of the server that computes, with backend ``openai``. The server and its model stand for the device."""
    served_model: str | None = field(default=None, metadata=_decision("device", planned="value", replayed="given"))
    """Name of the model on that server."""
    concurrency: int = field(default=4, metadata=_decision("part", planned="no", replayed="given"))
    """Requests to that server at once."""
    p0: Path | None = field(default=None, metadata=_decision("external", planned="name", replayed="given"))
    """A pre-trained prompt for the pair tasks, from `harness pretrain-prompt`. Such a run used outside data."""
    white_box: bool = field(default=False, metadata=_decision("access", planned="no", replayed="no"))
    """Whether white-box references may run: their code has the model's weights and runs in this process."""
    sandbox: Tier | None = field(default=None, metadata=_decision("cell", planned="no", replayed="no"))
    """Tier of isolation to use instead of the best one of this machine."""
    tasks: tuple[str, ...] = field(default=(), metadata=_decision("part", planned="no", replayed="stored"))
    splits: tuple[int, ...] = field(default=(), metadata=_decision("part", planned="no", replayed="stored"))
    present_splits: bool = field(default=False, metadata=_decision("part", planned="no", replayed="no"))
    staged: Path | None = field(default=None, metadata=_decision("part", planned="no", replayed="given"))
    """Directory that `harness fetch` filled. The default is `harness.tracks.staging.default_directory`."""

    def modified(self, track: Track) -> tuple[str, ...]:
        """Names of the track's choices that are overridden, as `RunKey.modified` holds them."""
        own: dict[str, object] = {"backend": "openai" if self._served(track) else backend_of(track)}
        if track.data.source == "kit" or (track.data.takes_kit and self.data is not None and is_kit(self.data)):
            own["data"] = self.data
        named = (name for name, decision in decisions().items() if decision.identity == "modified")
        return tuple(name for name in named if getattr(self, name) not in {None, own.get(name)})

    def _served(self, track: Track) -> bool:
        """Whether a server computes on a track that is made for it."""
        return self.backend == "openai" and track.endpoint is not None

    def basis(self) -> list[Any]:
        """The part of the overrides that the digest in a plan's line covers, as JSON.

        Only the last name of a directory counts, because its path may differ on another machine. The stored run has
        digests of its content. Fields of later versions count only if they are given, so that the digests of older
        plans do not change.
        """
        found: list[Any] = [[_last_name(getattr(self, name)) for name in _NAMES_AT_FIRST]]
        found += [getattr(self, name) for name in _VALUES_AT_FIRST]
        for each in fields(self):
            planned, value = each.metadata["decision"].planned, getattr(self, each.name)
            if planned != "no" and each.name not in {*_NAMES_AT_FIRST, *_VALUES_AT_FIRST} and value != each.default:
                found.append([each.name, _last_name(value) if planned == "name" else value])
        return found

    def absolute(self) -> Self:
        """The same overrides with absolute paths."""
        paths = {each.name: getattr(self, each.name) for each in fields(self)}
        made: dict[str, Any] = {name: path.absolute() for name, path in paths.items() if isinstance(path, Path)}
        if self.model is not None and Path(self.model).is_dir():
            made["model"] = str(Path(self.model).absolute())
        return replace(self, **made)

    def only(self, task: str, split: int) -> Self:
        """The same overrides for one cell alone."""
        return replace(self, tasks=(task,), splits=(split,))

    def repeating(self, key: RunKey, cells: Sequence[StoredCell], track: Track) -> Self:
        """The overrides that repeat these cells of a stored run on its track. `self` holds the ones given again."""
        stored: dict[str, Any] = {
            "seed": key.seed,
            "repeat": key.repeat,
            "tasks": tuple(sorted({cell.task for cell in cells})),
            "splits": tuple(sorted({cell.split for cell in cells})),
            "calls": max(cell.record.calls_total for cell in cells) if "calls" in key.modified else None,
            "shots": cells[0].record.train_rows // len(cells[0].record.words) if "shots" in key.modified else None,
            "backend": "openai" if key.served else other_backend(track) if "backend" in key.modified else None,
        }
        given = {name: getattr(self, name) for name, each in decisions().items() if each.replayed == "given"}
        return type(self)(**stored, **given)


_NAMES_AT_FIRST = ("data", "test_data", "p0", "model")
_VALUES_AT_FIRST = ("calls", "seed", "device", "backend")
"""The fields that a plan's digest covered in the first release, in its order."""


def decisions() -> dict[str, Decision]:
    """The decision of each field of `Overrides`, in order."""
    return {each.name: each.metadata["decision"] for each in fields(Overrides)}


def is_kit(directory: Path) -> bool:
    """Whether a directory has the layout of the competition's kit."""
    return any(any(directory.glob(pattern)) for pattern in ("*/test.tsv", "*/[0-9]*/train.tsv"))


def backend_of(track: Track) -> str:
    """What computes the model's forward passes: ``torch``, ``onnxruntime``, or ``openai`` for a server."""
    forward = track.numerics.forward
    return forward if forward in {"onnxruntime", "openai"} else "torch"


def other_backend(track: Track) -> str:
    """The library that the track does not use."""
    return "torch" if backend_of(track) == "onnxruntime" else "onnxruntime"


def _last_name(path: str | Path | None) -> str | None:
    return Path(path).name if path else None
