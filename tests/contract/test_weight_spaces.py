"""A change of weights as data: what is refused, what is sent, and what is stored."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.blackbox import wire
from harness.blackbox.query import Query
from harness.contract import (
    Answer,
    Coordinates,
    Member,
    ModelInfo,
    Prompt,
    Subspace,
    Task,
    WeightFacts,
    Weights,
    WeightSpace,
)
from harness.errors import AnswerError, QueryError
from harness.service import messages
from harness.solving import answers

TASK = Task("sst2", ("negative", "positive"), "accuracy", "{a} It was {mask} .", (" bad", " good"))
BIASES = WeightSpace("biases", np.int64(3), np.float32(0.5), np.int64(7), (np.int64(1), 2))  # type: ignore[arg-type]
LOW = WeightSpace("attention", 2, 0.1, 3, (1,), rank=2)
WALKS = WeightSpace("all", 0, 1.0, 2**62, distribution="rademacher")
PROMPT = Prompt(np.ones((1, 1, 2, 4), dtype=np.float32))
FACTS = (WeightFacts("biases", 0, 10, 3.0), WeightFacts("biases", 1, 30, 1.0), WeightFacts("all", -1, 100, 2.0))
INFO = ModelInfo("made up", "masked", 2, 4, 100, 512, 2, 0.05, (0.5, 0.6), weights=FACTS)


def candidates() -> list[Weights]:
    """One of each kind."""
    point = Subspace(2, (1.0,), 2, 1).at([1, 2])
    return [
        BIASES.at(np.ones((2, 3))),
        BIASES.at([1, 2, 3], PROMPT),
        BIASES.at(np.eye(3), point),
        WALKS.walk([[1, 2**32 - 1], [1, 5]], [[0.5, 1], [0.5, -1]]),
        WALKS.walk([], []),
        BIASES.at(np.eye(3)) + WALKS.walk([1, 2], [0.5, 1.0]) + LOW.at([[1, 2]]),
        WALKS.walk([7], [0.5]) + BIASES.at([1, 2, 3], PROMPT),
        LOW.at([1, 2]) + LOW.at([3, 4]),
    ]


def equal(a: Any, b: Any) -> bool:
    """Whether two candidates are the same to the last bit."""
    if isinstance(a, Weights):
        streams = (a.streams is None and b.streams is None) or np.array_equal(a.streams, b.streams)
        more = len(a.more) == len(b.more) and all(map(equal, a.more, b.more))
        return a.space == b.space and np.array_equal(a.z, b.z) and streams and more and equal(a.prompts, b.prompts)
    if isinstance(a, Prompt):
        return isinstance(b, Prompt) and np.array_equal(a.values, b.values) and a.mode == b.mode
    if isinstance(a, Coordinates):
        return isinstance(b, Coordinates) and a.space == b.space and np.array_equal(a.z, b.z)
    return a is None and b is None


@pytest.mark.parametrize("weights", candidates())
def test_a_query_with_weights_arrives_as_it_was_sent(weights: Weights) -> None:
    query = Query.of(weights, [("a",)], None, None, None, normalize=False)
    inner = weights.prompts
    space = inner.space if isinstance(inner, Coordinates) else None
    body = wire.encode(wire.QueryFrame.of(query, TASK, 0, None if space is None else 0))[wire.PREFIX :]
    frame = wire.decode_request(body)
    assert isinstance(frame, wire.QueryFrame)
    assert equal(frame.query((("a",),), space).prompts, weights)
    for media in (messages.MSGPACK, messages.JSON):
        packed = messages.encode(messages.QueryBody.of(query, no_shots()), media)
        assert equal(messages.decode(packed, media, messages.QueryBody).query(no_shots()).prompts, weights)
    assert (query.level, query.candidates) == (5, len(weights))


def no_shots() -> Any:
    """A split without texts."""
    from harness.contract import Examples, Shots

    nothing = Examples((), np.zeros(0, dtype=np.int64))
    return Shots(nothing, nothing)


@pytest.mark.parametrize("weights", [one for one in candidates() if len(one) == 1])
def test_an_answer_with_weights_is_read_as_it_was_written(weights: Weights) -> None:
    blob = answers.to_bytes(Answer.of(TASK, weights, loss=0.5))
    found = answers.from_bytes(blob)
    assert equal(found.members[0].prompt, weights)
    assert answers.to_bytes(found) == blob


def test_an_answer_has_exactly_one_weight_candidate() -> None:
    two = BIASES.at(np.ones((2, 3)))
    with pytest.raises(AnswerError, match="exactly 1 is needed"):
        answers.to_bytes(Answer.of(TASK, two))
    with pytest.raises(AnswerError, match="2 candidate prompts; exactly 1"):
        answers.check(Answer((Member.of(TASK, two),)), TASK, 4)


def test_a_stored_stream_that_is_none_is_refused() -> None:
    blob = answers.to_bytes(Answer.of(TASK, WALKS.walk([7], [1.0])))
    for wrong in (b"[-1]", b"[99999999999]"):
        other = blob.replace(b"[7]", wrong.ljust(3))
        size = int.from_bytes(blob[:8], "little") + len(other) - len(blob)
        with pytest.raises(AnswerError):
            answers.from_bytes(size.to_bytes(8, "little") + other[8:])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"group": "prompts"}, "one of biases, norms"),
        ({"std": float("nan")}, "from 0 to 1e6"),
        ({"std": -1.0}, "from 0 to 1e6"),
        ({"distribution": "cauchy"}, "normal or rademacher"),
        ({"seed": -1}, "2\\*\\*62"),
        ({"rank": 4}, "rank 4 for group 'biases'; 0 to 0 expected"),
        ({"rank": 1, "group": "norms"}, "rank 1 for group 'norms'; 0 to 0 expected"),
        ({"rank": 65, "group": "attention"}, "rank 65 for group 'attention'; 0 to 64 expected"),
        ({"rank": -1, "group": "all"}, "rank -1; at most"),
        ({"group": "lora"}, "rank 0 for group 'lora'"),
        ({"group": "lora", "rank": 2, "beside": ()}, "some of query, key"),
        ({"group": "lora", "rank": 2, "beside": ("query", "query")}, "each once"),
        ({"group": "lora", "rank": 2, "beside": ("gate",)}, "some of query, key"),
        ({"layers": (2, 1)}, "ascending"),
        ({"layers": (-1,)}, "ascending"),
    ],
)
def test_a_space_that_is_none_is_refused_where_it_is_used(change: dict[str, Any], says: str) -> None:
    space = msgspec.structs.replace(BIASES, **change)
    with pytest.raises(ValueError, match=says):
        space.at([1, 2, 3])


def test_coordinates_and_walks_of_a_wrong_shape_are_refused() -> None:
    for z in (1.0, [1, 2], np.ones((2, 2)), np.ones((0, 3)), np.ones((1, 1, 3))):
        with pytest.raises(ValueError, match="coordinates of shape"):
            BIASES.at(z)
    with pytest.raises(ValueError, match="coordinates of shape"):
        WALKS.at([])
    with pytest.raises(ValueError, match="a walk of"):
        WALKS.walk([1, 2], [1.0])
    for streams in ([-1], [2**32], [0.5]):
        with pytest.raises(ValueError, match="whole numbers"):
            WALKS.walk(streams, [1.0])
    with pytest.raises(ValueError, match="3 prompts for 2 weight candidates"):
        BIASES.at(np.ones((2, 3)), Prompt(np.ones((3, 1, 1, 4))))
    with pytest.raises(ValueError, match="prompts are list"):
        BIASES.at([1, 2, 3], [None])  # type: ignore[arg-type]


def test_changes_are_added_up_in_their_order() -> None:
    both = BIASES.at(np.eye(3)) + WALKS.walk([1], [0.5])
    assert [part.space for part in both.parts] == [BIASES, WALKS]
    assert [part.space for part in (both + (both + LOW.at([1, 2]))).parts] == [BIASES, WALKS, BIASES, WALKS, LOW]
    assert len(both) == len(WALKS.walk([1], [0.5]) + BIASES.at(np.eye(3))) == 3
    for sum_ in (BIASES.at([1, 2, 3], PROMPT) + LOW.at([1, 2]), LOW.at([1, 2]) + BIASES.at([1, 2, 3], PROMPT)):
        assert sum_.prompts is PROMPT
        assert all(part.prompts is None for part in sum_.parts)


def test_changes_that_do_not_fit_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a sum of changes with \[3, 2\] candidates"):
        BIASES.at(np.eye(3)) + LOW.at(np.eye(2))
    with pytest.raises(ValueError, match="both changes have prompts"):
        BIASES.at([1, 2, 3], PROMPT) + LOW.at([1, 2], PROMPT)
    with pytest.raises(ValueError, match="2 prompts for 3 weight candidates"):
        BIASES.at([1, 2, 3], Prompt(np.ones((2, 1, 1, 4)))) + WALKS.walk(np.ones((3, 1), dtype=int), np.ones((3, 1)))
    with pytest.raises(ValueError, match="a sum of 257 changes; 256 are allowed"):
        Weights(BIASES, np.ones((1, 3)), more=(LOW.at([1, 2]),) * 256)
    for wrong in (BIASES.at([1, 2, 3], PROMPT), BIASES.at([1, 2, 3]) + LOW.at([1, 2]), None):
        with pytest.raises(ValueError, match="join them by"):
            Weights(LOW, np.ones((1, 2)), more=(wrong,))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        BIASES.at([1, 2, 3]) + PROMPT  # type: ignore[operator]


def test_a_change_alone_has_the_bytes_that_it_always_had() -> None:
    part = wire.WeightsPart.of(BIASES.at([1, 2, 3]))
    assert set(msgspec.to_builtins(part)) == {"space", "z", "streams"}
    assert b"more" not in answers.to_bytes(Answer.of(TASK, BIASES.at([1, 2, 3])))


def test_a_sum_on_the_wire_is_as_strict_as_a_change() -> None:
    part = wire.WeightsPart.of(BIASES.at([1, 2, 3]) + WALKS.walk([1], [1.0]))
    assert isinstance(part, wire.WeightsPart)
    assert isinstance(part.more, tuple)
    for wrong, says in (
        (msgspec.structs.replace(part.more[0], streams=b"1"), "needs 4 bytes of streams; 1 came"),
        (msgspec.structs.replace(part.more[0], z=wire.Array((1, 1), b"\xff" * 4)), "not finite"),
        (msgspec.structs.replace(part.more[0], space=msgspec.structs.replace(WALKS, rank=99)), "rank 99"),
    ):
        with pytest.raises(QueryError, match=says):
            wire.unpacked(None, "add", None, msgspec.structs.replace(part, more=(wrong,)))
    nested = msgspec.to_builtins(part)
    nested["more"] = [nested]
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(nested, wire.WeightsPart)
    blob = answers.to_bytes(Answer.of(TASK, BIASES.at([1, 2, 3]) + WALKS.walk([1], [1.0])))
    missing = blob.replace(b'"0.weights.1"', b'"0.weights.2"')
    with pytest.raises(AnswerError, match=r"'0\.weights\.1' is missing"):
        answers.from_bytes(missing)


def test_what_does_not_fit_on_the_wire_is_refused() -> None:
    part = wire.WeightsPart.of(WALKS.walk([[1, 2]], [[1.0, 2.0]]))
    assert isinstance(part, wire.WeightsPart)
    for wrong, says in (
        (msgspec.structs.replace(part, streams=b"1234"), "needs 8 bytes of streams; 4 came"),
        (msgspec.structs.replace(part, streams=None), "expected"),
        (msgspec.structs.replace(part, z=wire.Array((1, 2), b"\xff" * 8)), "not finite"),
        (msgspec.structs.replace(part, space=BIASES), None),
    ):
        if says is None:
            assert wire.unpacked(None, "add", None, wrong) is not None  # a walk on biases is fine
        else:
            with pytest.raises(QueryError, match=says):
                wire.unpacked(None, "add", None, wrong)


@given(st.integers(1, 5), st.integers(0, 6))
def test_a_walk_has_as_many_candidates_and_steps_as_it_was_given(count: int, steps: int) -> None:
    walk = WALKS.walk(np.zeros((count, steps), dtype=int), np.ones((count, steps)))
    assert (len(walk), walk.z.shape) == (count, (count, max(1, steps)))
    assert steps or not walk.z.any()


def test_candidates_are_as_many_as_weights_or_prompts() -> None:
    many = Prompt(np.ones((3, 1, 1, 4)))
    assert len(BIASES.at([1, 2, 3], many)) == 3
    assert len(BIASES.at(np.eye(3), PROMPT)) == 3


def test_groups_are_published_by_layer() -> None:
    assert INFO.weight_count("biases") == 40
    assert INFO.weight_count("biases", (1,)) == 30
    assert INFO.weight_rms("biases", (1,)) == 1.0
    assert INFO.weight_rms("biases") == pytest.approx(np.sqrt((10 * 9 + 30 * 1) / 40))
    assert INFO.weight_rms("all") == 2.0
    for group, layers in (("norms", ()), ("biases", (2,)), ("all", (0,))):
        with pytest.raises(ValueError, match="no weights of group"):
            INFO.weight_rms(group, layers)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no weights of group"):
        replace(INFO, weights=()).weight_count("biases")
