"""A pre-trained p0: trained with gradients, added by the server, and never ranked with runs that had none."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np
import pytest
import torch
from outer_models import WIDTH, write_submission
from rich.console import Console

from harness import cli
from harness.cli.console import err
from harness.contract import Prompt, Subspace
from harness.errors import DataError, InputError, QueryError
from harness.evaluation.overrides import Overrides
from harness.evaluation.predict import stored_answer
from harness.evaluation.pretrain import Pretraining, import_p0, load_source, pretrain, read_p0, write_p0
from harness.evaluation.progress import PlainProgress
from harness.evaluation.run import Evaluation
from harness.leaderboard.rank import rank
from harness.leaderboard.terminal import terminal_table
from harness.results.store import Store
from harness.sandbox.submission import find
from harness.solving.losses import cross_entropy
from harness.tracks.examples import Source, load_pool
from harness.tracks.tasks import load_task, outside_set
from harness.tracks.track import load_track

if TYPE_CHECKING:
    from harness.contract import FloatArray
    from harness.lm.model import LanguageModel

TOKENS = 2
TEXTS = (("a film", "a story"), ("How do I whistle?", "Who whistles, and why?"), ("yes", "no"))
HOW = Pretraining(rows=8, dev=4, epochs=20, eta=0.05, batch=8)


def values(seed: int = 0) -> FloatArray:
    return np.random.default_rng(seed).standard_normal((TOKENS, WIDTH)).astype(np.float32)


def logits(lm: LanguageModel, prompt: Any) -> FloatArray:
    task = load_task("snli").task("harness-2026", "masked")
    return lm.outputs(prompt, TEXTS, task.template, task.words, "mask").logits


def about(lm: LanguageModel, **changes: str) -> dict[str, str]:
    return {"mode": "add", "model": lm.name, "model_sha256": lm.sha256} | changes


@pytest.fixture(scope="module")
def mnli(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set in MNLI's columns whose label is one word of the hypothesis."""
    folder = tmp_path_factory.mktemp("sets")
    said = ("surely", "perhaps", "never")
    rows = {
        "premise": [f"a story with the number {n}" for n in range(60)],
        "hypothesis": [f"it is {said[n % 3]} the number {n}" for n in range(60)],
        "label": [n % 3 for n in range(60)],
    }
    table = datasets.Dataset.from_dict(rows)
    datasets.DatasetDict({"train": table, "validation_matched": table}).save_to_disk(str(folder / "mnli"))
    return folder


# ── on the server ────────────────────────────────────────────────────────────────────────────────────────────


def prompts() -> list[Any]:
    rng = np.random.default_rng(1)
    space = Subspace(5, (0.5, 0.2), TOKENS, seed=3)
    deep = rng.standard_normal((3, 2, TOKENS, WIDTH)).astype(np.float32)
    return [None, Prompt(deep), Prompt(deep[:1, :1, :1]), space.at(rng.standard_normal((4, 2, 5)))]


@pytest.mark.parametrize("prompt", prompts(), ids=["bare", "deep", "one token", "subspace"])
def test_a_p0_of_zeros_changes_nothing(tiny_lm: LanguageModel, prompt: Any) -> None:
    """Bit for bit."""
    zeros = tiny_lm.with_p0(np.zeros((TOKENS, WIDTH), dtype=np.float32))
    np.testing.assert_array_equal(logits(zeros, prompt), logits(tiny_lm, prompt))
    assert zeros.info(TEXTS, "{a} ? {mask} , {b}") == tiny_lm.info(TEXTS, "{a} ? {mask} , {b}")


def test_every_prompt_is_relative_to_p0(tiny_lm: LanguageModel) -> None:
    """p0 is added in layer 0 only, token by token. A shorter prompt uses p0's first tokens, the bare template none."""
    p0 = values()
    relative = tiny_lm.with_p0(p0)
    deep = prompts()[1].values
    moved = deep.copy()
    moved[:, 0] += p0
    np.testing.assert_array_equal(logits(relative, Prompt(deep)), logits(tiny_lm, Prompt(moved)))
    one = deep[:, :1, :1]
    np.testing.assert_array_equal(logits(relative, Prompt(one)), logits(tiny_lm, Prompt(one + p0[:1])))
    np.testing.assert_array_equal(logits(relative, None), logits(tiny_lm, None))
    assert np.abs(logits(relative, Prompt(deep)) - logits(tiny_lm, Prompt(deep))).max() > 1e-3
    coordinates = prompts()[3]
    assert np.abs(logits(relative, coordinates) - logits(tiny_lm, coordinates)).max() > 1e-3
    assert relative.info(TEXTS, "{a} {mask} {b}").hidden_std != tiny_lm.info(TEXTS, "{a} {mask} {b}").hidden_std


def test_a_prepended_prompt_is_relative_to_one_that_was_prepended(tiny_lm: LanguageModel) -> None:
    """Value by value, as in the paper."""
    relative, deep = tiny_lm.with_p0(values(), "prepend"), prompts()[1].values
    moved = deep.copy()
    moved[:, 0] += values()
    there = logits(relative, Prompt(deep, "prepend"))
    np.testing.assert_array_equal(there, logits(tiny_lm, Prompt(moved, "prepend")))
    np.testing.assert_array_equal(logits(relative, None), logits(tiny_lm, None))
    with pytest.raises(QueryError, match="p0 is for prompts in mode prepend, this one is in mode add"):
        logits(relative, Prompt(deep))


def test_a_prepended_prompt_cannot_be_relative_to_one_that_was_added(tiny_lm: LanguageModel) -> None:
    """It was trained on the embeddings of p0's tokens, which a prepended prompt does not have."""
    relative = tiny_lm.with_p0(values())
    for prompt in (
        Prompt(values()[None, None], mode="prepend"),
        Subspace(5, (1.0,), 2, 0, mode="prepend").at(np.ones(5)),
    ):
        logits(tiny_lm, prompt)
        with pytest.raises(QueryError, match="p0 is for prompts in mode add, this one is in mode prepend"):
            logits(relative, prompt)


# ── the file ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_written_is_read_back(tiny_lm: LanguageModel, tmp_path: Path) -> None:
    """The digest is that of the file; another value, another digest."""
    names = set()
    for seed in (0, 1):
        write_p0(tmp_path / "deep" / "p0.safetensors", values(seed), about(tiny_lm))
        found = read_p0(tmp_path / "deep" / "p0.safetensors", tiny_lm)
        np.testing.assert_array_equal(found.values, values(seed))
        names.add(found.name)
    assert len(names) == 2
    assert all(name.startswith("p0:") and len(name) == 19 for name in names)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["p0.safetensors"]


@pytest.mark.parametrize(
    ("array", "changes", "message"),
    [
        (values()[:1], {}, r"of shape \(1, 16\); finite float32 of shape \(2, 16\) expected"),
        (np.full((TOKENS, WIDTH), np.nan, dtype=np.float32), {}, "finite float32"),
        (values(), {"model_sha256": "other", "model": "big"}, "was trained on big"),
        (values(), {"mode": "inside"}, "in mode inside"),
    ],
    ids=["another length", "nan", "another model", "another mode"],
)
def test_a_prompt_for_something_else_is_refused(
    tiny_lm: LanguageModel, tmp_path: Path, array: FloatArray, changes: dict[str, str], message: str
) -> None:
    """The message names what the prompt is for."""
    write_p0(tmp_path / "p0.safetensors", array, about(tiny_lm, **changes))
    with pytest.raises(InputError, match=message):
        read_p0(tmp_path / "p0.safetensors", tiny_lm)


@pytest.mark.parametrize("content", [None, b"", b"nonsense", b"\xff" * 64])
def test_what_is_no_prompt_is_told(tiny_lm: LanguageModel, tmp_path: Path, content: bytes | None) -> None:
    """The message names the command that makes a prompt."""
    path = tmp_path / "p0.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match="harness pretrain-prompt"):
        read_p0(path, tiny_lm)
    with pytest.raises(InputError, match="--out"):
        write_p0(Path("/dev/null/p0"), values(), {})


# ── the training ─────────────────────────────────────────────────────────────────────────────────────────────


def test_training_lowers_the_loss_that_the_black_box_shows(tiny_lm: LanguageModel, mnli: Path) -> None:
    """The server adds the values that were trained on the weights. The same seed trains the same values."""
    file, shots = load_source(HOW, Source("hub", mnli))
    assert np.bincount(shots.train.labels).tolist() == [8, 8, 8]
    said: list[str] = []
    trained, facts = pretrain(tiny_lm, "harness-2026", file, shots, HOW, said.append)
    again, _ = pretrain(tiny_lm, "harness-2026", file, shots, HOW, said.append)
    np.testing.assert_array_equal(trained, again)
    assert trained.shape == (TOKENS, WIDTH)
    assert (facts["source"], facts["mode"], facts["model_sha256"]) == ("mnli", "add", tiny_lm.sha256)
    task = file.task("harness-2026", "masked")
    zero = Prompt(np.zeros((1, 1, TOKENS, WIDTH), dtype=np.float32))

    def loss(lm: LanguageModel) -> float:
        shown = lm.outputs(zero, shots.train.texts, task.template, task.words, "mask").logits
        return float(cross_entropy(shown, shots.train.labels)[0])

    assert loss(tiny_lm.with_p0(trained)) < loss(tiny_lm) - 0.05
    assert said
    assert all(line.startswith("loss ") for line in said)


def test_a_source_is_worded_as_snli_and_pinned_as_glue() -> None:
    """MNLI's labels are in SNLI's order: entailment, neutral, contradiction."""
    mnli, glue = outside_set("mnli"), load_task("qqp").hub
    assert mnli.profiles == load_task("snli").profiles
    assert [name.lower() for name in mnli.classes] == ["entailment", "neutral", "contradiction"]
    assert mnli.hub is not None
    assert glue is not None
    assert (mnli.hub.dataset, mnli.hub.config, mnli.hub.revision) == (glue.dataset, "mnli", glue.revision)


def test_a_source_that_cannot_be_had_is_told(mnli: Path, tmp_path: Path) -> None:
    """An unknown name, an impossible number, a directory without it, too few examples."""
    with pytest.raises(InputError, match="--source 'anli': choose one of mnli"):
        load_source(Pretraining("anli"), Source("hub", mnli))
    with pytest.raises(InputError, match="must be positive"):
        load_source(Pretraining(eta=float("nan")), Source("hub", mnli))
    with pytest.raises(DataError, match=r"nyu-mll/glue/mnli, split train cannot be loaded"):
        load_source(HOW, Source("hub", tmp_path))
    with pytest.raises(DataError, match="1000 \\+ 100 are needed"):
        load_source(Pretraining(rows=1000), Source("hub", mnli))


def test_the_whole_training_set_is_used_but_for_dev(mnli: Path) -> None:
    """As in the paper, where no size is given; no text is in both."""
    source = Source("hub", mnli)
    file, shots = load_source(Pretraining(dev=2), source)
    pool = load_pool(file, source)
    assert np.bincount(shots.dev.labels).tolist() == [2, 2, 2]
    assert len(shots.train) == sum(text not in shots.dev.texts for text in pool.texts)
    assert not set(shots.train.texts) & set(shots.dev.texts)


def test_a_prompt_to_prepend_is_trained_as_it_is_shown(tiny_lm: LanguageModel, mnli: Path, tmp_path: Path) -> None:
    """From the embeddings of p0's tokens, and the server puts it before the text."""
    file, shots = load_source(HOW, Source("hub", mnli))
    start, _ = pretrain(tiny_lm, "harness-2026", file, shots, replace(HOW, mode="prepend", eta=1e-12), lambda _: None)
    trained, facts = pretrain(tiny_lm, "harness-2026", file, shots, replace(HOW, mode="prepend"), lambda _: None)
    task = file.task("harness-2026", "masked")
    zero = Prompt(np.zeros((1, 1, TOKENS, WIDTH), dtype=np.float32), "prepend")
    losses = [
        float(cross_entropy(lm.outputs(zero, shots.train.texts, task.template, task.words, "mask").logits,
                            shots.train.labels)[0])
        for lm in (tiny_lm.with_p0(start, "prepend"), tiny_lm.with_p0(trained, "prepend"))
    ]  # fmt: skip
    assert losses[1] < losses[0] - 0.05
    write_p0(tmp_path / "p0", trained, facts)
    assert read_p0(tmp_path / "p0", tiny_lm).mode == "prepend"


@pytest.mark.parametrize("packed", [lambda t: t, lambda t: {"prompt": t[None]}, lambda t: {"n": torch.ones(3), "p": t}])
def test_a_prompt_of_another_program_is_imported(tiny_lm: LanguageModel, tmp_path: Path, packed: Any) -> None:
    """A tensor, or a dictionary with one; the file for --p0 says the mode and where it is from."""
    torch.save(packed(torch.from_numpy(values())), tmp_path / "nli.pt")
    write_p0(tmp_path / "p0", *import_p0(tmp_path / "nli.pt", tiny_lm, "prepend"))
    found = read_p0(tmp_path / "p0", tiny_lm)
    np.testing.assert_array_equal(found.values, values())
    assert found.mode == "prepend"


def test_a_file_with_code_or_another_shape_is_not_imported(tiny_lm: LanguageModel, tmp_path: Path) -> None:
    """Nothing of it runs."""
    torch.save({"p": torch.ones(3, 4)}, tmp_path / "shape.pt")
    with pytest.raises(InputError, match=r"one is expected; it holds \(3, 4\)"):
        import_p0(tmp_path / "shape.pt", tiny_lm, "prepend")
    torch.save({"p": Path("x")}, tmp_path / "code.pt")
    for path in (tmp_path / "code.pt", tmp_path / "none.pt"):
        with pytest.raises(InputError, match="no file of tensors alone"):
            import_p0(path, tiny_lm, "prepend")


def test_the_command_writes_what_an_evaluation_reads(
    mnli: Path,
    tiny_track: Path,
    tiny_lm: LanguageModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """From a data set on this disk, without a network."""
    path = tmp_path / "p0.safetensors"
    how = ("--rows", 4, "--dev", 2, "--epochs", 5, "--track", tiny_track, "--data", mnli, "--out", path)
    monkeypatch.setattr(sys, "argv", ["harness", "pretrain-prompt", *map(str, how)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code in {0, None}
    assert f"--p0 {path}" in capsys.readouterr().out.replace("\n", "")
    assert read_p0(path, tiny_lm).values.shape == (TOKENS, WIDTH)


# ── runs with it ─────────────────────────────────────────────────────────────────────────────────────────────

ANSWER = """
def tune(lm, task, shots, rng, config):
    zero = Prompt(np.zeros((1, 1, 2, 16), dtype=np.float32))
    loss = cross_entropy(lm.logits(zero, shots.train.texts), shots.train.labels)
    yield Answer.of(task, zero, loss=float(loss[0]))
"""


def evaluate(track: Path, folder: Path, store: Store, p0: Path | None) -> str:
    evaluation = Evaluation(load_track(str(track)), Overrides(p0=p0), store)
    with PlainProgress(err) as progress:
        return evaluation.run(find(write_submission(folder, ANSWER)), {}, progress)


def test_a_run_with_it_is_listed_as_external_and_never_ranked_with_pure_ones(
    tiny_track: Path, tiny_lm: LanguageModel, tmp_path: Path
) -> None:
    """Pair tasks are relative to p0, and other tasks do not change. With a p0 of zeros, no task changes."""
    store = Store(str(tmp_path / "results.db"))
    write_p0(tmp_path / "zeros", np.zeros((TOKENS, WIDTH), dtype=np.float32), about(tiny_lm))
    write_p0(tmp_path / "p0", 3 * values(), about(tiny_lm))
    runs = [evaluate(tiny_track, tmp_path, store, p0) for p0 in (None, tmp_path / "zeros", tmp_path / "p0")]
    assert len(set(runs)) == 3
    pure, zeros, moved = ({(c.task, c.split): c.record.note["loss"] for c in store.cells(run)} for run in runs)
    assert zeros == pure
    assert {cell for cell in pure if moved[cell] != pure[cell]} == {("qqp", 1)}
    for one, other in zip(store.cells(runs[0]), store.cells(runs[1]), strict=True):
        np.testing.assert_array_equal(one.predictions[1.0], other.predictions[1.0])
    ranking = rank(store, "tiny", load_track(str(tiny_track)).fingerprint)
    assert [(entry.rank, entry.run, entry.external) for entry in ranking.entries] == [(1, runs[0], "")]
    assert {entry.run: entry.rank for entry in ranking.elsewhere} == {runs[1]: None, runs[2]: None}
    assert all(entry.external.startswith("p0:") for entry in ranking.elsewhere)
    assert ranking.left_out == 0
    shown = Console(file=io.StringIO(), width=160)
    shown.print(terminal_table(ranking))
    assert shown.file.getvalue().count("with p0:") == 2  # type: ignore[attr-defined]
    assert stored_answer(store, "entry", "tiny", "qqp", 1, other_model=False) == store.answer(runs[0], "qqp", 1)
    store.close()


def test_it_is_refused_where_it_can_do_nothing(tiny_track: Path, tiny_lm: LanguageModel, tmp_path: Path) -> None:
    """Single-text tasks alone, and references, which start from p0 as it is."""
    store = Store(str(tmp_path / "results.db"))
    write_p0(tmp_path / "p0", values(), about(tiny_lm))
    with pytest.raises(InputError, match="none is chosen"):
        Evaluation(load_track(str(tiny_track)), Overrides(p0=tmp_path / "p0", tasks=("sst2",)), store)
    place = write_submission(tmp_path, 'access = "white-box"\ndef tune(lm, task, shots, rng, config):\n    yield None')
    evaluation = Evaluation(load_track(str(tiny_track)), Overrides(p0=tmp_path / "p0", white_box=True), store)
    with PlainProgress(err) as progress, pytest.raises(InputError, match="leave out --p0"):
        evaluation.run(find(place), {}, progress)
    store.close()
