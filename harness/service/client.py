"""`harness.connect`: a `BlackBox` over HTTP, so that a submission or a notebook runs unchanged against a service.

    box = harness.connect("http://127.0.0.1:8000", token, task="sst2", split=1)
    for answer in tune(box, box.task, box.shots, np.random.default_rng(0), Config()): ...
    box.submit(answer)

A query that got no reply is sent again under its idempotency key, so it is charged once however often it is sent.
"""

from __future__ import annotations

import os
import random
import re
import time
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast
from uuid import uuid4

import msgspec
import numpy as np

from harness.blackbox import limits, wire
from harness.blackbox.client import Asking
from harness.blackbox.query import words_of
from harness.blackbox.text_client import AskingText, said
from harness.contract import Budget, Examples, ModelInfo, Shots
from harness.errors import AnswerError, BudgetExhausted, InputError, ProtocolError, QueryError, ServiceError
from harness.service import messages
from harness.service.text_messages import GenerateBody, ScoreBody

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from harness.blackbox.query import Query
    from harness.blackbox.text_model import Decoding
    from harness.blackbox.text_query import TextQuery
    from harness.contract import Answer, Task, TextTask

T = TypeVar("T")
R = TypeVar("R", wire.Result, wire.Scored, wire.Written)
_AGAIN = frozenset({408, 429, 502, 503, 504})
_LONGEST_WAIT_S = 10.0
_HERE = ("localhost", "127.0.0.1", "[::1]")
"""Hosts that are reached without a proxy, whatever the environment says."""


def connect(
    url: str,
    token: str,
    *,
    task: str,
    split: int = 1,
    patience_s: float = 120.0,
    reply_s: float = 600.0,
    transport: Any = None,
) -> ServiceBlackBox:
    """Open one cell of a service that `harness serve` runs.

    If the server is still loading its model, this function waits. Proxies and certificates from the environment
    (HTTPS_PROXY, SSL_CERT_FILE) are used only for https to other machines: in plain HTTP a proxy could read the token.

    Args:
        url: address of the service, `http://HOST:PORT`.
        token: the token that `harness serve --new-token` printed.
        task: name of the task.
        split: number of the few-shot split.
        patience_s: seconds for which a request is sent again while the server says that it is not ready or, after its
            first answer, while it does not answer.
        reply_s: seconds that one reply may take, including the wait for other clients' queries.
        transport: a transport of httpx2, for tests and special networks.

    Returns:
        The open cell; of a task whose answer is text a `ServiceTextBlackBox`.

    Raises:
        InputError: the service does not know the token, the task or the split.
        ServiceError: `url` does not answer, is not a service, or does not load its model in time.

    Example:
        ``lm = harness.connect("http://127.0.0.1:8000", token, task="sst2"); lm.logits(None, ["A fine film."])``
    """
    token = token.strip()  # a token from a file ends in a new line
    if not re.fullmatch(r"[!-~]+", token):
        raise InputError("the token is empty, or has characters that no token has; copy it anew")
    try:
        import httpx2  # noqa: PLC0415 - so that `import harness` stays light
    except ModuleNotFoundError:
        raise InputError('harness.connect needs httpx2, which is not here; pip install -e ".[service]"') from None
    try:
        client = httpx2.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {token}", "Accept": "application/msgpack"},
            timeout=httpx2.Timeout(reply_s, connect=min(10.0, reply_s)),
            transport=transport,
            trust_env=url.lower().startswith("https://"),
            mounts=dict.fromkeys((f"all://{host}" for host in _HERE), None),
        )
    except OSError as problem:
        named = [name for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name)]
        given = ", ".join(f"{name}={os.environ[name]}" for name in named) or "the certificates of this machine"
        raise InputError(
            f"certificates cannot be read: {problem.strerror or problem} ({given}). Name a file that is there, or none"
        ) from None
    except ImportError as problem:  # for a proxy that speaks SOCKS
        raise InputError(f"the environment's proxy cannot be used: {problem}. Set NO_PROXY for {url}") from None
    except (httpx2.InvalidURL, ValueError, UnicodeError) as problem:
        raise InputError(f"{url!r} or the token cannot be sent over HTTP: {type(problem).__name__}") from None
    box = ServiceBlackBox(client, url, task, split, patience_s)
    try:
        box.reload()
        return box if box.page.task is not None else ServiceTextBlackBox(client, url, task, split, patience_s, box.page)
    except BaseException:
        box.close()
        raise


class ServiceBlackBox(Asking):
    """One cell of a service: a `BlackBox` with its `task` and `shots`. Use it in one thread only."""

    def __init__(
        self, client: Any, url: str, task: str, split: int, patience_s: float, page: messages.CellPage | None = None
    ) -> None:
        """Use `connect`."""
        self._client, self._url, self._patience_s = client, url, patience_s
        self._silence_s = min(patience_s, _LONGEST_WAIT_S)
        """How long the service may be silent. Before its first answer this is short, so that a wrong address is noticed
        soon."""
        self._where = f"/v1/cells/{task}/{split}"
        self.page: messages.CellPage
        """What the service says of the cell."""
        self._budget: Budget
        self._shots: Shots
        self._vocabulary: tuple[str, ...] | None = None
        if page is not None:
            self._silence_s = patience_s
            self._open(page)

    def __repr__(self) -> str:
        """Show the address and the cell, never the token."""
        return f"<{type(self).__name__} {self._url}{self._where}>"

    def __enter__(self) -> Self:
        """Use the box as a context manager, which closes its connections."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections. What was charged stays charged."""
        self._client.close()

    def reload(self) -> None:
        """Ask for task, shots and budget again, because another connection may have spent the budget."""
        self._open(self._ask("GET", self._where, None, messages.CellPage))

    def _open(self, page: messages.CellPage) -> None:
        """Use what the service says of the cell."""
        self.page, self._budget = page, page.budget
        self._shots = Shots(_examples(self.page.train), _examples(self.page.dev))

    @property
    def task(self) -> Task:
        """The task of this cell."""
        return cast("Task", self.page.task)  # `connect` gives a cell of text another class

    @property
    def shots(self) -> Shots:
        """The few-shot examples of this cell."""
        return self._shots

    @property
    def info(self) -> ModelInfo:
        """See `BlackBox`."""
        return self.page.info

    @property
    def budget(self) -> Budget:
        """See `BlackBox`. The budget is the one in the last reply."""
        return self._budget

    def word_ids(self, words: Sequence[str]) -> list[list[int]]:
        """See `BlackBox`."""
        asked = messages.WordsAsked(words_of(words))
        return self._ask("POST", f"{self._where}/words", asked, wire.WordIds).ids

    def vocabulary(self) -> tuple[str, ...]:
        """See `BlackBox`."""
        if self._vocabulary is None:
            self._vocabulary = self._ask("GET", "/v1/vocabulary", None, wire.WordList).words
        return self._vocabulary

    def log(self, **numbers: float) -> None:
        """See `BlackBox`. A service keeps no log, so a solver over HTTP must keep its own."""
        limits.check_log({name: float(value) for name, value in numbers.items()})

    def submit(self, answer: Answer) -> str:
        """Submit the answer and close the cell. Returns the answer's SHA-256. The service does not tell its score.

        The first answer counts. Submitting the same answer again is not an error.

        Raises:
            AnswerError: the answer breaks the contract, or the service refuses it.
        """
        from harness.solving import answers  # noqa: PLC0415

        handed = messages.Handed(answers.to_bytes(answer))
        try:
            return self._ask("POST", f"{self._where}/answer", handed, messages.Receipt).sha256
        except QueryError as problem:
            raise AnswerError(str(problem)) from None

    def _query(self, query: Query) -> wire.Result:
        return self._charged("query", messages.QueryBody.of(query, self._shots), wire.Result)

    def _charged(self, path: str, body: Any, kind: type[R]) -> R:
        """The reply to a query, which is charged once however often it is sent."""
        try:
            result = self._ask("POST", f"{self._where}/{path}", body, kind, key=str(uuid4()))
        except BudgetExhausted as refused:
            self._left(refused.rows_left)  # another connection may have spent it
            raise
        self._left(result.rows_left)
        return result

    def _left(self, rows: int) -> None:
        self._budget = Budget(self._budget.rows_total, rows, self._budget.train_rows)

    def _ask(self, method: str, path: str, value: Any, kind: type[T], key: str | None = None) -> T:
        """Send a request until a reply arrives or the time for it is over."""
        headers, content = {}, None
        if value is not None:
            content = messages.encode(value, messages.MSGPACK)
            headers["Content-Type"] = messages.MSGPACK
            try:
                messages.decode(content, messages.MSGPACK, type(value))  # here, for the author's traceback
            except ProtocolError as problem:
                raise QueryError(f"{type(value).__name__} cannot be sent: {problem.__cause__}") from None
        if key is not None:
            headers[messages.IDEMPOTENCY] = key
        response = self._sent(method, path, content, headers)
        try:
            if response.status_code < 300:  # noqa: PLR2004
                return messages.decode(response.content, messages.MSGPACK, kind)
            fault = messages.decode(response.content, messages.MSGPACK, messages.Fault)
        except ProtocolError as problem:
            raise ServiceError(
                f"{self._url} answered {response.status_code} with something else than a service does: {problem}"
            ) from None
        raise _error(fault, self._url)

    def _sent(self, method: str, path: str, content: bytes | None, headers: dict[str, str]) -> Any:
        import httpx2  # noqa: PLC0415

        began, pause_s, problem = time.monotonic(), 0.05, ""
        while True:
            patience_s = self._silence_s
            try:
                response = self._client.request(method, path, content=content, headers=headers)
                if response.status_code not in _AGAIN:
                    self._silence_s = self._patience_s
                    return response
                pause_s, problem = max(pause_s, _retry_after(response)), _said(response)
                if "retry-after" in response.headers:  # the service is running and asks to wait
                    patience_s = self._patience_s
            except httpx2.UnsupportedProtocol:
                raise InputError(f"{self._url!r} is no address of a service; http://HOST:PORT expected") from None
            except httpx2.TransportError as failed:
                problem = f"{type(failed).__name__}: {failed}"
            waited_s = time.monotonic() - began
            if waited_s + pause_s > patience_s:
                raise ServiceError(
                    f"{self._url} gave no answer in {waited_s:.0f} s ({problem}). Look whether `harness serve` runs "
                    f"there, or wait for longer than patience_s={self._patience_s:g}; connect again to go on, nothing "
                    "that was answered is lost"
                )
            time.sleep(pause_s * (0.5 + random.random() / 2))  # noqa: S311 - so that clients do not return all at once
            pause_s = min(2 * pause_s, _LONGEST_WAIT_S)


class ServiceTextBlackBox(AskingText, ServiceBlackBox):
    """One cell of a service whose answer is text: a `TextBlackBox`, with the same `shots`, `submit` and `reload`."""

    def _open(self, page: messages.CellPage) -> None:
        super()._open(page)
        if page.text_task is msgspec.UNSET:
            raise ServiceError(f"{self._url}: the task of {self._where} has changed; connect again")
        self._text_task = page.text_task
        self._said = said(page.text_task, self._shots)

    @property
    def task(self) -> TextTask:  # type: ignore[override]  # as a submission's `tune` gets a task of either kind
        """The task of this cell."""
        return self._text_task

    def _score(self, asked: TextQuery) -> wire.Scored:
        return self._charged("score", ScoreBody.of(asked, self._text_task, self._shots), wire.Scored)

    def _generate(self, asked: TextQuery, how: Decoding) -> wire.Written:
        return self._charged("generate", GenerateBody.of(asked, how, self._shots), wire.Written)


def _retry_after(response: Any) -> float:
    given = response.headers.get("retry-after", "")
    return min(float(given), _LONGEST_WAIT_S) if given.isdecimal() else 0.0


def _said(response: Any) -> str:
    """A refusal in words: its status, and the service's message if there is one."""
    status = f"status {response.status_code}"
    try:
        return f"{status}: {messages.decode(response.content, messages.MSGPACK, messages.Fault).message}"
    except ProtocolError:
        return status


def _error(fault: messages.Fault, url: str) -> Exception:
    if fault.code == "budget_exhausted":
        return BudgetExhausted(fault.rows_asked or 0, fault.rows_left or 0, fault.rows_total or 0)
    if fault.code in {"rejected", "too_large", "unreadable", "closed"}:
        return QueryError(fault.message)
    if fault.code in {"unauthorized", "unknown_cell"}:
        return InputError(f"{url}: {fault.message}")
    return ServiceError(f"{url}: {fault.message}")


def _examples(labelled: messages.Labelled) -> Examples:
    references = () if labelled.references is msgspec.UNSET else tuple(labelled.references)
    return Examples(tuple(labelled.texts), np.array(labelled.labels, dtype=np.int64), references)
