"""Requests to an endpoint: concurrent up to a limit, sent again after a failure, and paused when the server says so.

A reply is read before it counts. One of a wrong shape is a failure like a cut connection, whatever its status is, since
servers answer 200 to fields that they do not know.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import os
import random
import re
import threading
import time
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar
from uuid import uuid4

from harness.blackbox.checkpoints import checkpoint
from harness.errors import InputError, ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

R = TypeVar("R")
T = TypeVar("T")
KEY = "HARNESS_ENDPOINT_KEY"
"""The environment variable with the key that is sent as a bearer token. A key is given in no other way."""
_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 60.0
_WRONG_REPLIES = 3
"""Replies of a wrong shape to one request, after which the server is taken at its word."""
_LOOK_S = 0.2
"""How often the thread that waits for replies looks at its deadline."""
_HERE = ("localhost", "127.0.0.1", "[::1]")
_SHOWN = 300


class WrongReplyError(Exception):
    """A reply that is not what was asked for. The message says what is wrong with it."""


class UnreadableError(ModelError):
    """The server answers with status 200, again and again, and with something else than was asked for."""


class RefusedError(ModelError):
    """The server refuses the request for good (a status from 400 on that no waiting changes)."""

    about_the_key = False
    """Whether a key is missing or wrong."""


class _KeyRefusedError(RefusedError):
    about_the_key = True


class _NotNowError(Exception):
    """No reply, or a refusal that may pass."""

    def __init__(self, problem: str, wait_s: float = 0.0, too_many: bool = False) -> None:
        super().__init__(problem)
        self.wait_s, self.too_many = wait_s, too_many


@dataclass(frozen=True)
class Traffic:
    """What was exchanged with an endpoint."""

    requests: int = 0
    """Requests that were answered."""
    resent: int = 0
    """Requests that were sent once more, after a failure or a refusal for now. A server may have charged for them."""
    sent: int = 0
    """Tokens of the prompts, as the server counts them."""
    received: int = 0
    """Tokens that the server generated."""

    def __add__(self, other: Traffic) -> Traffic:
        """Both together."""
        return Traffic(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))

    def __sub__(self, other: Traffic) -> Traffic:
        """What came after `other`."""
        return Traffic(*(getattr(self, each.name) - getattr(other, each.name) for each in fields(self)))


class Post(Protocol):
    """Sends one request, again and again if need be, and reads the reply."""

    def __call__(self, path: str, body: dict[str, Any], read: Callable[[Any], R]) -> R:
        """POST `body` as JSON to `path`, and return what `read` makes of the reply."""
        ...


class Endpoint:
    """The connection to one server. Several threads may use it at once."""

    def __init__(
        self,
        url: str,
        concurrency: int = 4,
        patience_s: float = 300.0,
        reply_s: float = 120.0,
        transport: Any = None,
    ) -> None:
        """Connect to nothing yet. The key is read from the environment (`KEY`).

        Args:
            url: address, with or without ``/v1`` at its end.
            concurrency: requests at once.
            patience_s: seconds for which one request is sent again before the endpoint is given up.
            reply_s: seconds that one reply may take.
            transport: a transport of httpx2, for tests and special networks.

        Raises:
            InputError: the address is none, or holds a user's name or a key.
        """
        try:
            import httpx2  # noqa: PLC0415 - an extra
        except ModuleNotFoundError:
            raise InputError('an endpoint needs httpx2, which is not here. Run: pip install -e ".[endpoint]"') from None
        found = re.fullmatch(r"(https?://[^/?#\s@]+(?:/[^?#\s@]*)?)", url.strip())
        if not found:
            shown = re.sub(r"//[^/@]*@", "//…@", url.partition("?")[0])
            raise InputError(
                f"--endpoint {shown}: http://HOST:PORT is needed, without a user, a key or a query in it; "
                f"a key comes from the environment: {KEY}"
            )
        self.url = found[1].rstrip("/").removesuffix("/v1")
        self._key = os.environ.get(KEY, "").strip()
        if not re.fullmatch(r"[!-~]*", self._key):
            raise InputError(f"{KEY} has characters that no key has; copy it anew")
        self._httpx, self.patience_s, self._concurrency = httpx2, patience_s, concurrency
        self._client = httpx2.Client(
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=httpx2.Timeout(reply_s, connect=min(10.0, reply_s)),
            limits=httpx2.Limits(max_connections=concurrency, max_keepalive_connections=concurrency),
            transport=transport,
            trust_env=self.url.startswith("https://"),
            mounts=dict.fromkeys((f"all://{host}" for host in _HERE), None),
        )
        self._pool = concurrent.futures.ThreadPoolExecutor(concurrency, thread_name_prefix="endpoint")
        self._lock, self._until, self._mine = threading.Lock(), 0.0, threading.local()
        self.asked = 0
        """Requests that were sent, those of the probe and those that failed included."""
        self.tell: Callable[[str], None] = lambda _line: None
        """Gets a line when the endpoint makes all requests wait."""

    def __enter__(self) -> Self:
        """Use it as a context manager, which closes its connections."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections. Requests that are under way are not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    @property
    def traffic(self) -> Traffic:
        """What this thread has exchanged so far: a cell is served by one thread, and pays for itself alone."""
        return getattr(self._mine, "traffic", Traffic())

    def count(self, more: Traffic) -> None:
        """Count what this thread has exchanged."""
        self._mine.traffic = self.traffic + more

    def get(self, path: str) -> Any:
        """The JSON at a path, asked for once; None where there is none."""
        try:
            reply = self._client.get(self.url + path)
            return reply.json() if reply.status_code == 200 else None  # noqa: PLR2004
        except (self._httpx.HTTPError, ValueError):
            return None

    def post(self, path: str, body: dict[str, Any], read: Callable[[Any], R]) -> R:
        """See `Post`. Failures are tried again until the patience ends.

        Raises:
            RefusedError: the server refuses the request for good.
            ModelError: no good reply came in time. The message says what did come, and never the key.
        """
        return self._posted(path, body, read, threading.Event(), self.count)

    def each(self, asked: Sequence[Callable[[Post], T]]) -> list[T]:
        """Do several things at once, each with a `Post`, and return their results in order.

        No more of them are begun than may run at once. The thread's checkpoint is called while it waits, so what that
        asks is sent before the rest of these. If it, or one of them, raises an error, the others end.
        """
        stop, again = threading.Event(), list[Traffic]()
        waiting, running, results = enumerate(asked), dict[concurrent.futures.Future[T], int](), dict[int, T]()

        def post(path: str, body: dict[str, Any], read: Callable[[Any], R]) -> R:
            return self._posted(path, body, read, stop, again.append)

        try:
            while len(results) < len(asked):
                checkpoint()
                for number, do in itertools.islice(waiting, self._concurrency - len(running)):
                    running[self._pool.submit(do, post)] = number
                for each in concurrent.futures.wait(running, _LOOK_S, concurrent.futures.FIRST_COMPLETED).done:
                    results[running.pop(each)] = each.result()
        except BaseException:
            stop.set()
            for each in running:
                each.cancel()
            raise
        finally:
            self.count(sum(again, Traffic()))
        return [results[number] for number in range(len(asked))]

    def _posted(
        self,
        path: str,
        body: dict[str, Any],
        read: Callable[[Any], R],
        stop: threading.Event,
        count: Callable[[Traffic], None],
    ) -> R:
        began, pause_s, wrong, name = time.monotonic(), _FIRST_PAUSE_S, 0, str(uuid4())
        while True:
            self._wait(stop)
            asked_s = 0.0
            try:
                return read(self._once(path, body, name))
            except _NotNowError as later:
                problem, asked_s = str(later), later.wait_s
                if later.too_many:
                    self._all_wait(max(asked_s, pause_s))
            except (WrongReplyError, ValueError) as lie:
                wrong += 1
                problem = f"status 200 with a reply that is none: {self._without_key(str(lie))}"
                if wrong >= _WRONG_REPLIES:
                    raise UnreadableError(f"{self.url}{path}: {problem}, {wrong} times") from None
            waited_s, pause_s = time.monotonic() - began, min(2 * pause_s, _LONGEST_PAUSE_S)
            next_s = max(asked_s, pause_s * (0.5 + random.random() / 2))  # noqa: S311 - so that not all return at once
            if waited_s + next_s > self.patience_s:
                raise ModelError(
                    f"{self.url}{path} gave no answer in {waited_s:.0f} s ({problem}). Nothing was charged for this "
                    "query. When the endpoint answers again, the same command goes on: finished cells are kept"
                )
            count(Traffic(resent=1))
            if stop.wait(next_s):
                raise ModelError("given up, because another request of the query failed")

    def _once(self, path: str, body: dict[str, Any], name: str) -> Any:
        """The JSON of one reply.

        Raises:
            RefusedError: the server refuses the request for good.
            _NotNowError: it may answer later.
            ValueError: the reply is no JSON.
        """
        with self._lock:
            self.asked += 1
        try:
            reply = self._client.post(self.url + path, json=body, headers={"Idempotency-Key": name})
        except self._httpx.TransportError as failed:
            raise _NotNowError(self._without_key(f"{type(failed).__name__}: {failed}")) from None
        status = reply.status_code
        if status == 200:  # noqa: PLR2004
            return reply.json()
        if status in {401, 403}:
            raise _KeyRefusedError(f"{self.url}: status {status}: {self._about_the_key()}")
        problem = f"status {status}: {self._said(reply)}"
        if status not in _AGAIN:
            raise RefusedError(f"{self.url}{path}: {problem}")
        raise _NotNowError(problem, _retry_after(reply), status == 429)  # noqa: PLR2004

    def _wait(self, stop: threading.Event) -> None:
        """Wait until the server takes requests again."""
        while (left := self._until - time.monotonic()) > 0:
            if stop.wait(left):
                raise ModelError("given up, because another request of the query failed")

    def _all_wait(self, seconds: float) -> None:
        """No thread asks anything for so many seconds."""
        until = time.monotonic() + seconds
        with self._lock:
            longer = until > self._until + 1
            self._until = max(self._until, until)
        if longer and seconds >= 1:
            self.tell(f"too many requests (429); all wait {seconds:.0f} s")

    def _said(self, reply: Any) -> str:
        return self._without_key(" ".join(reply.text.split())[:_SHOWN]) or "no reason given"

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "…") if self._key else text

    def _about_the_key(self) -> str:
        return f"the key in {KEY} is not accepted" if self._key else f"a key is needed; put it into {KEY}"


def _retry_after(reply: Any) -> float:
    """Seconds that a server asks to wait, as a number in its header; 0 where it says nothing."""
    given = reply.headers.get("retry-after", "")
    return min(float(given), _LONGEST_PAUSE_S) if re.fullmatch(r"\d+(\.\d+)?", given) else 0.0
