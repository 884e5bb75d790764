"""`harness fetch`: stage a track's model and data sets in one directory, so that nothing needs a network later.

    DIR/manifest.json           repository, commit, files, sizes and SHA-256 of each complete part
    DIR/model/<owner>/<name>/   the model in hub format: configuration, tokenizer, safetensors
    DIR/data/<task>/            the data set's splits, as `datasets` saves them; also the data for `pretrain-prompt`

A part is downloaded into ``.partial`` beside its place and is moved to its place when it is complete. After an
interruption the same command continues with the missing files. Several tracks may share a directory; parts that they
have in common are stored once.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from harness.errors import FetchError, InputError
from harness.tracks.naming import argument_for
from harness.tracks.track import Track, track_tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from harness.tracks.tasks import TaskFile

MANIFEST = "manifest.json"
MODEL_FILES = ("*.json", "*.safetensors", "*.txt", "*.model")
"""The files that are taken of a model's repository, from its top folder. Pickled weights and code are never taken."""
_NEEDED = ("config.json", "tokenizer.json")
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_PARTIAL = ".partial"
_ANSWER_S = 10.0
_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


class Want(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One repository that a track needs, and the part of it that is needed."""

    kind: Literal["model", "dataset"]
    repository: str
    revision: str | None
    """The revision in the track or task file; None means the newest."""
    config: str | None = None
    splits: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Name for messages."""
        name = f"{self.repository}{f' ({self.config})' if self.config else ''}"
        return f"{'model' if self.kind == 'model' else 'data set'} {name}"


class StagedFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The size and the digest that a file must have."""

    size: int
    """Size in bytes."""
    sha256: str


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One staged repository."""

    want: Want
    commit: str
    """The revision that was downloaded, as a commit of the repository."""
    files: dict[str, StagedFile]
    """The files by their paths inside the part's folder."""


class Manifest(msgspec.Struct, forbid_unknown_fields=True):
    """The contents of a directory: parts by their folders."""

    parts: dict[str, Part] = {}


def default_directory() -> Path:
    """The default directory of `fetch` and of evaluation: ``$XDG_CACHE_HOME/harness``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "harness"


def wants(track: Track, tasks: Collection[str], outside: Sequence[TaskFile] = ()) -> dict[str, Want]:
    """What a track needs from the hub for some of its tasks, by the folder in which it is staged.

    `outside` are sets of `harness.tracks.tasks.outside_sets` that are needed in addition.
    """
    found: dict[str, Want] = {}
    source = track.model.source
    if source != "embedded" and _HUB_ID.fullmatch(source) and not Path(source).is_dir():
        found[f"model/{source}"] = Want("model", source, track.model.revision)
    own = [file for name, file in track_tasks(track).items() if track.data.source == "hub" and name in tasks]
    for file in (*own, *outside):
        if file.hub:
            splits = tuple(dict.fromkeys((file.hub.train, file.hub.test)))
            found[f"data/{file.name}"] = Want("dataset", file.hub.dataset, file.hub.revision, file.hub.config, splits)
    return found


def fetch(track: Track, directory: Path, say: Callable[[str], None], outside: Sequence[TaskFile] = ()) -> Manifest:
    """Stage everything that a track needs. Complete parts stay unchanged and need no network.

    `outside` is as in `wants`.

    Raises:
        FetchError: a repository cannot be downloaded, another fetch uses this directory, or it cannot be written.
    """
    needed = wants(track, track.tasks, outside)
    if not needed:
        data = " --data DIR" if track.data.source == "kit" else ""
        raise FetchError(
            f"track {track.name} needs nothing from the hub; "
            f"run: harness evaluate submissions/ajo --track {argument_for(track.name)}{data}"
        )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with _alone(directory):
            manifest = read_manifest(directory) or Manifest()
            for folder, want in needed.items():
                if not problems(directory, manifest, {folder: want}, deep=True):
                    say(f"there: {want}")
                    continue
                say(f"fetching: {want}")
                part = _stage(directory, folder, want, manifest)
                say(f"staged: {want} at {part.commit}, {sum(f.size for f in part.files.values()):,} bytes")
            shutil.rmtree(directory / _PARTIAL, ignore_errors=True)
    except OSError as problem:
        raise FetchError(f"{directory} cannot be written: {problem}; name another with --to DIR") from problem
    return manifest


def checked(track: Track, directory: Path, outside: Sequence[TaskFile] = ()) -> Manifest:
    """Read every byte of a directory again and return its manifest, if it has all that a track needs.

    `outside` is as in `wants`.

    Raises:
        FetchError: something is missing or differs from the manifest.
    """
    manifest = read_manifest(directory) or Manifest()
    found = problems(directory, manifest, wants(track, track.tasks, outside), deep=True)
    if found:
        raise FetchError(
            f"{directory} is not complete for track {track.name}:\n- " + "\n- ".join(found) + "\n"
            f"Run: {_command(track, outside, directory)}"
        )
    return manifest


def read_manifest(directory: Path) -> Manifest | None:
    """Read the manifest of a directory; None if it has none.

    Raises:
        FetchError: the manifest cannot be read.
    """
    path = directory / MANIFEST
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as problem:
        raise FetchError(f"{path} cannot be read: {problem}; delete it and run `harness fetch` again") from problem


def problems(directory: Path, manifest: Manifest, needed: dict[str, Want], *, deep: bool) -> list[str]:
    """The parts of `needed` that are not staged correctly. `deep` reads every byte; otherwise sizes are compared."""
    found = []
    for folder, want in needed.items():
        part = manifest.parts.get(folder)
        if part is None:
            found.append(f"{want} is not staged")
        elif part.want != want:
            found.append(f"{want} is staged with another revision or other splits ({part.want.revision or 'newest'})")
        else:
            checks = (_file_problem(directory / folder / name, file, deep) for name, file in part.files.items())
            found += [problem for problem in checks if problem]
    return found


def at_hand(
    track: Track,
    directory: Path | None,
    tasks: Collection[str],
    *,
    model: bool = True,
    outside: Sequence[TaskFile] = (),
) -> tuple[Track, Path | None]:
    """The track with its staged model as source, and the folder of its staged data sets.

    `directory` is searched, or the default directory if None. If something is missing there, the hub's client is asked,
    which uses its cache if there is no network. Nothing is loaded yet. Without `model`, only data sets are searched.
    `outside` is as in `wants`.

    Raises:
        InputError: `directory` does not exist.
        FetchError: something is missing. One message lists all of it, before any work is done.
    """
    _check_directory(directory)
    every = wants(track, tasks, outside)
    needed = {folder: want for folder, want in every.items() if model or want.kind == "dataset"}
    if not needed:
        return track, None
    where = directory or default_directory()
    manifest = read_manifest(where)
    missing = problems(where, manifest, needed, deep=False) if manifest else [f"{where} has no {MANIFEST}"]
    if not missing:
        if f"model/{track.model.source}" in needed:
            track = _from_directory(track, where)
        return track, where / "data" if any(want.kind == "dataset" for want in needed.values()) else None
    if directory is None:
        _no_network_no_retries()
        lacking = [problem for want in needed.values() for problem in _hub_problems(want)]
        if not lacking:
            return track, None
        missing += lacking
    raise FetchError(
        f"track {track.name} cannot start; this is missing:\n- " + "\n- ".join(missing) + "\n"
        f"On a machine with a network, run: {_command(track, outside, directory)}\n"
        "Without a network, copy a directory that was fetched elsewhere, and name it with --from DIR"
    )


def staged_model(track: Track, directory: Path | None) -> Track:
    """The track with its staged model as source if the model is complete, else unchanged. The hub is not asked.

    Raises:
        InputError: `directory` does not exist.
        FetchError: the manifest cannot be read.
    """
    _check_directory(directory)
    where = directory or default_directory()
    manifest, needed = read_manifest(where), wants(track, ())
    if not needed or manifest is None or problems(where, manifest, needed, deep=False):
        return track
    return _from_directory(track, where)


def _check_directory(directory: Path | None) -> None:
    if directory is not None and not directory.is_dir():
        raise InputError(f"--from {directory}: no such directory; name one that harness fetch --to DIR filled")


def _from_directory(track: Track, directory: Path) -> Track:
    source = str(directory / "model" / track.model.source)
    return msgspec.structs.replace(track, model=msgspec.structs.replace(track.model, source=source, revision=None))


def _command(track: Track, outside: Sequence[TaskFile], directory: Path | None) -> str:
    """The command that stages everything."""
    also = "".join(f" --source {file.name}" for file in outside)
    return f"harness fetch --track {argument_for(track.name)}{also}{f' --to {directory}' if directory else ''}"


def _no_network_no_retries() -> None:
    """Tell the hub's clients that no hub answers. Otherwise each tries for half a minute, for every data set."""
    import datasets  # noqa: PLC0415 - seconds to import
    from huggingface_hub import constants, get_session  # noqa: PLC0415

    try:
        get_session().head(constants.ENDPOINT, timeout=_ANSWER_S)
    except Exception:  # noqa: BLE001 - no answer, for any reason
        constants.HF_HUB_OFFLINE = True
        datasets.config.HF_HUB_OFFLINE = True


def _hub_problems(want: Want) -> list[str]:
    """The files of a repository that neither the hub nor its client's cache has. Afterwards model files are cached."""
    try:
        if want.kind == "dataset":
            import datasets  # noqa: PLC0415

            datasets.load_dataset_builder(want.repository, want.config, revision=want.revision)
            return []
        folder = _snapshot(want, want.revision)
    except Exception as problem:  # noqa: BLE001 - the client's own errors, for any of which there is no file
        file = "" if want.kind == "dataset" else f"{_NEEDED[0]} of "
        return [f"{file}{want}: neither staged nor cached, and it cannot be downloaded: {_first_line(problem)}"]
    missing = [name for name in _NEEDED if not (folder / name).is_file()]
    if not any((folder / name).is_file() for name in _WEIGHTS):
        missing.append(_WEIGHTS[0])
    return [f"{name} of {want}: neither staged nor cached, and not in the repository" for name in missing]


def _stage(directory: Path, folder: str, want: Want, manifest: Manifest) -> Part:
    """Download one part beside its place and move it there. Only then is it added to the manifest."""
    try:
        commit = _commit(want)
        partial = directory / _PARTIAL / commit / folder
        (_download_model if want.kind == "model" else _download_data)(want, commit, partial)
    except FetchError:
        raise
    except Exception as problem:
        raise FetchError(
            f"{want} cannot be fetched: {_first_line(problem)}. "
            "Complete files are kept; the same command goes on with the others"
        ) from problem
    part = Part(want, commit, {name: _described(partial / name) for name in _files(partial)})
    place = directory / folder
    if manifest.parts.pop(folder, None):
        _write(directory, manifest)
    if place.exists():
        shutil.rmtree(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    partial.rename(place)
    manifest.parts[folder] = part
    _write(directory, manifest)
    return part


def _commit(want: Want) -> str:
    from huggingface_hub import HfApi  # noqa: PLC0415 - only fetching needs it

    return str(HfApi().repo_info(want.repository, repo_type=want.kind, revision=want.revision).sha)


def _snapshot(want: Want, revision: str | None, local_dir: Path | None = None) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415

    options: dict[str, Any] = {"allow_patterns": list(MODEL_FILES), "ignore_patterns": ["*/*"]}
    return Path(snapshot_download(want.repository, revision=revision, local_dir=local_dir, **options))


def _download_model(want: Want, commit: str, partial: Path) -> None:
    _snapshot(want, commit, partial)
    shutil.rmtree(partial / ".cache", ignore_errors=True)  # the client's notes about a download that has finished
    missing = [name for name in _NEEDED if not (partial / name).is_file()]
    if missing or not any(partial.glob("*.safetensors")):
        lacking = missing[0] if missing else "*.safetensors file"
        raise FetchError(f"{want} has no {lacking}; a tokenizer.json and safetensors are needed, pickle is not read")


def _download_data(want: Want, commit: str, partial: Path) -> None:
    import datasets  # noqa: PLC0415

    cache = partial.parent / f"{partial.name}.cache"
    options = {"revision": commit, "cache_dir": str(cache)}
    tables = {s: datasets.load_dataset(want.repository, want.config, split=s, **options) for s in want.splits}
    shutil.rmtree(partial, ignore_errors=True)  # left by an interrupted write
    datasets.DatasetDict(tables).save_to_disk(str(partial))
    shutil.rmtree(cache, ignore_errors=True)


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _described(path: Path) -> StagedFile:
    with path.open("rb") as stream:
        return StagedFile(path.stat().st_size, hashlib.file_digest(stream, "sha256").hexdigest())


def _file_problem(path: Path, file: StagedFile, deep: bool) -> str | None:
    try:
        size = path.stat().st_size
        if size != file.size:
            return f"{path} has {size:,} bytes, {file.size:,} expected"
        if deep and (found := _described(path).sha256) != file.sha256:
            return f"{path}: sha256 {found}, {file.sha256} expected"
    except OSError:
        return f"{path} is missing"
    return None


def _write(directory: Path, manifest: Manifest) -> None:
    beside = directory / f".{MANIFEST}"
    beside.write_bytes(msgspec.json.format(msgspec.json.encode(manifest, order="deterministic"), indent=2) + b"\n")
    beside.replace(directory / MANIFEST)


def _first_line(problem: Exception) -> str:
    text = str(problem).strip().splitlines()
    return f"{type(problem).__name__}: {text[0] if text else ''}"


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Hold the directory's lock. The kernel releases it when the process ends.

    Raises:
        FetchError: another process holds it.
    """
    with (directory / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as problem:
            raise FetchError(f"another fetch is running in {directory}; wait for it, or use another --to") from problem
        yield
