"""Packing of texts without pad tokens: the layout, and equal numbers however rows are combined."""

import threading
from pathlib import Path

import numpy as np
import pytest
import tiny_models
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tiny_models import LAYERS, WIDTH

from harness.contract import Prompt, Prompts, Subspace, Text
from harness.errors import ModelError
from harness.lm import formats
from harness.lm.backbones import encoder
from harness.lm.backbones.linear import ROWS, Linear, in_blocks
from harness.lm.backbones.packing import layout, parts
from harness.lm.load import load_model
from harness.lm.model import LanguageModel
from harness.tracks.numerics import Numerics
from harness.tracks.track import ModelSpec, PromptSpec

CPU = torch.device("cpu")
P0 = PromptSpec(tokens=4, first_id=20)
TEMPLATE = "{a} . It was {mask} ."
WORDS = (" bad", " great", " film")
FEW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
LENGTHS = st.lists(st.integers(1, 70), min_size=1, max_size=12)

Models = dict[str, LanguageModel]


@pytest.fixture(scope="module", params=["bert", "roberta", "distilbert"])
def models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Models:
    """One set of weights by each forward in float32, and by two of them in bfloat16."""
    folder = tiny_models.save(request.param, tmp_path_factory.mktemp(request.param))

    def load(dtype: str, forward: str) -> LanguageModel:
        spec = ModelSpec(str(folder), dtype, "masked")  # type: ignore[arg-type]
        return load_model(spec, P0, numerics=Numerics(forward=forward))  # type: ignore[arg-type]

    exact = {name: load("float32", name) for name in ("packed", "invariant", "padded", "plain")}
    half = {"half": load("bfloat16", "packed"), "half invariant": load("bfloat16", "invariant")}
    if not formats.here().avx2:
        return exact | half  # no int8 products on this processor
    return exact | half | {"int8": load("int8", "packed"), "int8 invariant": load("int8", "invariant")}


@st.composite
def queries(draw: st.DrawFn) -> tuple[Prompts | None, tuple[Text, ...]]:
    """Texts of any length, and candidates that agree on any of their layers."""
    texts = tuple(
        (" ".join(draw(st.lists(st.sampled_from(tiny_models.WORDS), min_size=1, max_size=40))),)
        for _ in range(draw(st.integers(1, 9)))
    )
    candidates, layers = draw(st.integers(0, 5)), draw(st.integers(1, LAYERS))
    if not candidates:
        return None, texts
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    values = rng.normal(size=(candidates, layers, draw(st.integers(1, 4)), WIDTH)).astype(np.float32)
    for layer in draw(st.sets(st.integers(0, layers - 1))):
        values[:, layer] = values[0, layer]
    return Prompt(values, draw(st.sampled_from(["add", "prepend"]))), texts


def ask(lm: LanguageModel, prompts: Prompts | None, texts: tuple[Text, ...], **options: object) -> list[np.ndarray]:
    out = lm.forward(prompts, lm.text_set(TEMPLATE, texts), lm.single_ids(WORDS), **options)  # type: ignore[arg-type]
    return [out.logits] if out.features is None else [out.logits, out.features]


# ── exactness ────────────────────────────────────────────────────────────────────────────────────────────────


@FEW
@given(query=queries(), features=st.sampled_from([None, "mask", "cls", "all"]), normalize=st.booleans())
def test_any_query_gives_the_plain_paths_numbers(
    models: Models, query: tuple[Prompts | None, tuple[Text, ...]], features: str | None, normalize: bool
) -> None:
    wanted = ask(models["plain"], *query, features=features, normalize=normalize)
    for name in ("packed", "invariant", "padded"):
        for got, want in zip(ask(models[name], *query, features=features, normalize=normalize), wanted, strict=True):
            np.testing.assert_allclose(got, want, atol=1e-5, rtol=1e-5)


@FEW
@given(
    query=queries(),
    chunk=st.integers(1, 400),
    rng=st.randoms(use_true_random=False),
    name=st.sampled_from(["half invariant", "int8 invariant"]),
)
def test_a_row_has_the_same_bits_whatever_it_is_asked_with(
    models: Models, query: tuple[Prompts | None, tuple[Text, ...]], chunk: int, rng: object, name: str
) -> None:
    """Alone, in another order, and in chunks of any size, in bfloat16, where sums of another order would show."""
    assume(name in models)
    prompts, texts = query
    lm = models[name]
    (whole,) = ask(lm, prompts, texts)
    order = list(range(len(texts)))
    rng.shuffle(order)  # type: ignore[attr-defined]
    (shuffled,) = ask(lm, prompts, tuple(texts[n] for n in order))
    assert shuffled.tobytes() == whole[:, order].tobytes()
    for c in range(len(whole)):
        one = prompts and Prompt(prompts.values[c : c + 1], prompts.mode)  # type: ignore[union-attr]
        (alone,) = ask(lm, one, texts[-1:])
        assert alone[0].tobytes() == whole[c, -1:].tobytes()
    backbone = lm.backbone
    assert isinstance(backbone, encoder.EncoderBackbone)
    kept = lm.chunk_tokens, backbone._chunk_tokens
    try:
        lm.chunk_tokens = backbone._chunk_tokens = chunk
        (cut,) = ask(lm, prompts, texts)
    finally:
        lm.chunk_tokens, backbone._chunk_tokens = kept
    assert cut.tobytes() == whole.tobytes()


@FEW
@given(candidates=st.integers(2, 40), dim=st.integers(1, 200), equal=st.booleans(), seed=st.integers(0, 99))
def test_a_candidate_in_a_subspace_has_the_same_bits_whichever_others_are_asked_with_it(
    models: Models, candidates: int, dim: int, equal: bool, seed: int
) -> None:
    """Its projection is a matrix product, too; a layer on which all agree is projected once."""
    lm, rng = models["half invariant"], np.random.default_rng(seed)
    space = Subspace(dim, (1.0,) * LAYERS, 4, seed=seed)
    z = rng.standard_normal((candidates, LAYERS, dim)).astype(np.float32)
    if equal:
        z[:, 0] = z[0, 0]
    texts = (("a film",),)
    (whole,) = ask(lm, space.at(z), texts)
    for c in rng.choice(candidates, 2, replace=False):
        (alone,) = ask(lm, space.at(z[c : c + 1]), texts)
        assert alone[0].tobytes() == whole[c].tobytes()


@pytest.mark.parametrize("name", ["half", "int8"])
def test_lesser_formats_stay_near_float32_on_the_packed_path(models: Models, name: str) -> None:
    if name not in models:
        pytest.skip("no int8 products on this processor")
    texts = tuple((" ".join(tiny_models.WORDS[: n % 6 + 1] * (n % 4 + 1)),) for n in range(12))
    prompts = Prompt(np.random.default_rng(0).normal(size=(3, LAYERS, 4, WIDTH)).astype(np.float32))
    (got,), (wanted,) = ask(models[name], prompts, texts), ask(models["plain"], prompts, texts)
    assert 0 < np.abs(got - wanted).mean() < 0.1 * wanted.std()


def test_a_model_that_cannot_be_invariant_is_refused(tmp_path: Path) -> None:
    spec = ModelSpec(str(tiny_models.save("t5", tmp_path)), "float32", "seq2seq")
    with pytest.raises(
        ModelError, match=r'forward = "invariant" is for families with a fast path.* this is t5 on cpu. Use forward'
    ):
        load_model(spec, P0, numerics=Numerics(forward="invariant"))


@pytest.mark.parametrize("how", ["packed", "half"])
def test_the_bits_do_not_depend_on_the_number_of_threads(models: Models, how: str) -> None:
    """Each part is computed in one thread, and the cut does not depend on the number of threads."""
    lm, found, threads = models[how], [], torch.get_num_threads()
    values = np.random.default_rng(5).normal(size=(7, 2, 4, WIDTH)).astype(np.float32)
    values[:, 0] = values[0, 0]
    texts = tuple((" ".join(["film"] * n),) for n in (1, 9, 30, 40, 5, 33))
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(ask(lm, Prompt(values), texts)[0].tobytes())
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert found[0] == found[1] == found[2]


# ── memory ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("candidates", [1, 30])
@pytest.mark.parametrize("features", [None, "all"])
def test_no_more_than_a_chunk_goes_through_a_layer(
    models: Models, candidates: int, features: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, chunk, seen = models["packed"], 300, []
    backbone = lm.backbone
    assert isinstance(backbone, encoder.EncoderBackbone)
    own = backbone._layer

    def layer(x: torch.Tensor, *rest: object) -> torch.Tensor:
        seen.append(x.shape[0] * x.shape[1])
        return own(x, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(lm, "chunk_tokens", chunk)
    monkeypatch.setattr(backbone, "_chunk_tokens", chunk)
    monkeypatch.setattr(backbone, "_layer", layer)
    texts = tuple((" ".join(["film"] * (n % 30 + 1)),) for n in range(60))
    values = np.random.default_rng(1).normal(size=(candidates, 2, 4, WIDTH)).astype(np.float32)
    values[:, 0] = values[0, 0]
    ask(lm, Prompt(values), texts, features=features)
    tokens = sum(len(e.ids) + 4 for e in lm.text_set(TEMPLATE, texts).encoded)
    assert max(seen) <= chunk
    assert sum(seen) == LAYERS * tokens if candidates == 1 else sum(seen) < LAYERS * tokens * candidates


def test_of_the_last_layer_only_what_is_read_is_computed(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each text has one read position here. Only that one has a query and a feed-forward product in the last layer."""
    backbone, seen = models["packed"].backbone, []
    assert isinstance(backbone, encoder.EncoderBackbone)
    own = Linear.gelu

    def gelu(linear: Linear, x: torch.Tensor) -> torch.Tensor:
        seen.append((linear is backbone.layout[-1].up, len(x)))
        return own(linear, x)

    monkeypatch.setattr(Linear, "gelu", gelu)
    texts = tuple((" ".join(["film"] * (n + 1)),) for n in range(5))
    values = np.random.default_rng(1).normal(size=(3, 1, 4, WIDTH)).astype(np.float32)
    ask(models["packed"], Prompt(values), texts)
    tokens = sum(len(e.ids) + 4 for e in models["packed"].text_set(TEMPLATE, texts).encoded)
    assert sum(rows for last, rows in seen if last) == 3 * len(texts)
    assert sum(rows for last, rows in seen if not last) == 3 * tokens * (LAYERS - 1)


def test_a_query_is_one_computation_or_many_whichever_thread_it_comes_from(models: Models) -> None:
    """A cell's thread that first asks for `info` while another computes is not left with one of torch's threads."""
    lm, threads = models["packed"], torch.get_num_threads()
    backbone = lm.backbone
    assert isinstance(backbone, encoder.EncoderBackbone)
    own, inside, go, found = backbone._layer, threading.Event(), threading.Event(), []

    def layer(*given: object) -> torch.Tensor:
        inside.set()
        assert go.wait(30)
        return own(*given)  # type: ignore[arg-type]

    def second() -> None:
        assert inside.wait(30)
        threading.Timer(0.2, go.set).start()  # by then `info` waits for its turn, or has begun without one
        lm.info(texts, TEMPLATE)
        found.append(torch.get_num_threads())

    texts = tuple((" ".join(["film"] * (n + 20)),) for n in range(20))
    values = np.random.default_rng(5).normal(size=(4, 1, 4, WIDTH)).astype(np.float32)
    torch.set_num_threads(2)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(backbone, "_layer", layer)
            cell = threading.Thread(target=second)
            cell.start()
            first = threading.Thread(target=ask, args=(lm, Prompt(values), texts))
            first.start()
            first.join()
            cell.join()
    finally:
        torch.set_num_threads(threads)
    assert found == [2]


# ── the layout ───────────────────────────────────────────────────────────────────────────────────────────────


@FEW
@given(lengths=LENGTHS, padded=st.booleans())
def test_every_token_has_one_slot_and_attends_to_its_own_text(lengths: list[int], padded: bool) -> None:
    longest = max(lengths) if padded else None
    rooms = [longest or length for length in lengths]
    text_of = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(rooms))
    packed = layout(lengths, longest, CPU)
    slots = torch.cat([group.slots.flatten() for group in packed.groups])
    assert slots[packed.back].tolist() == list(range(sum(rooms)))
    texts = torch.cat([group.texts for group in packed.groups])
    assert texts[packed.by_group].tolist() == list(range(len(lengths)))
    assert text_of[packed.starts].tolist() == text_of[packed.ends].tolist() == list(range(len(lengths)))
    for group in packed.groups:
        assert (text_of[group.slots] == group.texts[:, None]).all()
        seen = torch.ones_like(group.slots, dtype=torch.bool) if group.mask is None else group.mask[:, 0, 0]
        assert seen.sum(1).tolist() == [lengths[n] for n in group.texts]
        assert padded or group.slots.shape[1] % 16 == 0


@FEW
@given(lengths=LENGTHS, candidates=st.integers(1, 9), most=st.integers(1, 500))
def test_parts_cover_each_row_once_and_stay_small(lengths: list[int], candidates: int, most: int) -> None:
    covered = np.zeros((candidates, len(lengths)), dtype=int)
    for texts, members in parts(lengths, candidates, most):
        covered[members, texts] += 1
        some, count = lengths[texts], members.stop - members.start
        assert sum(some) * count <= most or (len(some) == 1 and count == 1)
    assert (covered == 1).all()


# ── linear layers ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_linear_layer_is_torchs(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(*shape, generator=generator).to(dtype) for shape in ((300, 64), (48, 64), (48,)))
    linear = Linear(weight, bias)
    got = in_blocks(linear, 48, ROWS, x)
    wanted = torch.nn.functional.linear(x.double(), weight.double(), bias.double())
    torchs = torch.nn.functional.linear(x, weight, bias)
    ours_error, torchs_error = (float((y.double() - wanted).abs().max()) for y in (got, torchs))
    assert got.shape == (300, 48)
    assert ours_error <= max(1.5 * torchs_error, 1e-5)


@FEW
@given(rows=st.integers(1, 3 * ROWS), block=st.one_of(st.none(), st.integers(1, ROWS)))
def test_blocks_are_of_one_size_and_come_back_in_order(rows: int, block: int | None) -> None:
    sizes = []

    def compute(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        sizes.append(len(x))
        return x * 2 + y

    x = torch.arange(3.0 * rows).view(rows, 3)
    assert torch.equal(in_blocks(compute, 3, block, x, x), 3 * x)
    assert set(sizes) == {block or rows}
