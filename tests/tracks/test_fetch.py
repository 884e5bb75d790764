"""A part is staged completely or not at all, fetched once, and used without a network afterwards.

The hub's own clients are used as users use them: in processes of their own, told by environment variables.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import pytest
from fake_hub import COMMIT, Hub, serving
from outer_models import TRACK, write_submission

from harness.errors import FetchError, InputError
from harness.tracks.staging import Manifest, at_hand, checked, default_directory, fetch, problems, read_manifest, wants
from harness.tracks.track import load_track

if TYPE_CHECKING:
    from collections.abc import Iterator

CARD = """---
configs:
- config_name: {config}
  data_files:
  - split: train
    path: {config}/train-*
  - split: validation
    path: {config}/validation-*
---
"""
MODEL = "owner/tiny"
NOWHERE = "http://127.0.0.1:9"
"""The discard port: nothing listens."""


class Place:
    """A hub, a track that needs it, and a user's own folders."""

    def __init__(self, folder: Path, hub: Hub) -> None:
        self.folder, self.hub, self.staged = folder, hub, folder / "cache" / "harness"
        folder.mkdir(parents=True, exist_ok=True)
        text = TRACK.format(model=MODEL).partition("[tasks.qqp]")[0]
        text = text.replace('source = "embedded"', 'source = "hub"').replace("splits = [1, 2]", "splits = [1]")
        self.track = folder / "tiny.toml"
        self.track.write_text(text, encoding="utf-8")

    def harness(self, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command in a process of its own; an option given in `environment` replaces the user's."""
        user = {
            "HF_ENDPOINT": self.hub.url,
            "HF_HOME": str(self.folder / "hf"),
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "OMP_NUM_THREADS": "1",
        }
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "XDG_"))}
        command = [sys.executable, "-m", "harness.cli", *map(str, arguments)]
        return subprocess.run(
            command, cwd=self.folder, env=inherited | user | environment, capture_output=True, text=True, check=False
        )

    def fetch(self, *more: object) -> subprocess.CompletedProcess[str]:
        """`harness fetch` of the track."""
        return self.harness("fetch", "--track", self.track, *more)

    def evaluate(self, *more: object, **environment: str) -> subprocess.CompletedProcess[str]:
        """`harness evaluate` of the bare template."""
        entry = write_submission(self.folder, "def tune(lm, task, shots, rng, config):\n    yield Answer.of(task)")
        return self.harness("evaluate", entry, "--track", self.track, "--json", *more, **environment)


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory, tiny_track: Path) -> Path:
    """A model with pickled weights beside its own, and a data set in the hub's usual layout."""
    root = tmp_path_factory.mktemp("hub")
    model = root / "models" / MODEL
    shutil.copytree(tiny_track.parent / "model", model)
    (model / "pytorch_model.bin").write_bytes(b"never to be read")
    (model / "modeling.py").write_text("raise SystemExit('remote code ran')\n", encoding="utf-8")
    (model / "onnx").mkdir()
    (model / "onnx" / "config.json").write_text("{}", encoding="utf-8")
    glue = root / "datasets" / "nyu-mll" / "glue"
    (glue / "sst2").mkdir(parents=True)
    (glue / "README.md").write_text(CARD.format(config="sst2"), encoding="utf-8")
    for split in ("train", "validation"):
        rows = {"sentence": [f"{split} text {n}" for n in range(24)], "label": [n % 2 for n in range(24)]}
        datasets.Dataset.from_dict(rows).to_parquet(str(glue / "sst2" / f"{split}-00000-of-00001.parquet"))
    return root


@pytest.fixture(scope="module")
def fetched(repositories: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A track that was fetched once; the hub is gone."""
    with serving(repositories) as hub:
        place = Place(tmp_path_factory.mktemp("user"), hub)
        done = place.fetch()
        assert done.returncode == 0, done.stderr
        assert "is whole" in done.stdout
    return place


@pytest.fixture
def copied(fetched: Place, tmp_path: Path, repositories: Path) -> Iterator[Place]:
    """A copy of the fetched track, to be damaged, and a hub that is there."""
    with serving(repositories) as hub:
        shutil.copytree(fetched.folder / "cache", tmp_path / "user" / "cache")
        yield Place(tmp_path / "user", hub)


def manifest_of(place: Place) -> Manifest:
    manifest = read_manifest(place.staged)
    assert manifest is not None
    return manifest


def test_the_manifest_names_each_file_as_it_is(fetched: Place) -> None:
    """Repository, commit, size and sha256; nothing of the repository that is code, pickle or in a folder."""
    manifest = manifest_of(fetched)
    assert set(manifest.parts) == {f"model/{MODEL}", "data/sst2"}
    for folder, part in manifest.parts.items():
        assert len(part.commit) == 40
        found = {
            str(p.relative_to(fetched.staged / folder)) for p in (fetched.staged / folder).rglob("*") if p.is_file()
        }
        assert found == set(part.files)
        for name, file in part.files.items():
            content = (fetched.staged / folder / name).read_bytes()
            assert (len(content), hashlib.sha256(content).hexdigest()) == (file.size, file.sha256)
    model = manifest.parts[f"model/{MODEL}"]
    assert model.commit == COMMIT
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= set(model.files)
    assert not [name for name in model.files if name.endswith((".bin", ".py")) or "/" in name]
    assert set(datasets.load_from_disk(str(fetched.staged / "data" / "sst2"))) == {"train", "validation"}
    assert not (fetched.staged / ".partial").exists()


def test_what_was_fetched_is_evaluated_with_the_network_off(copied: Place) -> None:
    """From the default place; then carried elsewhere, as the same run, and a hub that is there is not asked."""
    off = {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": NOWHERE}
    done = copied.evaluate(**off)
    assert done.returncode == 0, done.stderr
    cell = json.loads(done.stdout.splitlines()[2])
    assert (cell["task"], cell["status"], cell["stored"]) == ("sst2", "ok", True)
    copied.staged.rename(copied.folder / "carried")
    again = copied.evaluate("--from", copied.folder / "carried")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout.splitlines()[1])["finished"] == 1  # the run that is there, and nothing to do
    assert copied.hub.seen == []
    assert not (copied.folder / "hf" / "hub").exists()


def test_a_second_fetch_asks_the_hub_nothing(copied: Place) -> None:
    """It reads what is there, and says so."""
    done = copied.fetch()
    assert done.returncode == 0
    assert done.stdout.count("there: ") == 2
    assert copied.hub.seen == []


def test_a_damaged_file_is_found_and_its_part_alone_fetched_again(copied: Place) -> None:
    """`--check` reads every byte and needs no hub; a fetch mends."""
    weights = copied.staged / "model" / MODEL / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    done = copied.fetch("--check")
    assert done.returncode == 1
    assert "model.safetensors: sha256" in done.stderr
    assert "harness fetch" in done.stderr
    assert copied.hub.seen == []
    assert copied.fetch().returncode == 0
    assert "model.safetensors" in copied.hub.downloads()
    assert not [path for path in copied.hub.seen if "/datasets/" in path]
    assert copied.fetch("--check").returncode == 0


def test_a_download_that_breaks_off_leaves_nothing_half_written_and_is_taken_up(
    repositories: Path, tmp_path: Path
) -> None:
    """Complete files are not downloaded again."""
    with serving(repositories) as hub:
        place = Place(tmp_path / "user", hub)
        hub.cut["model.safetensors"] = 1000
        done = place.fetch()
        assert done.returncode == 1, done.stdout
        assert "the same command goes on" in done.stderr
        assert "Traceback" not in done.stderr
        assert read_manifest(place.staged) is None
        assert not (place.staged / "model").exists()
        hub.cut.clear()
        hub.seen.clear()
        done = place.fetch()
        assert done.returncode == 0, done.stderr
        assert "model.safetensors" in hub.downloads()
        assert "tokenizer.json" not in hub.downloads()
    assert not problems(place.staged, manifest_of(place), wants(load_track(str(place.track)), ["sst2"]), deep=True)


@pytest.mark.parametrize(
    "off",
    [{"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}, {"HF_ENDPOINT": NOWHERE}],
    ids=["told to stay off line", "no hub answers"],
)
def test_without_hub_and_cache_there_is_one_error_before_any_work(fetched: Place, off: dict[str, str]) -> None:
    """It names each file and repository, and the command that gets them."""
    nothing = {"HF_HOME": str(fetched.folder / "empty"), "XDG_CACHE_HOME": str(fetched.folder / "none")}
    done = fetched.evaluate("--store", "fresh.db", **nothing, **off)
    assert done.returncode == 1
    assert done.stderr.count("error:") == 1
    assert "Traceback" not in done.stderr
    for fact in (
        f"config.json of model {MODEL}",
        "data set nyu-mll/glue (sst2)",
        "harness fetch --track tiny.toml",
        "--from",
    ):
        assert fact in done.stderr, done.stderr
    assert done.stdout == ""


@pytest.mark.slow
def test_what_the_hubs_client_has_cached_serves_offline(repositories: Path, tmp_path: Path) -> None:
    """Filled once by an ordinary evaluation on line, in the HF_HOME the user has set."""
    with serving(repositories) as hub:
        place = Place(tmp_path / "user", hub)
        assert place.evaluate().returncode == 0
    done = place.evaluate("--store", "other.db", HF_HUB_OFFLINE="1", HF_ENDPOINT=NOWHERE)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[2])["status"] == "ok"


@pytest.mark.parametrize(
    ("missing", "message"), [("model.safetensors", "no *.safetensors file"), ("tokenizer.json", "no tokenizer.json")]
)
def test_a_repository_that_lacks_what_is_needed_is_refused(
    repositories: Path, tmp_path: Path, missing: str, message: str
) -> None:
    """Pickled weights are no weights."""
    shutil.copytree(repositories, tmp_path / "hub")
    (tmp_path / "hub" / "models" / MODEL / missing).unlink()
    with serving(tmp_path / "hub") as hub:
        place = Place(tmp_path / "user", hub)
        done = place.fetch()
    assert done.returncode == 1
    assert message in done.stderr
    assert read_manifest(place.staged) is None


def test_a_repository_the_hub_does_not_have_is_told(repositories: Path, tmp_path: Path) -> None:
    """So is a revision; nothing else is tried."""
    with serving(repositories) as hub:
        place = Place(tmp_path / "user", hub)
        text = place.track.read_text(encoding="utf-8")
        place.track.write_text(text.replace(MODEL, "owner/absent"), encoding="utf-8")
        done = place.fetch()
        assert done.returncode == 1
        assert "model owner/absent cannot be fetched" in done.stderr


# ── in this process ──────────────────────────────────────────────────────────────────────────────────────────


def test_the_default_place_is_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """XDG_CACHE_HOME where it is set, else ~/.cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_directory() == tmp_path / "harness"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_directory() == tmp_path / ".cache" / "harness"


def test_a_track_that_needs_no_hub_is_left_as_it_is(tmp_path: Path) -> None:
    """Nothing is looked up, and a fetch says that there is nothing to fetch."""
    track = load_track("mini")
    assert wants(track, track.tasks) == {}
    assert at_hand(track, tmp_path, track.tasks) == (track, None)
    with pytest.raises(FetchError, match="needs nothing from the hub"):
        fetch(track, tmp_path, print)
    with pytest.raises(InputError, match="nowhere: no such directory"):
        at_hand(track, tmp_path / "nowhere", track.tasks)


def test_the_official_track_wants_its_model_and_five_data_sets() -> None:
    """Each with the revision the files state."""
    track = load_track("official")
    found = wants(track, track.tasks)
    assert found["model/FacebookAI/roberta-large"].revision == track.model.revision
    assert {folder for folder in found if folder.startswith("data/")} == {f"data/{name}" for name in track.tasks}
    assert found["data/sst2"].splits == ("train", "validation")
    assert wants(track, ["snli"]).keys() == {"model/FacebookAI/roberta-large", "data/snli"}


def test_staged_data_of_another_revision_do_not_serve(copied: Place) -> None:
    """A track file that names another revision needs another fetch."""
    text = copied.track.read_text(encoding="utf-8")
    copied.track.write_text(text.replace(f'"{MODEL}"', f'"{MODEL}"\nrevision = "{"b" * 40}"'), encoding="utf-8")
    track = load_track(str(copied.track))
    with pytest.raises(FetchError, match=r"staged with another revision(.|\n)*harness fetch --track tiny.toml --to"):
        at_hand(track, copied.staged, ["sst2"])


def test_what_is_staged_takes_the_place_of_the_hub(copied: Place) -> None:
    """The model is a local directory of the repository's name, so that runs are told apart by weights alone."""
    track, data = at_hand(load_track(str(copied.track)), copied.staged, ["sst2"])
    assert Path(track.model.source) == copied.staged / "model" / MODEL
    assert Path(track.model.source).name == "tiny"
    assert data == copied.staged / "data"


@pytest.mark.parametrize("missing", ["manifest.json", f"model/{MODEL}/config.json", "data/sst2/dataset_dict.json"])
def test_a_directory_that_is_not_whole_is_refused_by_name(copied: Place, missing: str) -> None:
    """The file is named; so is the command that mends."""
    (copied.staged / missing).unlink()
    with pytest.raises(FetchError) as problem:
        at_hand(load_track(str(copied.track)), copied.staged, ["sst2"])
    assert Path(missing).name in str(problem.value)
    assert f"harness fetch --track tiny.toml --to {copied.staged}" in str(problem.value)
    with pytest.raises(FetchError, match="is not complete"):
        checked(load_track(str(copied.track)), copied.staged)


def test_a_manifest_that_is_none_is_told(tmp_path: Path) -> None:
    """It is not treated as empty, because all its files would be fetched again."""
    (tmp_path / "manifest.json").write_text("{", encoding="utf-8")
    with pytest.raises(FetchError, match="delete it"):
        read_manifest(tmp_path)


def test_one_fetch_at_a_time(copied: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock is the kernel's: it ends with the process."""
    track, said = load_track(str(copied.track)), list[Any]()

    def meanwhile(line: str) -> None:
        said.append(line)
        with pytest.raises(FetchError, match="another fetch is running"):
            fetch(track, copied.staged, print)

    fetch(track, copied.staged, meanwhile)
    assert len(said) == 2


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """With the option that names another."""
    (tmp_path / "file").write_text("")
    with pytest.raises(FetchError, match="--to DIR"):
        fetch(load_track("official"), tmp_path / "file", print)
