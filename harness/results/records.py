"""What the results database keeps, as typed records: runs, cells and answered queries. Pure data, no storage.

A record decodes from the JSON of any older version: a field that was added later has a default, which is what the field
means where the older version did not store it. The stored JSON is written in the order of the fields, so that a field
added later stands last and the bytes of the others stay as they are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

import msgspec

from harness.contract import Metric  # noqa: TC001 - msgspec reads the types
from harness.results.status import FIRST_MARKS

if TYPE_CHECKING:
    from harness.contract import IntArray

T = TypeVar("T")
RunAccess: TypeAlias = Literal["black-box", "white-box", "predictions"]
"""``white-box`` is a reference that was allowed to train with the model's weights; it is listed, never ranked.
``predictions`` were uploaded: nothing is known of how they were made, and they are listed apart."""
Note: TypeAlias = Mapping[str, float]
"""Numbers that a submission keeps beside an answer."""


@dataclass(frozen=True)
class RunKey:
    """What makes two runs the same run: any difference starts a new one."""

    entry: str
    """Name on the leaderboard: the folder, and options that were given."""
    submission_sha256: str
    options: tuple[tuple[str, str], ...]
    track: str
    track_fingerprint: str
    rules: int
    model: str
    model_sha256: str
    data: str
    data_sha256: str
    device: str
    """``cpu``, or the GPU as its driver names it: what was used, whatever the track asks for."""
    seed: int
    environment_sha256: str
    """Of the versions of everything that computes."""
    modified: tuple[str, ...] = ()
    """Which of the track's choices were replaced on the command line; a run with any is never ranked with it."""
    access: RunAccess = "black-box"
    external: str = ""
    """What came from outside data, e.g. a pre-trained prompt with its digest; such a run never ranks with pure ones."""
    calls: int | None = None
    """Budget of every cell where it is not the track's; `modified` says so, too."""
    repeat: int = 0
    """Number of the repeat: the same cells with other chance of the submission's own; 0 is the first."""

    @property
    def id(self) -> str:
        """Digest that names the run."""
        return run_id(asdict(self))


_LATER: dict[str, str | int | None] = {"access": "black-box", "external": "", "calls": None, "repeat": 0}
"""Fields of `RunKey` that were added after the first release, each with the value that every older run implicitly had.
A field that still has this value is left out of the run's digest, so the ids of older runs do not change."""


def run_id(identity: Mapping[str, Any]) -> str:
    """Digest of a run's identity, a `RunKey` as a dict or as read back from JSON."""
    counted = {name: value for name, value in identity.items() if name not in _LATER or value != _LATER[name]}
    return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Run:
    """A run, as read back."""

    id: str
    key: RunKey
    environment: dict[str, Any]
    """Versions, processor, threads and numerics (`harness.evaluation.environment`); of uploaded predictions, the cells
    that there were to predict (`harness.results.uploads`)."""
    started: float
    """Unix seconds."""


@dataclass(frozen=True)
class LedgerRow:
    """One answered query."""

    rows: int
    tokens: int
    bytes_up: int
    bytes_down: int
    seconds: float
    level: int
    """0 text and logits, 1 input prompts, 2 deep prompts, 3 hidden states."""
    sha256: str
    """Of the request's and the reply's bytes."""


@dataclass
class Usage:
    """What the answered queries of one cell add up to; counted while they are answered."""

    queries: int = 0
    level: int = 0
    """Highest access level used."""
    tokens: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    nominal_up: int = 0
    """Bytes by the papers' formula, which sends the tokens of all texts anew with every candidate, and its floats."""
    nominal_down: int = 0
    lm_s: float = 0.0

    def count(self, row: LedgerRow, nominal_up: int, nominal_down: int) -> None:
        """Add an answered query; the nominal bytes are in no ledger row."""
        self.queries += 1
        self.level = max(self.level, row.level)
        self.tokens += row.tokens
        self.bytes_up += row.bytes_up
        self.bytes_down += row.bytes_down
        self.nominal_up += nominal_up
        self.nominal_down += nominal_down
        self.lm_s += row.seconds


@dataclass(frozen=True)
class Fingerprint:
    """What a machine makes of fixed texts: see `harness.lm.fingerprint`."""

    sha256: str
    """Of the logits rounded to 0.01, for eyes."""
    logits: tuple[float, ...]


@dataclass(frozen=True)
class CellRecord:
    """What is known of a finished cell beside its status, answers and predictions: the column ``facts``.

    A cell of uploaded predictions has `access` alone. A white-box reference has no budget and no queries: 0.
    """

    detail: str = ""
    """Why it failed; the author's traceback where there is one."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The submission's full configuration."""
    calls_total: int = 0
    rows_total: int = 0
    rows_spent: int = 0
    train_rows: int = 0
    """Rows of one call."""
    queries: int = 0
    level: int = 0
    """Highest access level used; 4 is a reference's."""
    tokens: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    declared_bytes: int | None = None
    """Received to declare texts and subspaces; `bytes_up` counts queries alone. None where it was not counted yet."""
    nominal_up: int | None = None
    """Bytes by the papers' formula, see `Usage`. None where they were not counted yet."""
    nominal_down: int | None = None
    lm_s: float = 0.0
    """Seconds of pricing and forward passes."""
    waited_s: float = 0.0
    """Seconds of waiting for the forward passes of other cells; part of no other time."""
    refused: int = 0
    """Queries that did not fit into the budget."""
    rejected: int = 0
    """Malformed requests."""
    worker_peak_mb: float | None = None
    """Peak memory of the submission's process, MiB."""
    referee_peak_mb: float | None = None
    """Peak main memory of the referee's process up to the end of the cell, MiB."""
    worker_exit: int | None = None
    output: str = ""
    """The last bytes of what the submission printed."""
    note: Note = field(default_factory=dict)
    """Of the final answer."""
    history: tuple[tuple[int, Note], ...] | None = None
    """Rows spent when each answer came, and what its note says; None where offers were not kept yet."""
    marks: tuple[float, ...] = FIRST_MARKS
    """Fractions of the budget at which the incumbent was kept: see `harness.results.status`."""
    template: str = ""
    words: tuple[str, ...] = ()
    shots_sha256: tuple[str, ...] = ()
    """Of the training and the dev examples."""
    sandbox: str = "none"
    """Tier of isolation, or what stands in its place: see `harness.tracks.tiers`."""
    isolation: Mapping[str, Any] = field(default_factory=dict)
    """What held in the worker, `harness.sandbox.launch.Isolation` as plain data."""
    seed: int = 0
    """Of the submission's generator."""
    access: RunAccess = "black-box"
    tuning_s: float = 0.0
    test_s: float = 0.0
    """Seconds of applying the answers to the test set."""
    device_peak_mb: float | None = None
    """Peak GPU memory in the cell, MiB, the model's weights included; None on a CPU."""
    probe: Fingerprint | None = None
    """None where there was no fingerprint yet."""
    format: str | None = None
    """Number format that computed the cell; None where every cell had the track's own."""
    log: tuple[tuple[int, Note], ...] = ()
    """Rows spent when the submission logged numbers of its search, such as a generation's loss, and the numbers."""
    metric: Metric | None = None
    """What the cell is scored by; None where it is the metric that the task file has."""
    replaced: tuple[str, ...] = ()
    """How earlier runs of this cell had ended, failures all, before `--again` replaced their outcomes; oldest first."""
    row_tokens: int | None = None
    """Tokens of text in one row; None where a text was one row however long."""
    # A field that a later version adds stands here, last, with the default that older cells have.

    @property
    def calls_spent(self) -> float:
        """Calls used; fractional where dev texts or parts of the training set were asked about."""
        return self.rows_spent / self.train_rows

    def plain(self) -> dict[str, Any]:
        """The record as plain data, in the order in which it is stored."""
        if self.access == "predictions":  # nothing else is known of them
            return {"access": self.access} | ({} if self.metric is None else {"metric": self.metric})
        found: dict[str, Any] = {each.name: getattr(self, each.name) for each in fields(self)}
        found["probe"] = None if self.probe is None else asdict(self.probe)
        for later in ("format", "row_tokens", "metric", "log", "replaced"):
            if not found[later]:
                del found[later]  # as it was stored before there was the field
        return found

    def to_json(self) -> str:
        """The record as it is stored."""
        return json.dumps(self.plain())


def run_key(text: str) -> RunKey:
    """A run's identity from its JSON.

    Raises:
        ValueError: it is none.
    """
    return _decoded(text, RunKey)


def cell_record(text: str) -> CellRecord:
    """A cell's record from its JSON, of this or an older version.

    Raises:
        ValueError: it is none.
    """
    return _decoded(text, CellRecord)


def _decoded(text: str, kind: type[T]) -> T:
    """JSON as `kind`; where it is beyond the standard, as Python's own JSON is, by the slower way."""
    try:
        return msgspec.json.decode(text, type=kind)
    except ValueError:  # a reference's loss may be NaN, and output may hold half of a surrogate pair
        return msgspec.convert(json.loads(text), kind)


@dataclass(frozen=True)
class KeptAnswer:
    """An incumbent with what it predicts."""

    mark: float
    rows: int
    blob: bytes
    predictions: IntArray


@dataclass(frozen=True)
class StoredCell:
    """One finished cell, as read back."""

    run: str
    task: str
    split: int
    attempt: int
    status: str
    record: CellRecord
    labels: IntArray
    predictions: dict[float, IntArray]
    """Predicted classes per mark; empty where there was no answer."""
    finished: float
    rows: dict[float, int] = field(default_factory=dict)
    """Rows spent when the answer of each mark was offered."""


@dataclass(frozen=True)
class OpenCell:
    """A cell that has begun and not finished."""

    attempt: int
    task: str
    split: int
    started: float
    """Unix seconds."""
    rows: int
    """Rows answered so far."""


@dataclass(frozen=True)
class Pace:
    """How far a run is."""

    finished: int
    """Cells."""
    cell_s: float | None
    """Mean seconds from the start of a finished cell to its end; None before there is one."""
