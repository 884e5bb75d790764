"""The OpenAPI description is complete. Requests made from it get no 5xx and only the replies that it describes."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from fastapi.testclient import TestClient
from small_service import TASK, House
from small_text_service import TextHouse

if TYPE_CHECKING:
    from pathlib import Path

schemathesis = pytest.importorskip("schemathesis")
from hypothesis import HealthCheck, Phase, given, settings  # noqa: E402
from schemathesis.checks import not_a_server_error  # noqa: E402
from schemathesis.specs.openapi.checks import (  # noqa: E402
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@schemathesis.serializer("application/msgpack")
def packed(_ctx: Any, value: Any) -> bytes:
    """What is made up as JSON, as msgpack; integers that it has no room for come as JSON, which is a broken body."""
    try:
        return msgspec.msgpack.encode(value)
    except OverflowError:
        return json.dumps(value).encode()


ALWAYS_REFUSED = {"classes": ("/answer", "/score", "/generate"), "text": ("/answer", "/query", "/score")}
"""Requests that are refused whatever is made up: an answer's bytes, targets that are as many as the texts, and queries
of the other kind of task."""


@pytest.fixture(params=ALWAYS_REFUSED)
def schema(tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    house = (House if request.param == "classes" else TextHouse)(tmp_path, calls=100_000)
    with TestClient(house.app):
        made = schemathesis.openapi.from_asgi("/openapi.json", house.app)
        made.config.update(headers={"Authorization": f"Bearer {house.token}", "Accept": "application/json"})
        yield made
    house.book.close()


def test_every_body_has_a_type_in_both_formats(house: House) -> None:
    described = TestClient(house.app).get("/openapi.json").json()
    json.dumps(described)
    known = described["components"]["schemas"]
    assert {
        "QueryBody",
        "Result",
        "ScoreBody",
        "Scored",
        "GenerateBody",
        "Written",
        "Fault",
        "CellPage",
        "Array",
    } <= set(known)
    for path, operations in described["paths"].items():
        for operation in operations.values():
            bodies = [reply for reply in operation["responses"].values() if path != "/metrics"]
            bodies += [operation["requestBody"]] if "requestBody" in operation else []
            for body in bodies:
                assert set(body["content"]) == {"application/json", "application/msgpack"}
    refs = {part.split('"')[0] for part in json.dumps(described).split("#/components/schemas/")[1:]}
    assert refs <= set(known)
    assert set(described["paths"]["/v1/cells/{task}/{split}/query"]["post"]["responses"]) >= {
        "200",
        "402",
        "409",
        "422",
    }
    assert described["paths"]["/v1/cells/{task}/{split}"]["get"]["parameters"][0]["schema"]["enum"] == [TASK.name]


def test_requests_made_from_the_description_find_no_server_error(schema: Any, request: Any) -> None:
    codes = {f.ok().label: fuzzed(f.ok(), schemathesis.GenerationMode.POSITIVE) for f in schema.get_all_operations()}
    assert len(codes) == 12
    assert all(401 not in found for found in codes.values())
    refused = ALWAYS_REFUSED[request.node.callspec.params["schema"]]
    assert all(200 in found for label, found in codes.items() if not label.endswith(refused)), codes


def test_requests_that_break_the_description_find_no_server_error(schema: Any) -> None:
    posts = [found.ok() for found in schema.get_all_operations() if found.ok().method == "post"]
    for operation in posts:
        codes = fuzzed(operation, schemathesis.GenerationMode.NEGATIVE)
        assert max(codes) < 500
        assert codes.total() > codes[200]


def fuzzed(operation: Any, mode: Any) -> Counter[int]:
    """Make requests; how often each status came."""
    codes: Counter[int] = Counter()

    @settings(
        max_examples=12, deadline=None, database=None, suppress_health_check=list(HealthCheck),
        phases=[Phase.generate], derandomize=True,
    )  # fmt: skip
    @given(case=operation.as_strategy(generation_mode=mode))
    def fuzz(case: Any) -> None:
        codes[case.call_and_validate(checks=CHECKS).status_code] += 1

    fuzz()
    return codes
