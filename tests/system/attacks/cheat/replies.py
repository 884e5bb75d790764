"""Answers that claim more than they are; each takes the place of `tune`."""

from __future__ import annotations

import json
import math
import struct
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from frames import Raw

from harness import Answer, LinearHead, Member, MlpHead, Prompt, Subspace

if TYPE_CHECKING:
    from collections.abc import Iterator


def _offer(header: bytes, data: bytes = b"") -> dict[str, Any]:
    """Hand an answer over by hand; the referee's reply."""
    return Raw().ask({"type": "Offer", "answer": struct.pack("<Q", len(header)) + header + data})


def _document(at: Any, **member: Any) -> str:
    """An answer's JSON with one member."""
    plain = {
        "template": at.task.template, "words": list(at.task.words), "prompt": None, "scale": None, "shift": None,
        "head": None, "alpha": 0.0, "mix": "probabilities", "features": "mask",
    }  # fmt: skip
    return json.dumps({"schema": 1, "members": [plain | member], "note": {}})


def claim_ten_gigabytes(at: Any) -> Iterator[Answer]:
    """A header that says so, and nothing behind it."""
    tensor = {"dtype": "F32", "shape": [2_500_000_000], "data_offsets": [0, 10_000_000_000]}
    head = {"__metadata__": {"answer": _document(at, head="linear")}, "0.head.weight": tensor}
    print(_offer(json.dumps(head).encode())["type"])
    yield Answer.of(at.task)


def claim_a_huge_header(at: Any) -> Iterator[Answer]:
    """Eight bytes that say 2 to the 63rd."""
    print(Raw().ask({"type": "Offer", "answer": struct.pack("<Q", 2**63) + b"{}"})["type"])
    yield Answer.of(at.task)


def nest_a_header(at: Any) -> Iterator[Answer]:
    """JSON a hundred thousand brackets deep."""
    print(_offer(b"[" * 100_000)["type"])
    yield Answer.of(at.task)


def overlap_tensors(at: Any) -> Iterator[Answer]:
    """Two arrays in the same bytes."""
    tensor = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
    head = {"__metadata__": {"answer": _document(at)}, "a": tensor, "b": tensor}
    print(_offer(json.dumps(head).encode(), bytes(16))["type"])
    yield Answer.of(at.task)


def send_code_in_a_field(at: Any) -> Iterator[Answer]:
    """A field that is not in the contract."""
    header = {"__metadata__": {"answer": _document(at, code="__import__('os').mkdir('x')")}}
    print(_offer(json.dumps(header).encode())["type"])
    yield Answer.of(at.task)


def send_nan_weights(at: Any) -> Iterator[Answer]:
    """A head whose every comparison is false."""
    width = at.lm.info.width
    head = LinearHead(np.full((2, width), math.nan), np.zeros(2))
    yield Answer((Member(at.task.template, at.task.words, head=head, alpha=1.0),))


def send_infinite_factors(at: Any) -> Iterator[Answer]:
    """Inf times 0 is no number."""
    yield Answer((Member(at.task.template, at.task.words, scale=(math.inf, 0.0)),))


def send_wrong_shapes(at: Any) -> Iterator[Answer]:
    """A head for another model."""
    yield Answer((Member(at.task.template, at.task.words, head=LinearHead(np.zeros((2, 7)), np.zeros(2)), alpha=1.0),))


def send_more_classes(at: Any) -> Iterator[Answer]:
    """A third class of a task of two, in a head."""
    head = LinearHead(np.zeros((3, at.lm.info.width)), np.zeros(3))
    yield Answer((Member(at.task.template, at.task.words, head=head, alpha=1.0),))


def send_a_million_members(at: Any) -> Iterator[Answer]:
    """An ensemble that takes a day to apply."""
    (member,) = json.loads(_document(at))["members"]
    members = ",".join([json.dumps(member)] * 1_000_000)
    text = f'{{"schema": 1, "members": [{members}], "note": {{}}}}'
    print(_offer(json.dumps({"__metadata__": {"answer": text}}).encode())["type"])
    yield Answer.of(at.task)


def send_members_without_end(at: Any) -> Iterator[Answer]:
    """As many as the header has room for."""
    yield Answer((Member(at.task.template, at.task.words),) * 3_000)


def send_a_huge_head(at: Any) -> Iterator[Answer]:
    """More than the track takes."""
    wide = 1_000_000
    head = MlpHead(
        np.zeros((wide, at.lm.info.width), "f4"), np.zeros(wide, "f4"), np.zeros((2, wide), "f4"), np.zeros(2)
    )
    yield Answer((Member(at.task.template, at.task.words, head=head, alpha=1.0),))


def send_a_huge_subspace(at: Any) -> Iterator[Answer]:
    """A projection that does not fit into memory, named in few bytes."""
    space = Subspace(1, (1.0,), 2**31, 0)
    yield Answer((Member(at.task.template, at.task.words, space.at(np.zeros(1))),))


def send_many_candidates(at: Any) -> Iterator[Answer]:
    """Many prompts; the referee may take the best."""
    yield Answer.of(at.task, Prompt(np.zeros((50, 1, 1, at.lm.info.width))))


def reach_through_the_template(at: Any) -> Iterator[Answer]:
    """What formats it with ``str.format`` hands over its objects."""
    for template in ("{a.__class__} {mask}", "{a!r:>99999999} {mask}", "{c} {mask}", "{0} {mask}", "{label} {mask}"):
        blob = json.dumps({"__metadata__": {"answer": _document(at, template=template)}}).encode()
        print(template, _offer(blob)["type"])
    yield Answer.of(at.task)


def be_text_that_is_obeyed(at: Any) -> Iterator[Answer]:
    """Colours, links and control characters for whoever looks at the results."""
    yield Answer(
        (Member(at.task.template, at.task.words),), {"[red]\x1b[2J<script>alert(1)</script>": 1.0, "loss": 0.5}
    )


def note_numbers_that_are_none(at: Any) -> Iterator[Answer]:
    """JSON has no NaN."""
    document = json.loads(_document(at)) | {"note": {"loss": 0.0}}
    text = json.dumps(document).replace('"loss": 0.0', '"loss": NaN')
    print(_offer(json.dumps({"__metadata__": {"answer": text}}).encode())["type"])
    yield Answer.of(at.task)


def keep_the_labels_in_order(at: Any) -> Iterator[Answer]:
    """A classifier fitted on the shots; no attack, but what the next one is compared with."""
    yield _fitted(at, (0, 1))


def permute_the_labels(at: Any) -> Iterator[Answer]:
    """The same with its classes in another order: worse, unless somebody looks for the order that fits."""
    yield _fitted(at, (1, 0))


def _fitted(at: Any, order: tuple[int, int]) -> Answer:
    """Class means of the hidden states as a linear head, its classes in an order."""
    texts, labels = at.shots.train.texts + at.shots.dev.texts, np.append(at.shots.train.labels, at.shots.dev.labels)
    h = at.lm.outputs(None, texts).features[0].astype(float)
    means = np.stack([h[labels == k].mean(axis=0) for k in (0, 1)])[list(order)]
    head = LinearHead(means * 10, -5 * (means**2).sum(axis=1))
    return Answer((Member(at.task.template, at.task.words, head=head, alpha=1.0),))


def pretend_to_be_an_answer(at: Any) -> Iterator[Any]:
    """An object that is one by name, and does something when it is asked."""

    class Pretender(Answer):
        @property
        def members(self) -> Any:  # type: ignore[override]
            raise SystemExit

    made = object.__new__(Pretender)
    yield made


def send_an_object(at: Any) -> Iterator[Answer]:
    """Another type by its msgpack extension."""
    Raw().ask({"type": "Offer", "answer": msgspec.msgpack.Ext(1, b"\x80\x04.")})
    yield Answer.of(at.task)
