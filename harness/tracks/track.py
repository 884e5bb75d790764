"""Tracks as data: ``harness/tracks/builtin/<name>.toml`` -> `Track`, everything that is fixed for all submissions."""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from harness.contract import Metric  # noqa: TC001 - msgspec reads the types
from harness.errors import InputError, TaskError, TrackError
from harness.tracks.tasks import OWN_PROFILE, OWN_PROFILE_BEFORE, TaskFile, load_task, with_metric
from harness.tracks.tomlfile import ENCODING, line_of, read_toml

if TYPE_CHECKING:
    from collections.abc import Iterator

Positive = Annotated[int, msgspec.Meta(gt=0)]
Price = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
Amount = Annotated[float, msgspec.Meta(gt=0, le=1e9)]
DType = Literal["float32", "bfloat16", "float16", "int8"]
Forward = Literal["packed", "invariant", "padded", "plain", "onnxruntime", "openai"]
DataSource = Literal["embedded", "kit", "hub"]
Draw = Literal["hash", "bbt-2022"]

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


@dataclass(frozen=True)
class AnswerLimits:
    """What the answers of one cell may cost the referee; `Limits` says where the numbers come from."""

    seconds: float
    """In which all kept answers are applied to the test set."""
    tokens: int = 8192
    """That one answer reads of the model for each test text, over all its members."""
    projection_bytes: int = 6 << 30
    """Of the projections that one answer's subspaces unfold to."""
    head_bytes: int = 64 << 20
    """Of the heads of one answer."""
    kept_bytes: int = 256 << 20
    """Of all answers that are kept, one for each mark."""


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one worker may use in one cell, and what its answers may cost the referee.

    The keys of the latter are not in the shipped tracks and not in the fingerprint of a track without them:
    `AnswerLimits` has the values that hold then.
    """

    wall_s: Amount
    memory_gb: Amount
    answer_mb: Positive = 64
    frame_mb: Positive = 64
    output_kb: Positive = 64
    open_files: Positive = 64
    test_s: Amount | msgspec.UnsetType = msgspec.UNSET
    """Seconds in which the kept answers of a cell are applied to the test set; without the key `wall_s`."""
    test_tokens: Positive | msgspec.UnsetType = msgspec.UNSET
    """Tokens that one answer may read for each test text."""
    projection_mb: Positive | msgspec.UnsetType = msgspec.UNSET
    head_mb: Positive | msgspec.UnsetType = msgspec.UNSET
    kept_mb: Positive | msgspec.UnsetType = msgspec.UNSET
    """MiB of all answers that are kept of a cell."""

    @property
    def answers(self) -> AnswerLimits:
        """What the answers of one cell may cost, with the values that hold where the track has no key."""
        given: dict[str, int] = {}
        for name, key, unit in (
            ("tokens", self.test_tokens, 1),
            ("projection_bytes", self.projection_mb, 1 << 20),
            ("head_bytes", self.head_mb, 1 << 20),
            ("kept_bytes", self.kept_mb, 1 << 20),
        ):
            if key is not msgspec.UNSET:
                given[name] = key * unit
        return AnswerLimits(self.wall_s if self.test_s is msgspec.UNSET else self.test_s, **given)


class TrackTask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One task on this track."""

    calls: Positive
    splits: tuple[int, ...] | Literal["present"]
    """Split names; ``present`` means every split in the data directory."""
    shots: Positive = 16
    """Training examples per class, if the split is drawn here."""
    dev: Positive = 16
    """Dev examples per class, where the split is drawn here."""
    metric: Metric | msgspec.UnsetType = msgspec.UNSET
    """What the task is scored by on this track; unset, the task file's metric."""
    test_tokens: Positive | msgspec.UnsetType = msgspec.UNSET
    """Most tokens of a test input, prompt included, where that is less than the model takes: the kit's server cut its
    hidden test texts at 256."""
    row_tokens: Positive | msgspec.UnsetType = msgspec.UNSET
    """Tokens of text in one row; a longer text costs more rows. Every few-shot text of the track's data fits. Without
    it a text is one row however long it is."""

    @property
    def tokens_of_a_row(self) -> int | None:
        """`row_tokens`, or None where a row has no size."""
        return None if self.row_tokens is msgspec.UNSET else self.row_tokens


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
    at a time. ``onnxruntime``: ONNX Runtime's kernels, in float32. ``openai``: a server computes, however it does."""


class EndpointSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """That a track's model may be a served one: runs over an endpoint are ranked, each server by itself."""

    served: str = ""
    """Name of the model on the server, unless another one is given; empty takes the only one there is."""


class Prices(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a service like the track's would charge: money beside the other costs, never part of a score.

    Each price is in units of `currency`; a price of 0 charges nothing.
    """

    currency: str
    """As people write it, e.g. ``USD``."""
    per_call: Price = 0.0
    per_million_tokens: Price = 0.0
    """Tokens that the model reads."""
    per_million_received: Price = 0.0
    """Tokens that a served model generates."""
    per_gb: Price = 0.0
    """10^9 bytes, both ways."""
    per_hour: Price = 0.0
    """Hours of tuning."""

    def cost(self, calls: float, tokens: float, traffic: float, seconds: float, received: float = 0.0) -> float:
        """What so many calls, tokens read, bytes, seconds and tokens generated cost."""
        by_use = calls * self.per_call + tokens / 1e6 * self.per_million_tokens
        by_use += received / 1e6 * self.per_million_received
        return by_use + traffic / 1e9 * self.per_gb + seconds / 3600 * self.per_hour


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

    given_endpoint: EndpointSpec | msgspec.UnsetType = msgspec.field(default=msgspec.UNSET, name="endpoint")
    """The ``[endpoint]`` table; see `EndpointSpec`."""

    @property
    def endpoint(self) -> EndpointSpec | None:
        """How a served model may stand for the track's, if it may."""
        return None if self.given_endpoint is msgspec.UNSET else self.given_endpoint

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

        The list of formats is left out: it says which runs are equal, and older runs had none. So are prices. This
        project's own wording counts under its first name, with which the published results were measured. The sizes of
        rows that a track ships with are left out, too: they change no honest query's price, and older runs had none.
        """
        model = msgspec.structs.replace(self.model, formats=msgspec.UNSET)
        profile = OWN_PROFILE_BEFORE if self.profile == OWN_PROFILE else self.profile
        tasks = dict(self.tasks)
        for name, size in _shipped_rows(self.name).items():
            if name in tasks and tasks[name].row_tokens == size:
                tasks[name] = msgspec.structs.replace(tasks[name], row_tokens=msgspec.UNSET)
        counted = msgspec.structs.replace(self, model=model, profile=profile, tasks=tasks, given_prices=msgspec.UNSET)
        return hashlib.sha256(msgspec.json.encode(counted, order="deterministic")).hexdigest()[:16]

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
        raise TrackError(f"{path}:{line_of(path.read_text(encoding=ENCODING), keys)}: {message}")
    return track


def _problems(track: Track, stem: str) -> Iterator[tuple[list[str], str]]:
    """Each broken rule as (keys, message)."""
    if not track.tasks:
        yield ["tasks"], "no [tasks.<name>] table; at least one task is needed"
    if track.model.dtype not in track.model.allowed:
        yield ["model", "formats"], f"formats {list(track.model.allowed)} must contain dtype, {track.model.dtype!r}"
    if track.data.draw == "bbt-2022" and track.data.source != "hub":
        yield ["data", "draw"], 'draw = "bbt-2022" draws from public data sets; it needs data.source = "hub"'
    if track.name != stem:
        yield ["name"], f"name is {track.name!r} but the file is {stem}.toml; make them equal"
    for task, spec in track.tasks.items():
        try:
            load_task(task).task(track.profile, track.model.kind)
        except TaskError as problem:
            yield ["tasks", task], f"tasks.{task}: {problem}"
            continue
        if spec.metric == "f1" and len(load_task(task).classes) != 2:  # noqa: PLR2004
            message = "metric f1 is that of class 1 against class 0; take macro_f1"
            yield ["tasks", task, "metric"], f"tasks.{task}: {message}"
        if spec.splits == "present" and track.data.source != "kit":
            message = 'splits = "present" needs data.source = "kit"; list the splits'
            yield ["tasks", task, "splits"], f"tasks.{task}: {message}"
        if spec.splits != "present" and (not spec.splits or len(set(spec.splits)) != len(spec.splits)):
            message = f"splits {list(spec.splits)} must be distinct and at least one"
            yield ["tasks", task, "splits"], f"tasks.{task}: {message}"


def track_tasks(track: Track) -> dict[str, TaskFile]:
    """The task files of a track, in its order, with the track's metrics."""
    return {name: with_metric(load_task(name), spec.metric) for name, spec in track.tasks.items()}
