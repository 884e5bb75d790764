"""Frames that no honest client sends, from a client of its own; each takes the place of `tune`.

The budget is `at.rows` rows; the ledger and the referee's sums tell whether more was answered.
"""

from __future__ import annotations

import array
import math
import os
import pickle
import socket
import stat
import struct
import threading
import time
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from harness import Answer

if TYPE_CHECKING:
    from collections.abc import Iterator


class Raw:
    """The referee's socket, found among the descriptors, and frames made by hand."""

    def __init__(self) -> None:
        """Take the first descriptor that is a socket."""
        found = [n for n in range(3, 256) if _is_socket(n)]
        self.sock = socket.socket(fileno=os.dup(found[0]))
        self.sock.settimeout(None)

    def send(self, *frames: dict[str, Any] | bytes) -> None:
        """Send frames at once; bytes go as they are."""
        self.sock.sendall(b"".join(f if isinstance(f, bytes) else framed(f) for f in frames))

    def take(self) -> dict[str, Any]:
        """Read one reply; EOFError where the referee has hung up."""
        (size,) = struct.unpack("<I", self._exactly(4))
        return dict(msgspec.msgpack.decode(self._exactly(size)))

    def ask(self, frame: dict[str, Any]) -> dict[str, Any]:
        """Send one frame and read the reply."""
        self.send(frame)
        return self.take()

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            chunk = self.sock.recv(size - len(data))
            if not chunk:
                raise EOFError
            data += chunk
        return data


def _is_socket(descriptor: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(descriptor).st_mode)
    except OSError:
        return False


def framed(frame: dict[str, Any]) -> bytes:
    """Length and msgpack body."""
    body = msgspec.msgpack.encode(frame)
    return struct.pack("<I", len(body)) + body


def declare(at: Any, number: int = 900, texts: int = 1) -> dict[str, Any]:
    """A text set."""
    return {"type": "Declare", "id": number, "texts": [["a film"] * at.task.fields] * texts}


def query(at: Any, number: int = 900, **more: Any) -> dict[str, Any]:
    """One forward request."""
    return {"type": "Query", "texts": number, "template": at.task.template, "words": list(at.task.words)} | more


def values(*shape: int, fill: float = 0.0) -> list[Any]:
    """A packed array."""
    return [list(shape), np.full(math.prod(shape), fill, dtype="<f4").tobytes()]


def pipeline(at: Any) -> Iterator[Answer]:
    """Ten times the budget, sent before the first reply is read."""
    raw = Raw()
    raw.ask(declare(at))
    sender = threading.Thread(target=raw.send, args=[query(at)] * (10 * at.rows), daemon=True)
    sender.start()
    got = [raw.take()["type"] for _ in range(10 * at.rows)]
    sender.join()
    yield Answer.of(at.task, answered=float(got.count("Result")))


def pipeline_from_two_threads(at: Any) -> Iterator[Answer]:
    """Two descriptors of one socket, whose frames race."""
    raw = Raw()
    raw.ask(declare(at))

    def send(own: Raw) -> None:
        for _ in range(2 * at.rows):
            own.send(query(at))

    threads = [threading.Thread(target=send, args=(own,), daemon=True) for own in (raw, Raw())]
    for thread in threads:
        thread.start()
    got = [raw.take()["type"] for _ in range(4 * at.rows)]
    yield Answer.of(at.task, answered=float(got.count("Result")))


def swap_texts_behind_a_query(at: Any) -> Iterator[Answer]:
    """One text when it is priced, many when it is forwarded."""
    raw = Raw()
    for _ in range(20):
        raw.send(declare(at, texts=1), query(at), declare(at, texts=at.rows * 2), query(at))
    for _ in range(80):
        raw.take()
    yield Answer.of(at.task)


def ask_without_texts(at: Any) -> Iterator[Answer]:
    """Nothing times anything is free."""
    raw = Raw()
    raw.ask({"type": "Declare", "id": 901, "texts": []})
    print(raw.ask(query(at, 901))["type"])
    yield Answer.of(at.task)


def ask_with_no_candidates(at: Any) -> Iterator[Answer]:
    """No candidates cost nothing."""
    raw = Raw()
    raw.ask(declare(at))
    print(raw.ask(query(at, prompt=[[0, 1, 2, 16], b""]))["type"])
    yield Answer.of(at.task)


def ask_with_an_overflowing_shape(at: Any) -> Iterator[Answer]:
    """65536 to the fourth is 0 in 64 bits."""
    raw = Raw()
    raw.ask(declare(at))
    print(raw.ask(query(at, prompt=[[65536] * 4, b""]))["type"])
    yield Answer.of(at.task)


def ask_with_a_wrong_shape(at: Any) -> Iterator[Answer]:
    """More candidates than there are bytes."""
    raw = Raw()
    raw.ask(declare(at))
    print(raw.ask(query(at, prompt=[[1000, 1, 2, 16], bytes(128)]))["type"])
    yield Answer.of(at.task)


def ask_with_nan(at: Any) -> Iterator[Answer]:
    """Numbers that are none."""
    raw = Raw()
    raw.ask(declare(at))
    kinds = [raw.ask(query(at, prompt=values(1, 1, 2, 16, fill=x)))["type"] for x in (math.nan, math.inf, -math.inf)]
    print(kinds)
    yield Answer.of(at.task)


def ask_with_huge_numbers(at: Any) -> Iterator[Answer]:
    """Numbers that overflow in the model."""
    raw = Raw()
    raw.ask(declare(at))
    print(raw.ask(query(at, prompt=values(1, 1, 2, 16, fill=1e30)))["type"])
    yield Answer.of(at.task)


def ask_for_what_was_never_declared(at: Any) -> Iterator[Answer]:
    """Somebody else's texts, somebody else's subspace."""
    raw = Raw()
    print([raw.ask(query(at, n))["type"] for n in (0, 1, 2**31)], raw.ask(query(at, 0, space=7))["type"])
    yield Answer.of(at.task)


def declare_a_huge_subspace(at: Any) -> Iterator[Answer]:
    """A subspace so large that making it is the attack."""
    raw = Raw()
    space = {"dim": 2**31, "std": [1.0] * 4000, "tokens": 2**31, "seed": 0}
    print(raw.ask({"type": "Declare", "id": 902, "space": space})["type"])
    yield Answer.of(at.task)


def ask_with_a_negative_count(at: Any) -> Iterator[Answer]:
    """A negative price is a present."""
    raw = Raw()
    raw.ask(declare(at))
    raw.ask(query(at, prompt=[[-1, 1, 2, 16], bytes(128)]))
    yield Answer.of(at.task)


def ask_with_a_count_of_many_digits(at: Any) -> Iterator[Answer]:
    """A number that no counter holds."""
    raw = Raw()
    raw.ask(query(at, 2**63))
    yield Answer.of(at.task)


def send_a_result(at: Any) -> Iterator[Answer]:
    """The referee's own words, sent to it."""
    raw = Raw()
    raw.ask({"type": "Result", "rows_left": 10**9, "logits": values(1, 1, 2)})
    yield Answer.of(at.task)


def send_a_job(at: Any) -> Iterator[Answer]:
    """A new job, with another budget."""
    raw = Raw()
    raw.ask({"type": "Job", "rows_total": 10**9})
    yield Answer.of(at.task)


def send_more_fields(at: Any) -> Iterator[Answer]:
    """A query with a price on it."""
    raw = Raw()
    raw.ask(query(at, rows=0))
    yield Answer.of(at.task)


def send_a_field_twice(at: Any) -> Iterator[Answer]:
    """Which of the two is checked, which is used?"""
    raw = Raw()
    raw.ask(declare(at, 903, 1))
    raw.ask(declare(at, 904, 40))
    pairs = [
        ("type", "Query"),
        ("texts", 903),
        ("texts", 904),
        ("template", at.task.template),
        ("words", list(at.task.words)),
    ]
    body = bytes([0x80 | len(pairs)]) + b"".join(msgspec.msgpack.encode(part) for pair in pairs for part in pair)
    print(_bytes(raw, body)["type"])
    yield Answer.of(at.task)


def _bytes(raw: Raw, body: bytes) -> dict[str, Any]:
    raw.send(struct.pack("<I", len(body)) + body)
    return raw.take()


def send_a_pickle(at: Any) -> Iterator[Answer]:
    """What unpickles it runs it: here it would make a file."""

    class Bomb:
        def __reduce__(self) -> Any:
            return os.mkdir, (f"{at.scratch}/pickled",)

    _bytes(Raw(), pickle.dumps(Bomb()))
    yield Answer.of(at.task)


def send_a_huge_length(at: Any) -> Iterator[Answer]:
    """Four gibibytes are announced, and memory taken for them?"""
    raw = Raw()
    raw.send(struct.pack("<I", 2**32 - 1) + b"x" * 100)
    raw.take()
    yield Answer.of(at.task)


def send_no_length(at: Any) -> Iterator[Answer]:
    """A frame of no bytes."""
    raw = Raw()
    raw.send(struct.pack("<I", 0))
    raw.take()
    yield Answer.of(at.task)


def send_half_a_frame(at: Any) -> Iterator[Answer]:
    """Hang up in the middle."""
    raw = Raw()
    raw.send(struct.pack("<I", 1000) + b"x" * 10)
    raw.sock.shutdown(socket.SHUT_WR)
    raw.take()
    yield Answer.of(at.task)


def send_nested_arrays(at: Any) -> Iterator[Answer]:
    """A hundred thousand brackets deep."""
    _bytes(Raw(), b"\x91" * 100_000)
    yield Answer.of(at.task)


def send_an_array_bomb(at: Any) -> Iterator[Answer]:
    """Five bytes that say four billion elements."""
    _bytes(Raw(), b"\xdd\xff\xff\xff\xff")
    yield Answer.of(at.task)


def send_a_map_bomb(at: Any) -> Iterator[Answer]:
    """Keys that all fall into one place, if hashing were naive."""
    entries = 65_535
    _bytes(
        Raw(),
        b"\xde" + struct.pack(">H", entries) + b"".join(msgspec.msgpack.encode(n) + b"\x00" for n in range(entries)),
    )
    yield Answer.of(at.task)


def send_descriptors(at: Any) -> Iterator[Answer]:
    """Open files travel beside bytes, and fill the referee's table."""
    raw = Raw()
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(20)]
    told = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", held))]
    for _ in range(20):
        raw.sock.sendmsg([framed({"type": "Vocabulary"})], told)
        raw.take()
    yield Answer.of(at.task)


def be_ready_twice(at: Any) -> Iterator[Answer]:
    """Another configuration than the one that is stored."""
    raw = Raw()
    raw.ask({"type": "Ready", "config": {"attacks": "none"}})
    yield Answer.of(at.task)


def answer_after_the_end(at: Any) -> Iterator[Answer]:
    """An answer behind the last frame."""
    import harness.solving.answers

    better = harness.solving.answers.to_bytes(Answer.of(at.task, late=1.0))
    Raw().send({"type": "Finished", "reason": "returned", "detail": ""}, {"type": "Offer", "answer": better})
    time.sleep(30)
    yield Answer.of(at.task)


def flood_with_refused_queries(at: Any) -> Iterator[Answer]:
    """Refusals are free, and so many of them are a load."""
    raw = Raw()
    raw.ask(declare(at, texts=at.rows + 1))
    while True:
        raw.ask(query(at))
    yield Answer.of(at.task)


def flood_with_malformed_queries(at: Any) -> Iterator[Answer]:
    """So are rejections."""
    raw = Raw()
    while True:
        raw.ask(query(at, 77))
    yield Answer.of(at.task)


def flood_with_declarations(at: Any) -> Iterator[Answer]:
    """Texts are kept, and memory with them."""
    raw, text = Raw(), "x" * 20_000
    for n in range(100):
        reply = raw.ask({"type": "Declare", "id": n, "texts": [[text] * at.task.fields] * 500})
        if reply["type"] != "Done":
            print("refused after", n)
            break
    else:
        print("never refused")
    yield Answer.of(at.task)


def flood_the_output(at: Any) -> Iterator[Answer]:
    """32 MiB of words for the log."""
    for _ in range(512):
        os.write(1, b"x" * 65_536)
    yield Answer.of(at.task)


def edit_the_client(at: Any) -> Iterator[Answer]:
    """The budget that the worker sees is the worker's; the referee has its own."""
    from harness.contract import Budget

    at.lm._budget = Budget(10**9, 10**9, 1)
    answered = 0
    try:
        while True:
            at.lm.logits(None, at.shots.train.texts)
            at.lm._budget = Budget(10**9, 10**9, 1)
            answered += len(at.shots.train)
    except Exception as end:
        print(type(end).__name__, answered)
    yield Answer.of(at.task)
