"""The official track as an organiser runs it: `docs/official.md`, word for word, on miniatures of what it names.

A hub on this machine serves them under the real names and commits; every command runs in a process of its own.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import official_hub
import pytest
from fake_hub import serving

from harness.errors import FetchError
from harness.lm.load import load_tokens
from harness.tracks.staging import checked, read_manifest
from harness.tracks.tasks import load_task, outside_set
from harness.tracks.track import ModelSpec, load_track

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "official.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
COMMANDS = [line for kind, block in BLOCKS if not kind for line in block.splitlines() if line.startswith("harness ")]
"""Those in blocks marked ``sh`` need files that the page does not fetch."""
ON_THE_PAGE = "/media/staged"
NO_GPU = {
    "evaluate": "--device cpu --task dbpedia --task snli --split 3",
    "pretrain-prompt": "--device cpu --rows 4 --dev 2 --epochs 1",
}
"""What is added to a command here: no GPU, and two of 25 cells."""
FEW_CALLS = "--calls 30"


class Organiser:
    """Somebody in an empty directory, with nothing of the hub's in any cache."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "submissions").symlink_to(ROOT / "submissions")

    def types(self, line: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the page, or one like it."""
        words = shlex.split(line.replace(ON_THE_PAGE, str(self.folder / "staged")))
        assert words[0] == "harness"
        user = {
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": str(self.folder / "hf"),
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
        }
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "XDG_"))}
        return subprocess.run(
            [sys.executable, "-m", "harness.cli", *words[1:]],
            cwd=self.folder, env=inherited | user | environment, capture_output=True, text=True, check=False,
        )  # fmt: skip


@pytest.fixture(scope="module")
def organiser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Organiser]:
    """After the page's first command; the hub is gone."""
    root = official_hub.save(tmp_path_factory.mktemp("hub"))
    found = Organiser(tmp_path_factory.mktemp("organiser"))
    with serving(root) as hub:
        done = found.types(COMMANDS[0], HF_HUB_OFFLINE="0", HF_ENDPOINT=hub.url)
    assert done.returncode == 0, done.stderr
    yield found
    kept = found.folder / "cache" / "harness"
    assert [path.name for path in kept.glob("*")] in ([], ["plans"])  # --to and --from; nothing was fetched into it


def test_everything_the_track_and_pretrain_prompt_need_is_staged_at_its_commit(organiser: Organiser) -> None:
    """MNLI is beside the five, because the command says so."""
    manifest = read_manifest(organiser.folder / "staged")
    assert manifest is not None
    names = ("sst2", "dbpedia", "snli", "qqp", "qnli")
    assert set(manifest.parts) == {"model/FacebookAI/roberta-large", "data/mnli", *(f"data/{name}" for name in names)}
    assert manifest.parts["model/FacebookAI/roberta-large"].commit == load_track("official").model.revision
    assert manifest.parts["data/mnli"].want.splits == ("train", "validation_matched")
    for folder, part in manifest.parts.items():
        assert part.commit == part.want.revision, folder


def test_label_words_are_shown_as_they_are_read_where_the_tokenizer_is_at_hand(organiser: Organiser) -> None:
    """The first token of each: a single token of the model, as submissions see it."""
    staged = organiser.folder / "staged"
    tasks = json.loads(organiser.types(f"harness tasks --track official --from {staged} --json").stdout)
    words = {task["name"]: task["words"] for task in tasks}
    assert not any(task["words_as_written"] for task in tasks)
    assert {"Athl", "Vill", "Albu", "Company"} <= set(words["dbpedia"])
    assert words["snli"] == ["Yes", "Maybe", "No"]
    tokens = load_tokens(ModelSpec(str(staged / "model" / "FacebookAI" / "roberta-large"), "float32"))
    assert tokens is not None
    assert all(len(ids) == 1 for ids in tokens.word_ids(words["dbpedia"]))
    written = load_task("dbpedia").profiles["kit-2022"].masked.words
    assert tuple(words["dbpedia"]) == load_task("dbpedia").task("kit-2022", "masked", tokens).words != written


def test_mnli_that_is_not_staged_is_one_message_with_the_command_that_gets_it(
    organiser: Organiser, tmp_path: Path
) -> None:
    """Without a hub; from a directory that has all else, and from none."""
    partly = tmp_path / "partly"
    partly.mkdir()
    content = json.loads((organiser.folder / "staged" / "manifest.json").read_text(encoding="utf-8"))
    del content["parts"]["data/mnli"]
    (partly / "manifest.json").write_text(json.dumps(content), encoding="utf-8")
    (partly / "model").symlink_to(organiser.folder / "staged" / "model")
    for where, to in ((f" --from {partly}", f" --to {partly}"), ("", "")):
        done = organiser.types(f"harness pretrain-prompt --track official --device cpu --out p0{where}")
        assert done.returncode == 1
        assert done.stderr.count("error:") == 1
        assert "data set nyu-mll/glue (mnli)" in done.stderr
        assert f"harness fetch --track official --source mnli{to}\n" in done.stderr
        assert "Traceback" not in done.stderr
        assert not (organiser.folder / "p0").exists()
    with pytest.raises(FetchError, match=r"mnli\) is not staged\nRun: harness fetch --track official --source mnli"):
        checked(load_track("official"), partly, [outside_set("mnli")])


def upload(path: Path) -> None:
    """Predictions of two tasks, one class for all."""
    with zipfile.ZipFile(path, "w") as file:
        for name in ("SNLI/3.csv", "DBPedia/1.csv"):
            lines = (f"{n},{n % 3}\n" for n in range(official_hub.TEST_ROWS))
            file.writestr(name, ",pred\n" + "".join(lines))


@pytest.mark.slow
def test_the_page_can_be_typed_from_top_to_bottom_without_a_network(organiser: Organiser) -> None:
    """But for the first command, which fetched."""
    upload(organiser.folder / "team.zip")
    said: dict[str, str] = {}
    for line in COMMANDS[1:]:
        name = line.split()[1]
        more = [NO_GPU.get(name, ""), FEW_CALLS if name == "evaluate" and "manual" not in line else ""]
        done = organiser.types(" ".join([line, *more]))
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        said[line] = done.stdout
    assert [line.split()[1] for line in COMMANDS[1:]].count("evaluate") == 3
    shown = next(text for line, text in said.items() if line == "harness leaderboard --track official")
    assert "manual on cpu" in shown
    assert "team" in shown
    cost = next(text for line, text in said.items() if line.endswith("--cost"))
    assert "manual" in cost
    (predicted,) = (text for line, text in said.items() if line.startswith("harness predict"))
    assert len(predicted.splitlines()) == 14
