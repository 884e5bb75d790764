"""Tracks as data: ``harness/tracks/builtin/<name>.toml`` -> `Track`, everything that is fixed for all submissions."""

from __future__ import annotations

import hashlib
import re
import tomllib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from harness.errors import InputError, TaskError, TrackError, did_you_mean
from harness.tracks.competition import Competition
from harness.tracks.defences import Defences
from harness.tracks.limits import Limits, Positive  # noqa: TC001 - as above
from harness.tracks.numerics import EndpointSpec, Numerics
from harness.tracks.packages import PackageSpec  # noqa: TC001
from harness.tracks.prices import Prices  # noqa: TC001
from harness.tracks.tasks import OWN_PROFILE, OWN_PROFILE_BEFORE, TaskFile, find_task, tasks_dir, with_metric
from harness.tracks.tomlfile import ENCODING, line_of, read_toml
from harness.tracks.track_task import TrackTask  # noqa: TC001 - msgspec reads the types

if TYPE_CHECKING:
    from collections.abc import Iterator

DType = Literal["float32", "bfloat16", "float16", "int8"]
DataSource = Literal["embedded", "kit", "hub", "files"]
Draw = Literal["hash", "bbt-2022"]

OF_FOLDER = "track.toml"
"""Name of the track file in a folder that `--track` names."""
ROUNDING: dict[DType, float] = {"float32": 1e-3, "float16": 0.02, "bfloat16": 0.1, "int8": 1.0}
"""Largest difference of a fixed text's logit that counts as rounding, by number format. A larger difference means
another model. In bfloat16, logits of the embedded model differ by up to 0.05 between instruction sets (AMX and AVX2).
In int8 they differ from float32 by up to 0.25 on tasks with two or three classes, and by 0.75 on DBPedia, where their
standard deviation is 2.4."""


class ModelSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The weights and the number format in which they compute."""

    source: str
    """``embedded``, ``package:NAME==VERSION``, a directory in hub format, or a hub id."""
    dtype: DType
    """Number format of the weights and products. With ``int8``, the products of all linear layers use integers
    (`harness.lm.backbones.linear`) and everything else float32; only on a CPU and for the families of the fast path."""
    kind: Literal["masked", "causal", "seq2seq"] = "masked"
    revision: str | None = None
    zero_head_bias: bool = False
    """Take the LM head's bias off the logits. No track that ships does: BBT's code sets RoBERTa's ``lm_head.bias`` to
    zero, but its head goes on adding ``decoder.bias``, so that the published numbers contain the bias."""
    formats: tuple[DType, ...] | msgspec.UnsetType = msgspec.UNSET
    """Number formats that the track treats as equal, `dtype` among them. Each machine uses the one that its processor
    computes fastest (`harness.lm.formats`). Without the list, only `dtype` is used."""

    @property
    def allowed(self) -> tuple[DType, ...]:
        """The number formats in which a run is ranked."""
        return (self.dtype,) if self.formats is msgspec.UNSET else self.formats


class DataSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where examples come from."""

    source: DataSource
    """``embedded``: the miniatures in the package. ``kit``: a directory in the layout of the competition's kit, given
    with ``--data``. ``hub``: the public data sets. ``files``: CSV, TSV or JSONL files in the folders of the tasks."""
    given_draw: Draw | msgspec.UnsetType = msgspec.field(default=msgspec.UNSET, name="draw")
    """How few-shot splits are drawn from a public data set, see `draw`."""
    kit: bool | msgspec.UnsetType = msgspec.UNSET
    """Whether a kit directory that is given with ``--data`` is the track's own data: then all splits that it has are
    run, from its files, and such runs are ranked among themselves."""

    @property
    def draw(self) -> Draw:
        """How few-shot splits are drawn.

        ``hash`` is this project's way (`harness.tracks.examples.draw_shots`), ``bbt-2022`` that of BBT's code: numpy's
        shuffle under the split's number (`harness.tracks.bbt_2022`).
        """
        return "hash" if self.given_draw is msgspec.UNSET else self.given_draw

    @property
    def takes_kit(self) -> bool:
        """Whether a kit directory is the track's own data."""
        return self.source == "kit" or self.kit is True


class PromptSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The soft prompt's in-text tokens p0: `tokens` consecutive vocabulary ids from `first_id`."""

    tokens: Positive
    first_id: Annotated[int, msgspec.Meta(ge=0)]
    separator: str | msgspec.UnsetType = msgspec.UNSET
    """What stands between p0 and the text in the track's wording, at the front of its templates. Where no p0 stands in
    the text, for want of a prompt or because it is prepended, templates are read without it (BBT's paper)."""


class Track(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A track file, validated."""

    name: str
    title: str
    rules: Positive
    """Version of the rules. Runs under different rules are never ranked together."""
    profile: str
    device: Literal["cpu", "cuda"]
    model: ModelSpec
    data: DataSpec
    prompt: PromptSpec
    limits: Limits
    tasks: dict[str, TrackTask]
    device_name: str | None = None
    """The GPU model that is ranked, by its driver's name. None allows any, and each model has a ranking of its own."""
    given_numerics: Numerics | msgspec.UnsetType = msgspec.field(default=msgspec.UNSET, name="numerics")
    """The ``[numerics]`` table. Without it, the fingerprint is that of the versions before such tables existed."""

    given_prices: Prices | msgspec.UnsetType = msgspec.field(default=msgspec.UNSET, name="prices")
    """The ``[prices]`` table. It changes no score, and may be added to a track that has runs."""
    given_competition: Competition | msgspec.UnsetType = msgspec.field(default=msgspec.UNSET, name="competition")
    """The ``[competition]`` table. It changes no score, and may be added or changed while a competition runs."""
    folder: str | msgspec.UnsetType = msgspec.UNSET
    """The absolute path of a folder of tasks that is searched before those that ship. It is not in the file: it is
    ``tasks`` beside the file, or what `--tasks` names."""

    @property
    def tasks_folder(self) -> Path | None:
        """`folder` as a path; None if there is none."""
        return None if self.folder is msgspec.UNSET else Path(self.folder)

    @property
    def competition(self) -> Competition:
        """Dates and limits, which are none for a track without the table."""
        return Competition() if self.given_competition is msgspec.UNSET else self.given_competition

    given_packages: PackageSpec | msgspec.UnsetType = msgspec.field(default=msgspec.UNSET, name="packages")
    """The ``[packages]`` table. It may be added to a track that has runs: they would run as they did."""

    @property
    def packages(self) -> tuple[str, ...]:
        """Distributions that a submission may import beside those of every track."""
        return () if self.given_packages is msgspec.UNSET else self.given_packages.names

    given_endpoint: EndpointSpec | msgspec.UnsetType = msgspec.field(default=msgspec.UNSET, name="endpoint")
    """The ``[endpoint]`` table; see `EndpointSpec`."""

    @property
    def endpoint(self) -> EndpointSpec | None:
        """How a served model may stand for the track's, if it may."""
        return None if self.given_endpoint is msgspec.UNSET else self.given_endpoint

    given_defences: Defences | msgspec.UnsetType = msgspec.field(default=msgspec.UNSET, name="defences")
    """The ``[defences]`` table. A table that keeps nothing back counts as none."""

    @property
    def defences(self) -> Defences:
        """What the black box keeps back, which is nothing for a track without the table."""
        return Defences() if self.given_defences is msgspec.UNSET else self.given_defences

    @property
    def prices(self) -> Prices | None:
        """The price list, if the track has one."""
        return None if self.given_prices is msgspec.UNSET else self.given_prices

    @property
    def numerics(self) -> Numerics:
        """The numeric profile, which is the default one for a track without the table."""
        return Numerics() if self.given_numerics is msgspec.UNSET else self.given_numerics

    @property
    def planned(self) -> list[tuple[str, int]]:
        """Cells (task, split) that the track names; those of a data directory's own splits are not known here."""
        if self.data.kit is True:
            return []
        return [(name, n) for name, spec in self.tasks.items() if spec.splits != "present" for n in spec.splits]

    def ranks(self, device: str) -> bool:
        """Whether this track ranks runs on a device, named as in `RunKey.device`."""
        if device.startswith("endpoint "):
            return self.endpoint is not None
        if "cpu" in {self.device, device}:
            return self.device == device
        return self.device_name in {None, device}

    def device_kind(self, wanted: str | None = None) -> Literal["cpu", "cuda"]:
        """The kind of device that a run is to use, whether this machine has one or not.

        Args:
            wanted: the kind on the command line; None means the track's.

        Returns:
            `cpu` or `cuda`.

        Raises:
            InputError: the kind is unknown.
        """
        kind = wanted or self.device
        if kind not in {"cpu", "cuda"}:
            raise InputError(f"--device {kind}: cpu or cuda is needed")
        return "cpu" if kind == "cpu" else "cuda"

    @property
    def fingerprint(self) -> str:
        """Digest of everything in the track. Two runs are comparable only if it is equal.

        The list of formats is left out: it says which runs are equal, and older runs had none. So are prices, dates
        and limits of a competition, and the packages that are allowed in addition. Tasks that do not ship count with
        their classes, metric and wordings. This project's own wording counts under its first name, with which the
        published results were measured. The sizes of rows that a track ships with are left out, too: they change no
        honest query's price, and older runs had none.
        """
        model = msgspec.structs.replace(self.model, formats=msgspec.UNSET)
        profile = OWN_PROFILE_BEFORE if self.profile == OWN_PROFILE else self.profile
        tasks = dict(self.tasks)
        for name, size in _shipped_rows(self.name).items():
            if name in tasks and tasks[name].row_tokens == size:
                tasks[name] = msgspec.structs.replace(tasks[name], row_tokens=msgspec.UNSET)
        unset = dict.fromkeys(("given_prices", "given_competition", "given_packages", "folder"), msgspec.UNSET)
        if self.defences.none:
            unset["given_defences"] = msgspec.UNSET
        counted = msgspec.structs.replace(self, model=model, profile=profile, tasks=tasks, **unset)
        digest = hashlib.sha256(msgspec.json.encode(counted, order="deterministic"))
        for name, file in track_tasks(self).items() if self.tasks_folder else ():
            if file.folder is not msgspec.UNSET:
                digest.update(name.encode() + file.substance)
        return digest.hexdigest()[:16]

    @property
    def rounding(self) -> float:
        """Largest difference of a fixed text's logit, between two runs of this track, that counts as rounding."""
        return max(ROUNDING[name] for name in self.model.allowed)


@cache
def _shipped_rows(name: str) -> dict[str, int]:
    """Tokens of a row by task, as the shipped track of this name says; none where there is no such track."""
    path = tracks_dir() / f"{name}.toml"
    if not path.is_file():
        return {}
    tasks = tomllib.loads(path.read_text(encoding=ENCODING))["tasks"]
    return {task: spec["row_tokens"] for task, spec in tasks.items() if "row_tokens" in spec}


def tracks_dir() -> Path:
    """The folder of the tracks that the package contains."""
    return Path(__file__).resolve().parent / "builtin"


def track_names() -> list[str]:
    """Names of all tracks that the package contains."""
    return sorted(path.stem for path in tracks_dir().glob("*.toml"))


def load_track(name: str, tasks: Path | None = None) -> Track:
    """Read and validate a track.

    Args:
        name: the name of a track in the package, the path of a TOML file, or a folder that holds a ``track.toml``.
        tasks: a folder of tasks that is searched before those that ship; None is ``tasks`` beside the file, if that is
            there.

    Raises:
        TrackError: the name is unknown, or the file breaks a rule.
    """
    path = track_path(name)
    track = located(read_toml(path, Track, TrackError), path, tasks)
    problem = next(track_problems(path, track), None)
    if problem:
        raise TrackError(problem)
    return track


def track_path(name: str) -> Path:
    """The file of a track: see `load_track`.

    Raises:
        TrackError: the name is unknown.
    """
    shipped = tracks_dir() / f"{name}.toml"
    if name.endswith(".toml"):
        return Path(name)
    if shipped.is_file() or not Path(name).is_dir():
        if not shipped.is_file():
            alike, there = did_you_mean(name, track_names()), ", ".join(track_names())
            raise TrackError(
                f"no track {name!r}{alike}; choose one of {there}, or give the path of a .toml file or of a folder "
                f"with a {OF_FOLDER}"
            )
        return shipped
    path = Path(name) / OF_FOLDER
    if not path.is_file():
        raise TrackError(f"{path}: no such file; harness new-competition makes such a folder")
    return path


def located(track: Track, path: Path, tasks: Path | None) -> Track:
    """The track with the folder of its tasks, as `load_track` finds it.

    Raises:
        TrackError: `tasks` is no folder, or the file names one itself.
    """
    if track.folder is not msgspec.UNSET:
        line = line_of(path.read_text(encoding=ENCODING), ["folder"])
        raise TrackError(f"{path}:{line}: unknown field `folder`: tasks lie in {path.parent / 'tasks'}, or in --tasks")
    if tasks is not None and not tasks.is_dir():
        raise TrackError(f"--tasks {tasks}: no such directory")
    folder = tasks or path.absolute().parent / "tasks"
    ships = folder.resolve() == tasks_dir().resolve()
    return msgspec.structs.replace(track, folder=str(folder.absolute())) if folder.is_dir() and not ships else track


def track_problems(path: Path, track: Track) -> Iterator[str]:
    """Each rule that a track file breaks, with the path and line."""
    text = path.read_text(encoding=ENCODING)
    for keys, message in _problems(track, path):
        yield f"{path}:{line_of(text, keys)}: {message}"


def _problems(track: Track, path: Path) -> Iterator[tuple[list[str], str]]:
    """Each broken rule as (keys, message)."""
    if not track.tasks:
        yield ["tasks"], "no [tasks.<name>] table; at least one task is needed"
    if track.model.dtype not in track.model.allowed:
        yield ["model", "formats"], f"formats {list(track.model.allowed)} must contain dtype, {track.model.dtype!r}"
    if track.data.draw == "bbt-2022" and track.data.source != "hub":
        yield ["data", "draw"], 'draw = "bbt-2022" draws from public data sets; it needs data.source = "hub"'
    problem = _name_problem(track.name, path)
    if problem:
        yield ["name"], problem
    for keys, message in track.competition.problems():
        yield ["competition", *keys], f"competition: {message}"
    for keys, message in track.defences.problems():
        yield ["defences", *keys], f"defences: {message}"
    for task, spec in track.tasks.items():
        for keys, message in _task_problems(track, task, spec):
            yield ["tasks", task, *keys], f"tasks.{task}: {message}"


def _name_problem(name: str, path: Path) -> str | None:
    """What is wrong with the name of a track. One in a ``track.toml`` has any name that no shipped track has."""
    if path.name != OF_FOLDER:
        return None if name == path.stem else f"name is {name!r} but the file is {path.name}; make them equal"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name):
        return f"name {name!r}: letters, digits, '-' and '_', up to 64, and first a letter or digit"
    return f"name is {name!r}, which is a track that ships; choose another" if name in track_names() else None


def _task_problems(track: Track, name: str, spec: TrackTask) -> Iterator[tuple[list[str], str]]:
    try:
        file = find_task(name, track.tasks_folder)
        file.wording(track.profile, track.model.kind)
    except TaskError as problem:
        yield [], str(problem)
    else:
        if file.text is not msgspec.UNSET and not track.defences.none:
            yield [], "[defences] keep logits of classes back, and this task's answer is text; leave one of the two out"
        yield from spec.problems(file, track.data.source)


def track_tasks(track: Track) -> dict[str, TaskFile]:
    """The task files of a track, in its order, with the track's metrics."""
    found = {name: find_task(name, track.tasks_folder) for name in track.tasks}
    return {name: with_metric(file, track.tasks[name].metric) for name, file in found.items()}
