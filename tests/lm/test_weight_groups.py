"""Candidates that change weights, against transformers' model with the change written into it or hooked onto it."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
import tiny_models
import torch
from tiny_models import GAPPED, LAYERS, WIDTH
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from harness.blackbox import memory
from harness.blackbox.checkpoints import at_checkpoints, without_checkpoints
from harness.blackbox.noise import START, numpy_noise
from harness.contract import Prompt, Prompts, Text, Weights, WeightSpace
from harness.errors import DeviceMemoryError, QueryError
from harness.lm import noise
from harness.lm.backbones import groups
from harness.lm.load import load_model
from harness.tracks.numerics import Numerics
from harness.tracks.track import ModelSpec, PromptSpec

if TYPE_CHECKING:
    from pathlib import Path

    from harness.lm.model import LanguageModel

P0 = PromptSpec(tokens=4, first_id=20)
WORDS = (" bad", " great", " film")
TEXTS: tuple[Text, ...] = tuple(
    (" ".join(tiny_models.WORDS[(n * k + k) % len(tiny_models.WORDS)] for k in range(n % 11 + 1)),) for n in range(12)
)
CLOSE = 2e-4
FAST = ("bert", "roberta", "distilbert")
_PATHS = {
    "bert": ("attention.self.query", "attention.self.value", "output.dense"),
    "roberta": ("attention.self.query", "attention.self.value", "output.dense"),
    "distilbert": ("attention.q_lin", "attention.v_lin", "ffn.lin2"),
    "llama": ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj"),
    "gpt2": ("attn.c_attn", "attn.c_attn", "mlp.c_proj"),
}
"""Query, value and the end of the feed-forward part."""


class Pair:
    """A model loaded by the harness, and the same one computed by transformers alone, which a test may change."""

    def __init__(self, family: str, folder: Path) -> None:
        spec = ModelSpec(str(tiny_models.save(family, folder)), "float32", tiny_models.kind(family))
        self.family, self.spec = family, spec
        self.lm = load_model(spec, P0)
        self.plain = load_model(spec, P0, plain=True)
        self.template = "{a} . It was {mask} ." if family in GAPPED else "{a} . It was{mask}"

    def ask(self, lm: LanguageModel, prompts: Prompts | None, features: Any = None) -> Any:
        """Logits, or with features the whole output."""
        inner = prompts.prompts if isinstance(prompts, Weights) else prompts
        lm.check(prompts)
        texts = lm.text_set(self.template, TEXTS, None if inner is None else "add")
        out = lm.forward(prompts, texts, lm.single_ids(WORDS), features)
        return out if features else out.logits

    def layers(self, model: Any) -> Any:
        """The layers of transformers' model."""
        body = model.base_model
        stack = {"gpt2": "h", "llama": "layers"}.get(self.family)
        if stack:
            return getattr(body, stack)
        return body.transformer.layer if self.family == "distilbert" else body.encoder.layer

    def naive(self, space: WeightSpace, change: list[Any], prompts: Prompt | None = None) -> Any:
        """Logits of one candidate, whose tensors change by `change`, by a deep copy and transformers' own forward."""
        lm = copy.copy(self.plain)
        lm.backbone = copy.deepcopy(self.plain.backbone)
        model: Any = lm.backbone._model
        chosen = [self.layers(model)[n] for n in space.layers or range(LAYERS)]
        hooks = []
        if space.group == "lora":
            hooks = self._lora(space, chosen, change)
        elif space.group == "adapter":
            hooks = self._adapters(space, chosen, change)
        else:
            targets = list(model.parameters()) if space.group == "all" else wanted(space.group, chosen)
            assert [tuple(t.shape) for t in targets] == [tuple(c.shape) for c in change]
            for target, values in zip(targets, change, strict=True):
                target.data += torch.from_numpy(values)
        found = self.ask(lm, prompts)
        for hook in hooks:
            hook.remove()
        return found

    def _lora(self, space: WeightSpace, chosen: Any, change: list[Any]) -> list[Any]:
        hooks, left = [], list(change)
        for block in chosen:
            for name in space.beside:
                a, b = torch.from_numpy(left.pop(0)), torch.from_numpy(left.pop(0))
                place = _PATHS[self.family][("query", "value", "down").index(name)]
                at = {"query": 0, "value": 2 * WIDTH}.get(name, 0) if self.family == "gpt2" else 0

                def add(_module: Any, args: Any, out: Any, a: Any = a, b: Any = b, at: int = at) -> Any:
                    out = out.clone()
                    out[..., at : at + len(b)] += args[0] @ a.T @ b.T
                    return out

                hooks.append(block.get_submodule(place).register_forward_hook(add))
        return hooks

    def _adapters(self, space: WeightSpace, chosen: Any, change: list[Any]) -> list[Any]:
        hooks, left = [], list(change)
        for block in chosen:
            down, down_bias, up, up_bias = (torch.from_numpy(left.pop(0)) for _ in range(4))

            def through(
                _m: Any, _a: Any, out: Any, d: Any = down, e: Any = down_bias, u: Any = up, v: Any = up_bias
            ) -> Any:
                return out + F.gelu(out @ d.T + e) @ u.T + v

            hooks.append(block.get_submodule(_PATHS[self.family][2]).register_forward_hook(through))
        return hooks


def wanted(group: str, blocks: Any) -> list[Any]:
    """Parameters of a group by their names alone."""
    found = []
    for block in blocks:
        for name, p in block.named_parameters():
            norm = "norm" in name.lower() or ".ln_" in f".{name}"
            attends = "att" in name
            if {
                "biases": name.endswith(".bias"),
                "norms": norm,
                "attention": p.ndim == 2 and attends,
                "feed_forward": p.ndim == 2 and not attends,
            }[group]:
                found.append(p)
    return found


def shapes(lm: LanguageModel, space: WeightSpace) -> list[tuple[int, ...]]:
    """Of the tensors of a space, by hand where the space adds them."""
    if space.group == "lora":
        ends = {"query": WIDTH, "value": WIDTH, "down": WIDTH}
        model: Any = lm.backbone._model  # type: ignore[attr-defined]
        if model.config.model_type == "llama":
            ends["value"] = WIDTH // 2
        inputs = {"query": WIDTH, "value": WIDTH, "down": 32 if model.config.model_type != "gpt2" else 4 * WIDTH}
        one = [s for name in space.beside for s in ((space.rank, inputs[name]), (ends[name], space.rank))]
        return one * (len(space.layers) or LAYERS)
    if space.group == "adapter":
        return [(space.rank, WIDTH), (space.rank,), (WIDTH, space.rank), (WIDTH,)] * (len(space.layers) or LAYERS)
    model = lm.backbone._model  # type: ignore[attr-defined]
    return [slot.shape for slot in groups.slots(model, space)]


def change_of(lm: LanguageModel, space: WeightSpace, terms: dict[int, float]) -> list[Any]:
    """The change of each tensor (its value, where the space adds it), summed by hand from numpy's noise."""
    found = []
    for t, shape in enumerate(shapes(lm, space)):
        size = math.prod(shape)
        total = sum(
            (c * numpy_noise(size, [stream], t, space.seed, space.distribution)[0] for stream, c in terms.items()),
            start=np.zeros(size, dtype=np.float32),
        )
        begins = {"lora": t % 2 == 0, "adapter": t % 4 == 0}.get(space.group, False)
        if begins:
            total = (total + numpy_noise(size, [0], t + START, space.seed, space.distribution)[0]) / shape[1] ** 0.5
        found.append(total.reshape(shape).astype(np.float32))
    return found


SPACES = {
    "biases": WeightSpace("biases", 3, 0.3, 1),
    "biases above": WeightSpace("biases", 3, 0.3, 1, (1, 2), distribution="rademacher"),
    "norms": WeightSpace("norms", 3, 0.3, 2),
    "attention": WeightSpace("attention", 3, 0.1, 3, (1,)),
    "feed_forward": WeightSpace("feed_forward", 3, 0.1, 4),
    "lora": WeightSpace("lora", 3, 0.3, 5, rank=2),
    "lora beside": WeightSpace("lora", 3, 0.3, 6, (0, 2), rank=3, beside=("down", "query")),
    "adapter": WeightSpace("adapter", 3, 0.3, 7, rank=5),
    "all": WeightSpace("all", 3, 0.05, 8),
}


@pytest.fixture(scope="module", params=["bert", "roberta", "distilbert", "gpt2", "llama"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(request.param, tmp_path_factory.mktemp(request.param))


def fits(pair: Pair, space: WeightSpace) -> bool:
    """Whether the family has the group."""
    return not (space.group == "adapter" and pair.family not in FAST) and not (
        space.group == "biases" and pair.family == "llama"
    )


@pytest.mark.parametrize("name", SPACES)
def test_every_group_is_computed_as_transformers_computes_it(pair: Pair, name: str) -> None:
    space = SPACES[name]
    if not fits(pair, space):
        with pytest.raises(QueryError, match=r"has no biases|no adapter"):
            pair.lm.weight_count(space)
        return
    z = np.random.default_rng(0).standard_normal((3, 3)).astype(np.float32)
    found = pair.ask(pair.lm, space.at(z))
    scale = space.std / math.sqrt(space.dim)
    for k in range(3):
        terms = {j: float(z[k, j]) * scale for j in range(3)}
        expected = pair.naive(space, change_of(pair.lm, space, terms))[0]
        assert np.abs(found[k] - expected).max() < CLOSE
    assert np.abs(found[0] - found[1]).max() > 100 * CLOSE, "the change must matter"
    assert pair.lm.weight_count(space) == sum(math.prod(shape) for shape in shapes(pair.lm, space))


@pytest.mark.parametrize("name", ["biases above", "lora", "all", "norms"])
def test_a_walk_is_the_sum_of_its_steps(pair: Pair, name: str) -> None:
    space = msgspec.structs.replace(SPACES[name], dim=0)
    if not fits(pair, space):
        return
    streams, steps = [[3, 9, 4], [3, 9, 2**32 - 1]], [[0.5, 0.25, 1.0], [0.5, 0.25, -1.0]]
    found = pair.ask(pair.lm, space.walk(streams, steps))
    for k in range(2):
        terms = {s: c * space.std for s, c in zip(streams[k], steps[k], strict=True)}
        assert np.abs(found[k] - pair.naive(space, change_of(pair.lm, space, terms))[0]).max() < CLOSE


def test_a_walk_that_goes_on_is_the_one_that_was_walked_at_once(pair: Pair) -> None:
    space, rng = WeightSpace("all", 0, 0.01, 3, distribution="rademacher"), np.random.default_rng(1)
    streams, steps = rng.integers(2**32, size=12), rng.standard_normal(12)
    fresh = load_model(pair.spec, P0)
    with pair.lm.serving():
        for count in (1, 2, 5, 12):
            longer = pair.ask(pair.lm, space.walk(streams[:count], steps[:count]))
    assert np.array_equal(longer, pair.ask(fresh, space.walk(streams, steps)))
    shorter = pair.ask(pair.lm, space.walk(streams[:3], steps[:3]))
    assert np.array_equal(shorter, pair.ask(fresh, space.walk(streams[:3], steps[:3])))


@pytest.mark.parametrize("name", ["biases", "lora", "attention"])
def test_weights_and_prompts_add_up(pair: Pair, name: str) -> None:
    space = SPACES[name]
    if not fits(pair, space):
        return
    rng = np.random.default_rng(2)
    z, values = rng.standard_normal((2, 3)).astype(np.float32), rng.standard_normal((2, 2, 4, WIDTH)).astype(np.float32)
    prompts = Prompt(values)
    scale = space.std / math.sqrt(space.dim)
    alone = [change_of(pair.lm, space, {j: float(v) * scale for j, v in enumerate(row)}) for row in z]
    own = pair.ask(pair.lm, space.at(z, prompts))
    shared = pair.ask(pair.lm, space.at(z, Prompt(values[:1])))
    fixed = pair.ask(pair.lm, space.at(z[0], prompts))
    for k in range(2):
        assert np.abs(own[k] - pair.naive(space, alone[k], Prompt(values[k : k + 1]))[0]).max() < CLOSE
        assert np.abs(shared[k] - pair.naive(space, alone[k], Prompt(values[:1]))[0]).max() < CLOSE
        assert np.abs(fixed[k] - pair.naive(space, alone[0], Prompt(values[k : k + 1]))[0]).max() < CLOSE


@pytest.mark.parametrize("name", SPACES)
def test_at_zero_the_model_is_the_published_one(pair: Pair, name: str) -> None:
    space = SPACES[name]
    if fits(pair, space):
        for features in ("mask", "cls", "all"):
            found, bare = (pair.ask(pair.lm, c, features) for c in (space.at(np.zeros((2, 3))), None))
            assert np.abs(found.logits - bare.logits).max() < CLOSE
            assert np.abs(found.features - bare.features).max() < CLOSE
            assert found.features.shape[0] == 2


def test_after_a_thousand_candidates_the_model_has_its_own_bits(tmp_path: Path) -> None:
    pair = Pair("bert", tmp_path)
    model: Any = pair.lm.backbone._model  # type: ignore[attr-defined]
    before = {name: values.clone() for name, values in model.state_dict().items()}
    bare = pair.ask(pair.lm, None)
    rng = np.random.default_rng(0)
    texts, ids = pair.lm.text_set(pair.template, TEXTS[:1], None), pair.lm.single_ids(WORDS)
    for name in ("all", "attention", "feed_forward"):
        space = SPACES[name]
        for _ in range(4):
            z = 10 ** rng.uniform(-6, 3) * rng.standard_normal((100, 3))
            pair.lm.forward(space.at(z), texts, ids)
    assert 3 * 4 * 100 >= 1000
    assert all(torch.equal(values, before[name]) for name, values in model.state_dict().items())
    assert np.array_equal(pair.ask(pair.lm, None), bare)


@pytest.mark.parametrize("name", ["all", "attention", "biases", "lora"])
def test_a_query_between_the_chunks_of_another_one_meets_the_published_model(pair: Pair, name: str) -> None:
    """A service does so when it scores an answer: at checkpoints, the same thread computes the queries that wait."""
    if not fits(pair, SPACES[name]):
        return
    outer, inner = SPACES[name].at(np.eye(3)), SPACES["norms"].at([3, 2, 1])
    alone, bare, other = (pair.ask(pair.lm, each) for each in (outer, None, inner))
    seen = []

    def between() -> None:
        with without_checkpoints():
            seen.append((pair.ask(pair.lm, None), pair.ask(pair.lm, inner)))

    with at_checkpoints(between):
        found = pair.ask(pair.lm, outer)
    assert np.array_equal(found, alone)
    assert seen
    assert all(np.array_equal(first, bare) and np.array_equal(second, other) for first, second in seen)


def test_copies_and_published_facts_are_those_of_the_published_model(tmp_path: Path) -> None:
    """However they are asked for: between the chunks of a query, or by another thread while it is computed."""
    pair = Pair("bert", tmp_path)
    texts = (("a film",),)
    before, facts = pair.lm.weights().state_dict(), pair.lm.info(texts, "{a} {mask}").weights
    seen = []

    def between() -> None:
        vars(pair.lm._tuner).pop("facts", None)
        with without_checkpoints():
            seen.append((pair.lm.weights().state_dict(), pair.lm.info(texts, "{a} {mask}").weights))

    with at_checkpoints(between):
        pair.ask(pair.lm, SPACES["all"].at([1, 2, 3]))
    assert seen
    for copied, found in seen:
        assert found == facts
        assert all(torch.equal(values, before[name]) for name, values in copied.items())


@pytest.mark.parametrize("name", ["all", "biases"])
def test_where_memory_is_short_nothing_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    pair = Pair("bert", tmp_path)
    bare = pair.ask(pair.lm, None)
    monkeypatch.setattr(memory, "_LARGE", 0)
    monkeypatch.setattr(memory, "available", lambda: memory._SPARE + 100)
    monkeypatch.setattr(pair.lm._tuner, "_each", None)
    monkeypatch.setattr(pair.lm._tuner, "_all", None)
    with pytest.raises(DeviceMemoryError, match="are needed at once"):
        pair.ask(pair.lm, SPACES[name].at(np.eye(3)))
    monkeypatch.undo()
    assert np.array_equal(pair.ask(pair.lm, None), bare)


def test_a_query_that_fails_leaves_the_model_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair("bert", tmp_path)
    bare = pair.ask(pair.lm, None)
    monkeypatch.setattr(type(pair.lm.backbone), "hidden", lambda *_: (_ for _ in ()).throw(TimeoutError("late")))
    with pytest.raises(TimeoutError, match="late"):
        pair.ask(pair.lm, SPACES["all"].at([1, 2, 3]))
    monkeypatch.undo()
    assert np.array_equal(pair.ask(pair.lm, None), bare)


def test_a_candidate_has_the_same_logits_in_any_population(pair: Pair) -> None:
    z = np.random.default_rng(3).standard_normal((7, 3)).astype(np.float32)
    for name, space in SPACES.items():
        if fits(pair, space):
            many, one = pair.ask(pair.lm, space.at(z)), pair.ask(pair.lm, space.at(z[4:5]))
            assert np.abs(many[4] - one[0]).max() < CLOSE, name


@pytest.mark.parametrize("forward", ["invariant", "padded", "plain"])
def test_other_forms_of_the_forward_pass_agree(tmp_path: Path, forward: Any) -> None:
    pair = Pair("bert", tmp_path)
    other = load_model(pair.spec, P0, numerics=Numerics(forward=forward))
    z = np.random.default_rng(4).standard_normal((2, 3)).astype(np.float32)
    for name in ("biases", "norms", "lora", "attention", "all"):
        space = SPACES[name]
        assert np.abs(pair.ask(pair.lm, space.at(z)) - pair.ask(other, space.at(z))).max() < CLOSE, name


def test_what_a_family_has_not_is_refused_by_name(tmp_path: Path) -> None:
    albert, t5 = (Pair(family, tmp_path / family) for family in ("albert", "t5"))
    with pytest.raises(QueryError, match="albert has one layer at several depths"):
        albert.lm.weight_count(SPACES["biases"])
    assert albert.lm.weight_count(SPACES["all"])
    with pytest.raises(QueryError, match="no lora beside the matrices of t5"):
        t5.lm.weight_count(SPACES["lora"])
    with pytest.raises(QueryError, match="the model has 3"):
        t5.lm.weight_count(WeightSpace("norms", 3, 1.0, 1, (3,)))
    z = np.zeros((1, 3))
    for each in (albert, t5):
        assert np.abs(each.ask(each.lm, SPACES["all"].at(z)) - each.ask(each.lm, None)).max() < CLOSE


def test_groups_are_published_without_a_weight(pair: Pair) -> None:
    info = pair.lm.info(TEXTS, pair.template)
    model: Any = pair.lm.backbone._model  # type: ignore[attr-defined]
    for group in ("norms", "attention", "feed_forward"):
        own = wanted(group, pair.layers(model))
        assert info.weight_count(group) == sum(p.numel() for p in own)  # type: ignore[arg-type]
        flat = torch.cat([p.flatten() for p in own])
        assert info.weight_rms(group) == pytest.approx(float(flat.square().mean().sqrt()), rel=1e-5)  # type: ignore[arg-type]
    assert info.weight_count("all") == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("distribution", ["normal", "rademacher"])
def test_torch_draws_the_bits_that_numpy_draws(distribution: Any) -> None:
    slots = [groups.Slot(0, (7, 5)), groups.Slot(0, (130,)), groups.Slot(1, (3,), "A")]
    space = WeightSpace("all", 0, 1.0, 2**61 + 1, distribution=distribution)
    found = noise.draw(slots, space, [0, 5, 2**32 - 1], "cpu").numpy()
    first = 0
    for t, slot in enumerate(slots):
        wanted_bits = numpy_noise(slot.size, [0, 5, 2**32 - 1], t, space.seed, distribution)
        assert np.array_equal(found[:, first : first + slot.size], wanted_bits)
        first += slot.size
    begun = noise.start(slots, space, "cpu").numpy()
    assert not begun[:165].any()
    assert np.array_equal(begun[165:], numpy_noise(3, [0], 2 + START, space.seed, distribution)[0])
