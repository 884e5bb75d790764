"""An evaluation before its model is loaded: checks the input, and finds out which cells will run."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING, Literal, cast

import msgspec

from harness.errors import DataError, InputError, did_you_mean
from harness.evaluation.oddities import oddities
from harness.evaluation.overrides import backend_of, is_kit
from harness.evaluation.referee import Cell
from harness.evaluation.text_metrics import check_installed
from harness.lm.kinds import kind_of
from harness.lm.reading import Reading
from harness.solving.metrics import is_text
from harness.tracks.bbt_2022 import RowsOf2022
from harness.tracks.examples import Source, check_unseen, examples_sha256, load_shots, load_test, source_at, splits_of
from harness.tracks.staging import at_hand
from harness.tracks.track import Track, track_tasks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.contract import Shots, TextMetric
    from harness.evaluation.overrides import Overrides
    from harness.tracks.tasks import TaskFile


MOST_ROWS = 2**31
"""Largest budget of a cell: the largest value of `harness.blackbox.wire.Count`."""


class Preparation:
    """An evaluation before its model is loaded. It has checked the track, the choices, the data and the cells.

    Neither torch nor transformers is imported here, unless the device is a GPU or the model is a hub id. So wrong
    input is refused at once.
    """

    def __init__(self, track: Track, choices: Overrides) -> None:
        """Check everything that can be checked without the model.

        Args:
            track: the track, as its file says.
            choices: the command line's overrides of the track.

        Raises:
            InputError: the data or the choices do not fit the track.
            FetchError: the track's model or data are neither staged nor available.
            ModelError: the model's configuration is not available, or its family is not supported.
        """
        self.given, self.choices = track, choices
        if choices.test_data is not None and not choices.test_data.is_dir():
            raise InputError(f"--test-data {choices.test_data}: no such directory")
        check_endpoint(track, choices)
        self.kind = _device_kind(track, choices.device)
        hub_tasks = () if choices.data else choices.tasks or tuple(track.tasks)
        self.track, staged = at_hand(replaced(track, choices), choices.staged, hub_tasks)
        self.source = source_of(track, choices) if staged is None else Source("hub", staged)
        named = self.source if staged is None else Source("hub")  # staged data are the same data
        self.source = dataclasses.replace(self.source, test=choices.test_data)
        self.data = str(dataclasses.replace(named, test=choices.test_data))
        if track.data.draw == "bbt-2022" and self.source.kind == "hub":
            self.source = dataclasses.replace(self.source, rows=RowsOf2022.of(self.track))
        if choices.shots is not None and self.source.kind in {"kit", "files"}:
            raise InputError(f"--shots {choices.shots}: the stored splits have the examples that they have")
        if track.data.takes_kit and self.source.kind == "kit":
            self.source = dataclasses.replace(self.source, all_splits=True)
        self.allowed = allowed_packages(self.track)
        """Version of each package that the track allows beside those of every track."""
        self.files = track_tasks(self.track)
        for file in self.files.values():
            if is_text(file.metric):
                check_installed(cast("TextMetric", file.metric))
        self.cells = chosen_cells(self.track, self.files, self.source, choices)
        if choices.p0 is not None:
            if not choices.p0.is_file():
                raise InputError(f"{choices.p0}: no pre-trained prompt is there; make one with harness pretrain-prompt")
            if not any(relative_to_p0(cell) for cell in self.cells):
                raise InputError(f"--p0 {choices.p0} is for sentence-pair tasks, and none is chosen")
        self.data_sha256, self.oddities = self._read(self.cells)
        """Digest of the data, and lines about unusual data of the chosen tasks."""

    def _read(self, cells: Sequence[Cell]) -> tuple[str, tuple[str, ...]]:
        """Digest of the whole track's data, and lines about unusual data of the chosen tasks.

        Reading the data also checks that the data of the chosen cells exist and are well-formed. Other tasks may be
        missing.
        """
        digest, odd = hashlib.sha256(), []
        reading = Reading.of_source(self.track.model.source) if self.source.test is not None else tuple
        chosen: dict[str, set[int]] = {}
        for cell in cells:
            chosen.setdefault(cell.file.name, set()).add(cell.split)
        for name, file in self.files.items():
            spec = self.track.tasks[name]
            try:
                test = load_test(file, self.source)
                digest.update(examples_sha256(test).encode())
                drawn: dict[int, Shots] = {}
                for split in splits_of(file, self.source, spec, present_only=True):
                    shots = load_shots(file, self.source, split, spec)
                    check_budget(spec.calls, len(shots.train))
                    drawn[split] = shots
                    digest.update((examples_sha256(shots.train) + examples_sha256(shots.dev)).encode())
                if self.source.test is not None:
                    check_unseen(file, self.source, tuple(drawn.values()), reading)
                run = {split: shots for split, shots in drawn.items() if split in chosen.get(name, ())}
                odd += oddities(file, run, test) if run else []
            except DataError:
                if name in chosen:
                    raise
                digest.update(b"absent")
        return digest.hexdigest()[:16], tuple(odd)


def allowed_packages(track: Track) -> dict[str, str]:
    """The installed version of each package that a track allows beside those of every track.

    Raises:
        InputError: one is not installed, or holds what a submission must not read.
    """
    if track.given_packages is msgspec.UNSET:
        return {}
    return track.given_packages.check_installed(track.name, track.model.source)


def check_endpoint(track: Track, choices: Overrides) -> None:
    """Refuse choices about an endpoint that do not go together.

    Raises:
        InputError: the message says what to add or to leave out.
    """
    if (choices.backend or backend_of(track)) != "openai":
        given = {"--endpoint": choices.endpoint, "--served-model": choices.served_model}
        wrong = next((option for option, value in given.items() if value is not None), None)
        if wrong:
            raise InputError(f"{wrong} names a server, and the model is computed here; give --backend openai, too")
        return
    if choices.endpoint is None:
        raise InputError("--backend openai asks a server; name it with --endpoint http://HOST:PORT (docs/endpoints.md)")
    if choices.concurrency < 1:
        raise InputError(f"--concurrency {choices.concurrency}: at least one request at once is needed")
    nothing = {"--device": choices.device, "--p0": choices.p0, "--white-box": choices.white_box or None}
    wrong = next((option for option, value in nothing.items() if value is not None), None)
    if wrong:
        raise InputError(f"{wrong}: the weights are on the server, and text is all that it takes; leave that out")


def check_budget(calls: int, train_rows: int) -> None:
    """Refuse a budget that the wire format cannot count.

    Args:
        calls: budget of one cell.
        train_rows: rows of one call.

    Raises:
        InputError: the budget is too large. The message has the numbers.
    """
    if calls * train_rows > MOST_ROWS:
        raise InputError(
            f"{calls:,} calls of {train_rows:,} rows are {calls * train_rows:,} rows; a cell has at most "
            f"{MOST_ROWS:,}. Take --calls {MOST_ROWS // train_rows:,} or less"
        )


def chosen_cells(track: Track, files: Mapping[str, TaskFile], source: Source, choices: Overrides) -> list[Cell]:
    """The cells of a track that will run: the first split of every task, then the second of every task, and so on.

    So after one cell for each task, every task has a score.

    Raises:
        InputError: the track has no such task or split.
        DataError: the data directory lacks splits.
    """
    unknown = sorted(set(choices.tasks) - set(files))
    if unknown:
        alike = did_you_mean(unknown[0], files)
        raise InputError(f"track {track.name} has no task {unknown[0]!r}{alike}; it has {', '.join(files)}")
    cells: list[tuple[int, Cell]] = []
    """Each cell with its split's position among the splits of its task."""
    for name, file in files.items():
        if choices.tasks and name not in choices.tasks:
            continue
        spec = track.tasks[name]
        task = file.wording(track.profile, track.model.kind)
        there = splits_of(file, source, spec, choices.present_splits)
        chosen = [split for split in there if not choices.splits or split in choices.splits]
        cells += enumerate(
            Cell(
                file,
                task,
                split,
                spec,
                track.limits,
                source,
                choices.seed,
                choices.repeat,
                track.packages,
                track.defences,
            )
            for split in chosen
        )
    nowhere = sorted(set(choices.splits) - {cell.split for _, cell in cells})
    if nowhere or not cells:
        raise InputError(f"split {', '.join(map(str, nowhere))} is in no chosen task of track {track.name}")
    return [cell for _, cell in sorted(cells, key=lambda each: each[0])]


def _device_kind(track: Track, wanted: str | None) -> Literal["cpu", "cuda"]:
    """The kind of device. If it is a GPU, its presence was checked."""
    if track.device_kind(wanted) == "cpu":
        return "cpu"
    from harness.lm import device  # noqa: PLC0415 - imports torch, which detects GPUs

    return device.chosen(track, wanted)


def relative_to_p0(cell: Cell) -> bool:
    """Whether a pre-trained p0 is used in this cell: it was trained on sentence pairs, so it is used on pair tasks."""
    return cell.task.fields == 2  # noqa: PLR2004


def _on_backend(track: Track, wanted: str) -> Track:
    """The track with another backend. ONNX Runtime computes in float32."""
    if wanted not in {"torch", "onnxruntime", "openai"}:
        raise InputError(f"--backend {wanted}: torch, onnxruntime or openai is needed")
    if wanted == backend_of(track):
        return track
    numerics = msgspec.structs.replace(track.numerics, forward="packed" if wanted == "torch" else wanted)
    model = track.model
    if wanted == "onnxruntime":
        model = msgspec.structs.replace(model, dtype="float32", formats=msgspec.UNSET)
    return msgspec.structs.replace(track, given_numerics=numerics, model=model)


def replaced(track: Track, choices: Overrides) -> Track:
    """The track with the command line's overrides applied.

    Raises:
        InputError: a choice is not valid.
    """
    if choices.model is not None:
        kind = kind_of(choices.model)
        model = msgspec.structs.replace(track.model, source=choices.model, kind=kind, revision=None)
        track = msgspec.structs.replace(track, model=model)
    if choices.backend is not None:
        track = _on_backend(track, choices.backend)
    if choices.calls is not None:
        if choices.calls <= 0:
            raise InputError(f"--calls {choices.calls}: a positive number of calls is needed")
        tasks = {name: msgspec.structs.replace(spec, calls=choices.calls) for name, spec in track.tasks.items()}
        track = msgspec.structs.replace(track, tasks=tasks)
    if choices.shots is not None:
        if choices.shots <= 0:
            raise InputError(f"--shots {choices.shots}: a positive number of examples per class is needed")
        if track.data.source in {"kit", "files"}:
            raise InputError(f"--shots {choices.shots}: the stored splits have the examples that they have")
        shots = choices.shots
        tasks = {name: msgspec.structs.replace(spec, shots=shots, dev=shots) for name, spec in track.tasks.items()}
        track = msgspec.structs.replace(track, tasks=tasks)
    return track


def source_of(track: Track, choices: Overrides) -> Source:
    """The source of the examples, before staged data are looked for.

    Raises:
        InputError: there is no such data directory.
    """
    if choices.data is None:
        return Source(track.data.source)
    if not choices.data.is_dir():
        raise InputError(f"--data {choices.data}: no such directory")
    directory = choices.data.absolute()  # the path ``.`` has no name
    if track.data.source == "hub" and not is_kit(directory):
        return Source("hub", directory)
    return source_at(track.data.source, directory)
