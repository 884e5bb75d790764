"""A served model: what it is believed, what is refused, and that nothing is charged twice."""

from __future__ import annotations

import io
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tiny_models
import torch
from fake_openai_server import FakeServer

from harness.blackbox.checkpoints import at_checkpoints, without_checkpoints
from harness.blackbox.meter import Meter
from harness.blackbox.pricing import PricedModel
from harness.blackbox.query import Query
from harness.contract import Answer, LinearHead, Member, Prompt, Subspace, Task
from harness.errors import InputError, ModelError, QueryError
from harness.lm.endpoint import model as endpoint_model
from harness.lm.endpoint import requests
from harness.lm.endpoint.requests import KEY, Endpoint, Traffic
from harness.lm.endpoint.ways import LABELS, MISS, TEXT, TOP
from harness.lm.fingerprint import probe
from harness.lm.load import load_model
from harness.lm.text import Encoded, TextSet
from harness.solving.answers import to_bytes
from harness.tracks.track import ModelSpec, PromptSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.lm.endpoint.model import EndpointModel
    from harness.lm.model import LanguageModel

PROMPT = PromptSpec(2, 20)


def connect(spec: ModelSpec, *given: Any, **more: Any) -> EndpointModel:
    """Connect with the track's prompt."""
    return endpoint_model.connect(spec, PROMPT, *given, **more)


TEXTS = tuple((text,) for text in ("The film was bad", "It was great, say yes", "maybe", "A film . yes or no ?"))
TEMPLATE = "{a} It was {mask}"
KINDS = {"llama.cpp": LABELS, "vllm": LABELS, "plain": TOP, "text": TEXT, "chat": TOP}


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    return ModelSpec(str(tiny_models.save("gpt2", tmp_path_factory.mktemp("tiny"))), "float32", "causal")


@pytest.fixture(scope="module")
def here(spec: ModelSpec) -> LanguageModel:
    """The model that the fake server serves, in this process."""
    return load_model(spec, PROMPT)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    """A model whose positions are rotary: embeddings alone are its input."""
    return ModelSpec(str(tiny_models.save("llama", tmp_path_factory.mktemp("llama"))), "float32", "causal")


@pytest.fixture(scope="module")
def here_llama(llama: ModelSpec) -> LanguageModel:
    return load_model(llama, PROMPT)


@pytest.fixture(autouse=True)
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Endpoint]]:
    """Connections, which are closed in the end."""
    made: list[Endpoint] = []

    def endpoint(*given: Any) -> Endpoint:
        made.append(Endpoint(*given))
        return made[-1]

    monkeypatch.setattr(endpoint_model, "Endpoint", endpoint)
    yield made
    for each in made:
        each.close()


@pytest.fixture
def served(here: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., FakeServer]]:
    """Starts fake servers of the tiny model."""
    monkeypatch.delenv(KEY, raising=False)
    monkeypatch.setattr(requests, "_FIRST_PAUSE_S", 0.01)
    started = list[FakeServer]()

    def start(kind: str = "llama.cpp", model: LanguageModel = here) -> FakeServer:
        tokenizer = model.tokenizer

        def values(ids: list[int]) -> list[float]:
            texts, every = TextSet((Encoded(tuple(ids), len(ids) - 1),)), list(range(len(tokenizer)))
            found: list[float] = model.forward(None, texts, every, normalize=True).logits[0, 0].tolist()
            return found

        server = FakeServer(kind, values, lambda text: tokenizer(text)["input_ids"], lambda t: tokenizer.decode([t]))
        started.append(server.__enter__())
        return server

    yield start
    for each in started:
        each.__exit__()


@pytest.fixture
def words(here: LanguageModel) -> tuple[str, ...]:
    """Three label words of one token each."""
    return tuple([word for word in here.words if word.strip().isalpha()][5:8])


@pytest.fixture
def task(words: tuple[str, ...]) -> Task:
    return Task("made-up", ("a", "b", "c"), "accuracy", TEMPLATE, words)


def asked(lm: Any, words: tuple[str, ...], *, normalize: bool = False) -> Any:
    encoded = lm.text_set(TEMPLATE, TEXTS, None)
    return lm.forward(None, encoded, lm.single_ids(words), normalize=normalize).logits[0]


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_server_gives_is_found_out(kind: str, served: Any, spec: ModelSpec) -> None:
    lm = connect(spec, served(kind).url)
    assert lm.found.gives == KINDS[kind]
    assert lm.found.takes_ids == (kind != "chat")
    assert lm.ranked_as.startswith("endpoint ")
    assert "tiny-model" in lm.ranked_as
    said = "\n".join(lm.found.lines())
    assert "not here: soft prompts" in said
    assert KINDS[kind] in said


@pytest.mark.parametrize("kind", ["llama.cpp", "vllm"])
def test_labels_have_the_numbers_of_the_same_weights_here(
    kind: str, served: Any, spec: ModelSpec, here: LanguageModel, words: tuple[str, ...]
) -> None:
    lm = connect(spec, served(kind).url)
    theirs, ours = asked(lm, words, normalize=True), asked(here, words, normalize=True)
    np.testing.assert_allclose(theirs, ours, atol=1e-4)
    theirs, ours = asked(lm, words), asked(here, words)
    np.testing.assert_allclose(theirs - theirs[:, :1], ours - ours[:, :1], atol=1e-4)


def test_a_word_that_is_named_twice_has_its_number_twice(served: Any, spec: ModelSpec, words: tuple[str, ...]) -> None:
    lm = connect(spec, served().url)
    once, twice = asked(lm, words[:2]), asked(lm, (words[1], words[0], words[1]))
    np.testing.assert_allclose(twice, once[:, [1, 0, 1]], atol=1e-6)


def test_many_words_are_asked_in_parts_where_a_server_takes_few(
    served: Any, spec: ModelSpec, here: LanguageModel
) -> None:
    lm = connect(spec, served("vllm").url)
    many = tuple(word for word in here.words if word)
    assert len(many) > 128
    np.testing.assert_allclose(asked(lm, many, normalize=True), asked(here, many, normalize=True), atol=1e-4)


def test_a_label_beyond_the_top_k_has_an_upper_bound(
    served: Any, spec: ModelSpec, here: LanguageModel, words: tuple[str, ...]
) -> None:
    theirs, ours = asked(connect(spec, served("plain").url), words), asked(here, words, normalize=True)
    assert (theirs >= ours - 1e-4).all()


def test_generated_text_says_right_or_wrong(
    served: Any, spec: ModelSpec, here: LanguageModel, words: tuple[str, ...]
) -> None:
    server = served("text")
    lm = connect(spec, server.url)
    server.spell = lambda _token: f"{words[1].strip().upper()} and more"
    assert asked(lm, words)[0].tolist() == [MISS, 0.0, MISS]
    server.spell = lambda _token: "?"
    assert asked(lm, words)[0].tolist() == [MISS] * 3


# ── soft prompts at the input ────────────────────────────────────────────────────────────────────────────────


def taking(server: FakeServer, here: LanguageModel) -> FakeServer:
    """The server, which also takes embeddings."""
    model = here.weights()

    def embeds(raw: bytes) -> list[float]:
        inputs = torch.load(io.BytesIO(raw), weights_only=True)
        with torch.no_grad():
            found: list[float] = model(inputs_embeds=inputs[None]).logits[0, -1].log_softmax(-1).tolist()
        return found

    server.embeds = embeds
    return server


@pytest.mark.parametrize("mode", ["add", "prepend"])
def test_soft_prompts_at_the_input_have_the_numbers_of_the_model_here(
    mode: Any, served: Any, llama: ModelSpec, here_llama: LanguageModel
) -> None:
    server = taking(served("vllm", here_llama), here_llama)
    lm = connect(llama, server.url)
    assert lm.found.gives == "label log-probabilities and soft prompts at the input"
    names = tuple([word for word in here_llama.words if word.strip().isalpha()][5:8])
    values = np.random.default_rng(0).standard_normal((3, 1, 2, lm.backbone.width)).astype(np.float32)
    theirs, ours = (
        each.forward(
            Prompt(values, mode), each.text_set(TEMPLATE, TEXTS, mode), each.single_ids(names), None, True
        ).logits
        for each in (lm, here_llama)
    )
    assert theirs.shape == (3, len(TEXTS), 3)
    np.testing.assert_allclose(theirs, ours, atol=1e-4)
    space = Subspace(5, (lm.info(TEXTS, TEMPLATE).hidden_std[0],), 2, seed=1, mode=mode)
    z = space.at(np.random.default_rng(1).standard_normal((1, 5)))
    theirs, ours = (each.outputs(z, TEXTS, TEMPLATE, names, "mask").logits for each in (lm, here_llama))
    np.testing.assert_allclose(theirs - theirs[..., :1], ours - ours[..., :1], atol=1e-4)
    stds = [each.info(TEXTS, TEMPLATE).hidden_std[0] for each in (lm, here_llama)]
    np.testing.assert_allclose(*stds, rtol=0.2)


def test_a_soft_prompt_costs_what_it_costs_here_and_may_be_an_answer(
    served: Any, llama: ModelSpec, here_llama: LanguageModel
) -> None:
    lm = connect(llama, taking(served("vllm", here_llama), here_llama).url)
    names = tuple([word for word in here_llama.words if word.strip().isalpha()][5:8])
    task = Task("made-up", ("a", "b", "c"), "accuracy", TEMPLATE, names)
    rows = []
    for model in (lm, here_llama):
        info = model.info(TEXTS, TEMPLATE)
        space = Subspace(4, (info.hidden_std[0],), info.prompt_tokens, seed=1)
        priced_model, meter, answered = priced(model, task), Meter(10, len(TEXTS)), list[Any]()  # type: ignore[arg-type]
        query = Query(TEXTS, prompts=space.at(np.ones((2, 4))))
        priced_model.check_space(space)
        priced_model.answer(query, b"", meter, answered.append)
        assert meter.spent == 2 * len(TEXTS)
        rows.append((answered[0].row.rows, answered[0].row.tokens, answered[0].row.level))
        assert priced_model.offered(to_bytes(Answer.of(task, space.at(np.ones(4)))))
    assert rows[0] == rows[1]
    assert rows[0][2] == 1
    assert probe(lm, task).logits


def test_deep_prompts_are_refused_with_the_shape(served: Any, llama: ModelSpec, here_llama: LanguageModel) -> None:
    lm = connect(llama, taking(served("vllm", here_llama), here_llama).url)
    for shape in ((1, 2, 2, 16), (1, 1, 3, 16), (1, 1, 2, 15)):
        with pytest.raises(QueryError, match="expected"):
            lm.check(Prompt(np.zeros(shape, np.float32)))
    with pytest.raises(QueryError, match="the subspace has 3 layers; the model has 1"):
        lm.check(Subspace(5, (1.0,) * 3, 2, seed=1).at(np.zeros((1, 3, 5))))
    assert any("deeper layers" in each.why for each in lm.found.refused)


def test_embeddings_that_are_ignored_or_of_other_weights_are_not_believed(
    served: Any, llama: ModelSpec, here_llama: LanguageModel
) -> None:
    server = taking(served("vllm", here_llama), here_llama)
    first = here_llama.tokenizer("The river was wide and deep, and the boat was")["input_ids"]
    server.embeds = lambda _raw: server.values(first)
    found = connect(llama, server.url).found
    assert found.soft is None
    assert any("answered with 200 and ignored" in each.why for each in found.refused)
    server.embeds = lambda _raw: server.values([5, 6])
    assert any("are not the server's" in each.why for each in connect(llama, server.url).found.refused)


# ── lies with 200 ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_field_that_is_ignored_with_200_is_not_believed(served: Any, spec: ModelSpec) -> None:
    """VLLM of an older version: it knows no label ids, and answers with the most probable tokens."""
    server = served("vllm")
    body_of = server.reply

    def ignoring(path: str, body: dict[str, Any]) -> Any:
        return body_of(path, {name: value for name, value in body.items() if name != "logprob_token_ids"})

    server.reply = ignoring
    found = connect(spec, server.url).found
    assert found.gives == TOP
    assert any(each.way.startswith("vLLM") and "not in it" in each.why for each in found.refused)


def test_a_bias_that_is_ignored_is_not_believed(served: Any, spec: ModelSpec) -> None:
    server = served()
    body_of = server.reply
    server.reply = lambda path, body: body_of(path, {**body, "logit_bias": []})
    found = connect(spec, server.url).found
    assert found.gives == TOP
    assert found.refused[0].way.startswith("llama.cpp")


def test_numbers_that_do_not_depend_on_the_prompt_are_not_believed(served: Any, spec: ModelSpec) -> None:
    server = served()
    values = server.values
    server.values = lambda _ids: values([7, 8, 9])
    found = connect(spec, server.url).found
    assert found.gives == TEXT
    assert any("two prompts give the same numbers" in each.why for each in found.refused)


def test_another_tokenizer_is_found_out(served: Any, spec: ModelSpec) -> None:
    server = served()
    encode = server.encode
    server.encode = lambda text: [*encode(text), 1]
    body_of = server.reply

    def text_only(path: str, body: dict[str, Any]) -> Any:
        if isinstance(body.get("prompt"), list):
            return 400, {"error": "a text is needed"}, {}
        return body_of(path, body)

    server.reply = text_only
    with pytest.raises(ModelError, match=r"as \d+ tokens, the tokenizer here as \d+"):
        connect(spec, server.url)


def test_a_server_that_takes_no_ids_gets_text(
    served: Any, spec: ModelSpec, here: LanguageModel, words: tuple[str, ...]
) -> None:
    server = served()
    body_of = server.reply
    server.reply = lambda path, body: (400, {}, {}) if isinstance(body.get("prompt"), list) else body_of(path, body)
    lm = connect(spec, server.url)
    assert not lm.found.takes_ids
    np.testing.assert_allclose(asked(lm, words, normalize=True), asked(here, words, normalize=True), atol=1e-4)


@pytest.mark.parametrize(
    "reply",
    [
        {},
        [],
        None,
        "yes",
        b"<html>",
        b"",
        {"error": "no"},
        {"choices": [], "completion_probabilities": []},
        {"completion_probabilities": [{"top_probs": [{"id": 1, "prob": float("nan")}]}], "tokens_evaluated": 3},
        {"completion_probabilities": [{"top_probs": "many"}], "tokens_evaluated": 3, "tokens_predicted": 1},
    ],
)
def test_a_wrong_shape_is_an_error_after_some_tries_and_charges_nothing(
    reply: Any, served: Any, spec: ModelSpec, task: Task
) -> None:
    server = served()
    lm = connect(spec, server.url)
    server.before = lambda _n, _path, _body: (200, reply, {})
    meter = Meter(10, len(TEXTS))
    with pytest.raises(ModelError, match="status 200 with a reply that is none"):
        priced(lm, task).answer(Query(TEXTS), b"", meter, lambda _answered: None)
    assert meter.spent == 0


# ── failures ─────────────────────────────────────────────────────────────────────────────────────────────────


def priced(lm: EndpointModel, task: Task) -> PricedModel:
    return PricedModel(lm, task, 1 << 20, 1 << 20, TEXTS)


@pytest.mark.parametrize(
    "failure", ["cut", (500, {"error": "oh"}, {}), (429, {}, {"Retry-After": "0.05"}), (503, {}, {})]
)
def test_a_failure_is_sent_again_and_charged_once(
    failure: Any, served: Any, spec: ModelSpec, task: Task, here: LanguageModel
) -> None:
    server = served()
    lm = connect(spec, server.url)
    first, before = len(server.asked), lm.traffic
    server.before = lambda n, _path, _body: failure if n - first < 2 else None
    meter, answered = Meter(10, len(TEXTS)), []
    priced(lm, task).answer(Query(TEXTS), b"", meter, answered.append)
    assert meter.spent == len(TEXTS)
    assert [each.row.rows for each in answered] == [len(TEXTS)]
    spent = lm.traffic - before
    assert spent.requests == len(TEXTS)
    assert spent.resent == 2
    assert spent.sent == here.text_set(TEMPLATE, TEXTS, None).tokens == answered[0].row.tokens
    assert spent.received == len(TEXTS)


def test_requests_that_are_sent_again_say_that_they_are_the_same(served: Any, spec: ModelSpec, words: Any) -> None:
    server = served()
    lm = connect(spec, server.url, concurrency=1)
    first = len(server.asked)
    server.before = lambda n, _path, _body: (500, {}, {}) if n == first else None
    asked(lm, words)
    keys = [each["Idempotency-Key"] for each in server.headers[first:]]
    assert len(keys) == len(TEXTS) + 1
    assert len(set(keys)) == len(TEXTS)


def test_too_many_requests_make_all_of_them_wait(served: Any, spec: ModelSpec, words: Any) -> None:
    server = served()
    lm = connect(spec, server.url)
    told: list[str] = []
    lm.tell(told.append)
    first = len(server.asked)
    server.before = lambda n, _path, _body: (429, {}, {"Retry-After": "1.2"}) if n == first else None
    asked(lm, words)
    assert told == ["too many requests (429); all wait 1 s"]


def test_a_server_that_stays_away_is_given_up(served: Any, spec: ModelSpec, words: Any) -> None:
    server = served()
    lm = connect(spec, server.url, patience_s=0.3)
    server.before = lambda _n, _path, _body: (503, {"error": "overloaded"}, {})
    with pytest.raises(ModelError, match=r"gave no answer in \d+ s \(status 503: .*overloaded.*Nothing was charged"):
        asked(lm, words)


def test_a_request_that_is_refused_for_good_is_not_sent_again(served: Any, spec: ModelSpec, words: Any) -> None:
    server = served()
    lm = connect(spec, server.url, concurrency=1)
    first = len(server.asked)
    server.before = lambda _n, _path, _body: (400, {"error": "no"}, {})
    with pytest.raises(ModelError, match="status 400"):
        asked(lm, words)
    assert len(server.asked) - first <= 2


def test_a_deadline_ends_slow_requests(served: Any, spec: ModelSpec, words: Any) -> None:
    server = served()
    lm = connect(spec, server.url, concurrency=1)
    server.before = lambda _n, _path, _body: "stall"
    looked = 0

    def look() -> None:
        nonlocal looked
        looked += 1
        if looked > 8:
            raise TimeoutError

    with at_checkpoints(look), pytest.raises(TimeoutError):
        asked(lm, words)


def test_a_slow_reply_is_a_failure_too(served: Any, spec: ModelSpec, words: Any) -> None:
    server = served()
    lm = connect(spec, server.url, reply_s=0.3)
    first, before = len(server.asked), lm.traffic
    server.before = lambda n, _path, _body: "stall" if n == first else None
    assert np.isfinite(asked(lm, words)).all()
    assert (lm.traffic - before).resent >= 1


def test_nobody_there(spec: ModelSpec) -> None:
    with pytest.raises(InputError, match="does not say which models it has"):
        connect(spec, "http://127.0.0.1:9", patience_s=0.2)
    with pytest.raises(ModelError, match="gave no answer"):
        connect(spec, "http://127.0.0.1:9", "some-model", patience_s=0.2)


# ── concurrency ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("limit", [1, 3])
def test_no_more_requests_at_once_than_the_limit(limit: int, served: Any, spec: ModelSpec, words: Any) -> None:
    server = served()
    lm = connect(spec, server.url, concurrency=limit)
    gate = threading.Event()
    threading.Timer(0.3, gate.set).start()
    server.before = lambda _n, _path, _body: gate.wait(5) and None
    lm.forward(None, lm.text_set(TEMPLATE, TEXTS * 2, None), lm.single_ids(words))
    assert server.at_once == limit


def test_what_a_checkpoint_asks_does_not_wait_for_all_of_a_long_query(served: Any) -> None:
    """The service lets queries through in the midst of a scoring, at its checkpoints."""
    order: list[str] = []
    with Endpoint(served("llama.cpp").url, 2) as endpoint:
        asked = [lambda _post, n=n: order.append(f"long {n}") for n in range(20)]
        left = ["query"]

        def others() -> None:
            if order and left:
                left.pop()
                with without_checkpoints():
                    endpoint.each([lambda _post: order.append("query")])

        with at_checkpoints(others):
            endpoint.each(asked)  # type: ignore[arg-type]  # nothing is posted
    assert order.index("query") <= 4
    assert sorted(order) == sorted([*(f"long {n}" for n in range(20)), "query"])


def test_results_are_in_the_order_of_the_texts(served: Any, spec: ModelSpec, words: Any) -> None:
    server = served()
    one, many = connect(spec, server.url, concurrency=1), connect(spec, server.url, concurrency=4)
    assert (asked(one, words) == asked(many, words)).all()


def test_each_thread_pays_for_itself(served: Any, spec: ModelSpec, words: Any) -> None:
    lm = connect(spec, served().url)
    found: list[Traffic] = []

    def cell() -> None:
        asked(lm, words)
        found.append(lm.traffic)

    threads = [threading.Thread(target=cell) for _ in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert [each.requests for each in found] == [len(TEXTS)] * 2


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────


def test_soft_prompts_and_hidden_states_are_refused_before_they_are_charged(
    served: Any, spec: ModelSpec, task: Task
) -> None:
    server = served()
    lm = connect(spec, server.url)
    first, meter = len(server.asked), Meter(10, len(TEXTS))
    for query, why in (
        (Query(TEXTS, prompts=Prompt(np.zeros((1, 1, 2, 16), np.float32))), "no soft prompts"),
        (Query(TEXTS, features="mask"), "no hidden states"),
    ):
        with pytest.raises(QueryError, match=why):
            priced(lm, task).answer(query, b"", meter, lambda _answered: None)
    assert meter.spent == 0
    assert len(server.asked) == first


def test_an_answer_with_a_head_or_a_prompt_is_refused_and_one_of_text_is_not(
    served: Any, spec: ModelSpec, task: Task
) -> None:
    model = priced(connect(spec, served().url), task)
    text = Member("{a} So it was {mask}", task.words)
    assert model.offered(to_bytes(Answer((text,)))).members == (text,)
    head = Member(task.template, task.words, head=LinearHead(np.zeros((3, 16), np.float32), np.zeros(3, np.float32)))
    with pytest.raises(QueryError, match="no hidden states"):
        model.offered(to_bytes(Answer((head,))))
    prompt = Member(task.template, task.words, Prompt(np.zeros((1, 1, 2, 16), np.float32)))
    with pytest.raises(QueryError, match="no soft prompts"):
        model.offered(to_bytes(Answer((prompt,))))


def test_the_fingerprint_is_that_of_the_bare_template(served: Any, spec: ModelSpec, task: Task) -> None:
    server = served()
    first, again = (probe(connect(spec, server.url), task) for _ in range(2))
    assert first == again
    assert len(first.logits) == 4 * len(task.words)


@pytest.mark.parametrize("kind", ["masked", "seq2seq"])
def test_only_causal_models_are_asked_of_a_server(kind: Any, spec: ModelSpec) -> None:
    with pytest.raises(InputError, match="an endpoint completes text"):
        connect(ModelSpec(spec.source, "float32", kind), "http://127.0.0.1:9")


# ── names, addresses and keys ────────────────────────────────────────────────────────────────────────────────


def test_a_model_that_is_not_served_is_named_with_those_that_are(served: Any, spec: ModelSpec) -> None:
    server = served()
    with pytest.raises(InputError, match=r"other: http.* has some/tiny-model"):
        connect(spec, server.url, "other")
    assert connect(spec, f"{server.url}/v1/", "tiny-model").found.model == "some/tiny-model"


def test_several_models_need_a_name(served: Any, spec: ModelSpec) -> None:
    server = served()
    page_of = server.page
    server.page = lambda path: (
        (200, {"data": [{"id": "a"}, {"id": "b"}]}, {}) if path == "/v1/models" else page_of(path)
    )
    with pytest.raises(InputError, match="has a, b; name one with --served-model"):
        connect(spec, server.url)
    assert connect(spec, server.url, "b").name == "b"


@pytest.mark.parametrize(
    "url",
    ["", "localhost:8000", "ftp://host", "http://", "http://me:secret@host/", "http://host/?key=secret", "http://a b"],
)
def test_an_address_that_is_none_or_holds_a_secret_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="http://HOST:PORT is needed") as refused:
        Endpoint(url)
    assert "secret" not in str(refused.value)


def test_the_key_is_sent_and_never_said(
    served: Any, spec: ModelSpec, words: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, key = served(), "sk-very-secret-1234"
    monkeypatch.setenv(KEY, key)
    lm = connect(spec, server.url, patience_s=0.2)
    assert all(each["Authorization"] == f"Bearer {key}" for each in server.headers)
    for status in (400, 401, 403, 500):
        server.before = lambda _n, _path, _body, status=status: (status, {"error": f"wrong key {key}"}, {})
        with pytest.raises(ModelError) as refused:
            asked(lm, words)
        assert key not in f"{refused.value!r} {lm!r} {lm.found} {lm.ranked_as} {vars(lm.found)}"
        assert (KEY in str(refused.value)) == (status in {401, 403})


def test_a_key_that_is_lacking_is_asked_for_by_its_name(served: Any, spec: ModelSpec) -> None:
    server = served()
    server.before = lambda _n, _path, _body: (401, {}, {})
    with pytest.raises(ModelError, match=f"a key is needed; put it into {KEY}"):
        connect(spec, server.url)


def test_a_key_with_a_line_break_is_told_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "sk-one\nsk-two")
    with pytest.raises(InputError, match="characters that no key has") as refused:
        Endpoint("http://127.0.0.1:9")
    assert "sk-" not in str(refused.value)
