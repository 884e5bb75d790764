"""The white-box references: each trains what it says, and nothing else."""

from __future__ import annotations

from dataclasses import astuple, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from made_up import key

from harness.contract import Prompt
from harness.errors import SubmissionError
from harness.evaluation.referee import Cell, run_reference
from harness.evaluation.white_box import WhiteBox
from harness.lm.load import load_model
from harness.results.store import Store
from harness.sandbox.submission import find, loaded
from harness.tracks.examples import Source, load_shots
from harness.tracks.tasks import load_task
from harness.tracks.track import load_track

if TYPE_CHECKING:
    from outer_models import Arena

    from harness.contract import Shots

FOLDER = Path(__file__).resolve().parents[2] / "submissions"
REFERENCES = ("prompt_tuning", "p_tuning_v2", "model_tuning", "lora", "bitfit")
FEW: dict[str, dict[str, str]] = {name: {"epochs": "12"} for name in REFERENCES} | {
    "p_tuning_v2": {"epochs": "12", "length": "5"}
}
PUBLISHED = {  # eta, batch, epochs, patience at 24 layers; those of lora and bitfit are this project's
    "prompt_tuning": (5e-4, 16, 1000, 1000),
    "p_tuning_v2": (5e-4, 32, 2000, 1000),
    "model_tuning": (1e-5, 16, 200, 1000),
    "lora": (5e-4, 16, 200, 1000),
    "bitfit": (5e-4, 16, 200, 1000),
}
COUNTS = [(name, option) for name in REFERENCES for option in ("batch", "epochs", "patience")]
COUNTS += [("p_tuning_v2", "length"), ("lora", "rank")]


def opened(arena: Arena) -> tuple[WhiteBox, Cell, Shots]:
    cell = arena.cell()
    shots = load_shots(cell.file, cell.source, cell.split, cell.spec)
    return WhiteBox(arena.lm, cell.task, shots.train.texts), cell, shots


def trained(arena: Arena, name: str, **options: str) -> tuple[WhiteBox, list[Any], dict[str, torch.Tensor]]:
    """A reference run on the tiny model: the model, its predictors, and the weights from before."""
    white, cell, shots = opened(arena)
    before = {n: p.detach().clone() for n, p in white.module.named_parameters()}
    with torch.random.fork_rng(), loaded(FOLDER / name, FEW[name] | options) as solver:
        torch.manual_seed(0)
        given = list(solver.tune(white, cell.task, shots, np.random.default_rng(0), solver.config))
    return white, given, before


def changed(white: WhiteBox, before: dict[str, torch.Tensor]) -> set[str]:
    now = {n.replace(".base_layer", ""): p for n, p in white.module.named_parameters()}
    return {name for name, value in before.items() if not torch.equal(now[name], value)}


@pytest.mark.parametrize("name", REFERENCES)
def test_it_declares_itself_and_has_a_page(name: str) -> None:
    """Statically, so that nobody runs it by mistake."""
    assert find(FOLDER / name).access == "white-box"
    assert "never ranked" in (FOLDER / name / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", REFERENCES)
def test_it_runs_to_a_score_and_the_same_seed_gives_the_same(arena: Arena, name: str) -> None:
    """Through the referee, on the tiny random model."""
    histories, predictions = [], []
    for entry in ("first", "again"):
        run = arena.store.open_run(key(entry, access="white-box"), {})
        cell = arena.cell()
        attempt = arena.store.begin(run, cell.task.name, cell.split)
        verdict = run_reference(cell, find(FOLDER / name), FEW[name], arena.lm, attempt, lambda _rows, _note: None)
        assert (verdict.status, verdict.record.detail) == ("ok", "")
        (stored,) = arena.store.cells(run)
        histories.append(stored.record.history)
        predictions.append(stored.predictions[1.0].tolist())
    assert histories[0] == histories[1]
    assert len(histories[0]) > 1
    assert predictions[0] == predictions[1]


def handed(
    arena: Arena, monkeypatch: pytest.MonkeyPatch, name: str, layers: int = 24, tokens: int = 50, **options: str
) -> tuple[WhiteBox, list[torch.nn.Parameter], tuple[float, ...]]:
    """What a reference hands to `fit` on a model that says it has so many layers: parameters, and recipe."""
    white, cell, shots = opened(arena)
    white.info = replace(white.info, layers=layers, prompt_tokens=tokens)
    given: list[Any] = []

    def fit(parameters: Any, _shots: Any, _rng: Any, recipe: Any, prompted: bool = False) -> Any:
        given.append((list(parameters), recipe, prompted))
        return iter(())

    monkeypatch.setattr(white, "fit", fit)
    with loaded(FOLDER / name, options) as solver:
        assert list(solver.tune(white, cell.task, shots, np.random.default_rng(0), solver.config)) == []
    ((parameters, recipe, prompted),) = given
    assert prompted == (name == "prompt_tuning")
    return white, parameters, astuple(recipe)


@pytest.mark.parametrize("name", REFERENCES)
def test_it_trains_as_published(arena: Arena, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """On 24 layers with prompts of 50 tokens, RoBERTa-large's numbers; on other models epochs and patience scale."""
    _, _, recipe = handed(arena, monkeypatch, name)
    eta, batch, epochs, patience = PUBLISHED[name]
    assert recipe == (eta, batch, epochs, patience)
    _, _, scaled = handed(arena, monkeypatch, name, layers=6, tokens=8)
    assert scaled == (eta, batch, epochs // 4, patience // 4)


def test_prompts_are_as_long_as_published(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    """50 tokens at the input, 128 keys and values at each layer; with 8 tokens 8, and 20 in place of 128."""
    for tokens, expected in ((50, 128), (8, 20)):
        white, prefixes, _ = handed(arena, monkeypatch, "p_tuning_v2", tokens=tokens)
        assert [tuple(p.shape) for p in prefixes] == 2 * len(white.layers) * [(expected, white.info.width)]
        _, (prompt,), _ = handed(arena, monkeypatch, "prompt_tuning", tokens=tokens)
        assert tuple(prompt.shape) == (tokens, white.info.width)


def test_lora_has_rank_8_and_a_weight_of_2(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its alpha of 16 over its rank."""
    white, factors, _ = handed(arena, monkeypatch, "lora")
    assert {min(p.shape) for p in factors} == {8}
    assert {module.scaling["default"] for module in white.module.modules() if hasattr(module, "lora_A")} == {2.0}


@pytest.mark.parametrize(("name", "option"), COUNTS)
def test_counts_below_one_are_refused_and_one_is_taken(
    arena: Arena, monkeypatch: pytest.MonkeyPatch, name: str, option: str
) -> None:
    """An explicit 0 is not treated as a missing value."""
    for value in ("0", "-1"):
        with (
            pytest.raises(SubmissionError, match=f"option {option}='{value}': .*>= 1"),
            loaded(FOLDER / name, {option: value}),
        ):
            pass
    _, parameters, (_, *counts) = handed(arena, monkeypatch, name, **{option: "1"})
    found = dict(zip(("batch", "epochs", "patience"), counts, strict=True))
    assert found.get(option, min(parameters[0].shape)) == 1


@pytest.mark.parametrize("name", ["prompt_tuning", "p_tuning_v2"])
def test_prompts_leave_all_weights_as_they_are(arena: Arena, name: str) -> None:
    """Only the prompt is learned."""
    white, given, before = trained(arena, name, eta="0.05")
    assert changed(white, before) == set()
    assert len(given) > 1


def test_bitfit_trains_every_bias_and_nothing_else(arena: Arena) -> None:
    """Those of the head and the layer norms, too; a bias of zero gradient (of keys) may stay."""
    white, _, before = trained(arena, "bitfit", eta="0.05")
    biases = {name for name in before if name.endswith("bias")}
    found = changed(white, before)
    assert found <= biases
    assert {name for name in biases - found if ".key." not in name} == set()


def test_model_tuning_trains_everything(arena: Arena) -> None:
    """Embeddings, layers and head; word types that do not occur are the only rows that might stay."""
    white, _, before = trained(arena, "model_tuning", eta="0.01")
    assert {name for name in before if name not in changed(white, before)} <= {
        name for name in before if name.endswith("key.bias")
    }


def test_lora_starts_as_the_model_and_trains_its_factors_alone(arena: Arena) -> None:
    """B = 0 at first; rank x (inputs + outputs) numbers for query and value of each layer."""
    bare, _, shots = opened(arena)
    white, given, before = trained(arena, "lora", rank="2", eta="0.05")
    factors = {name: p for name, p in white.module.named_parameters() if p.requires_grad}
    assert all("lora_" in name for name in factors)
    assert sum(p.numel() for p in factors.values()) == 2 * (16 + 16) * 2 * white.info.layers
    assert changed(white, before) == set()
    np.testing.assert_allclose(
        np.log(given[0](shots.dev.texts)), log_softmax(bare.predicted(shots.dev.texts)), atol=1e-5
    )


def log_softmax(logits: Any) -> Any:
    from harness import log_softmax as of

    return of(logits)


def test_the_tuned_prompt_is_what_the_black_box_shows_in_mode_add(arena: Arena) -> None:
    """The values found by gradients, sent as a `Prompt`, give the same logits."""
    white, cell, shots = opened(arena)
    with loaded(FOLDER / "prompt_tuning", {"epochs": "12", "eta": "0.1"}) as solver, torch.random.fork_rng():
        given = list(solver.tune(white, cell.task, shots, np.random.default_rng(0), solver.config))
        (prompt,) = {id(p): p for p in _parameters_of(given[-1])}.values()
        p = given[-1](shots.dev.texts)
    values = prompt.detach().numpy()
    assert np.abs(values).max() > 0.1
    out = arena.lm.outputs(Prompt(values[None, None]), shots.dev.texts, cell.task.template, cell.task.words, "mask")
    np.testing.assert_allclose(log_softmax(out.logits[0]), np.log(p), atol=1e-4)


def _parameters_of(predictor: Any) -> list[torch.nn.Parameter]:
    """The trained parameters a predictor puts its values back into."""
    (restore,) = (c.cell_contents for c in predictor.classify.__closure__ if callable(c.cell_contents))
    found = [cell.cell_contents for cell in restore.__closure__]
    return next(each for each in found if isinstance(each, list) and isinstance(each[0], torch.nn.Parameter))


def test_prefixes_stand_before_keys_and_values(arena: Arena) -> None:
    """Layer 0 attends as written out here: softmax(q [K; k]^T / sqrt(size)) [V; v], padding left out."""
    white, cell, shots = opened(arena)
    kept: dict[str, Any] = {}

    def look(attention: Any, _args: Any, kwargs: Any, out: Any) -> None:
        x = kwargs["hidden_states"] if "hidden_states" in kwargs else _args[0]
        kept.update(x=x, out=out[0], past=kwargs["past_key_values"], attention=attention)

    with loaded(FOLDER / "p_tuning_v2", {"length": "5", "first_std": "1.0"}) as solver:
        next(solver.tune(white, cell.task, shots, np.random.default_rng(0), solver.config))
        white.layers[0].attention.self.register_forward_hook(look, with_kwargs=True)
        white.predicted(shots.train.texts[:3])
        mask = white.batch(shots.train.texts[:3]).mask
    attention, x = kept["attention"], kept["x"]
    order = torch.tensor(sorted(range(3), key=lambda i: sum(map(len, shots.train.texts[i]))))
    seen = torch.cat([torch.ones(3, 5, dtype=torch.bool), mask[order]], dim=1)
    with torch.inference_mode():
        q, k, v = attention.query(x), attention.key(x), attention.value(x)
        k = torch.cat([kept["past"].keys.expand(3, -1, -1), k], dim=1)
        v = torch.cat([kept["past"].values.expand(3, -1, -1), v], dim=1)
        heads = []
        for part in (slice(0, 8), slice(8, 16)):  # two heads of width 8
            scores = q[..., part] @ k[..., part].transpose(1, 2) / 8**0.5
            heads.append(scores.masked_fill(~seen[:, None], -torch.inf).softmax(dim=-1) @ v[..., part])
        expected = torch.cat(heads, dim=-1)
    torch.testing.assert_close(kept["out"], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", REFERENCES)
def test_it_runs_on_the_embedded_model(name: str, tmp_path: Path) -> None:
    """A few epochs on SST-2: far above chance, in seconds."""
    track = load_track("mini")
    lm, file = load_model(track.model, track.prompt), load_task("sst2")
    cell = Cell(file, file.task("harness-2026", "masked"), 1, track.tasks["sst2"], track.limits, Source("embedded"), 0)
    store = Store(str(tmp_path / "results.db"))
    attempt = store.begin(store.open_run(key(access="white-box"), {}), "sst2", 1)
    verdict = run_reference(cell, find(FOLDER / name), {"epochs": "6"}, lm, attempt, lambda _rows, _note: None)
    store.close()
    assert verdict.status == "ok", verdict.record.detail
    assert verdict.score is not None
    assert verdict.score > 0.6
