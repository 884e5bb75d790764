"""Sums of changes and walks of low rank, against transformers' model with the changes written into it."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
import tiny_models
import torch

from harness.blackbox.noise import numpy_matrix_noise, numpy_noise
from harness.contract import Prompt, Text, Weights, WeightSpace
from harness.lm import edits, noise
from harness.lm.backbones import groups
from harness.lm.load import load_model
from harness.tracks.track import ModelSpec, PromptSpec

if TYPE_CHECKING:
    from pathlib import Path

    from harness.lm.model import LanguageModel

P0 = PromptSpec(tokens=4, first_id=20)
WORDS = (" bad", " great", " film")
TEXTS: tuple[Text, ...] = tuple(
    (" ".join(tiny_models.WORDS[(n * k + k) % len(tiny_models.WORDS)] for k in range(n % 7 + 1)),) for n in range(8)
)
CLOSE = 2e-4
LOW = WeightSpace("attention", 0, 0.1, 3, (1, 2), rank=2)
LOW_ALL = WeightSpace("all", 0, 0.1, 4, (0, 2), rank=3, distribution="rademacher")
BIASES = WeightSpace("biases", 3, 0.3, 1)
LORA = WeightSpace("lora", 3, 0.5, 5, (0, 1), rank=2)
FULL = WeightSpace("feed_forward", 3, 0.1, 6, (1,))
ADAPTER = WeightSpace("adapter", 3, 0.3, 7, rank=3)
RNG = np.random.default_rng(0)
Z, ONE = RNG.standard_normal((4, 3)), RNG.standard_normal(3)


@pytest.fixture(scope="module", params=["bert", "distilbert", "gpt2"])
def lm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return loaded(request.param, tmp_path_factory.mktemp(request.param))


def loaded(family: str, folder: Path) -> LanguageModel:
    """A small model of a family."""
    return load_model(ModelSpec(str(tiny_models.save(family, folder)), "float32", tiny_models.kind(family)), P0)


def ask(lm: LanguageModel, prompts: Any, texts: tuple[Text, ...] = TEXTS) -> Any:
    """Logits."""
    lm.check(prompts)
    inner = prompts.prompts if isinstance(prompts, Weights) else prompts
    encoded = lm.text_set("{a} . It was {mask}", texts, None if inner is None else "add")
    return lm.forward(prompts, encoded, lm.single_ids(WORDS)).logits


def written(lm: LanguageModel, part: Weights, k: int) -> LanguageModel:
    """A copy of a model of the plain path with a walk of low rank in its weights, summed by hand."""
    own = copy.copy(lm)
    own.backbone = copy.deepcopy(lm.backbone)
    model: Any = own.backbone._model  # type: ignore[attr-defined]
    space = part.space
    assert part.streams is not None
    for t, slot in enumerate(groups.slots(model, space)):
        for stream, c in zip(part.streams[k].tolist(), part.z[k].tolist(), strict=True):
            if len(slot.shape) == 2:
                values = numpy_matrix_noise(slot.shape, [stream], t, space.seed, space.distribution, space.rank)[0]
            else:
                values = numpy_noise(math.prod(slot.shape), [stream], t, space.seed, space.distribution)[0]
            assert slot.parameter is not None
            slot.parameter.data += torch.from_numpy(values.reshape(slot.shape)) * (c * space.std)
    return own


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2"])
@pytest.mark.parametrize("space", [LOW, LOW_ALL, msgspec.structs.replace(LOW_ALL, layers=())])
def test_a_walk_of_low_rank_is_its_sum_in_the_weights(tmp_path: Path, family: str, space: WeightSpace) -> None:
    spec = ModelSpec(str(tiny_models.save(family, tmp_path)), "float32", tiny_models.kind(family))
    ours, plain = load_model(spec, P0), load_model(spec, P0, plain=True)
    walks = space.walk([[3, 9, 4], [3, 9, 8], [3, 9, 8]], [[0.5, 0.25, 1.0], [0.5, 0.25, 0.7], [0.5, 0.25, -0.7]])
    found = ask(ours, walks)
    for k in range(3):
        expected = ask(written(plain, walks, k), None)[0]
        assert np.abs(found[k] - expected).max() < CLOSE
    assert np.abs(found[1] - found[2]).max() > 20 * CLOSE, "the change must matter"
    assert np.abs(ask(ours, space.walk([3, 9, 4], [0.5, 0.25, 1.0]))[0] - found[0]).max() < CLOSE


def test_a_population_of_low_rank_is_one_forward_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = loaded("bert", tmp_path)
    asked: list[int] = []
    forward = lm._forward
    monkeypatch.setattr(lm, "_forward", lambda *given: asked.append(given[-2]) or forward(*given))
    walks = LOW.walk([[1, 5], [1, 6], [1, 7], [1, 5]], [[0.5, 1], [0.5, 1], [0.5, 1], [0.5, -1]])
    many = ask(lm, walks)
    assert asked == [4]
    monkeypatch.setattr(edits, "MOST_RANK", 1)
    assert np.abs(ask(lm, walks) - many).max() < CLOSE
    assert asked == [4, 1, 1, 1, 1]


def test_after_walks_of_low_rank_the_model_has_its_own_bits(tmp_path: Path) -> None:
    lm = loaded("bert", tmp_path)
    model: Any = lm.backbone._model  # type: ignore[attr-defined]
    before, bare = {name: values.clone() for name, values in model.state_dict().items()}, ask(lm, None)
    rng = np.random.default_rng(0)
    for _ in range(40):
        steps = np.column_stack([np.full((25, 2), rng.standard_normal()), rng.standard_normal(25)])
        ask(lm, LOW_ALL.walk(np.column_stack([np.ones((25, 2), dtype=int), np.arange(25)]), steps), TEXTS[:1])
    assert all(torch.equal(values, before[name]) for name, values in model.state_dict().items())
    assert np.array_equal(ask(lm, None), bare)


@pytest.mark.parametrize("distribution", ["normal", "rademacher"])
def test_torch_draws_low_rank_noise_to_numpy_s_bits(distribution: Any) -> None:
    slots = [groups.Slot(0, (7, 5)), groups.Slot(0, (6,)), groups.Slot(1, (30, 20))]
    space = WeightSpace("all", 0, 1.0, 2**61 + 1, rank=64, distribution=distribution)
    found, first = noise.draw(slots, space, [0, 2**32 - 1], "cpu").numpy(), 0
    for t, slot in enumerate(slots):
        if len(slot.shape) == 2:
            wanted = numpy_matrix_noise(slot.shape, [0, 2**32 - 1], t, space.seed, distribution, 64).reshape(2, -1)
        else:
            wanted = numpy_noise(slot.size, [0, 2**32 - 1], t, space.seed, distribution)
        assert np.array_equal(found[:, first : first + slot.size], wanted)
        first += slot.size


def fits(lm: LanguageModel, sum_: Weights) -> bool:
    """Whether the family has all groups."""
    return lm.backbone.takes_edits or all(part.space.group != "adapter" for part in sum_.parts)


SUMS = {
    "a fixed one and a population": BIASES.at(ONE) + LORA.at(Z),
    "two populations": LORA.at(Z) + BIASES.at(Z[::-1]),
    "full rank and vectors": FULL.at(Z) + BIASES.at(ONE),
    "low rank and vectors": LOW.walk([[1, 2]] * 4, [[0.5, c] for c in (1, -1, 2, -2)]) + BIASES.at(Z),
    "low rank twice": LOW.walk([[1, 2]] * 4, [[0.5, c] for c in (1, -1, 2, -2)]) + LOW_ALL.walk([1], [0.5]),
    "in place and together": FULL.at(Z) + ADAPTER.at(Z),
    "a fixed one in place": FULL.at(ONE) + ADAPTER.at(Z),
}


@pytest.mark.parametrize("name", SUMS)
def test_a_candidate_of_a_sum_is_computed_as_if_it_were_alone(lm: LanguageModel, name: str) -> None:
    """By other ways: alone, all of it is one candidate, and by the padded path, nothing is shared."""
    sum_ = SUMS[name]
    if not fits(lm, sum_):
        return
    found = ask(lm, sum_)
    assert len(found) == 4
    for k in range(4):
        parts = [Weights(p.space, *(a[min(k, len(p.z) - 1)][None] if a is not None else None for a in (p.z, p.streams)))
                 for p in sum_.parts]  # fmt: skip
        alone = ask(lm, parts[0] + parts[1])[0]
        assert np.abs(found[k] - alone).max() < CLOSE
        assert np.abs(found[k] - ask(lm, parts[1] + parts[0])[0]).max() < CLOSE
    assert np.abs(found[0] - found[1]).max() > 10 * CLOSE


def test_changes_of_one_group_add_up_in_coordinates(lm: LanguageModel) -> None:
    assert np.abs(ask(lm, BIASES.at(Z) + BIASES.at(ONE)) - ask(lm, BIASES.at(Z + ONE))).max() < CLOSE
    assert np.abs(ask(lm, FULL.at(Z) + FULL.at(ONE)) - ask(lm, FULL.at(Z + ONE))).max() < CLOSE
    low = LOW.walk([1, 2], [0.5, 0.3]) + LOW.walk([[5], [6]], [[1.0], [2.0]])
    assert (
        np.abs(ask(lm, low) - ask(lm, LOW.walk([[1, 2, 5], [1, 2, 6]], [[0.5, 0.3, 1], [0.5, 0.3, 2]]))).max() < CLOSE
    )


def test_loras_by_layer_are_one_lora_of_these_layers(tmp_path: Path) -> None:
    """Each layer's own space, in coordinates that give a tensor of it the change that it has in the space of both."""
    lm = loaded("bert", tmp_path)
    both = ask(lm, LORA.at(np.zeros(3)) + BIASES.at(ONE))
    first, second = (msgspec.structs.replace(LORA, layers=(layer,)) for layer in (0, 1))
    assert np.abs(ask(lm, first.at(np.zeros(3)) + second.at(np.zeros(3)) + BIASES.at(ONE)) - both).max() < CLOSE
    fixed, searched = second.at(ONE), first.at(Z)
    assert np.abs(ask(lm, fixed + searched) - ask(lm, searched + fixed)).max() < CLOSE
    twice = ask(lm, first.at(ONE) + first.at(ONE))
    assert np.abs(twice - ask(lm, first.at(ONE))).max() > 10 * CLOSE, "two LoRAs beside a matrix add up"


def test_adapters_behind_one_part_add_what_they_give(tmp_path: Path) -> None:
    lm = loaded("bert", tmp_path)
    other = msgspec.structs.replace(ADAPTER, seed=9, rank=2)
    assert np.abs(ask(lm, ADAPTER.at(Z) + other.at(np.zeros(3))) - ask(lm, ADAPTER.at(Z))).max() < CLOSE
    assert np.abs(ask(lm, ADAPTER.at(ONE) + other.at(Z)) - ask(lm, other.at(Z) + ADAPTER.at(ONE))).max() < CLOSE


def test_a_sum_stands_beside_prompts(lm: LanguageModel) -> None:
    width = lm.backbone.width
    values = np.random.default_rng(5).standard_normal((4, 1, 4, width)).astype(np.float32)
    for sum_ in (SUMS["full rank and vectors"], SUMS["low rank and vectors"]):
        found = ask(lm, Weights(sum_.space, sum_.z, sum_.streams, Prompt(values), sum_.more))
        one = Weights(sum_.space, sum_.z, sum_.streams, Prompt(values[:1]), sum_.more)
        assert np.abs(found[0] - ask(lm, one)[0]).max() < CLOSE
        assert np.abs(found[1] - ask(lm, one)[1]).max() > 10 * CLOSE


def test_walks_of_several_spaces_each_go_on_where_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm, drawn = loaded("bert", tmp_path), []
    draw = noise.draw
    monkeypatch.setattr(noise, "draw", lambda slots, space, streams, device: (
        drawn.append(space.seed), draw(slots, space, streams, device))[1])  # fmt: skip
    other = msgspec.structs.replace(LOW, seed=8)
    with lm.serving():
        for steps in (2, 3, 4):
            ask(lm, LOW.walk(np.arange(steps), np.ones(steps)) + other.walk(np.arange(steps), np.ones(steps)))
    assert drawn.count(LOW.seed) == drawn.count(other.seed) == 4


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_walks_that_are_all_the_same_are_computed(tmp_path: Path, family: str) -> None:
    lm = loaded(family, tmp_path)
    same = LOW.walk([[3, 9]] * 4, [[0.5, 0.25]] * 4)
    alone = ask(lm, LOW.walk([3, 9], [0.5, 0.25]))[0]
    assert np.abs(ask(lm, same) - alone).max() < CLOSE
    beside = ask(lm, same + BIASES.at(Z))
    for k, z in enumerate(Z):
        assert np.abs(beside[k] - ask(lm, LOW.walk([3, 9], [0.5, 0.25]) + BIASES.at(z))[0]).max() < CLOSE


def test_two_walks_of_one_space_add_up(tmp_path: Path) -> None:
    """The steps that one has in common must not go on from what the other holds."""
    lm = loaded("gpt2", tmp_path)
    space = WeightSpace("attention", 0, 0.1, 3, (1, 2))
    summed = space.walk([[1], [2]], [[1.0], [1.0]]) + space.walk([[5, 6], [5, 7]], [[1.0, 0.5], [1.0, 0.5]])
    found = ask(lm, summed)
    for k, streams in enumerate(([1, 5, 6], [2, 5, 7])):
        assert np.abs(found[k] - ask(lm, space.walk(streams, [1.0, 1.0, 0.5]))[0]).max() < CLOSE
    assert np.abs(ask(lm, summed) - found).max() < CLOSE, "asked again, it goes on from what is kept"


@pytest.mark.parametrize("space", [LOW, LOW_ALL, FULL, BIASES, LORA], ids=lambda space: space.group)
def test_each_step_of_two_walks_of_one_space_is_drawn_once(
    lm: LanguageModel, space: WeightSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many queries or pieces of a test set a sum is applied to: its price counts each step once."""
    drawn: list[int] = []
    draw = noise.draw

    def counted(slots: Any, space: WeightSpace, streams: Any, device: str) -> torch.Tensor:
        drawn.extend(streams)
        return draw(slots, space, streams, device)

    monkeypatch.setattr(noise, "draw", counted)
    space = msgspec.structs.replace(space, dim=0, seed=41)
    total = space.walk(np.arange(5), np.ones(5)) + space.walk(np.arange(10, 15), np.ones(5))
    first = ask(lm, total)
    for _ in range(3):
        np.testing.assert_array_equal(ask(lm, total), first)
    assert sorted(drawn) == [*range(5), *range(10, 15)]
