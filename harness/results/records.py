"""What the results database stores, as typed records: runs, cells and answered queries. Pure data, no storage.

A record can be decoded from the JSON of any older version. A field that was added later has a default, which is what
its absence means in an older record. The JSON is written in the order of the fields. So a new field is added at the
end, and the bytes of the others do not change.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

import msgspec

from harness.contract import Metric  # noqa: TC001 - msgspec reads the types
from harness.results.asked import Asked  # noqa: TC001 - msgspec reads the types
from harness.results.outputs import Outputs  # noqa: TC001 - as above
from harness.results.status import FIRST_MARKS

if TYPE_CHECKING:
    from harness.contract import IntArray

T = TypeVar("T")
RunAccess: TypeAlias = Literal["black-box", "white-box", "predictions"]
"""``white-box``: a reference that may train with the model's weights; it is listed and never ranked.
``predictions``: uploaded; nothing is known of how they were made, and they are listed separately."""
ENDPOINT = "endpoint "
"""How the device of a run begins whose model a server computed: `RunKey.device`."""
Note: TypeAlias = Mapping[str, float]
"""Numbers that a submission stores beside an answer."""


@dataclass(frozen=True)
class RunKey:
    """A run's identity. Two runs that differ in any field are different runs."""

    entry: str
    """Name on the leaderboard: that of the folder, or the one that was given, and the options; see `label`."""
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
    """``cpu``, or the GPU's name from its driver. It is the device that was used, whatever the track says. Of a served
    model, the server, the model and what it gives of a word, after `ENDPOINT`."""
    seed: int
    environment_sha256: str
    """Digest of the versions of everything that computes."""
    modified: tuple[str, ...] = ()
    """Names of the track's choices that were replaced on the command line. A run with any is never ranked."""
    access: RunAccess = "black-box"
    external: str = ""
    """Origin of outside data, such as a pre-trained prompt with its digest. Such a run is never ranked with pure
    runs."""
    calls: int | None = None
    """Budget of every cell where it is not the track's; `modified` says so, too."""
    repeat: int = 0
    """Number of the repeat: the same cells with other chance of the submission's own; 0 is the first."""
    team: str = ""
    """Whose entry it is; empty where nobody said. Entries of two teams are two, whatever they are called."""

    @property
    def label(self) -> str:
        """The entry as people see it, with its team: ``team/name[options]``."""
        return f"{self.team}/{self.entry}" if self.team else self.entry

    @property
    def served(self) -> bool:
        """Whether a server computed the model, so that its weights are not known."""
        return self.device.startswith(ENDPOINT)

    @property
    def tried(self) -> tuple[str, str, str]:
        """What tries are counted by: track, team and name, whatever the code and the options."""
        return self.track, self.team, self.entry.partition("[")[0]

    @property
    def as_first(self) -> RunKey:
        """The first repeat of the same run."""
        return replace(self, repeat=0)

    @property
    def id(self) -> str:
        """The digest that names the run."""
        return run_id(asdict(self))


_LATER: dict[str, str | int | None] = {"access": "black-box", "external": "", "calls": None, "repeat": 0, "team": ""}
"""Fields of `RunKey` that were added after the first release, each with the value that every older run implicitly had.
A field that still has this value is left out of the run's digest, so the ids of older runs do not change."""


def run_id(identity: Mapping[str, Any]) -> str:
    """Digest of a run's identity, which is a `RunKey` as a dict or as read from JSON."""
    counted = {name: value for name, value in identity.items() if name not in _LATER or value != _LATER[name]}
    return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Run:
    """A run as read from the database."""

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
    """0 is text and logits, 1 input prompts, 2 deep prompts, 3 hidden states."""
    sha256: str
    """Digest of the request's and the reply's bytes."""


@dataclass
class Usage:
    """Sums over the answered queries of one cell, counted as they are answered."""

    queries: int = 0
    level: int = 0
    """Highest access level used."""
    tokens: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    nominal_up: int = 0
    """Bytes by the papers' formula, which counts the tokens of all texts and the prompt's floats for every
    candidate."""
    nominal_down: int = 0
    lm_s: float = 0.0

    def count(self, row: LedgerRow, nominal_up: int, nominal_down: int) -> None:
        """Add an answered query. No ledger row has its nominal bytes."""
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
    """A backend fingerprint: see `harness.lm.fingerprint`."""

    sha256: str
    """Digest of the logits rounded to 0.01, short enough for people to compare."""
    logits: tuple[float, ...]


@dataclass(frozen=True)
class Billed:
    """What a cell of a served model exchanged with its server (`harness.lm.endpoint.requests.Traffic`)."""

    requests: int = 0
    resent: int = 0
    """Requests that were sent once more; the meter charged their query once."""
    sent: int = 0
    """Tokens of the prompts by the server's count, while the submission tuned."""
    received: int = 0
    """Tokens that the server generated meanwhile."""
    test_sent: int = 0
    """The same while the referee scored the answers."""
    test_received: int = 0


@dataclass(frozen=True)
class CellRecord:
    """What is known of a finished cell beside its status, answers and predictions: the column ``facts``.

    For a cell of uploaded predictions, only `access`, `metric` and `words` are known; the words are the names of the
    classes. A white-box reference has no queries, so these fields are 0; `calls_total` and `rows_total` are its budget
    of forward passes, if it was given one.
    """

    detail: str = ""
    """Why the cell failed, with the author's traceback if there is one."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The submission's full configuration."""
    calls_total: int = 0
    rows_total: int = 0
    rows_spent: int = 0
    train_rows: int = 0
    """Rows of one call."""
    queries: int = 0
    level: int = 0
    """Highest access level used; 4 means a reference, 5 changes of weights."""
    tokens: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    declared_bytes: int | None = None
    """Bytes received to declare texts and subspaces; `bytes_up` counts queries alone. None in cells from before this
    count."""
    nominal_up: int | None = None
    """Bytes by the papers' formula, see `Usage`. None in cells from before this count."""
    nominal_down: int | None = None
    lm_s: float = 0.0
    """Seconds of pricing and forward passes."""
    waited_s: float = 0.0
    """Seconds of waiting for the forward passes of other cells. No other time includes them."""
    refused: int = 0
    """Queries that did not fit into the budget."""
    rejected: int = 0
    """Malformed requests."""
    worker_peak_mb: float | None = None
    """Peak memory of the submission's process, in MiB."""
    referee_peak_mb: float | None = None
    """Peak main memory of the referee's process until the end of the cell, in MiB."""
    worker_exit: int | None = None
    output: str = ""
    """The last bytes that the submission printed."""
    note: Note = field(default_factory=dict)
    """The note of the final answer."""
    history: tuple[tuple[int, Note], ...] | None = None
    """For each answer, the rows spent when it was offered, and its note. None in cells from before offers were
    stored."""
    marks: tuple[float, ...] = FIRST_MARKS
    """Fractions of the budget at which the incumbent was stored: see `harness.results.status`."""
    template: str = ""
    words: tuple[str, ...] = ()
    shots_sha256: tuple[str, ...] = ()
    """Digests of the training and the dev examples."""
    sandbox: str = "none"
    """Tier of isolation, or a word that says why there is none: see `harness.tracks.tiers`."""
    isolation: Mapping[str, Any] = field(default_factory=dict)
    """The isolation that was in force in the worker: `harness.sandbox.launch.Isolation` as plain data."""
    seed: int = 0
    """Seed of the submission's generator."""
    access: RunAccess = "black-box"
    tuning_s: float = 0.0
    test_s: float = 0.0
    """Seconds in which the answers were applied to the test set."""
    device_peak_mb: float | None = None
    """Peak GPU memory during the cell in MiB, the model's weights included; None on a CPU."""
    probe: Fingerprint | None = None
    """None in cells from before there was a fingerprint."""
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
    test_texts: int | None = None
    """Texts of the test set, those of train and dev aside, that the submission queried: it knew them from elsewhere.
    They are compared as a model reads them (`harness.lm.reading`). None in cells from before this count."""
    billed: Billed | None = None
    """What was exchanged with the server; None where the model was computed in the referee's process."""
    asked: Asked | None = None
    """What its queries were given; None in cells from before this count, and in those of the service."""
    outputs: Outputs | None = None
    """Of a text task what the answers wrote; None on another task, and where no answer was applied."""
    forwards: int | None = None
    """Of a white-box reference the rows that it forwarded, of which one whose gradient was taken counts as three; None
    of others, where `rows_spent` says it, and in cells from before this count. On a text task a long text is several
    rows, as in a query; in cells of text tasks from before that, it is one."""
    # A field that a later version adds stands here, last, with the default that older cells have.

    @property
    def calls_spent(self) -> float:
        """Calls used. The number is fractional if queries had texts of dev or parts of the training set."""
        return self.rows_spent / self.train_rows

    @property
    def forwarded(self) -> int | None:
        """Rows of forward passes, however they were asked for; a row whose gradient was taken counts as three.

        None where it was not counted: in references from before this count, and in uploaded predictions.
        """
        return self.rows_spent if self.access == "black-box" else self.forwards

    @property
    def forward_calls(self) -> float | None:
        """`forwarded` in calls; None where it is not known."""
        return None if self.forwarded is None or not self.train_rows else self.forwarded / self.train_rows

    def plain(self) -> dict[str, Any]:
        """The record as plain data, in the order in which it is stored."""
        if self.access == "predictions":  # nothing else is known of them
            known = {"metric": self.metric, "words": self.words}
            return {"access": self.access} | {name: value for name, value in known.items() if value}
        found: dict[str, Any] = {each.name: getattr(self, each.name) for each in fields(self)}
        found["probe"] = None if self.probe is None else asdict(self.probe)
        for later in ("format", "row_tokens", "metric", "log", "replaced"):
            if not found[later]:
                del found[later]  # as it was stored before there was the field
        found["billed"] = None if self.billed is None else asdict(self.billed)
        found["asked"] = None if self.asked is None else asdict(self.asked)
        found["outputs"] = None if self.outputs is None else asdict(self.outputs)
        for later in ("test_texts", "billed", "asked", "outputs", "forwards"):
            if found[later] is None:
                del found[later]
        return found

    def to_json(self) -> str:
        """The record in its stored form."""
        return json.dumps(self.plain())


def run_key(text: str) -> RunKey:
    """Read a run's identity from its JSON.

    Raises:
        ValueError: the text is not the JSON of an identity.
    """
    return _decoded(text, RunKey)


def cell_record(text: str) -> CellRecord:
    """Read a cell's record from its JSON, of this or an older version.

    Raises:
        ValueError: the text is not the JSON of a record.
    """
    return _decoded(text, CellRecord)


def _decoded(text: str, kind: type[T]) -> T:
    """Decode JSON as `kind`. Python's own JSON goes beyond the standard and is read by a slower way."""
    try:
        return msgspec.json.decode(text, type=kind)
    except ValueError:  # a reference's loss may be NaN, and output may have half a surrogate pair
        return msgspec.convert(json.loads(text), kind)


@dataclass(frozen=True)
class KeptAnswer:
    """An incumbent with its predictions."""

    mark: float
    rows: int
    blob: bytes
    predictions: IntArray
    outputs: tuple[str, ...] | None = None
    """Of a text task what the answer wrote."""


@dataclass(frozen=True)
class StoredCell:
    """One finished cell, as read from the database."""

    run: str
    task: str
    split: int
    attempt: int
    status: str
    record: CellRecord
    labels: IntArray
    predictions: dict[float, IntArray]
    """Predicted classes for each mark; empty if there was no answer."""
    finished: float
    rows: dict[float, int] = field(default_factory=dict)
    """For each mark, the rows that were spent when its answer was offered."""


@dataclass(frozen=True)
class OpenCell:
    """A cell that has been started and is not finished."""

    attempt: int
    task: str
    split: int
    started: float
    """Unix seconds."""
    rows: int
    """Number of rows answered so far."""


@dataclass(frozen=True)
class Pace:
    """The progress of a run."""

    finished: int
    """Number of cells."""
    cell_s: float | None
    """Mean seconds from the start of a finished cell to its end; None if no cell is finished."""
