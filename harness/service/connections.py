"""Limits on connections: idle or slow clients, and too many requests at once, must not block other clients.

A client's token is known only after its request has arrived. Before that, anybody may hold a connection. So the time
for a request's headers is limited. Of the connections that wait for a request (new ones, those with half a request,
those between two requests) only the newest are kept. The number of requests that are processed at once has its own
limit, and `/health` does not count.
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
"""Seconds from the first byte of a request, or from the start of the connection, to the end of its headers."""
READ_S = 30.0
"""Seconds within which a client must continue to read a reply."""
MOST_WAITING = 256
"""Largest number of connections that wait for a request."""
_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_RETRY_AFTER_S = 1


class Connection(H11Protocol):
    """uvicorn's connection, with limits on the time without a request or without reading. See `connections`."""

    header_s: ClassVar[float]
    read_s: ClassVar[float]
    most_waiting: ClassVar[int]
    waiting: ClassVar[OrderedDict[Connection, None]]
    """The waiting connections of one server. The one that has waited longest is first."""
    _headers_due: asyncio.TimerHandle | None = None
    _reading_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Wait for the first request."""
        super().connection_made(transport)
        self._headers_due = self.loop.call_later(self.header_s, self._give_up)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Receive bytes. The time limit starts with the first byte of a request and ends with its headers."""
        if self._headers_due is None and not self._asking:
            self._headers_due = self.loop.call_later(self.header_s, self._give_up)
        super().data_received(data)
        if self._asking:
            self._asked()

    def on_response_complete(self) -> None:
        """Wait for the next request, unless it has arrived already."""
        super().on_response_complete()
        if not self._asking and not self.transport.is_closing():
            self._wait()

    def pause_writing(self) -> None:
        """Start the time limit of a client that does not read its reply."""
        super().pause_writing()
        self._reading_due = self.loop.call_later(self.read_s, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop the time limit, because the client has read."""
        super().resume_writing()
        self._end_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Remove the connection from the list."""
        self._asked()
        self._end_reading()
        super().connection_lost(exc)

    @property
    def _asking(self) -> bool:
        """Whether a request has arrived, perhaps without its body."""
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
        most_waiting: largest number of connections without a request. A new one closes the one that has waited
            longest.

    Returns:
        A new class, with its own list of waiting connections.
    """
    limits = {"header_s": header_s, "read_s": read_s, "most_waiting": most_waiting, "waiting": OrderedDict()}
    return type("Connection", (Connection,), limits)


class AtOnce:
    """An ASGI application in front of another one. It refuses requests while too many are being processed."""

    def __init__(self, app: Callable[[Any, Any, Any], Awaitable[None]], most: int) -> None:
        """Let at most `most` requests through to `app` at once, and `/health` always."""
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
