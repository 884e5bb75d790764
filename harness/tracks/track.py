"""Tracks as data: ``harness/tracks/builtin/<name>.toml`` -> `Track`, everything that is fixed for all submissions."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from harness.errors import InputError, TaskError, TrackError
from harness.tracks.tasks import OWN_PROFILE, OWN_PROFILE_BEFORE, TaskFile, load_task
from harness.tracks.tomlfile import line_of, read_toml

if TYPE_CHECKING:
    from collections.abc import Iterator

Positive = Annotated[int, msgspec.Meta(gt=0)]
Amount = Annotated[float, msgspec.Meta(gt=0, le=1e9)]
DType = Literal["float32", "bfloat16", "float16", "int8"]
Forward = Literal["packed", "invariant", "padded", "plain", "onnxruntime"]
DataSource = Literal["embedded", "kit", "hub"]

ROUNDING: dict[DType, float] = {"float32": 1e-3, "float16": 0.02, "bfloat16": 0.1, "int8": 1.0}
"""Largest difference of a fixed text's logit that counts as rounding, by number format. A larger difference means
another model. In bfloat16, logits of the embedded model differ by up to 0.05 between instruction sets (AMX and AVX2).
In int8 they differ from float32 by up to 0.25 on tasks with two or three classes, and by 0.75 on DBPedia, where their
standard deviation is 2.4."""


class ModelSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The weights and the number format in which they compute."""

    source: str
    """``embedded``, a directory in hub format, or a hub id."""
    dtype: DType
    """Number format of the weights and products. With ``int8``, the products of all linear layers use integers
    (`harness.lm.backbones.linear`) and everything else float32; only on a CPU and for the families of the fast path."""
    kind: Literal["masked", "causal", "seq2seq"] = "masked"
    revision: str | None = None
    zero_head_bias: bool = False
    """Zero the LM head's bias, as the BBT reference code does for RoBERTa."""
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


class PromptSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The soft prompt's in-text tokens p0: `tokens` consecutive vocabulary ids from `first_id`."""

    tokens: Positive
    first_id: Annotated[int, msgspec.Meta(ge=0)]


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Limits for one worker in one cell."""

    wall_s: Amount
    memory_gb: Amount
    answer_mb: Positive = 64
    frame_mb: Positive = 64
    output_kb: Positive = 64
    open_files: Positive = 64


class TrackTask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One task on this track."""

    calls: Positive
    splits: tuple[int, ...] | Literal["present"]
    """Split names; ``present`` means every split in the data directory."""
    shots: Positive = 16
    """Training examples per class, if the split is drawn here."""
    dev: Positive = 16
    """Dev examples per class, if the split is drawn here."""


class Numerics(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How numbers are computed, apart from `ModelSpec.dtype`: all other settings that affect the last digits."""

    tf32: bool = False
    """Whether a GPU may round the factors of float32 matrix products to TF32, which has a mantissa of ten bits."""
    attention: Literal["sdpa", "math"] = "sdpa"
    """``sdpa``: torch's fused attention, with the kernel that torch chooses. ``math``: plain operations only."""
    deterministic: bool = False
    """Whether torch must use deterministic algorithms. If there is none for an operation, torch raises an error."""
    threads: Positive | None = None
    """CPU threads of the referee; None leaves the number to the environment."""
    chunk_tokens: Positive = 4096
    """Number of tokens forwarded at once. The packed path for masked models gives half as many to each CPU thread. This
    bounds the memory, and it decides which rows share a chunk and so affects the last digits."""
    forward: Forward = "packed"
    """``packed``: the fast path without pad tokens, if the family has one. ``invariant``: the same path, slower, but a
    row's numbers are the same to the last bit whatever rows share its query (these families, on a CPU). ``padded``:
    with
    pad tokens (masked models; causal ones as in ``plain``). ``plain``: the forward method of transformers, one
    candidate
    at a time. ``onnxruntime``: ONNX Runtime's kernels, in float32."""


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

    @property
    def numerics(self) -> Numerics:
        """The numeric profile, which is the default one for a track without the table."""
        return Numerics() if self.given_numerics is msgspec.UNSET else self.given_numerics

    @property
    def planned(self) -> list[tuple[str, int]]:
        """Cells (task, split) that the track names. The splits of a data directory are not known here."""
        return [(name, n) for name, spec in self.tasks.items() if spec.splits != "present" for n in spec.splits]

    def ranks(self, device: str) -> bool:
        """Whether this track ranks runs on a device, named as in `RunKey.device`."""
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

        The list of formats is left out, because it says which runs are equal and older runs had none. This project's
        own wording is hashed under its first name, under which the published results were measured.
        """
        model = msgspec.structs.replace(self.model, formats=msgspec.UNSET)
        profile = OWN_PROFILE_BEFORE if self.profile == OWN_PROFILE else self.profile
        counted = msgspec.structs.replace(self, model=model, profile=profile)
        return hashlib.sha256(msgspec.json.encode(counted, order="deterministic")).hexdigest()[:16]

    @property
    def rounding(self) -> float:
        """Largest difference of a fixed text's logit, between two runs of this track, that counts as rounding."""
        return max(ROUNDING[name] for name in self.model.allowed)


def tracks_dir() -> Path:
    """The folder of the tracks that the package contains."""
    return Path(__file__).resolve().parent / "builtin"


def track_names() -> list[str]:
    """Names of all tracks that the package contains."""
    return sorted(path.stem for path in tracks_dir().glob("*.toml"))


def load_track(name: str) -> Track:
    """Read and validate a track, given by the name of one in the package or by the path of a TOML file.

    Raises:
        TrackError: the name is unknown, or the file breaks a rule.
    """
    shipped = not name.endswith(".toml")
    path = tracks_dir() / f"{name}.toml" if shipped else Path(name)
    if shipped and not path.is_file():
        raise TrackError(
            f"no track {name!r}; choose one of {', '.join(track_names())}, or give the path of a .toml file"
        )
    track = read_toml(path, Track, TrackError)
    problem = next(_problems(track, path.stem), None)
    if problem:
        keys, message = problem
        raise TrackError(f"{path}:{line_of(path.read_text(encoding='utf-8'), keys)}: {message}")
    return track


def _problems(track: Track, stem: str) -> Iterator[tuple[list[str], str]]:
    """Each broken rule as (keys, message)."""
    if not track.tasks:
        yield ["tasks"], "no [tasks.<name>] table; at least one task is needed"
    if track.model.dtype not in track.model.allowed:
        yield ["model", "formats"], f"formats {list(track.model.allowed)} must contain dtype, {track.model.dtype!r}"
    if track.name != stem:
        yield ["name"], f"name is {track.name!r} but the file is {stem}.toml; make them equal"
    for task, spec in track.tasks.items():
        try:
            load_task(task).task(track.profile, track.model.kind)
        except TaskError as problem:
            yield ["tasks", task], f"tasks.{task}: {problem}"
        if spec.splits == "present" and track.data.source != "kit":
            message = 'splits = "present" needs data.source = "kit"; list the splits'
            yield ["tasks", task, "splits"], f"tasks.{task}: {message}"
        if spec.splits != "present" and (not spec.splits or len(set(spec.splits)) != len(spec.splits)):
            message = f"splits {list(spec.splits)} must be distinct and at least one"
            yield ["tasks", task, "splits"], f"tasks.{task}: {message}"


def track_tasks(track: Track) -> dict[str, TaskFile]:
    """The task files of a track, in its order."""
    return {name: load_task(name) for name in track.tasks}
