"""Presets: what they say reaches the Config, task by task; what is wrong in them is told with file and line."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from harness.errors import SubmissionError
from harness.sandbox import presets
from harness.sandbox.config_source import check_options
from harness.sandbox.submission import Submission, find, loaded

FOLDER = Path(__file__).resolve().parents[2] / "submissions"
SHIPPED = [
    (path.parent.name, name)
    for path in sorted(FOLDER.glob("*/presets.toml"))
    for name in presets.presets(find(path.parent))
]
CODE = """
from dataclasses import dataclass
@dataclass(frozen=True)
class Config:
    dim: int = 3
    loss: str = "ce"
def tune(lm, task, shots, rng, config):
    yield
"""
FILE = """
[first]
about = "made up"
calls = 100
options = { dim = 5 }
tasks.snli = { loss = "hinge" }
"""


@pytest.fixture
def submission(tmp_path: Path) -> Submission:
    """One with a preset."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "submission.py").write_text(CODE, encoding="utf-8")
    (folder / "presets.toml").write_text(FILE, encoding="utf-8")
    return find(folder)


@pytest.mark.parametrize(("name", "preset"), SHIPPED)
def test_every_preset_that_ships_is_accepted_and_changes_what_it_names(name: str, preset: str) -> None:
    """On every task; nothing changes that it does not name."""
    submission = find(FOLDER / name)
    check_options(submission, {"preset": preset})
    with loaded(submission.path, {}) as default:
        usual = dataclasses.asdict(default.config)
    chosen = presets.chosen(submission, {"preset": preset})
    assert chosen is not None
    for task in ("sst2", *chosen.tasks):
        given = presets.on_task(submission, {"preset": preset}, task)
        with loaded(submission.path, given) as solver:
            config = dataclasses.asdict(solver.config)
        assert set() < {key for key in config if config[key] != usual[key]} <= set(given)


def test_methods_with_a_publication_have_presets() -> None:
    """The names that the pages give."""
    assert {("bbt", "icml2022"), ("bbtv2", "emnlp2022"), ("bbt_rgb", "release2023"), ("ajo", "competition2022")} <= set(
        SHIPPED
    )
    losses = {t: presets.on_task(find(FOLDER / "bbt"), {"preset": "icml2022"}, t).get("loss", "ce") for t in
              ("sst2", "yelp", "agnews", "dbpedia", "mrpc", "rte", "snli")}  # fmt: skip
    assert {task for task, loss in losses.items() if loss == "hinge"} == {"mrpc", "rte", "snli"}


def test_what_is_given_beside_a_preset_goes_before_it(submission: Submission) -> None:
    """By task, then everywhere, then the Config's defaults."""
    on = presets.on_task
    assert on(submission, {"preset": "first"}, "sst2") == {"dim": "5"}
    assert on(submission, {"preset": "first"}, "snli") == {"dim": "5", "loss": "hinge"}
    assert on(submission, {"preset": "first", "dim": "7", "loss": "ce"}, "snli") == {"dim": "7", "loss": "ce"}
    assert on(submission, {"dim": "7"}, "snli") == {"dim": "7"}
    assert presets.variants(submission, {"preset": "first"}) == [{"dim": "5"}, {"dim": "5", "loss": "hinge"}]


def test_a_preset_lowers_the_budget_and_never_raises_it(submission: Submission) -> None:
    assert presets.most_calls(submission, {"preset": "first"}, 300) == 100
    assert presets.most_calls(submission, {"preset": "first"}, 50) == 50
    assert presets.most_calls(submission, {}, 300) == 300


def test_an_unknown_preset_lists_those_there_are(submission: Submission) -> None:
    with pytest.raises(SubmissionError, match=r"no preset 'second'; there are first \(made up\)"):
        presets.chosen(submission, {"preset": "second"})
    (submission.path / "presets.toml").unlink()
    with pytest.raises(SubmissionError, match=r"no preset 'first': no presets\.toml"):
        presets.chosen(find(submission.path), {"preset": "first"})


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("calls = 100", "calls = 0", r"presets\.toml:4: .*>= 1|presets\.toml:4"),
        ('about = "made up"', "", r"presets\.toml.*about"),
        ("dim = 5 }", "dim = [5] }", r"presets\.toml:5"),
        ("[first]", "[first", r"presets\.toml:\d+: not valid TOML"),
    ],
)
def test_a_bad_file_is_told_with_its_line(submission: Submission, old: str, new: str, says: str) -> None:
    (submission.path / "presets.toml").write_text(FILE.replace(old, new), encoding="utf-8")
    with pytest.raises(SubmissionError, match=says):
        presets.presets(find(submission.path))


def test_a_wrong_option_in_a_preset_is_refused_before_anything_runs(submission: Submission) -> None:
    (submission.path / "presets.toml").write_text(FILE.replace("dim = 5", "dims = 5"), encoding="utf-8")
    with pytest.raises(SubmissionError, match="no option 'dims'"):
        check_options(find(submission.path), {"preset": "first"})


def test_a_new_preset_makes_no_run_stale_and_a_changed_one_those_with_it(submission: Submission) -> None:
    """The file is no part of the submission's digest; what a preset says is part of a run's that has it."""
    plain, preset = presets.identity_sha256(submission, {}), presets.identity_sha256(submission, {"preset": "first"})
    assert plain == submission.sha256 != preset
    more = FILE + '\n[second]\nabout = "another"\n'
    (submission.path / "presets.toml").write_text(more, encoding="utf-8")
    again = find(submission.path)
    assert presets.identity_sha256(again, {}) == plain
    assert presets.identity_sha256(again, {"preset": "first"}) == preset
    (submission.path / "presets.toml").write_text(more.replace("dim = 5", "dim = 6"), encoding="utf-8")
    changed = find(submission.path)
    assert presets.identity_sha256(changed, {}) == plain
    assert presets.identity_sha256(changed, {"preset": "first"}) != preset
