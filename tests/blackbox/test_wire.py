"""A frame is decoded to what was encoded, and all other bytes raise a ProtocolError before they can do harm."""

import socket
import struct
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from harness.blackbox import framing, wire
from harness.blackbox.query import Query
from harness.contract import Prompt, Subspace
from harness.errors import ProtocolError, QueryError

count = st.integers(0, 2**31)
text = st.text(st.characters(codec="utf-8"), max_size=8)
array = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=1, max_dims=4, max_side=4), elements=st.floats(-1e6, 1e6, width=32)
)
packed = array.map(wire.Array.of)
spaces = st.builds(
    Subspace,
    dim=count,
    std=st.lists(st.floats(0, 1e5), max_size=4).map(tuple),
    tokens=count,
    seed=st.integers(0, 2**62),
    distribution=st.sampled_from(["normal", "uniform"]),
    mode=st.sampled_from(["add", "prepend"]),
)
requests = st.one_of(
    st.builds(wire.Declare, id=count, texts=st.lists(st.tuples(text) | st.tuples(text, text), max_size=4)),
    st.builds(wire.Declare, id=count, space=spaces),
    st.builds(
        wire.QueryFrame,
        texts=count,
        template=text,
        words=st.lists(text, max_size=3).map(tuple),
        prompt=st.none() | packed,
        mode=st.sampled_from(["add", "prepend"]),
        space=st.none() | count,
        features=st.sampled_from([None, "mask", "cls"]),
    ),
    st.builds(wire.Words, st.lists(text, max_size=3).map(tuple)),
    st.builds(wire.Offer, st.binary(max_size=20)),
    st.builds(wire.Finished, st.sampled_from(["returned", "budget", "crashed", "memory"]), text),
)
replies = st.one_of(
    st.builds(wire.Done),
    st.builds(wire.Result, rows_left=count, logits=packed, features=st.none() | packed),
    st.builds(wire.WordIds, st.lists(st.lists(st.integers(0, 60_000), max_size=3), max_size=3)),
    st.builds(wire.Refused, rows_asked=st.integers(1, 2**62), rows_left=count, rows_total=count),
    st.builds(wire.Rejected, text),
)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair()
    with left, right:
        yield left, right


# ── frames ───────────────────────────────────────────────────────────────────────────────────────────────────


@settings(deadline=None)
@given(requests)
def test_every_request_comes_back_as_it_went(frame: wire.Request) -> None:
    data = wire.encode(frame)
    assert struct.unpack("<I", data[:4]) == (len(data) - 4,)
    assert wire.decode_request(data[4:]) == frame
    with pytest.raises(ProtocolError):
        wire.decode_reply(data[4:])


@settings(deadline=None)
@given(replies)
def test_every_reply_comes_back_as_it_went(frame: wire.Reply) -> None:
    data = wire.encode(frame)
    assert wire.decode_reply(data[4:]) == frame
    with pytest.raises(ProtocolError):
        wire.decode_request(data[4:])


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=80))
def test_any_bytes_are_a_frame_or_a_protocol_error(body: bytes) -> None:
    for decode in (wire.decode_request, wire.decode_reply):
        with suppress(ProtocolError):
            decode(body)


@settings(deadline=None, max_examples=300)
@given(requests, st.data())
def test_a_damaged_request_is_a_request_or_a_protocol_error(frame: wire.Request, data: st.DataObject) -> None:
    body = bytearray(wire.encode(frame)[4:])
    for _ in range(data.draw(st.integers(0, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.just(len(body)) | st.integers(0, len(body)))
    try:
        request = wire.decode_request(bytes(body[:cut]))
    except ProtocolError:
        return
    if isinstance(request, wire.QueryFrame) and request.prompt is not None:
        with suppress(QueryError):
            assert np.isfinite(request.prompt.values(3 if request.space is not None else 4)).all()


def bomb(tag: str, field: str, payload: bytes) -> bytes:
    pack = msgspec.msgpack.encode
    return b"\x82" + pack("type") + pack(tag) + pack(field) + payload


@pytest.mark.parametrize(
    "body",
    [
        bomb("Ready", "config", b"\x81\xa1a" + b"\x91" * 200_000 + b"\xc0"),
        bomb("Ready", "config", b"\x81\xa1a" + b"\x81\xa1a" * 200_000 + b"\xc0"),
        bomb("Ready", "config", b"\x81\xa1a\x81\x80\x01"),
        bomb("Ready", "config", b"\x81\xa1a\x81\x90\x80"),
        bomb("Ready", "config", b"\x81\xa1a\xc7\x0c\xff" + b"\xff" * 12),
        bomb("Ready", "config", b"\x81\xa1a\xd7\xff" + b"\xff" * 8),
        bomb("Nothing", "config", b"\x91" * 200_000 + b"\xc0"),
        b"\x91" * 200_000 + b"\xc0",
        b"\x82\xa1x" + b"\x91" * 200_000 + b"\xc0",
    ],
    ids=[
        "lists",
        "maps",
        "map as key",
        "map beside list as key",
        "timestamp96",
        "timestamp64",
        "tag",
        "bare",
        "untagged",
    ],
)
def test_nested_bombs_and_odd_keys_raise_nothing_but_a_protocol_error(body: bytes) -> None:
    with suppress(ProtocolError):
        wire.decode_request(body)


@pytest.mark.parametrize(
    "header", [b"\xdd\xff\xff\xff\xff", b"\xdd\x7f\xff\xff\xff", b"\xdc\xff\xff", b"\xc6\xff\xff\xff\xff"]
)
@pytest.mark.parametrize("field", [("Words", "words"), ("Declare", "texts"), ("Offer", "answer")])
def test_a_header_that_announces_more_than_there_is_takes_no_memory(header: bytes, field: tuple[str, str]) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):
            wire.decode_request(bomb(*field, header))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "body",
    [
        bomb("Words", "words", b"\xdd" + struct.pack(">I", 1 << 20) + b"\xa0" * (1 << 20)),
        bomb("Declare", "texts", b"\xdd" + struct.pack(">I", 1 << 20) + b"\x90" * (1 << 20)),
    ],
    ids=["words", "texts"],
)
def test_a_frame_of_a_million_empty_strings_is_refused_before_it_unfolds(body: bytes) -> None:
    with pytest.raises(ProtocolError, match="length <="):
        wire.decode_request(body)


def test_a_space_travels_and_numpy_numbers_become_plain() -> None:
    space = Subspace(np.int64(5), (np.float32(0.5), 1.0), np.int32(3), np.int64(2**40), "uniform", "prepend")  # type: ignore[arg-type]
    frame = wire.Declare(1, space=space)
    back = wire.decode_request(wire.encode(frame)[4:])
    assert isinstance(back, wire.Declare)
    assert back.space is not None
    assert back.space == Subspace(5, (0.5, 1.0), 3, 2**40, "uniform", "prepend")


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_out_of_range_is_a_protocol_error(seed: int) -> None:
    data = wire.encode(wire.Declare(1, space=Subspace(5, (1.0,), 3, seed)))
    with pytest.raises(ProtocolError):
        wire.decode_request(data[4:])


# ── arrays ───────────────────────────────────────────────────────────────────────────────────────────────────


@given(array)
def test_an_array_comes_back_bit_by_bit(values: np.ndarray) -> None:
    back = wire.Array.of(values).values(values.ndim)
    assert back.dtype == np.float32
    assert back.shape == values.shape
    assert back.tobytes() == values.tobytes()


def test_an_array_is_packed_row_major_whatever_its_layout_and_type() -> None:
    values = np.arange(6, dtype=np.float64).reshape(2, 3).T
    np.testing.assert_array_equal(wire.Array.of(values).values(2), values)


@pytest.mark.parametrize(
    ("shape", "data", "dimensions", "expectation"),
    [
        ((2, 3), b"\0" * 24, 3, "3 dimensions"),
        ((2, 3), b"\0" * 20, 2, "needs 24 bytes; it has 20"),
        ((2, 3), b"\0" * 28, 2, "needs 24 bytes; it has 28"),
        ((), b"\0" * 4, 1, "1 dimensions"),
        ((0, 3), b"", 2, "none of them 0"),
        ((0, 2**31, 2**31, 2**31), b"", 4, "none of them 0"),
        ((2**31, 2**31, 2**31), b"\0" * 4, 3, "bytes; it has 4"),
        ((2**31, 2**31, 4), b"", 3, "bytes; it has 0"),
    ],
)
def test_a_shape_that_does_not_fit_its_bytes_is_refused(
    shape: tuple[int, ...], data: bytes, dimensions: int, expectation: str
) -> None:
    with pytest.raises(QueryError, match=expectation):
        wire.Array(shape, data).values(dimensions)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1.1e6, -3e38])
def test_a_value_that_is_not_finite_or_huge_is_refused(value: float) -> None:
    values = np.zeros((2, 3), dtype=np.float32)
    values[1, 1] = value
    with pytest.raises(QueryError, match=r"not finite or exceeds 1e\+06"):
        wire.Array.of(values).values(2)


def test_a_prompt_of_the_wrong_rank_fails_where_it_is_sent() -> None:
    with pytest.raises(QueryError, match=r"\(2, 3\); \(candidates, layers, tokens, width\) expected"):
        Query.of(Prompt(np.zeros((2, 3), dtype=np.float32)), ["a film"], None, None, None, False)


def test_prompts_that_are_none_fail_where_they_are_sent() -> None:
    with pytest.raises(QueryError, match="prompts are ndarray; Prompt"):
        Query.of(np.zeros((2, 1, 2, 16)), ["a film"], None, None, None, False)  # type: ignore[arg-type]


# ── the socket ───────────────────────────────────────────────────────────────────────────────────────────────


def test_frames_arrive_complete_and_in_order_and_a_close_between_them_gives_none(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    left, right = pair
    frames = [wire.encode(wire.Words((str(n) * n,))) for n in range(1, 4)]
    left.sendall(b"".join(frames))
    left.close()
    assert [framing.receive(right, 1000) for _ in range(4)] == [*(frame[4:] for frame in frames), None]


@pytest.mark.parametrize("length", [0, 101, 2**32 - 1])
def test_a_length_outside_the_cap_is_refused_before_anything_is_allocated(
    pair: tuple[socket.socket, socket.socket], length: int
) -> None:
    left, right = pair
    left.sendall(struct.pack("<I", length))
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError, match=f"frame of {length:,} bytes; 1 to 100 are accepted"):
            framing.receive(right, 100)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_memory_is_taken_only_for_what_has_come(pair: tuple[socket.socket, socket.socket]) -> None:
    left, right = pair
    left.sendall(struct.pack("<I", 1 << 30) + b"abc")
    left.close()
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError, match=r"cut off: 1,073,741,821 of 1,073,741,824 bytes are missing"):
            framing.receive(right, 1 << 30)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("sent", [b"\x05", b"\x05\0\0", b"\x05\0\0\0", b"\x05\0\0\0abcd"])
def test_a_truncated_frame_is_a_protocol_error(pair: tuple[socket.socket, socket.socket], sent: bytes) -> None:
    left, right = pair
    left.sendall(sent)
    left.close()
    with pytest.raises(ProtocolError, match="cut off"):
        framing.receive(right, 100)


def drip(sock: socket.socket, data: bytes, pause_s: float) -> Callable[[], None]:
    """Send byte by byte from a thread; calling the result stops it."""
    stop = threading.Event()

    def send() -> None:
        for byte in data:
            if stop.wait(pause_s):
                return
            sock.sendall(bytes([byte]))

    thread = threading.Thread(target=send)
    thread.start()

    def finish() -> None:
        stop.set()
        thread.join()

    return finish


def test_a_slow_sender_is_waited_for_within_the_timeout(pair: tuple[socket.socket, socket.socket]) -> None:
    left, right = pair
    right.settimeout(10)
    frame = wire.encode(wire.Words(("a",)))
    finish = drip(left, frame, 0.001)
    assert framing.receive(right, 100) == frame[4:]
    finish()
    assert right.gettimeout() == 10


def test_a_sender_that_drips_is_cut_off_when_the_frames_time_is_up(pair: tuple[socket.socket, socket.socket]) -> None:
    """Each byte arrives within the timeout, but the whole frame does not."""
    left, right = pair
    right.settimeout(0.2)
    finish = drip(left, struct.pack("<I", 1000) + b"x" * 1000, 0.02)
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        framing.receive(right, 1000)
    assert time.monotonic() - started < 15
    finish()


def test_a_silent_sender_is_a_timeout(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[1].settimeout(0.05)
    with pytest.raises(TimeoutError):
        framing.receive(pair[1], 100)
