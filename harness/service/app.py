"""The HTTP interface of the service: authentication, rate limits and formats. The model has a thread of its own.

A token is checked before the body is read, and the size of a body is checked while it arrives. The event loop never
computes: queries wait for the model's thread, and all other requests are answered meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar

import fastapi
from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from harness.blackbox import wire
from harness.errors import DeviceMemoryError, HarnessError, ProtocolError, StoreError
from harness.evaluation.environment import package_version
from harness.service import messages, schema
from harness.service.counters import CONTENT_TYPE, Metrics
from harness.service.line import LEAST_PRICE, Closing, Line
from harness.service.messages import IDEMPOTENCY, JSON, LONGEST_KEY, MSGPACK, QUEUE_AHEAD, QUEUE_SECONDS, Fault
from harness.service.pages import add_pages
from harness.service.queries import Refusal
from harness.service.rate_limit import Bucket
from harness.service.text_messages import GenerateBody, ScoreBody
from harness.service.tokens import Token

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from harness.service.messages import FaultCode, Media
    from harness.service.queries import Place, QueryHandler

Settle: TypeAlias = "Callable[[Callable[[], None]], bool]"
"""Scores one answer and says whether there may be more. Its argument is called when waiting queries may go first."""
_log = logging.getLogger("harness.service")
T = TypeVar("T")
STATUS: dict[FaultCode, int] = {
    "unreadable": 400, "unauthorized": 401, "budget_exhausted": 402, "unknown_cell": 404, "too_slow": 408,
    "closed": 409, "key_reused": 409, "reply_gone": 410, "too_large": 413, "media_type": 415, "rejected": 422,
    "too_fast": 429, "unavailable": 503,
}  # fmt: skip
_SMALL = 1 << 20
_LOOK_S = 0.25
"""Seconds between two looks whether a waiting client is still there."""
_bearer = HTTPBearer(auto_error=False, description="A token from `harness serve --new-token NAME`.")
_Credentials = Annotated[HTTPAuthorizationCredentials | None, fastapi.Security(_bearer)]


class Service:
    """The query service with its thread, its counters and its clients' rate limits."""

    def __init__(self, handler: QueryHandler, settle: Settle) -> None:
        """Serve `handler`. `settle` scores one answer and says whether to go on. It is called on the model's thread."""
        self.handler, self.metrics = handler, Metrics()
        self._settle = settle
        self._model = Line()
        self._buckets: dict[str, Bucket] = {}
        self._working: Counter[str] = Counter()
        self.waiting = 0

    async def turn(
        self, request: Request, token: Token, work: Callable[[], T], price: Callable[[T], float] = lambda _: LEAST_PRICE
    ) -> T:
        """Run `work` on the model's thread, when it is the token's turn.

        It runs even if the client disconnects, since the client may ask again under the same idempotency key. Work
        without such a key is dropped if the client disconnects before it has begun: nobody can get its result.

        Args:
            request: the request. Its place in line is added to its state, for the reply and the log.
            token: who asks.
            work: what to do.
            price: rows that the result cost.

        Raises:
            ClientDisconnect: the work was dropped.
        """
        self.waiting += 1
        self.metrics.waiting.inc()
        try:
            asked = self._model.ask(work, token.name, price)
            result = asyncio.wrap_future(asked.future)
            while IDEMPOTENCY not in request.headers and not (await asyncio.wait({result}, timeout=_LOOK_S))[0]:
                if not asked.future.running() and await request.is_disconnected() and asked.future.cancel():
                    raise ClientDisconnect
            try:
                return await result
            finally:
                request.state.ahead, request.state.waited_s = asked.ahead, round(asked.waited_s, 4)
        finally:
            self.waiting -= 1
            self.metrics.waiting.dec()

    def settle(self) -> None:
        """Score the submitted answers one by one, when the model is free. Queries always go first."""
        with suppress(RuntimeError):  # the server is ending; the next start scores the answer
            self._model.leave(self._settled)

    def _settled(self) -> None:
        try:
            more = self._settle(self._model.let_through)
        except Closing:
            return  # the next start scores the answer
        except Exception as problem:  # noqa: BLE001 - the answer is in the database, and the next start scores it
            _log.exception("an answer could not be scored; it is kept, and is scored at the next start")
            more = not isinstance(problem, StoreError)  # a full database fails for the next answer, too
        if more:
            self.settle()

    def close(self) -> None:
        """Wait for the model's thread."""
        self._model.close()

    def place(self, task: str, split: int) -> Place:
        """Look up a cell on offer.

        Raises:
            Refusal: there is no such cell.
        """
        found = self.handler.places.get((task, split))
        if found is None:
            there = ", ".join(f"{name}/{number}" for name, number in self.handler.places)
            raise Refusal("unknown_cell", f"no cell {task[:64]}/{split} here; there are {there}")
        return found

    @asynccontextmanager
    async def client(self, credentials: HTTPAuthorizationCredentials | None) -> AsyncIterator[Token]:
        """The client of a request, for the duration of the request.

        Raises:
            Refusal: the client is unknown, or asks too often.
        """
        given = credentials.credentials if credentials else ""
        if not given:
            raise Refusal("unauthorized", "a token is needed: Authorization: Bearer NAME.SECRET")
        token = await asyncio.to_thread(self.handler.book.token, given)
        if token is None:
            raise Refusal(
                "unauthorized", "unknown or revoked token, or one that has expired; ask the organiser for a new one"
            )
        limits = self.handler.limits
        bucket = self._buckets.setdefault(token.name, Bucket(limits.per_s, limits.burst))
        wait_s = bucket.take(time.monotonic())
        if wait_s:
            raise Refusal("too_fast", f"more than {limits.per_s:g} requests a second; wait {wait_s:.2f} s")
        if self._working[token.name] >= limits.at_once:
            raise Refusal("too_fast", f"{limits.at_once} requests of this token are being worked on; wait for a reply")
        self._working[token.name] += 1
        try:
            yield token
        finally:
            self._working[token.name] -= 1


async def _client(request: Request, credentials: _Credentials) -> AsyncIterator[Token]:
    async with request.app.state.service.client(credentials) as token:
        request.state.token = token.name
        yield token


_Client = Annotated[Token, Depends(_client)]


def make_app(handler: QueryHandler, settle: Settle = lambda _others: False) -> FastAPI:
    """Build the service as an ASGI application. It starts by scoring the answers that were submitted before."""
    service = Service(handler, settle)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        service.settle()
        try:
            yield
        finally:
            await asyncio.to_thread(service.close)

    app = FastAPI(
        title="harness",
        description="A language model as a service: forward passes and nothing else, metered in rows.",
        version=package_version("harness"),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,  # both would load scripts from other servers
    )
    app.state.service = service
    _faults(app, service)
    _open_routes(app, service)
    _cell_routes(app, service)
    add_pages(app)
    schema.describe(app, handler.places)
    return app


def _open_routes(app: FastAPI, service: Service) -> None:
    handler = service.handler

    @app.get("/health", **schema.gives(messages.Health, auth=False))
    async def health(request: Request) -> Response:
        """Answer at once, whatever the model is doing."""
        return _reply(request, messages.Health("ok", handler.track.partition(" ")[0], service.waiting))

    @app.get("/ready", **schema.gives(messages.Health, auth=False))
    async def ready(request: Request) -> Response:
        """Answer 200 when queries are answered. Until the model is loaded it is 503."""
        return _reply(request, messages.Health("ok", handler.track.partition(" ")[0], service.waiting))

    @app.get("/metrics", response_class=Response, responses={200: {"content": {CONTENT_TYPE: {}}}})
    async def metrics() -> Response:
        """Counters for Prometheus."""
        return Response(service.metrics.page(), media_type=CONTENT_TYPE)

    @app.get("/v1/cells", **schema.gives(list[messages.CellName]))
    async def cells(request: Request, token: _Client) -> Response:
        """The cells on offer, with the rest of this token's budget."""
        return _reply(request, await asyncio.to_thread(handler.names, token))

    @app.get("/v1/me", **schema.gives(messages.MyPage))
    async def mine(request: Request, token: _Client) -> Response:
        """What this token has spent on each cell, and whether its answers are scored."""
        return _reply(request, await asyncio.to_thread(handler.mine, token))

    @app.get("/v1/vocabulary", **schema.gives(wire.WordList))
    async def vocabulary(request: Request, token: _Client) -> Response:
        """Every word that can be a label word. Free."""
        return _reply(request, await service.turn(request, token, handler.vocabulary))


def _placed(request: Request, task: str, split: int) -> Place:
    request.state.cell = f"{task[:64]}/{split}"
    found: Place = request.app.state.service.place(task, split)
    return found


async def _answered(request: Request, place: Place, token: Token, asked: Any, replied: Any) -> Response:
    """The reply to a query whose body is of the type `asked`, and whose reply is of the type `replied`."""
    service: Service = request.app.state.service
    handler, media, key = service.handler, _media(request), _key(request)
    body = await _body(request, handler.limits.frame_bytes, handler.limits.read_s)
    began = time.perf_counter()

    def work() -> tuple[bytes, Any]:
        found = handler.query(token, place, messages.decode(body, media, asked), body, key)
        if _accepted(request) == MSGPACK:
            return found.reply, found.row
        return messages.encode(messages.decode(found.reply, MSGPACK, replied), JSON), found.row

    reply, row = await service.turn(request, token, work, lambda found: found[1].rows if found[1] else LEAST_PRICE)
    service.metrics.answered(place.task.name, row, time.perf_counter() - began)
    request.state.rows = row.rows if row else 0
    line = {QUEUE_AHEAD: str(request.state.ahead), QUEUE_SECONDS: f"{request.state.waited_s:.3f}"}
    return Response(reply, media_type=_accepted(request), headers=line)


def _cell_routes(app: FastAPI, service: Service) -> None:
    handler = service.handler

    @app.get("/v1/cells/{task}/{split}", **schema.gives(messages.CellPage))
    async def cell(request: Request, task: str, split: int, token: _Client) -> Response:
        """Task, few-shot examples, model and budget of a cell. Free."""
        place = _placed(request, task, split)
        return _reply(request, await asyncio.to_thread(handler.page, token, place))

    @app.post("/v1/cells/{task}/{split}/words", **schema.takes(messages.WordsAsked, wire.WordIds))
    async def words(request: Request, task: str, split: int, token: _Client) -> Response:
        """Token ids of words. Free."""
        place, media = _placed(request, task, split), _media(request)
        body = await _body(request, _SMALL, handler.limits.read_s)
        asked = messages.decode(body, media, messages.WordsAsked)
        return _reply(request, await service.turn(request, token, lambda: handler.word_ids(place, asked.words)))

    @app.post("/v1/cells/{task}/{split}/query", **schema.takes(messages.QueryBody, wire.Result, idempotent=True))
    async def query(request: Request, task: str, split: int, token: _Client) -> Response:
        """One query: candidates x texts rows. It is charged once per idempotency key, before the reply."""
        return await _answered(request, _placed(request, task, split), token, messages.QueryBody, wire.Result)

    @app.post("/v1/cells/{task}/{split}/score", **schema.takes(ScoreBody, wire.Scored, idempotent=True))
    async def score(request: Request, task: str, split: int, token: _Client) -> Response:
        """Log-likelihood of given continuations, token by token; where the answer is text. It is charged as a query."""
        return await _answered(request, _placed(request, task, split), token, ScoreBody, wire.Scored)

    @app.post("/v1/cells/{task}/{split}/generate", **schema.takes(GenerateBody, wire.Written, idempotent=True))
    async def generate(request: Request, task: str, split: int, token: _Client) -> Response:
        """Let the model write; where the answer is text. If the budget ends meanwhile, `cut` is set in the reply."""
        return await _answered(request, _placed(request, task, split), token, GenerateBody, wire.Written)

    @app.post("/v1/cells/{task}/{split}/answer", **schema.takes(messages.Handed, messages.Receipt, status=202))
    async def answer(request: Request, task: str, split: int, token: _Client) -> Response:
        """Submit the answer and close the cell. It is scored later on texts that stay here; the score is not told."""
        place, media = _placed(request, task, split), _media(request)
        body = await _body(request, 2 * handler.limits.answer_bytes, handler.limits.read_s)
        receipt = await service.turn(
            request, token, lambda: handler.submit(token, place, messages.decode(body, media, messages.Handed).answer)
        )
        service.metrics.handed_in(task)
        service.settle()
        return _reply(request, receipt, 202)


def _faults(app: FastAPI, service: Service) -> None:
    """Turn every refusal into a `Fault` in the requested format."""

    async def refuse(request: Request, problem: Exception) -> Response:
        fault = _fault(problem)
        service.metrics.refused(fault.code)
        response = _reply(request, fault, STATUS[fault.code])
        if fault.code == "unauthorized":
            response.headers["WWW-Authenticate"] = "Bearer"
        if fault.code in {"too_fast", "unavailable"}:
            response.headers["Retry-After"] = "1"
        if request.method == "POST" and fault.code not in {"budget_exhausted", "rejected"}:
            response.headers["Connection"] = "close"  # the rest of the body is not read
        return response

    async def no_route(_request: Request, problem: Exception) -> Response:
        assert isinstance(problem, HTTPException)  # noqa: S101 - it is registered for nothing else
        return JSONResponse({"detail": problem.detail}, problem.status_code, problem.headers)

    for kind in (HarnessError, MemoryError, ClientDisconnect, RequestValidationError):
        app.add_exception_handler(kind, refuse)
    app.add_exception_handler(HTTPException, no_route)


def _fault(problem: Exception) -> Fault:
    if isinstance(problem, Refusal):
        return problem.fault
    if isinstance(problem, ProtocolError):
        return Fault("unreadable", str(problem))
    if isinstance(problem, DeviceMemoryError):
        return Fault("rejected", str(problem))
    if isinstance(problem, ClientDisconnect):
        return Fault("unreadable", "the request was cut off")
    if isinstance(problem, RequestValidationError):
        return Fault("unknown_cell", "a cell is /v1/cells/TASK/SPLIT, with a number for the split")
    _log.error("%s", problem)
    return Fault("unavailable", "the model or the book failed; nothing was charged, ask again")


def _reply(request: Request, value: Any, status: int = 200) -> Response:
    media = _accepted(request)
    return Response(messages.encode(value, media), status, media_type=media)


def _accepted(request: Request) -> Media:
    return MSGPACK if MSGPACK in request.headers.get("accept", "") else JSON


def _media(request: Request) -> Media:
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given == MSGPACK and not request.headers.get("content-encoding"):
        return MSGPACK
    if given == JSON and not request.headers.get("content-encoding"):
        return JSON
    raise Refusal("media_type", f"a body is {MSGPACK} or {JSON}, uncompressed; say which in Content-Type")


def _key(request: Request) -> str | None:
    key = request.headers.get(IDEMPOTENCY)
    if key is not None and not (0 < len(key) <= LONGEST_KEY and key.isascii() and key.isprintable()):
        raise Refusal("unreadable", f"{IDEMPOTENCY} must be 1 to {LONGEST_KEY} printable ASCII characters")
    return key


async def _body(request: Request, largest: int, read_s: float) -> bytes:
    """The body. Memory grows only as bytes arrive."""
    too_large = Refusal("too_large", f"a body of more than {largest:,} bytes; send coordinates, or less at once")
    declared = request.headers.get("content-length", "0")
    if not declared.isdecimal() or int(declared[:20]) > largest:
        raise too_large
    data = bytearray()
    try:
        async with asyncio.timeout(read_s):
            async for chunk in request.stream():
                data += chunk
                if len(data) > largest:
                    raise too_large
    except TimeoutError:
        raise Refusal("too_slow", f"{len(data):,} bytes came in {read_s:g} s; the body was not waited for") from None
    return bytes(data)
