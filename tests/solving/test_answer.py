"""Answers travel unchanged, cannot smuggle anything, and give the probabilities of the formula."""

import json
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from harness.blackbox.weights import MOST_STEPS
from harness.contract import (
    Answer,
    FeatureKind,
    Member,
    Outputs,
    Prompt,
    Prompts,
    Subspace,
    Task,
    Text,
    WeightSpace,
)
from harness.contract.heads import KINDS, BiLstmHead, Kind, LinearHead, MlpHead, PrototypeHead
from harness.errors import AnswerError, QueryError
from harness.solving import answers

TASK = Task("toy", ("no", "yes"), "accuracy", "{a} {mask}", ("bad", "good"))
WIDTH = 3
BARE = Member("{a} {mask}", ("bad", "good"))
SPACE = Subspace(dim=2, std=(0.5, 1.0), tokens=4, seed=7)

numbers = st.floats(-1e6, 1e6, width=32)


def arrays(*shape: int) -> st.SearchStrategy[np.ndarray]:
    return hnp.arrays(np.float32, shape, elements=numbers)


prompts = st.one_of(
    st.none(),
    st.builds(Prompt, arrays(1, 2, 4, WIDTH), st.sampled_from(["add", "prepend"])),
    st.builds(SPACE.at, arrays(1, 2, 2)),
)
heads = st.one_of(
    st.none(),
    st.builds(LinearHead, arrays(2, WIDTH), arrays(2)),
    st.builds(MlpHead, arrays(5, WIDTH), arrays(5), arrays(2, 5), arrays(2)),
)
texts = st.text(st.characters(codec="utf-8"), max_size=8)
lstm = st.builds(BiLstmHead, arrays(2, 8, WIDTH), arrays(2, 8, 2), arrays(2, 8), arrays(2, 4), arrays(2))
one_token_members = st.builds(
    Member,
    template=texts,
    words=st.tuples(texts, texts),
    prompt=prompts,
    scale=st.none() | st.tuples(numbers, numbers),
    shift=st.none() | st.tuples(numbers, numbers),
    head=heads,
    alpha=st.floats(0, 1),
    features=st.sampled_from(["mask", "cls"]),
)
members = one_token_members | st.builds(replace, one_token_members, head=lstm, features=st.just("all"))


def flat(value: object) -> object:
    """Dataclasses with arrays as plain, comparable data."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, tuple):
        return tuple(map(flat, value))
    if hasattr(value, "__dataclass_fields__"):
        return type(value).__name__, tuple(flat(getattr(value, name)) for name in value.__dataclass_fields__)
    return value


@settings(deadline=None, max_examples=80)
@given(
    st.lists(members, min_size=1, max_size=3), st.dictionaries(texts, st.floats(allow_nan=False, allow_infinity=False))
)
def test_an_answer_comes_back_as_it_went_and_always_as_the_same_bytes(
    parts: list[Member], note: dict[str, float]
) -> None:
    answer = Answer(tuple(parts), note)
    blob = answers.to_bytes(answer)
    back = answers.from_bytes(blob)
    assert flat(back) == flat(answer)
    assert answers.to_bytes(back) == blob
    assert answers.to_bytes(Answer(tuple(parts), dict(reversed(note.items())))) == blob


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -np.inf, np.float32("nan")])
def test_a_note_that_is_not_finite_is_left_out_by_name_and_the_answer_is_kept(value: float) -> None:
    with pytest.warns(UserWarning, match=f"note 'loss' is {float(value)}: it is left out, the answer is kept"):
        blob = answers.to_bytes(Answer((BARE,), {"dev": 0.5, "loss": value}))
    assert answers.from_bytes(blob) == Answer((BARE,), {"dev": 0.5})


@pytest.mark.parametrize("value", ["low", None, [0.5, 1.0], 10**400])
def test_a_note_that_is_no_number_is_named(value: object) -> None:
    with pytest.raises(AnswerError, match=r"note .loss. is .*; a number expected"):
        answers.to_bytes(Answer((BARE,), {"loss": value}))  # type: ignore[dict-item]


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused_with_an_answer_error(blob: bytes) -> None:
    with pytest.raises(AnswerError):
        answers.from_bytes(blob)


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_a_damaged_answer_is_an_answer_or_an_answer_error(data: st.DataObject) -> None:
    head = LinearHead(np.ones((2, WIDTH)), np.zeros(2))
    blob = bytearray(
        answers.to_bytes(Answer((replace(BARE, head=head, alpha=0.5, prompt=SPACE.at(np.ones((1, 2, 2)))),)))
    )
    for _ in range(data.draw(st.integers(1, 3))):
        blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(blob)) | st.just(len(blob)))
    with suppress(AnswerError):
        answers.from_bytes(bytes(blob[:cut]))


def blob_of(document: object, **arrays_: np.ndarray) -> bytes:
    return safetensors.numpy.save(
        {name.replace("__", "."): array for name, array in arrays_.items()},
        metadata={"answer": document if isinstance(document, str) else json.dumps(document)},
    )


def document(**changes: object) -> dict[str, object]:
    member = {
        "template": "t", "words": ["a", "b"], "prompt": None, "scale": None, "shift": None, "head": None,
        "alpha": 0.0, "mix": "probabilities", "features": "mask",
    }  # fmt: skip
    top = {"schema": 1, "members": [member], "note": {}}
    for key, value in changes.items():
        (top if key in top else member)[key] = value
    return top


ONES = np.ones((1, 1, 2, WIDTH), dtype=np.float32)


@pytest.mark.parametrize(
    ("blob", "expectation"),
    [
        (b"", "not an answer file"),
        (b"\xff" * 64, "not an answer file"),
        (safetensors.numpy.save({"x": ONES}), "not an answer of schema 1"),
        (safetensors.numpy.save({"x": ONES}, metadata={"other": "1"}), "not an answer of schema 1"),
        (blob_of("nonsense"), "not an answer of schema 1"),
        (blob_of("[" * 100_000), "not an answer of schema 1"),
        (blob_of(document(schema=2)), "answer of schema 2; this version reads schema 1"),
        (blob_of(document(code="import os")), "unknown field"),
        (blob_of(document(alpha="1")), "Expected `float`"),
        (blob_of(document(features="some")), "Invalid enum value"),
        (blob_of(document(head="pickle")), "Invalid enum value"),
        (blob_of(document(alpha=float("nan"))), "not an answer of schema 1"),
        (blob_of(document(prompt={"type": "values", "mode": "add"})), "array '0.prompt' is missing"),
        (
            blob_of(document(prompt={"type": "values", "mode": "add"}), **{"0__prompt": ONES[0]}),
            "4 dimensions expected",
        ),
        (blob_of(document(prompt={"type": "values", "mode": "mul"}), **{"0__prompt": ONES}), "Invalid enum value"),
        (blob_of(document(head="linear"), **{"0__head__weight": ONES[0, 0]}), "'0.head.bias' is missing"),
        (blob_of(document(), **{"0__prompt": ONES}), "array '0.prompt' belongs to no member"),
        (blob_of(document(), x=ONES.astype(np.float64)), "float64"),
        (blob_of(document(), x=np.array([np.nan], dtype=np.float32)), "finite float32 expected"),
        (blob_of(document(), x=np.array([np.inf], dtype=np.float32)), "finite float32 expected"),
        (blob_of(document(), x=np.array([2e6], dtype=np.float32)), "exceeds 1e+06"),
    ],
)
def test_a_bad_blob_of_each_kind_is_refused_with_its_reason(blob: bytes, expectation: str) -> None:
    with pytest.raises(AnswerError) as problem:
        answers.from_bytes(blob)
    assert expectation in str(problem.value)


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    space = msgspec.structs.replace(SPACE, seed=seed)
    blob = answers.to_bytes(Answer((replace(BARE, prompt=space.at(np.ones((1, 2, 2)))),)))
    with pytest.raises(AnswerError, match="Expected `int`"):
        answers.from_bytes(blob)


@pytest.mark.parametrize(
    ("answer", "expectation"),
    [
        (Prompt(ONES), "members"),
        (Answer(("not a member",)), "no attribute"),  # type: ignore[arg-type]
        (Answer((replace(BARE, prompt=ONES),)), "a prompt is ndarray"),  # type: ignore[arg-type]
        (Answer((replace(BARE, head=ONES),)), "a head is ndarray"),  # type: ignore[arg-type]
        (Answer((replace(BARE, shift=(float("nan"), 0.0)),)), "Out of range float"),
    ],
)
def test_an_answer_that_breaks_the_contract_fails_where_it_is_made(answer: object, expectation: str) -> None:
    with pytest.raises(AnswerError, match="breaks the contract") as problem:
        answers.to_bytes(answer)  # type: ignore[arg-type]
    assert expectation in str(problem.value)


def test_numpy_numbers_are_numbers() -> None:
    space = Subspace(np.int64(2), tuple(np.float32([0.5, 1.0])), np.int32(4), np.int64(7))  # type: ignore[arg-type]
    member = replace(BARE, prompt=space.at(np.ones((1, 2, 2))), shift=tuple(np.float32([1, 2])))
    plain = replace(BARE, prompt=SPACE.at(np.ones((1, 2, 2))), shift=(1.0, 2.0))
    assert answers.to_bytes(Answer((member,), {"loss": np.float32(1.5)})) == answers.to_bytes(
        Answer((plain,), {"loss": 1.5})
    )


# ── check ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("changes", "expectation"),
    [
        ({"words": ("a", "b", "c")}, "3 words for 2 classes"),
        ({"words": ()}, "0 words for 2 classes"),
        ({"scale": (1.0,)}, "scale (1.0,) must be 2 numbers"),
        ({"shift": (0.0, float("nan"))}, "shift"),
        ({"scale": (1e9, 1.0)}, "at most 1e+06"),
        ({"alpha": 0.5}, "be 0 without a head"),
        ({"alpha": float("nan")}, "must lie in [0, 1]"),
        ({"alpha": 1.5, "head": LinearHead(np.ones((2, WIDTH)), np.ones(2))}, "must lie in [0, 1]"),
        ({"prompt": Prompt(np.ones((2, 1, 2, WIDTH)))}, "2 candidate prompts; exactly 1"),
        ({"prompt": SPACE.at(np.ones((3, 2, 2)))}, "3 candidate prompts; exactly 1"),
        ({"head": LinearHead(np.ones((2, WIDTH + 1)), np.ones(2))}, "linear head of shapes ((2, 4), (2,))"),
        ({"head": LinearHead(np.ones((3, WIDTH)), np.ones(3))}, "linear head of shapes ((3, 3), (3,))"),
        ({"head": MlpHead(np.ones((5, WIDTH)), np.ones(5), np.ones((2, 4)), np.ones(2))}, "mlp head of shapes"),
        ({"head": MlpHead(np.ones((0, WIDTH)), np.ones(0), np.ones((2, 0)), np.ones(2))}, "mlp head of shapes"),
    ],
)
def test_an_answer_that_does_not_fit_the_task_is_told_why(changes: dict[str, object], expectation: str) -> None:
    with pytest.raises(AnswerError) as problem:
        answers.check(Answer((BARE, replace(BARE, **changes))), TASK, WIDTH)  # type: ignore[arg-type]
    assert str(problem.value).startswith("member 1: ")
    assert expectation in str(problem.value)


def test_a_bilstm_head_goes_with_the_features_of_all_tokens_and_no_other() -> None:
    units = 2
    head = BiLstmHead(*(np.zeros(s) for s in ((2, 8, WIDTH), (2, 8, units), (2, 8), (2, 2 * units), (2,))))
    answers.check(Answer((replace(BARE, head=head, alpha=1.0, features="all"),)), TASK, WIDTH)
    linear = LinearHead(np.zeros((2, WIDTH)), np.zeros(2))
    for wrong in (replace(BARE, head=head), replace(BARE, head=linear, features="all"), replace(BARE, features="all")):
        with pytest.raises(AnswerError, match="features"):
            answers.check(Answer((wrong,)), TASK, WIDTH)


def test_the_number_of_members_is_limited() -> None:
    answers.check(Answer((BARE,) * answers.MOST_MEMBERS), TASK, WIDTH)
    for count in (0, answers.MOST_MEMBERS + 1):
        with pytest.raises(AnswerError, match=f"{count} members"):
            answers.check(Answer((BARE,) * count), TASK, WIDTH)


# ── apply ────────────────────────────────────────────────────────────────────────────────────────────────────


class Fixed:
    """A language model whose logits and features follow from the length of the text."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def outputs(
        self, prompts: Prompts | None, texts: Sequence[Text], template: str, words: Sequence[str], features: FeatureKind
    ) -> Outputs:
        """Logits n, 2n, ... for a text of n characters; all features n."""
        if template == "refused":
            raise QueryError("no such template")
        self.sizes.append(len(texts))
        length = np.array([[len(text[0])] for text in texts], dtype=np.float32)
        logits = length * np.arange(1, len(words) + 1, dtype=np.float32)
        return Outputs(logits[None], np.repeat(length, WIDTH, axis=1)[None])


def test_a_mixture_of_two_members_is_computed_as_by_hand() -> None:
    """Text "xy": q = (2, 4) for two words; for four words (2, 4, 6, 8) the class means are (3, 7)."""
    head = LinearHead(np.array([[1.0, 0, 0], [0, 2, 0]]), np.array([0.5, 0.0]))
    first = replace(BARE, scale=(0.5, 1.0), shift=(1.0, -1.0), head=head, alpha=0.25)
    second = replace(BARE, words=("a", "b", "c", "d"))
    got = answers.probabilities(Answer((first, second)), TASK, Fixed(), [("xy",)])

    def yes(no: float, yes: float) -> float:
        return 1 / (1 + np.exp(no - yes))

    p1 = yes(0.5 * 2 + 1, 4 - 1)
    p2 = yes(2 + 0.5, 2 * 2)
    p = (0.75 * p1 + 0.25 * p2 + yes(3, 7)) / 2
    np.testing.assert_allclose(got, [[1 - p, p]], rtol=1e-12)


def test_mixing_logits_adds_the_head_before_the_softmax() -> None:
    member = replace(BARE, head=LinearHead(np.ones((2, WIDTH)) * [[1], [2]], np.zeros(2)), alpha=0.5, mix="logits")
    got = member.probabilities(Outputs(np.array([[[1.0, 3.0]]]), np.full((1, 1, WIDTH), 2.0)))[0]
    gap = (3 + 0.5 * 2 * WIDTH * 2) - (1 + 0.5 * WIDTH * 2)
    np.testing.assert_allclose(got, [[1 / (1 + np.exp(gap)), 1 / (1 + np.exp(-gap))]])


def test_texts_are_forwarded_in_bounded_batches_and_stay_in_order() -> None:
    lm, texts_ = Fixed(), [("x" * (n % 7),) for n in range(600)]
    got = answers.probabilities(Answer((BARE,)), TASK, lm, texts_)
    assert lm.sizes == [256, 256, 88]
    np.testing.assert_allclose(got[:, 1], [1 / (1 + np.exp(-(n % 7))) for n in range(600)], rtol=1e-6)
    np.testing.assert_allclose(got.sum(axis=1), 1)


def test_what_the_model_refuses_or_overflows_is_an_answer_error() -> None:
    with pytest.raises(AnswerError, match="the model refuses this answer: no such template"):
        answers.probabilities(Answer((replace(BARE, template="refused"),)), TASK, Fixed(), [("x",)])

    class Overflowing(Fixed):
        def outputs(self, *args: object) -> Outputs:  # type: ignore[override]
            return Outputs(np.full((1, 2, 2), np.nan, dtype=np.float32), np.zeros((1, 2, WIDTH), dtype=np.float32))

    with pytest.raises(AnswerError, match="2 of 2 texts get no finite probabilities"):
        answers.probabilities(Answer((BARE,)), TASK, Overflowing(), [("x",), ("y",)])


@given(data=st.data(), kind=st.sampled_from(["linear", "mlp", "prototype", "bilstm"]))
@settings(max_examples=40, deadline=None)
def test_a_head_gives_the_same_on_slices_of_texts(data: st.DataObject, kind: Kind) -> None:
    """Up to the rounding of float64, and each slice within the bounds; `between` is called after every one."""
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    shapes = {
        "linear": [(2, WIDTH), (2,)], "mlp": [(5, WIDTH), (5,), (2, 5), (2,)],
        "prototype": [(4, WIDTH), (2, 4), (2,)],
        "bilstm": [(2, 8, WIDTH), (2, 8, 2), (2, 8), (2, 4), (2,)],
    }[kind]  # fmt: skip
    head = KINDS[kind](*(rng.standard_normal(shape).astype(np.float32) for shape in shapes))
    member = replace(BARE, head=head, alpha=0.5, features="all" if kind == "bilstm" else "mask")
    texts, tokens = data.draw(st.integers(1, 9)), 6
    more = (tokens, WIDTH) if kind == "bilstm" else (WIDTH,)
    outs = Outputs(
        rng.standard_normal((1, texts, 2)).astype(np.float32),
        rng.standard_normal((1, texts, *more)).astype(np.float32),
        rng.integers(1, tokens + 1, texts) if kind == "bilstm" else None,
    )
    lm, calls = SimpleNamespace(outputs=lambda *_: outs), []
    values = data.draw(st.sampled_from([1, 100, 10_000, 1 << 30]))
    with mock_bounds(values):
        p = answers.probabilities(Answer((member,)), TASK, lm, [("a",)] * texts, lambda: calls.append(1))
    assert np.allclose(p, member.probabilities(outs, 2)[0], rtol=1e-12, atol=1e-15)
    assert len(calls) == texts if values == 1 else 1 <= len(calls) <= texts


@contextmanager
def mock_bounds(values: int) -> Iterator[None]:
    before = answers._VALUES, answers._PRODUCTS
    answers._VALUES = answers._PRODUCTS = values
    try:
        yield
    finally:
        answers._VALUES, answers._PRODUCTS = before


def test_the_memory_of_a_head_is_bounded_however_large_it_is() -> None:
    """Distances to 14 prototypes in 100,000 dimensions: of all 256 texts at once they would take 3 GiB and more."""
    size = 100_000
    head = PrototypeHead(*(np.zeros(shape, np.float32) for shape in ((size, WIDTH), (14, size), (14,))))
    member = Member("{a} {mask}", ("w",) * 14, head=head, alpha=1.0)
    task = replace(TASK, classes=tuple("abcdefghijklmn"), words=("w",) * 14)
    outs = Outputs(np.zeros((1, 256, 14), np.float32), np.ones((1, 256, WIDTH), np.float32))
    lm = SimpleNamespace(outputs=lambda *_: outs)
    tracemalloc.start()
    answers.probabilities(Answer((member,)), task, lm, [("a",)] * 256)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 512 << 20


def test_several_walks_of_as_many_steps_as_are_allowed_fit_into_an_answer() -> None:
    """Their streams stand in the header; what does not fit is told by its size, and not as no answer."""
    space, most = WeightSpace("biases", 0, 0.1, 1), MOST_STEPS
    walk = space.walk(np.arange(most) + 2**31, np.ones(most))
    members = tuple(Member("{a} {mask}", ("x", "y"), walk) for _ in range(4))
    blob = answers.to_bytes(Answer(members))
    assert answers.to_bytes(answers.from_bytes(blob)) == blob
    with pytest.raises(
        AnswerError, match=r"streams of walks take [\d,]+ bytes; 16,777,216 are allowed. Take fewer steps"
    ):
        answers.from_bytes(answers.to_bytes(Answer(members * 8)))
