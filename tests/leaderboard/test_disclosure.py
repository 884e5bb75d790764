"""What an entry was given and gives away is computed from its ledger and its answers, and is shown without a rank."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import outer_models
from typer.testing import CliRunner

from harness.cli import app
from harness.contract import Answer, Examples, Member, Shots
from harness.errors import InputError
from harness.leaderboard.disclosure import disclosure, in_clear, records, table
from harness.leaderboard.entries import Entry
from harness.tracks.examples import Source

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from outer_models import Arena

    from harness.leaderboard.disclosure import Disclosure

IN_CONTEXT = """
def tune(lm, task, shots, rng, config):
    shown = " ".join(text + " good." for (text,) in shots.train.texts[:3])
    lm.logits(None, shots.train.texts)
    yield Answer((Member(shown.replace("{", "").replace("}", "") + " " + task.template, task.words),))
"""
HEADS = """
def tune(lm, task, shots, rng, config):
    from harness import LinearHead
    space = Subspace(4, (1.0,), 2, seed=1)
    lm.outputs(None, shots.train.texts)
    lm.logits(space.at(np.ones((2, 4))), shots.train.texts)
    head = LinearHead(np.zeros((2, lm.info.width)), np.zeros(2))
    yield Answer((Member(task.template, task.words, space.at(np.ones(4)), head=head, alpha=0.5),))
"""
UNDER_WEIGHTS = """
def tune(lm, task, shots, rng, config):
    from harness import WeightSpace
    space = WeightSpace("biases", 2, 0.1, seed=1)
    lm.outputs(space.at(np.ones(2)), shots.train.texts)
    yield Answer.of(task)
"""
NOTHING = """
def tune(lm, task, shots, rng, config):
    yield Answer.of(task)
"""


def of(arena: Arena, body: str) -> Disclosure:
    ran = arena.run(body)
    assert ran.status == "ok", ran.record.detail
    entry = Entry(None, "entry", ran.stored.run, (), 0, {})
    return disclosure(arena.store, entry, arena.track, Source("embedded"))


def test_demonstrations_in_a_template_are_given_away(arena: Arena) -> None:
    found = of(arena, IN_CONTEXT)
    assert (found.in_clear, found.labelled) == (3, 16)
    assert found.given_away == "3 of 16"
    assert (found.words, found.dimensions, found.texts, found.states) == (2, 2, 8, False)
    assert found.stolen == "2"
    assert found.sent == "8 texts in clear, labels beside texts in templates"
    assert found.head_numbers == found.prompt_numbers == 0


def test_hidden_states_are_all_of_the_last_layer_and_stand_in_heads(arena: Arena) -> None:
    found = of(arena, HEADS)
    assert found.stolen == "all: hidden states"
    assert found.levels == (1, 3)
    assert found.sent == "8 texts in clear, prompts at the input, labels in no field"
    assert found.in_clear == 0
    assert found.head_numbers == 2 * outer_models.WIDTH + 2
    assert found.prompt_numbers == 4


def test_hidden_states_under_changed_weights_are_given_all_the_same(arena: Arena) -> None:
    """Such a query has level 5, and not the 3 of others that ask for states."""
    found = of(arena, UNDER_WEIGHTS)
    assert found.levels == (5,)
    assert found.states
    assert found.dimensions is None, "hidden states show all, however few words were asked about"
    assert found.stolen == "all: hidden states"
    assert found.sent == "8 texts in clear, changes of weights, labels in no field"


def test_who_asks_nothing_is_given_nothing(arena: Arena) -> None:
    found = of(arena, NOTHING)
    assert (found.stolen, found.given_away, found.sent) == ("0", "0 of 16", "nothing but its answer")
    (row,) = records([found], {})
    assert row["sent"] == "nothing but its answer"
    assert table([found], "title", {}).row_count == 1


def test_all_fields_of_a_text_must_stand_in_a_template() -> None:
    pairs = Examples((("a man sleeps", "he rests"), ("two dogs", "it rains")), [0, 1])  # type: ignore[arg-type]
    answer = Answer((Member("a man sleeps? he  rests two dogs {a} {mask} {b}", ("x", "y")),))
    assert in_clear(answer, Shots(pairs, pairs)) == 1


def test_the_command_reads_a_database_and_asks_no_model(tmp_path: Path, tiny_track: Path) -> None:
    entry = outer_models.write_submission(tmp_path, IN_CONTEXT, "shows")
    url = str(tmp_path / "results.db")
    run = ["evaluate", str(entry), "--track", str(tiny_track), "--task", "sst2", "--store", url]
    assert CliRunner().invoke(app, run).exit_code == 0
    asked = ["leaks", "stored", "--track", str(tiny_track), "--store", url]
    shown = CliRunner().invoke(app, asked)
    assert shown.exit_code == 0, shown.output
    assert "3 of 16" in shown.output
    (row,) = json.loads(CliRunner().invoke(app, [*asked, "--json"]).stdout)["stored"]
    assert (row["entry"], row["in_clear"], row["dimensions"]) == ("shows", 3, 2)
    none = CliRunner().invoke(app, ["leaks", "stored", "--track", "mini", "--store", url])
    assert isinstance(none.exception, InputError)


def test_cells_from_before_the_counts_are_bounded_by_their_ledger(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.blackbox.session.Session.asked", None)
    found = of(arena, IN_CONTEXT)
    assert found.words is None
    assert found.dimensions is None
    assert 2 <= found.numbers <= 8
    assert found.stolen.startswith("at most")


def test_templates_that_nobody_could_look_at_are_not_said_to_hold_no_label(arena: Arena) -> None:
    """In a published database answers have no bytes."""
    ran = arena.run(IN_CONTEXT)
    entry = Entry(None, "entry", ran.stored.run, (), 0, {})
    found = disclosure(arena.store, entry, arena.track, Source("hub"))
    assert found.in_clear is None
    assert found.sent == "8 texts in clear, labels in no field, templates not at hand"
