"""Answers while the model is still being loaded: `/health` says so, and every other request is told to wait.

Loading a model takes from seconds to minutes. A server that listened only afterwards could not be told from one that is
not there, and a proxy or a supervisor would give it up.
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
    """An ASGI application that becomes another one as soon as that is made."""

    def __init__(self, make: Callable[[], FastAPI], track: str) -> None:
        """Answer for `track` until `make`, which is called in a thread, has returned the service.

        Args:
            make: loads the model and returns the application to hand over to.
            track: name of the track, for `/health`.
        """
        self._make, self._track = make, track
        self._service: FastAPI | None = None
        self.problem: BaseException | None = None
        """What `make` raised."""
        self.give_up: Callable[[], None] = lambda: None
        """Called when `make` has raised, to end the server."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """See the ASGI specification."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif self._service is not None:
            await self._service(scope, receive, send)
        elif scope["type"] == "http":
            await self._wait(scope)(scope, receive, send)

    async def _live(self, receive: Any, send: Any) -> None:
        """Start to load when the server starts; close what was loaded when it ends."""
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
        except Exception as problem:  # noqa: BLE001 - raised again by whoever runs the server
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
