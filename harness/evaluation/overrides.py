"""What may replace a track's own choices, and what each replacement means wherever runs are told apart or repeated.

An option of the command line that changes what is computed is a field of `Overrides`, and every field states its
`Decision`. Identity, the plan's digest, the paths that travel to other machines and the replay of a run follow from
these statements, so that a new option is one field and cannot be forgotten in one of them.
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
"""How a run with this override is told from one without it. ``modified``: its name stands in `RunKey.modified`, and the
run is never ranked with the track. ``seed``, ``repeat``, ``device``, ``external``, ``access``: that field of `RunKey`
says so.
``cell``: each cell's record says so. ``part``: it chooses which cells run or where files lie, and is no part of any
identity, for it changes no result."""
Planned: TypeAlias = Literal["value", "name", "no"]
"""How it counts in the digest that a line of a plan carries: by its value, by the last name of its path, or not."""
Replayed: TypeAlias = Literal["stored", "given", "no"]
"""Where a replay takes it from: the stored run, the command line again, or nowhere."""


@dataclass(frozen=True)
class Decision:
    """What one override means."""

    identity: Identity
    planned: Planned
    replayed: Replayed


def _decision(identity: Identity, *, planned: Planned, replayed: Replayed) -> dict[str, Decision]:
    """A decision as a field's metadata."""
    return {"decision": Decision(identity, planned, replayed)}


@dataclass(frozen=True)
class Overrides:
    """Plain data that travels to wherever a model is loaded. None is the track's own choice.

    `RunKey.modified` lists names in the order of these fields, and is part of a run's id: a new field with the identity
    ``modified`` comes after the others that have it.
    """

    model: str | None = field(default=None, metadata=_decision("modified", planned="name", replayed="given"))
    """A directory in hub format, or a hub id."""
    calls: int | None = field(default=None, metadata=_decision("modified", planned="value", replayed="stored"))
    """Budget of every task."""
    data: Path | None = field(default=None, metadata=_decision("modified", planned="name", replayed="given"))
    """Directory of the data. A kit directory replaces nothing on a track that takes kits (`DataSpec.takes_kit`)."""
    test_data: Path | None = field(default=None, metadata=_decision("modified", planned="name", replayed="given"))
    """Directory of test sets that stand in for the data's own; such a run is compared with the public one."""
    backend: str | None = field(default=None, metadata=_decision("modified", planned="value", replayed="stored"))
    """``torch`` or ``onnxruntime``."""
    shots: int | None = field(default=None, metadata=_decision("modified", planned="value", replayed="stored"))
    """Training examples per class, and as many for dev, where splits are drawn here."""
    seed: int = field(default=0, metadata=_decision("seed", planned="value", replayed="stored"))
    repeat: int = field(default=0, metadata=_decision("repeat", planned="value", replayed="stored"))
    """Number of the repeat, whose chance is another: it counts with the entry's other repeats of the same cells."""
    device: str | None = field(default=None, metadata=_decision("device", planned="value", replayed="no"))
    """``cpu`` or ``cuda``; what was used is stored, and only the track's is ranked."""
    p0: Path | None = field(default=None, metadata=_decision("external", planned="name", replayed="given"))
    """A pre-trained prompt for the pair tasks, from `harness pretrain-prompt`; such a run has outside data in it."""
    white_box: bool = field(default=False, metadata=_decision("access", planned="no", replayed="no"))
    """Whether references may run: code with the model's weights, in this process."""
    sandbox: Tier | None = field(default=None, metadata=_decision("cell", planned="no", replayed="no"))
    """Tier of isolation instead of the best that this machine gives."""
    tasks: tuple[str, ...] = field(default=(), metadata=_decision("part", planned="no", replayed="stored"))
    splits: tuple[int, ...] = field(default=(), metadata=_decision("part", planned="no", replayed="stored"))
    present_splits: bool = field(default=False, metadata=_decision("part", planned="no", replayed="no"))
    staged: Path | None = field(default=None, metadata=_decision("part", planned="no", replayed="given"))
    """Directory that `harness fetch` filled; by default `harness.tracks.staging.default_directory` is looked into."""

    def modified(self, track: Track) -> tuple[str, ...]:
        """Names of the track's choices that are replaced, as `RunKey.modified` holds them."""
        own: dict[str, object] = {"backend": backend_of(track)}
        if track.data.source == "kit" or (track.data.takes_kit and self.data is not None and is_kit(self.data)):
            own["data"] = self.data
        named = (name for name, decision in decisions().items() if decision.identity == "modified")
        return tuple(name for name in named if getattr(self, name) not in {None, own.get(name)})

    def basis(self) -> list[Any]:
        """What the digest of a plan's line covers of the overrides, as JSON.

        Directories count by their last name, for they may lie elsewhere on another machine; their content has digests
        of its own in the stored run. Fields of later versions count only where they are given, so that the digests of
        older plans do not change.
        """
        found: list[Any] = [[_last_name(getattr(self, name)) for name in _NAMES_AT_FIRST]]
        found += [getattr(self, name) for name in _VALUES_AT_FIRST]
        for each in fields(self):
            planned, value = each.metadata["decision"].planned, getattr(self, each.name)
            if planned != "no" and each.name not in {*_NAMES_AT_FIRST, *_VALUES_AT_FIRST} and value != each.default:
                found.append([each.name, _last_name(value) if planned == "name" else value])
        return found

    def absolute(self) -> Self:
        """The same, with paths that mean the same in another directory."""
        paths = {each.name: getattr(self, each.name) for each in fields(self)}
        made: dict[str, Any] = {name: path.absolute() for name, path in paths.items() if isinstance(path, Path)}
        if self.model is not None and Path(self.model).is_dir():
            made["model"] = str(Path(self.model).absolute())
        return replace(self, **made)

    def only(self, task: str, split: int) -> Self:
        """The same for one cell."""
        return replace(self, tasks=(task,), splits=(split,))

    def repeating(self, key: RunKey, cells: Sequence[StoredCell], track: Track) -> Self:
        """What repeats these cells of a stored run on its track, where these overrides are the ones given again."""
        stored: dict[str, Any] = {
            "seed": key.seed,
            "repeat": key.repeat,
            "tasks": tuple(sorted({cell.task for cell in cells})),
            "splits": tuple(sorted({cell.split for cell in cells})),
            "calls": max(cell.record.calls_total for cell in cells) if "calls" in key.modified else None,
            "shots": cells[0].record.train_rows // len(cells[0].record.words) if "shots" in key.modified else None,
            "backend": other_backend(track) if "backend" in key.modified else None,
        }
        given = {name: getattr(self, name) for name, each in decisions().items() if each.replayed == "given"}
        return type(self)(**stored, **given)


_NAMES_AT_FIRST = ("data", "test_data", "p0", "model")
_VALUES_AT_FIRST = ("calls", "seed", "device", "backend")
"""What a plan's digest covered in the first release, in its order."""


def decisions() -> dict[str, Decision]:
    """The decision of each field of `Overrides`, in order."""
    return {each.name: each.metadata["decision"] for each in fields(Overrides)}


def is_kit(directory: Path) -> bool:
    """Whether a directory is laid out like the competition's kit."""
    return any(any(directory.glob(pattern)) for pattern in ("*/test.tsv", "*/[0-9]*/train.tsv"))


def backend_of(track: Track) -> str:
    """What computes the model's forward passes: ``torch`` or ``onnxruntime``."""
    return "onnxruntime" if track.numerics.forward == "onnxruntime" else "torch"


def other_backend(track: Track) -> str:
    """The one that is not the track's."""
    return "torch" if backend_of(track) == "onnxruntime" else "onnxruntime"


def _last_name(path: str | Path | None) -> str | None:
    return Path(path).name if path else None
