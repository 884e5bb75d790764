"""Text tasks on a served model: the numbers and outputs of the same model here, its prices, and what is refused."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tiny_causal
from fake_openai_server import FakeServer

from harness.blackbox.in_process import in_process
from harness.blackbox.meter import Meter
from harness.blackbox.session import Session
from harness.blackbox.text_model import Decoding
from harness.contract import Answer, Member, Prompt
from harness.errors import AnswerError, BudgetExhausted, ModelError, QueryError
from harness.evaluation.overrides import Overrides
from harness.evaluation.preparation import Preparation
from harness.evaluation.referee import priced_model
from harness.evaluation.text_cells import read_as
from harness.lm.endpoint import requests
from harness.lm.endpoint.model import EndpointModel, connect
from harness.lm.endpoint.requests import KEY
from harness.lm.fingerprint import probe
from harness.lm.generation import text_model
from harness.lm.load import load_model
from harness.lm.text import Encoded, TextSet
from harness.tracks.examples import load_shots
from harness.tracks.track import load_track

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.lm.model import LanguageModel
    from harness.tracks.track import Track

TEXTS = (("Kindly remit the amount due.",), ("Please be advised that the office is closed.",), ("No.",))
TEMPLATE = "Formal: {a}\nPlain:"
TARGETS = (" Please pay.\n", " We are closed today.\n", " no\n")
SCORED = {"llama.cpp": True, "vllm": True, "plain": True, "text": False, "chat": False}


@pytest.fixture(scope="module")
def track(tmp_path_factory: pytest.TempPathFactory) -> Track:
    return load_track(str(tiny_causal.write_track(tmp_path_factory.mktemp("text"))))


@pytest.fixture(scope="module")
def here(track: Track) -> LanguageModel:
    """The model that the fake servers serve, in this process."""
    return load_model(track.model, track.prompt)


def next_token(lm: LanguageModel) -> Callable[[list[int]], list[float]]:
    """Log-probabilities of all tokens after some."""
    known: dict[tuple[int, ...], list[float]] = {}
    every = list(range(len(lm.tokenizer)))

    def values(ids: list[int]) -> list[float]:
        if tuple(ids) not in known:
            texts = TextSet((Encoded(tuple(ids), len(ids) - 1),))
            known[tuple(ids)] = lm.forward(None, texts, every, normalize=True).logits[0, 0].tolist()
        return known[tuple(ids)]

    return values


@pytest.fixture
def served(here: LanguageModel, track: Track, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Starts a fake server of a kind, and connects to it."""
    monkeypatch.delenv(KEY, raising=False)
    monkeypatch.setattr(requests, "_FIRST_PAUSE_S", 0.01)
    opened: list[Any] = []

    def start(kind: str = "llama.cpp", **changes: Any) -> tuple[FakeServer, EndpointModel]:
        server = FakeServer(
            kind, next_token(here), lambda text: here.tokenizer(text)["input_ids"], lambda t: here.tokenizer.decode([t])
        )
        server.end = here.tokenizer.eos_token_id
        for name, value in changes.items():
            setattr(server, name, value)
        opened.append(server)
        server.__enter__()
        lm = connect(track.model, track.prompt, server.url, patience_s=5)
        opened.append(lm)
        return server, lm

    yield start
    for each in opened:
        each.__exit__() if isinstance(each, FakeServer) else each.close()


def ids_of(lm: Any) -> Any:
    return text_model(lm).target_ids(TARGETS)


def scored(lm: Any) -> Any:
    model, ids = text_model(lm), ids_of(lm)
    return model.score(None, model.encode(TEMPLATE, TEXTS, None, max(map(len, ids))), ids)


def written(lm: Any, how: Decoding, go_on: Callable[[Any], bool] = lambda _sequences: True) -> Any:
    model = text_model(lm)
    return model.generate(None, model.encode(TEMPLATE, TEXTS, None, how.most_tokens), how, go_on)


@pytest.mark.parametrize("kind", [kind for kind, does in SCORED.items() if does])
def test_likelihoods_are_those_of_the_same_model_here(kind: str, served: Any, here: LanguageModel) -> None:
    server, lm = served(kind)
    ours = scored(here)
    assert text_model(lm).scores
    before, asked = lm.traffic, len(server.asked)
    theirs = scored(lm)
    np.testing.assert_array_equal(theirs.lengths, ours.lengths)
    np.testing.assert_allclose(theirs.values, ours.values, atol=1e-4)
    assert len(server.asked) - asked == len(TEXTS), "one request a text"
    spent = lm.traffic - before
    assert spent.requests == len(TEXTS)
    assert spent.sent > 0


@pytest.mark.parametrize("kind", ["llama.cpp", "vllm", "plain", "text"])
@pytest.mark.parametrize("stop", [(), ("\n",), ("e",), ("x", "an")])
def test_greedy_outputs_are_those_of_the_same_model_here(
    kind: str, stop: tuple[str, ...], served: Any, here: LanguageModel
) -> None:
    _, lm = served(kind)
    how = Decoding(7, stop)
    ours, theirs = written(here, how), written(lm, how)
    tells = kind in {"llama.cpp", "vllm"}  # which stop it was
    for mine, their, tokens, counted in zip(
        ours.texts[0], theirs.texts[0], ours.tokens[0], theirs.tokens[0], strict=True
    ):
        ends = [mine.find(each) for each in stop if each in mine]
        plain = mine[: min(ends, default=len(mine))]
        assert their.startswith(plain.partition("\ufffd")[0])  # behind a broken character, text has other tokens
        if tells:
            assert (their, counted) == (mine, tokens)
        if tells and ends:
            assert any(each in their for each in stop)
        assert 1 <= counted <= 7
    assert not theirs.cut


@pytest.mark.parametrize("steps", range(6))
def test_the_budget_ends_an_output_where_it_ends_one_here(steps: int, served: Any, here: LanguageModel) -> None:
    def until() -> Callable[[Any], bool]:
        left = [steps]

        def go_on(_sequences: Any) -> bool:
            left[0] -= 1
            return left[0] >= 0

        return go_on

    _, lm = served("llama.cpp")
    ours, theirs = (written(each, Decoding(5), until()) for each in (here, lm))
    assert theirs.texts == ours.texts
    assert theirs.tokens.tolist() == ours.tokens.tolist()
    assert theirs.cut == ours.cut == (steps < 5)


def test_the_steps_that_are_charged_are_those_of_the_same_model_here(served: Any, here: LanguageModel) -> None:
    _, lm = served("llama.cpp")
    steps: dict[Any, list[list[int]]] = {here: [], lm: []}
    for each, seen in steps.items():
        written(each, Decoding(9, ("e", "\n")), lambda sequences, seen=seen: seen.append(sorted(sequences)) or True)
    assert steps[here] == steps[lm]


def test_one_seed_gives_one_text(served: Any) -> None:
    server, lm = served("llama.cpp")
    first, again, other = (written(lm, Decoding(6, (), 1.0, seed)) for seed in (1, 1, 2))
    assert first.texts == again.texts != other.texts
    seeds = [body["seed"] for path, body in server.asked[-9:] if path == "/completion"]
    assert len(set(seeds[:3])) == 3, "each text has a seed of its own"
    assert all(0 <= seed < 2**31 for seed in seeds)


@pytest.mark.parametrize("kind", [kind for kind, does in SCORED.items() if not does])
def test_a_server_without_log_probabilities_writes_alone(kind: str, served: Any) -> None:
    _, lm = served(kind)
    assert not text_model(lm).scores
    with pytest.raises(QueryError, match=r"does not tell how likely a given text is \(.+\). Ask lm.generate"):
        ids_of(lm)
    assert all(written(lm, Decoding(6)).texts[0])
    assert "no likelihoods of given texts" in lm.text_found.lines()[0]


def lying(change: Callable[[dict[str, Any], dict[str, Any]], None]) -> Callable[..., Any]:
    """A server's reply, changed."""

    def before(server: FakeServer) -> Any:
        def answer(_n: int, path: str, body: dict[str, Any]) -> Any:
            status, reply, headers = server.reply(path, body)
            if status == 200:
                change(body, reply)
            return status, reply, headers

        return answer

    return before


def shifted(body: dict[str, Any], reply: dict[str, Any]) -> None:
    if "grammar" in body:
        for each in reply["completion_probabilities"]:
            each["logprob"] -= 1.0


def unread(body: dict[str, Any], reply: dict[str, Any]) -> None:
    if "grammar" in body:
        for n, each in enumerate(reply["completion_probabilities"]):
            each["logprob"] = -1.0 - n


def unforced(body: dict[str, Any], reply: dict[str, Any]) -> None:
    if "grammar" in body:
        for each in reply["completion_probabilities"]:
            each["id"] = 3


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (shifted, "and as a next token"),
        (unread, "what stands before the target is not read"),
        (unforced, "were asked for"),
    ],
)
def test_likelihoods_that_do_not_agree_are_not_believed(change: Any, why: str, served: Any) -> None:
    server, lm = served("llama.cpp", echoes=False)
    server.before = lying(change)(server)
    assert not text_model(lm).scores
    assert why in lm.text_found.why_no_scores
    assert all(written(lm, Decoding(6)).texts[0])


def test_a_server_that_ignores_echo_is_not_believed(served: Any) -> None:
    _, lm = served("vllm", echoes=False)
    assert not text_model(lm).scores
    assert "token_logprobs" in lm.text_found.why_no_scores


def test_stops_and_limits_that_a_server_ignores_are_kept_here(served: Any) -> None:
    for kind in ("llama.cpp", "plain"):
        server, lm = served(kind)
        how = Decoding(5, ("e",))
        ours = written(lm, how)

        def rude(_n: int, path: str, body: dict[str, Any], server: Any = server) -> Any:
            longer = {"n_predict": 30} if "n_predict" in body else {"max_tokens": 30}
            return server.reply(path, body | longer | {"stop": []}) if body.get("stop") else None

        server.before = rude
        theirs = written(lm, how)
        assert theirs.tokens.max() <= 5
        for text, first in zip(theirs.texts[0], ours.texts[0], strict=True):
            assert text.startswith(first.partition("e")[0])
            assert text.find("e") in {-1, len(text) - 1} or kind == "llama.cpp"


def test_a_reply_that_is_none_is_an_error_and_nothing_is_charged(served: Any, track: Track) -> None:
    server, lm = served("llama.cpp")
    with session(track, lm) as (box, meter):
        server.before = lambda _n, _path, _body: (200, {"error": "no"}, {})
        for ask in (lambda: box.score(None, TEXTS, TARGETS), lambda: box.generate(None, TEXTS)):
            with pytest.raises(ModelError, match="is not there"):
                ask()
        assert not meter.spent


@contextmanager
def session(track: Track, lm: EndpointModel, calls: int = 30) -> Iterator[tuple[Any, Meter]]:
    """A cell of the track over the server: its client and its meter."""
    cell = Preparation(track, Overrides(tasks=("plain",), splits=(1,))).cells[0]
    shots = load_shots(cell.file, cell.source, cell.split, cell.spec)
    meter = Meter(calls, len(shots.train))

    class Unkept:
        def record(self, row: object) -> None:
            """Forget the row."""

    made = Session(priced_model(cell, shots, lm), meter, Unkept())
    info = lm.info(shots.train.texts, read_as(cell.task))
    box = in_process(made, info, cell.task, meter.budget, shots)
    box.ready({})
    yield box, meter


def test_a_cell_is_metered_as_for_a_model_here(served: Any, track: Track, here: LanguageModel) -> None:
    _, lm = served("llama.cpp")
    spent: list[Any] = []
    for each in (lm, here):
        with session(track, each) as (box, meter):
            box.score(None, TEXTS, TARGETS)
            box.logits(None, box._said)  # the texts of train and dev
            found = box.generate(None, TEXTS)
            while not found.cut:
                try:
                    found = box.generate(None, TEXTS, stop=(), most_tokens=60)
                except BudgetExhausted:
                    break
            spent.append((meter.spent, found.texts, found.tokens.tolist(), found.cut))
    assert spent[0] == spent[1]
    assert spent[0][0]


def test_soft_prompts_are_refused_before_they_are_charged(served: Any, track: Track) -> None:
    server, lm = served("llama.cpp")
    prompt = Prompt(np.zeros((1, 1, 2, tiny_causal.WIDTH), dtype=np.float32))
    with session(track, lm) as (box, meter):
        asked = len(server.asked)
        for ask in (lambda: box.score(prompt, TEXTS, TARGETS), lambda: box.generate(prompt, TEXTS)):
            with pytest.raises(QueryError, match="no soft prompts"):
                ask()
        with pytest.raises(AnswerError, match="no soft prompts"):
            box.offer(Answer((Member("{a}", (), prompt),)))
        with pytest.raises(QueryError, match="special token"):
            box.score(None, TEXTS[:1], ("<|end|>",))
        box.offer(Answer((Member("So {a}", ()),)))
        assert not meter.spent
        assert len(server.asked) == asked


def test_the_fingerprint_is_of_the_bare_template(served: Any, track: Track) -> None:
    task = Preparation(track, Overrides(tasks=("plain",), splits=(1,))).cells[0].task
    for kind in ("llama.cpp", "text"):
        _, lm = served(kind)
        first, again = probe(lm, task), probe(lm, task)
        assert first == again
        assert len(first.logits) >= 4
        assert all(np.isfinite(first.logits))


def test_a_shorter_model_asks_nothing_anew(served: Any) -> None:
    server, lm = served("llama.cpp")
    _ = lm.text_found
    asked = len(server.asked)
    shorter = lm.cut_at(20)
    assert (
        text_model(shorter).encode(TEMPLATE, TEXTS, None, 5).tokens
        < text_model(lm).encode(TEMPLATE, TEXTS, None, 5).tokens
    )
    assert len(server.asked) == asked
