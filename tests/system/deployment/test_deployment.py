"""What `examples/` says of deployment: files name what is there, and the Slurm script runs each cell once."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from evaluating import SEARCH
from outer_models import write_submission
from typer.testing import CliRunner

from harness.cli import app as cli
from harness.results.store import Store

ROOT = Path(__file__).resolve().parents[3]
SERVICE = ROOT / "examples" / "service"


def options(command: str) -> set[str]:
    return set(re.findall(r"(?<=\s)--[a-z-]+", command))


def test_every_option_of_serve_in_the_examples_exists() -> None:
    known = options(CliRunner().invoke(cli, ["serve", "--help"], env={"COLUMNS": "200"}).output)
    dockerfile = (SERVICE / "Dockerfile").read_text(encoding="utf-8")
    compose = yaml.safe_load((SERVICE / "compose.yaml").read_text(encoding="utf-8"))
    unit = (SERVICE / "harness.service").read_text(encoding="utf-8")
    entry = re.search(r"^ENTRYPOINT (.*)$", dockerfile, re.MULTILINE)
    start = re.search(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    assert entry is not None
    assert start is not None
    used = [entry[1].replace('"', " "), " ".join(["", *compose["services"]["service"]["command"]]), start[1]]
    for command in used:
        assert options(command)
        assert options(command) <= known, command


def test_files_that_the_examples_name_are_there() -> None:
    compose = yaml.safe_load((SERVICE / "compose.yaml").read_text(encoding="utf-8"))
    build = compose["services"]["service"]["build"]
    assert (SERVICE / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).is_file()
    named = [volume.split(":")[0] for each in compose["services"].values() for volume in each.get("volumes", ())]
    for name in named:
        assert (SERVICE / name).is_file() if name.startswith(".") else name in compose["volumes"], name
    install = (SERVICE / "install.sh").read_text(encoding="utf-8")
    assert (ROOT / "constraints.txt").is_file()
    extras = re.search(r"\$checkout\[([a-z,]+)\]", install)
    assert extras is not None
    assert {"service", "postgres"} <= set(extras[1].split(","))


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="no docker-compose on this machine")
def test_compose_understands_its_file_and_asks_for_what_it_is_not_given(tmp_path: Path) -> None:
    command = ["docker-compose", "--file", str(SERVICE / "compose.yaml"), "config"]
    bare = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    given = bare | {"POSTGRES_PASSWORD": "secret", "DOMAIN": "localhost"}
    done = subprocess.run(command, env=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    merged = yaml.safe_load(done.stdout)
    book = "postgresql+psycopg://harness@database/book"
    assert book in merged["services"]["service"]["command"]
    assert f"--book {book} --new-tokens" in (SERVICE / "compose.yaml").read_text(encoding="utf-8"), "the comment"
    refused = subprocess.run(command, env=bare, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "see the top of this file" in refused.stderr


@pytest.mark.parametrize("script", ["examples/service/install.sh", "examples/cluster/submit.sh"])
def test_scripts_are_shell(script: str) -> None:
    shell = "bash" if "submit" in script else "sh"
    done = subprocess.run([shell, "-n", ROOT / script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze on this machine")
def test_systemd_understands_the_unit() -> None:
    program = ["systemd-analyze", "verify", str(SERVICE / "harness.service")]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    wrong = [line for line in done.stderr.splitlines() if "harness.service" in line and "is not executable" not in line]
    assert not wrong


SBATCH = """#!/bin/bash
# Runs an array's jobs one after the other, as Slurm would on its machines.
for each; do case $each in --array=*) last=${each##*-};; esac; script=$each; done
for ((SLURM_ARRAY_TASK_ID = 1; SLURM_ARRAY_TASK_ID <= last; SLURM_ARRAY_TASK_ID++)); do
  export SLURM_ARRAY_TASK_ID SLURM_CPUS_PER_TASK=1
  bash "$script" || echo "job $SLURM_ARRAY_TASK_ID failed"
done
"""


@pytest.mark.slow
def test_the_slurm_script_runs_each_cell_once_and_jobs_go_on_where_they_were(tmp_path: Path, tiny_track: Path) -> None:
    """Three cells, two in a job; then the same jobs again."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "sbatch").write_text(SBATCH, encoding="utf-8")
    start = "import sys; from harness.cli import main; sys.exit(main())"
    (tools / "harness").write_text(f'#!/bin/bash\nexec {sys.executable} -c "{start}" "$@"\n', encoding="utf-8")
    for tool in tools.iterdir():
        tool.chmod(0o755)
    entry = write_submission(tmp_path / "submissions", SEARCH, "entry")
    env = os.environ | {"PATH": f"{tools}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}

    def run(*command: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            list(map(str, command)), cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )

    planned = run("harness", "plan", entry, "--track", tiny_track)
    assert planned.returncode == 0, planned.stderr
    (tmp_path / "cells.txt").write_text(planned.stdout, encoding="utf-8")
    assert len(planned.stdout.splitlines()) == 3
    submit = ("bash", ROOT / "examples/cluster/submit.sh", "cells.txt", 2, "--track", tiny_track)
    attempts = []
    for _ in range(2):
        done = run(*submit)
        assert done.returncode == 0, done.stderr
        assert "3 cells in 2 jobs of up to 2" in done.stdout
        assert "failed" not in done.stdout, done.stdout + done.stderr
        stores = [Store(str(tmp_path / "cells" / f"{job}.db"), create=False) for job in (1, 2)]
        cells = [[cell for run in store.runs() for cell in store.cells(run.id)] for store in stores]
        attempts.append([len(store.attempts(run.id)) for store in stores for run in store.runs()])
        for store in stores:
            store.close()
        assert sorted(map(len, cells)) == [1, 2]
        assert len({(cell.task, cell.split) for part in cells for cell in part}) == 3
    assert attempts[0] == attempts[1], "nothing ran twice"
    merged = run("harness", "merge", *sorted((tmp_path / "cells").glob("*.db")), "--into", "all.db")
    assert merged.returncode == 0, merged.stderr
    wrong = run("bash", ROOT / "examples/cluster/submit.sh", "cells.txt", "some")
    assert wrong.returncode == 2
    assert "some cells in a job" in wrong.stderr
