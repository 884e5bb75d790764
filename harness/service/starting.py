"""Answers requests while the model is loading: `/health` says so, and every other request is told to wait.

Loading a model takes from seconds to minutes. A server that starts to listen only afterwards looks as if it were down,
and a proxy or a supervisor would give it up.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from fastapi.responses import Response

from harness.service import messages
from harness.service.messages import JSON, MSGPACK, Fault, Health

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import FastAPI

    from harness.service.messages import Media

RETRY_AFTER_S = 1


class Starting:
    """An ASGI application that is replaced by another one as soon as that is ready."""

    def __init__(self, make: Callable[[], FastAPI], track: str) -> None:
        """Answer for `track` until `make`, which runs in a thread, has returned the service.

        Args:
            make: loads the model and returns the application that replaces this one.
            track: name of the track, for `/health`.
        """
        self._make, self._track = make, track
        self._service: FastAPI | None = None
        self.problem: BaseException | None = None
        """The exception that `make` raised."""
        self.give_up: Callable[[], None] = lambda: None
        """Called after `make` has raised, to end the server."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """See the ASGI specification."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif self._service is not None:
            await self._service(scope, receive, send)
        elif scope["type"] == "http":
            await self._wait(scope)(scope, receive, send)

    async def _live(self, receive: Any, send: Any) -> None:
        """Start loading when the server starts, and close what was loaded when the server ends."""
        await receive()
        async with AsyncExitStack() as stack:
            loading = asyncio.create_task(self._load(stack))
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await loading  # a thread that loads a model cannot be interrupted
        await send({"type": "lifespan.shutdown.complete"})

    async def _load(self, stack: AsyncExitStack) -> None:
        try:
            made = await asyncio.to_thread(self._make)
            await stack.enter_async_context(made.router.lifespan_context(made))
        except Exception as problem:  # noqa: BLE001 - `run` raises it again
            self.problem = problem
            self.give_up()
            return
        self._service = made

    def _wait(self, scope: Any) -> Response:
        accepted = b",".join(value for name, value in scope["headers"] if name == b"accept")
        media: Media = MSGPACK if MSGPACK.encode() in accepted else JSON
        if scope["path"] == "/health":
            return Response(messages.encode(Health("starting", self._track, 0), media), media_type=media)
        fault = Fault("unavailable", "the model is still being loaded; nothing was charged, ask again")
        headers = {"Retry-After": str(RETRY_AFTER_S), "Connection": "close"}  # a body is not read
        return Response(messages.encode(fault, media), 503, headers, media)
