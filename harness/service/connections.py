"""Connections that ask nothing, or do not read what they asked for, and crowds: none of them keeps others out.

Of a request that is there in full a solver's token is known; before that anybody may hold a connection. So the time for
a request's headers is limited, and of connections that wait for one (new, half a request, idle between two) only the
newest are kept. How many requests are worked on at once is counted apart from them, and `/health` is not counted.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, ClassVar

from fastapi.responses import Response
from uvicorn.protocols.http.h11_impl import H11Protocol

from harness.service import messages
from harness.service.messages import JSON, MSGPACK, Fault

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from harness.service.messages import Media

HEADER_S = 10.0
"""From the first byte of a request, or the connection's begin, to the end of its headers."""
READ_S = 30.0
"""In which a client must go on to read a reply."""
MOST_WAITING = 256
"""Connections that wait for a request."""
_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_RETRY_AFTER_S = 1


class Connection(H11Protocol):
    """uvicorn's connection, with limits on the time in which nothing is asked or read. See `connections`."""

    header_s: ClassVar[float]
    read_s: ClassVar[float]
    most_waiting: ClassVar[int]
    waiting: ClassVar[OrderedDict[Connection, None]]
    """Of one server; who waits longest is first."""
    _headers_due: asyncio.TimerHandle | None = None
    _reading_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Wait for the first request."""
        super().connection_made(transport)
        self._headers_due = self.loop.call_later(self.header_s, self._give_up)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Take bytes; with the first ones of a request its time begins, with its headers it ends."""
        if self._headers_due is None and not self._asking:
            self._headers_due = self.loop.call_later(self.header_s, self._give_up)
        super().data_received(data)
        if self._asking:
            self._asked()

    def on_response_complete(self) -> None:
        """Wait for the next request, unless it is there already."""
        super().on_response_complete()
        if not self._asking and not self.transport.is_closing():
            self._wait()

    def pause_writing(self) -> None:
        """Give a client that does not read its reply some time to go on."""
        super().pause_writing()
        self._reading_due = self.loop.call_later(self.read_s, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on: it has read."""
        super().resume_writing()
        self._end_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._asked()
        self._end_reading()
        super().connection_lost(exc)

    @property
    def _asking(self) -> bool:
        """Whether there is a request, its body perhaps not yet."""
        return self.cycle is not None and not self.cycle.response_complete

    def _asked(self) -> None:
        if self._headers_due is not None:
            self._headers_due.cancel()
        self._headers_due = None
        self.waiting.pop(self, None)

    def _end_reading(self) -> None:
        if self._reading_due is not None:
            self._reading_due.cancel()
        self._reading_due = None

    def _wait(self) -> None:
        self.waiting[self] = None
        if len(self.waiting) > self.most_waiting:
            oldest, _ = self.waiting.popitem(last=False)
            oldest.transport.abort()

    def _give_up(self) -> None:
        self.transport.write(_TOO_SLOW)
        self.transport.close()


def connections(
    header_s: float = HEADER_S, read_s: float = READ_S, most_waiting: int = MOST_WAITING
) -> type[Connection]:
    """The class of one server's connections, for uvicorn's configuration.

    Args:
        header_s: seconds for the headers of a request.
        read_s: seconds in which a client that stopped reading must go on.
        most_waiting: connections without a request that are kept; the one that has waited longest is closed for a new
            one.

    Returns:
        A class of its own, with its own list of those that wait.
    """
    limits = {"header_s": header_s, "read_s": read_s, "most_waiting": most_waiting, "waiting": OrderedDict()}
    return type("Connection", (Connection,), limits)


class AtOnce:
    """An ASGI application before another one: refuses what comes while too many requests are worked on."""

    def __init__(self, app: Callable[[Any, Any, Any], Awaitable[None]], most: int) -> None:
        """Let at most `most` requests through to `app` at once, and `/health` in any case."""
        self._app, self._most, self._now = app, most, 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http" or scope["path"] == "/health":
            await self._app(scope, receive, send)
            return
        if self._now >= self._most:
            await self._refusal(scope)(scope, receive, send)
            return
        self._now += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._now -= 1

    def _refusal(self, scope: Any) -> Response:
        accepted = b",".join(value for name, value in scope["headers"] if name == b"accept")
        media: Media = MSGPACK if MSGPACK.encode() in accepted else JSON
        fault = Fault("unavailable", f"{self._most} requests are being worked on; nothing was charged, ask again")
        headers = {"Retry-After": str(_RETRY_AFTER_S), "Connection": "close"}  # a body is not read
        return Response(messages.encode(fault, media), 503, headers, media)
