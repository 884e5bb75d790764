"""Two HTML pages of the service: its interface, and what one participant has spent. They load nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from harness.service.messages import JSON

if TYPE_CHECKING:
    from fastapi import FastAPI

HERE = Path(__file__).parent
_STYLE = (HERE / "style.css").read_text(encoding="utf-8")
_SCRIPT = (HERE / "participant.js").read_text(encoding="utf-8")


def add_pages(app: FastAPI) -> None:
    """Serve the pages at ``/docs`` and ``/me``."""
    templates = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined)

    @app.get("/docs", include_in_schema=False)
    async def interface() -> HTMLResponse:
        """The HTTP interface, from the OpenAPI description."""
        made = app.openapi()
        page = templates.get_template("interface.html.jinja")
        return _page(page.render(style=_STYLE, title=made["info"]["title"], **_told(made)))

    @app.get("/me", include_in_schema=False)
    async def participant() -> HTMLResponse:
        """What the owner of a token has spent. The page asks for the token, and keeps it only while it is open."""
        page = templates.get_template("participant.html.jinja")
        return _page(page.render(style=_STYLE, script=_SCRIPT, track=app.state.service.handler.track.partition(" ")[0]))


def _page(html: str) -> HTMLResponse:
    """A page that may run the one script that stands in it, and may load nothing from anywhere."""
    script = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    rules = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{script}'; connect-src 'self'"
    rules += "; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    headers = {"Content-Security-Policy": rules, "Referrer-Policy": "no-referrer", "Cache-Control": "no-store"}
    return HTMLResponse(html, headers=headers)


def _told(made: dict[str, Any]) -> dict[str, Any]:
    """Operations and types of a description, as the page needs them."""
    operations = []
    for path, methods in made["paths"].items():
        for method, each in methods.items():
            body = each.get("requestBody", {}).get("content", {}).get(JSON, {}).get("schema")
            replies = [
                (status, reply["description"], _type(reply.get("content", {}).get(JSON, {}).get("schema", {})))
                for status, reply in sorted(each["responses"].items())
            ]
            operations.append(
                {
                    "method": method.upper(),
                    "path": path,
                    "text": each.get("description", each.get("summary", "")),
                    "parameters": each.get("parameters", []),
                    "body": _type(body) if body else "",
                    "replies": replies,
                }
            )
    types = {
        name: {"text": kind.get("description", ""), "fields": _fields(kind)}
        for name, kind in sorted(made["components"]["schemas"].items())
    }
    return {"operations": operations, "types": types, "text": made["info"]["description"]}


def _fields(kind: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Name, type and default of each field."""
    needed = set(kind.get("required", ()))
    return [
        (name, _type(field), "" if name in needed else f"= {json.dumps(field.get('default'))}")
        for name, field in kind.get("properties", {}).items()
    ]


def _type(schema: dict[str, Any]) -> str:
    """A JSON schema in a few characters."""
    match schema:
        case {"$ref": name}:
            said = str(name).rpartition("/")[2]
        case {"anyOf": kinds}:
            said = " or ".join(map(_type, kinds))
        case {"enum": values}:
            said = " or ".join(map(json.dumps, values))
        case {"type": "array", "prefixItems": kinds}:
            said = "[" + ", ".join(map(_type, kinds)) + "]"
        case {"type": "array"}:
            said = f"[{_type(schema.get('items') or {})}, …]"
        case {"contentEncoding": "base64"}:
            said = "bytes in base64"
        case _:
            said = str(schema.get("type", "any"))
    return said
