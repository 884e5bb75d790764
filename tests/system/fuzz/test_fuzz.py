"""Anything may come over the socket, in a file or in an archive: it is read, or refused by one of our own errors.

The decoders run in a child whose address space is limited, where memory is what is tested. `coverage_guided.py` beside
this file looks for more with atheris.
"""

from __future__ import annotations

import contextlib
import io
import os
import resource
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.blackbox import framing, limits, wire
from harness.contract import Answer
from harness.errors import AnswerError, InputError, ProtocolError, QueryError
from harness.results.uploads import score_archive
from harness.solving import answers
from harness.tracks.examples import Source, load_test
from harness.tracks.tasks import load_task, tasks_dir
from harness.tracks.track import load_track

SST2 = load_task("sst2")
TASK = SST2.task("harness-2026", "masked")
MINI = load_track("mini")
TRACK = msgspec.structs.replace(MINI, tasks={"sst2": MINI.tasks["sst2"]})
ROWS = len(load_test(SST2, Source("embedded")))
FUZZ = settings(
    max_examples=int(os.environ.get("HARNESS_FUZZ_EXAMPLES", "100")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
TRACKS = Path(__file__).parents[3] / "harness" / "tracks" / "builtin"

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)
FRAMES = ("Declare", "Query", "Words", "Vocabulary", "Offer", "Ready", "Finished", "Result", "Job")
FIELDS = (
    "id", "texts", "space", "template", "words", "prompt", "mode", "features", "normalize", "answer", "config",
    "reason", "detail", "dim", "std", "tokens", "seed", "distribution",
)  # fmt: skip
array = st.tuples(st.lists(st.integers(-1, 2**33), max_size=5), st.binary(max_size=64)).map(list)
fields = st.dictionaries(st.sampled_from(FIELDS), plain | array, max_size=8)
frames = st.tuples(st.sampled_from(FRAMES), fields).map(lambda pair: {"type": pair[0], **pair[1]})


def mutated(data: bytes) -> st.SearchStrategy[bytes]:
    """The bytes with some of them replaced, cut out or put in."""
    edit = st.tuples(st.integers(0, len(data)), st.integers(0, 8), st.binary(max_size=8))

    def apply(edits: list[tuple[int, int, bytes]]) -> bytes:
        out = bytearray(data)
        for place, length, new in edits:
            out[place : place + length] = new
        return bytes(out)

    return st.lists(edit, min_size=1, max_size=6).map(apply)


QUERY = wire.encode(
    wire.QueryFrame(0, "{a} It was {mask}.", ("bad", "good"), wire.Array.of(np.ones((2, 1, 8))), space=1)
)[wire.PREFIX :]
ANSWER = answers.to_bytes(Answer.of(TASK, loss=0.5))


def use(request: Any) -> None:
    """What a session does with a request before it has a model: arrays, spaces, texts and words are looked at."""
    with contextlib.suppress(QueryError):
        if isinstance(request, wire.QueryFrame):
            limits.check_wording(request.template, request.words)
            if request.prompt is not None:
                request.prompt.values(3 if request.space is not None else 4)
        if isinstance(request, wire.Declare) and request.texts is not None:
            limits.check_texts(tuple(request.texts), 1)
        if isinstance(request, wire.Words):
            limits.check_words(request.words)
        if isinstance(request, wire.Ready):
            with contextlib.suppress(ProtocolError):
                limits.check_config(request.config)


@FUZZ
@given(
    st.binary(max_size=300) | plain.map(msgspec.msgpack.encode) | frames.map(msgspec.msgpack.encode) | mutated(QUERY)
)
def test_a_frame_is_a_request_or_a_protocol_error(body: bytes) -> None:
    try:
        request = wire.decode_request(body)
    except ProtocolError:
        return
    use(request)


@FUZZ
@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.integers(0, 2**32 - 1))
def test_a_stream_of_bytes_gives_frames_none_or_a_protocol_error(chunks: list[bytes], length: int) -> None:
    ours, theirs = socket.socketpair()
    ours.settimeout(5)

    def write() -> None:
        with theirs, contextlib.suppress(OSError):
            for chunk in (struct.pack("<I", length), *chunks):
                theirs.sendall(chunk)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with ours:
            while (body := framing.receive(ours, 100)) is not None:
                assert 0 < len(body) <= 100
    except ProtocolError:
        pass
    writer.join()


@FUZZ
@given(
    st.binary(max_size=300) | mutated(ANSWER) | mutated(ANSWER).map(lambda b: len(b[8:]).to_bytes(8, "little") + b[8:])
)
def test_an_answer_is_read_or_refused_and_what_is_read_is_checked(blob: bytes) -> None:
    try:
        answer = answers.from_bytes(blob)
        answers.check(answer, TASK, 8)
    except AnswerError:
        return
    again = answers.to_bytes(answer)
    assert answers.to_bytes(answers.from_bytes(again)) == again


member = st.fixed_dictionaries(
    {
        name: plain | value
        for name, value in {
            "template": st.just("{a} {mask}"), "words": st.just(["bad", "good"]), "prompt": st.none(),
            "scale": st.just([1.0, 2.0]), "shift": st.none(), "head": st.sampled_from([None, "linear", "bilstm"]),
            "alpha": st.just(0.5), "mix": st.just("logits"), "features": st.just("mask"),
        }.items()
    }
)  # fmt: skip


ARRAYS = [np.zeros((2, 8), "f4"), np.full(3, np.nan, "f4"), np.zeros(2, "i8")]
array_sets = st.dictionaries(st.text(max_size=8), st.sampled_from(ARRAYS), max_size=3)


@FUZZ
@given(st.lists(member, max_size=3), plain | st.just({}), plain | st.just(1), array_sets)
def test_an_answers_document_of_any_values_is_read_or_refused(
    members: Any, note: Any, schema: Any, arrays: Any
) -> None:
    def default(value: object) -> str:
        return repr(value)

    text = msgspec.json.encode({"members": members, "note": note, "schema": schema}, enc_hook=default).decode()
    with contextlib.suppress(AnswerError):
        answers.check(answers.from_bytes(safetensors.numpy.save(arrays, metadata={"answer": text})), TASK, 8)


def edited_toml(text: str) -> st.SearchStrategy[str]:
    lines = text.splitlines()
    values = st.sampled_from(
        [
            "-1",
            "0",
            "1e400",
            "nan",
            '""',
            "[]",
            "{}",
            "true",
            '"../../etc/passwd"',
            "9" * 40,
            "[1, 1]",
            '"present"',
            "1979-05-27",
        ]
    )

    def edit(edits: list[tuple[int, str, int]]) -> str:
        out = list(lines)
        for place, value, kind in edits:
            at = place % len(out)
            key = out[at].partition("=")[0]
            out[at] = [f"{key}= {value}", "", out[at] + value, f"[{value}]"][kind]
        return "\n".join(out)

    return st.lists(st.tuples(st.integers(0, 999), values, st.integers(0, 3)), min_size=1, max_size=4).map(edit)


@FUZZ
@given(edited_toml((TRACKS / "mini.toml").read_text(encoding="utf-8")) | st.text(max_size=200))
def test_a_track_file_is_read_or_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.toml"
    path.write_text(text, encoding="utf-8")
    with contextlib.suppress(InputError):
        load_track(str(path)).fingerprint  # noqa: B018 - it is computed


@FUZZ
@given(edited_toml((tasks_dir() / "sst2" / "task.toml").read_text(encoding="utf-8")) | st.text(max_size=200))
def test_a_task_file_is_read_or_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "sst2" / "task.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    with contextlib.suppress(InputError):
        file = load_task("sst2", tmp_path)
        for profile in file.profiles:
            file.task(profile, "masked")


names = st.sampled_from(
    [
        "SST-2/1.csv",
        "SST-2/2.csv",
        "sst2/1.csv",
        "../SST-2/1.csv",
        "/SST-2/1.csv",
        "SST-2/1.CSV",
        "a/../SST-2/1.csv",
        "SST-2\\1.csv",
        "SST-2/x",
        "",
        "SST-2/",
    ]
) | st.text(max_size=20).filter(lambda name: not name.startswith("\0"))  # zipfile ends a name at NUL, and needs one
good = ",pred\n" + "".join(f"{n},{n % 2}\n" for n in range(ROWS))
contents = st.sampled_from([good, good.replace(",pred", "x"), ""]) | st.text(max_size=50)


@FUZZ
@given(st.lists(st.tuples(names, contents), max_size=4), st.none() | st.integers(0, 2**32))
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_is_scored_or_refused_and_nothing_is_written(tmp_path: Path, members: Any, seed: int | None) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members:
            archive.writestr(name or "x", text.encode("utf-8", "replace"))
    data = bytearray(buffer.getvalue())
    if seed is not None:
        rng = np.random.default_rng(seed)
        for place in rng.integers(len(data), size=3):
            data[place] = rng.integers(256)
    path = tmp_path / "predictions.zip"
    path.write_bytes(data)
    with contextlib.suppress(InputError):
        for one in score_archive(path, TRACK, Source("embedded")):
            assert one.split in TRACK.tasks["sst2"].splits
            assert len(one.predictions) == ROWS
    assert [p.name for p in tmp_path.iterdir()] == ["predictions.zip"]


# ── memory ───────────────────────────────────────────────────────────────────────────────────────────────────

LIMITED = """
import resource, sys
sys.path[:0] = sys.argv[1:3]
import test_fuzz
before = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
limit = before + (int(sys.argv[4]) << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
getattr(test_fuzz, sys.argv[3])()
print("held", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def in_little_memory(function: str, megabytes: int) -> None:
    """Run a function of this module in a child that gets `megabytes` more address space than its imports took."""
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    environment = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *folders, function, str(megabytes)],
        capture_output=True, text=True, check=False, timeout=300, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "held" in done.stdout


def huge_claims() -> None:
    """Small messages that claim to be large: arrays, lists, texts, headers, members."""
    claims = [b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff"]
    claims += [b"\x82\xa4type\xa7Declare\xa5texts" + claim for claim in claims]
    claims += [b"\x91" * 200_000, b"\x81\xa1a" * 100_000]
    for claim in claims:
        with contextlib.suppress(ProtocolError):
            use(wire.decode_request(claim))
            raise AssertionError(f"{claim[:20]!r} was taken")
    for shape in ((2**31, 2**31, 1), (2**31,) * 4, (10**9, 1, 1)):
        try:
            wire.Array(shape, b"\0" * 8).values(len(shape))
        except QueryError:
            continue
        raise AssertionError(f"an array of {shape} was taken")
    for text in (
        '{"__metadata__":{"answer":"{}"},"a":{"dtype":"F32","shape":[2000000000,2],"data_offsets":[0,16000000000]}}',
    ):
        try:
            answers.from_bytes(len(text).to_bytes(8, "little") + text.encode())
        except AnswerError:
            continue
        raise AssertionError("an answer that claims 16 GB was taken")
    for size in (2**63 - 1, 2**40, 0):
        try:
            answers.from_bytes(size.to_bytes(8, "little") + b"{}")
        except AnswerError:
            continue
        raise AssertionError(f"a header of {size} bytes was taken")


def a_long_claim_over_the_socket() -> None:
    """A frame that claims 4 GiB is refused before memory is taken; one that claims 64 MiB takes what has come."""
    for claim, largest in ((2**32 - 1, 64 << 20), (64 << 20, 64 << 20)):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.settimeout(0.3)
            theirs.sendall(struct.pack("<I", claim) + b"x" * 1000)
            try:
                framing.receive(ours, largest)
            except (ProtocolError, TimeoutError):
                continue
            raise AssertionError(f"{claim:,} bytes were read")


def zip_bombs() -> None:
    """A gigabyte of zeros in a megabyte, and a header that says so or lies."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bomb.zip"
        with (
            zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
            archive.open("SST-2/1.csv", "w", force_zip64=True) as member,
        ):
            for _ in range(1024):
                member.write(bytes(1 << 20))
        honest = path.read_bytes()
        lying = bytearray(honest)
        place = honest.rindex(b"PK\x01\x02")  # the central directory says 100 bytes
        lying[place + 24 : place + 28] = struct.pack("<I", 100)
        for data in (honest, bytes(lying)):
            path.write_bytes(data)
            try:
                score_archive(path, TRACK, Source("embedded"))
            except InputError:
                continue
            raise AssertionError("a bomb was taken")


def many_files() -> None:
    """A hundred thousand empty members."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "many.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for n in range(100_000):
                archive.writestr(zipfile.ZipInfo(f"SST-2/{n}.csv"), b"")
        try:
            score_archive(path, TRACK, Source("embedded"))
        except InputError:
            return
        raise AssertionError("100,000 files were taken")


@pytest.mark.parametrize(
    ("function", "megabytes"),
    [("huge_claims", 300), ("a_long_claim_over_the_socket", 100), ("zip_bombs", 150), ("many_files", 300)],
)
def test_what_claims_to_be_large_takes_little_memory(function: str, megabytes: int) -> None:
    in_little_memory(function, megabytes)


def test_the_limit_of_those_children_holds() -> None:
    """A child that does take a gigabyte fails: what the tests above say is worth something."""
    with pytest.raises(AssertionError, match="MemoryError"):
        in_little_memory("gigabyte", 300)


def gigabyte() -> None:
    """Allocate a gigabyte."""
    assert bytearray(1 << 30)


def test_decoding_a_small_frame_takes_a_fraction_of_a_second() -> None:
    deep = b"\x91" * 60_000_000
    started = time.perf_counter()
    with pytest.raises(ProtocolError):
        wire.decode_request(deep)
    assert time.perf_counter() - started < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 0
