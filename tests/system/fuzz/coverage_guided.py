"""Coverage-guided fuzzing of what reads a stranger's bytes, with atheris.

    python tests/system/fuzz/coverage_guided.py {wire,answer} [SECONDS] [CORPUS_DIR]

Anything but the decoder's own errors ends it, with the input in a file ``crash-…``; so does more than a gigabyte of
memory, or an input that takes five seconds. Not in the tests: it takes as long as it is given, and atheris
(``pip install atheris``) is needed for nothing else.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["harness", "msgspec", "safetensors"]):
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    import test_fuzz

    from harness.blackbox import wire
    from harness.contract import Subspace
    from harness.errors import AnswerError, ProtocolError
    from harness.solving import answers


def read_frame(data: bytes) -> None:
    """A worker's frame, and what the referee looks at before it has a model."""
    try:
        test_fuzz.use(wire.decode_request(data))
    except ProtocolError:
        return


def read_answer(data: bytes) -> None:
    """An answer; half of the inputs get a header length that fits, so that the fuzzer need not guess it."""
    if data[:1] == b"\0":
        end = data.find(b"}}", 1) + 2
        data = max(end - 1, 0).to_bytes(8, "little") + data[1:]
    try:
        answers.check(answers.from_bytes(data), test_fuzz.TASK, 8)
    except AnswerError:
        return


SPACE = Subspace(8, (0.5, 1.0), 2, 7)
FRAMES = (
    wire.Declare(0, texts=[("good",), ("bad",)]), wire.Declare(1, space=SPACE), wire.Words((" good",)),
    wire.Vocabulary(), wire.Offer(test_fuzz.ANSWER), wire.Ready({"dim": 8}), wire.Finished("crashed", "why"),
    wire.QueryFrame(0, "{mask}", ("a",), wire.Array((1, 1, 1, 1), bytes(4)), "prepend", None, "mask", True),
)  # fmt: skip
SEEDS = {
    "wire": [test_fuzz.QUERY, *(wire.encode(frame)[wire.PREFIX :] for frame in FRAMES)],
    "answer": [test_fuzz.ANSWER, b"\0" + test_fuzz.ANSWER[8:]],
}
TARGETS = {"wire": read_frame, "answer": read_answer}


def main() -> None:
    """Fuzz one target for a while, from seeds that are valid."""
    name = sys.argv[1] if len(sys.argv) > 1 else "wire"
    seconds = sys.argv[2] if len(sys.argv) > 2 else "60"
    corpus = Path(sys.argv[3] if len(sys.argv) > 3 else f".fuzz-{name}")
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(SEEDS[name]):
        (corpus / f"seed{number}").write_bytes(seed)
    limits = [f"-max_total_time={seconds}", "-rss_limit_mb=1536", "-timeout=5", "-max_len=4096", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *limits, str(corpus)], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
