"""The OpenAPI description. Bodies have the types of `harness.service.messages`, each as JSON and as msgpack."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from fastapi.openapi.utils import get_openapi

from harness.blackbox import wire
from harness.service import messages, text_messages
from harness.service.messages import IDEMPOTENCY, JSON, LONGEST_KEY, MSGPACK

if TYPE_CHECKING:
    from collections.abc import Collection

    from fastapi import FastAPI

_BODIES = (
    messages.Health, messages.CellName, messages.CellPage, messages.WordsAsked, messages.QueryBody, messages.Handed,
    messages.Receipt, messages.Mine, messages.MyPage, messages.Fault, wire.WordList, wire.WordIds, wire.Result,
    text_messages.ScoreBody, text_messages.GenerateBody, wire.Scored, wire.Written,
)  # fmt: skip
_REF = "#/components/schemas/{name}"
_REFUSED = {
    400: "unreadable", 401: "unauthorized", 404: "unknown cell", 408: "too slow", 413: "too large",
    415: "media type", 422: "rejected: makes no sense; nothing was charged", 429: "too fast", 503: "unavailable",
}  # fmt: skip
_FREE = {401, 404, 422, 429, 503}
_KEY = {
    "name": IDEMPOTENCY, "in": "header", "required": False,
    "description": "A query under a key that was charged is answered again, bit for bit, and not charged again.",
    "schema": {"type": "string", "minLength": 1, "maxLength": LONGEST_KEY, "pattern": "^[!-~]+$"},
}  # fmt: skip


def gives(reply: Any, *, auth: bool = True) -> dict[str, Any]:
    """Arguments of a route without a body."""
    refused = {status: _response(messages.Fault, _REFUSED[status]) for status in sorted(_FREE) if auth}
    return {"response_model": None, "responses": {200: _response(reply, "Done"), **refused}}


def takes(body: Any, reply: Any, *, status: int = 200, idempotent: bool = False) -> dict[str, Any]:
    """Arguments of a route with a body."""
    said = _REFUSED | {409: "closed, or the key was used for another query"}
    if idempotent:
        said |= {402: "budget exhausted: the query does not fit; nothing was charged", 410: "the reply is gone"}
    refused = {code: _response(messages.Fault, said[code]) for code in sorted(said)}
    extra: dict[str, Any] = {"requestBody": {"required": True, "content": _content(body)}}
    if idempotent:
        extra["parameters"] = [_KEY]
    return {
        "response_model": None,
        "status_code": status,
        "responses": {status: _response(reply, "Done"), **refused},
        "openapi_extra": extra,
    }


def describe(app: FastAPI, places: Collection[tuple[str, int]]) -> None:
    """Make `app.openapi` return the types of all bodies and the cells on offer."""
    tasks, splits = sorted({task for task, _ in places}), sorted({split for _, split in places})

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            _, components = msgspec.json.schema_components(_BODIES, ref_template=_REF)
            made.setdefault("components", {}).setdefault("schemas", {}).update(components)
            for name in ("HTTPValidationError", "ValidationError"):
                made["components"]["schemas"].pop(name, None)
            for path in made["paths"].values():
                for operation in path.values():
                    for parameter in operation.get("parameters", ()):
                        if parameter["in"] == "path":
                            parameter["schema"]["enum"] = tasks if parameter["name"] == "task" else splits
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _response(kind: Any, description: str) -> dict[str, Any]:
    return {"description": description, "content": _content(kind)}


def _content(kind: Any) -> dict[str, Any]:
    (schema,), _ = msgspec.json.schema_components((kind,), ref_template=_REF)
    return {JSON: {"schema": schema}, MSGPACK: {"schema": schema}}
