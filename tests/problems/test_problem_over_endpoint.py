"""`harness.problem` where the model is on a server: text is searched, metered and billed; soft prompts are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from endpoints import CALLS, SECRET, TRAIN, fake_server, save_track
from typer.testing import CliRunner

import harness
from harness.cli import app
from harness.errors import BudgetExhausted, InputError
from harness.lm.endpoint.requests import KEY
from harness.results.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fake_openai_server import FakeServer

TEMPLATES = ("{a} . It was{mask}", "no , {a} . It was{mask}", "a film : {a} . It was{mask}")


@pytest.fixture(scope="module")
def track(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See `endpoints.save_track`."""
    return save_track(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def server(track: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    """See `endpoints.fake_server`."""
    monkeypatch.setenv(KEY, SECRET)
    with fake_server(track) as made:
        yield made


def over(server: FakeServer, track: Path, **more: Any) -> Any:
    """A problem whose model is on the server."""
    return harness.problem("sst2", track=str(track), backend="openai", endpoint=server.url, **more)


def test_templates_are_searched_over_a_server(server: FakeServer, track: Path, tmp_path: Path) -> None:
    store = str(tmp_path / "r.db")
    with over(server, track, space="template", templates=TEMPLATES, store=store, name="all") as problem:
        assert problem.bounds.tolist() == [[0, 2]]
        losses = [problem([n]) for n in range(3)]
        assert len(set(losses)) == 3
        with pytest.raises(BudgetExhausted):
            problem([0])
        asked = len(server.asked)
        score = problem.test_score()
        assert 0 <= score <= 1
    kept = Store(store)
    (run,) = kept.runs()
    (cell,) = kept.cells(run.id)
    kept.close()
    assert run.key.device.startswith("endpoint llama.cpp b1, tiny-model")
    assert (cell.record.rows_spent, cell.record.queries) == (CALLS * TRAIN, 3)
    assert cell.record.billed is not None
    assert (cell.record.billed.sent, cell.record.billed.received) == (cell.record.tokens, CALLS * TRAIN)
    marks = len(server.asked) - asked  # those of the fingerprint, too
    assert cell.record.billed.test_received % len(cell.labels) == 0
    assert 0 < cell.record.billed.test_received <= marks
    assert SECRET.encode() not in (tmp_path / "r.db").read_bytes()


def test_its_losses_are_those_of_the_server_s_numbers(server: FakeServer, track: Path) -> None:
    with over(server, track, space="words", words=((" bad", " no"), (" great",))) as problem:
        losses = problem(np.array([[0.0], [1.0]]))
        cell = problem._cell
        texts, labels = cell.shots.train.texts, cell.shots.train.labels
        for loss, first in zip(losses, (" bad", " no"), strict=True):
            out = cell._model.outputs(None, texts, cell.task.template, (first, " great"), "mask")
            assert loss == pytest.approx(float(harness.cross_entropy(out.logits, labels)[0]))


@pytest.mark.parametrize("space", ["input", "deep", "mixed"])
def test_a_space_with_soft_prompts_is_refused_with_what_to_take(server: FakeServer, track: Path, space: Any) -> None:
    with pytest.raises(InputError, match=r'it is an endpoint that gives text alone\. Take space="words"'):
        over(server, track, space=space)
    assert all(body.get("n_probs") for _, body in server.asked), "nothing beyond the probe was asked"


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"endpoint": "http://127.0.0.1:1"}, "--endpoint names a server"),
        ({"backend": "openai"}, "name it with --endpoint"),
        ({"backend": "openai", "endpoint": "http://127.0.0.1:1", "concurrency": 0}, "--concurrency 0"),
        ({"url": "http://a", "endpoint": "http://b", "backend": "openai"}, "leave out backend, endpoint"),
    ],
)
def test_arguments_that_do_not_go_together(track: Path, given: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError, match=why):
        harness.problem("sst2", track=str(track), space="words", **given)


def test_a_suite_of_optimizers_runs_over_a_server(server: FakeServer, track: Path, tmp_path: Path) -> None:
    command = ["bench", "--optimizers", "random", "--space", "words", "--track", str(track), "--logs", "none", "--json"]
    command += ["--backend", "openai", "--endpoint", server.url, "--out", str(tmp_path / "out")]
    shown = CliRunner().invoke(app, [*command, "--store", str(tmp_path / "b.db")])
    assert shown.exit_code != 0, "the tiny vocabulary has too few words to draw from"
    assert "the vocabulary has" in " ".join(str(shown.exception or shown.output).split())
