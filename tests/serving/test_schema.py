"""The OpenAPI document, and requests that schemathesis makes up from it: none of them may break the server."""

import itertools
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.serving.serving import Server

schemathesis = pytest.importorskip("schemathesis")
from schemathesis.checks import not_a_server_error  # noqa: E402
from schemathesis.specs.openapi.checks import (  # noqa: E402
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance)
SENT = {name: name for name in ("method", "url", "json", "params", "headers")} | {"data": "content"}
FEW, MANY = 12, 300
RIGHT, WRONG = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE
BODIES = [("POST", "/tasks"), ("POST", "/execute_task"), ("POST", "/feedback")]
PATHS = [("GET", "/tasks"), ("GET", "/tasks/{task}"), ("DELETE", "/tasks/{task}")]
CASES = [(*route, mode) for route in (*BODIES, *PATHS) for mode in (RIGHT, WRONG)]
CASES += [("GET", "/health", RIGHT), ("GET", "/metrics", RIGHT)]


def fuzz(server: Server, method: str, path: str, mode: Any, examples: int) -> int:
    """Send made-up requests of a route, every other about a task that there is; return how many."""
    document = server.http.get("/openapi.json").json()
    operation = schemathesis.openapi.from_dict(document)[path][method]
    task, turn = server.client.task().id, itertools.count()

    @seed(1)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        if next(turn) % 2:
            if isinstance(case.body, dict) and "task" in case.body:
                case.body["task"] = task
            if method == "GET" and "task" in case.path_parameters:
                case.path_parameters["task"] = task
        asked = case.as_transport_kwargs(base_url="http://metarl")
        sent = {SENT[name]: value for name, value in asked.items() if name in SENT}
        answer = server.http.request(**sent)
        answer.elapsed = timedelta()
        case.validate_response(answer, checks=CHECKS)

    check()
    return next(turn)


@pytest.mark.parametrize(("method", "path", "mode"), CASES)
def test_made_up_requests_break_nothing(method: str, path: str, mode: Any, server: Server) -> None:
    fuzz(server, method, path, mode, FEW)


@pytest.mark.slow
def test_many_made_up_requests_break_nothing(server: Server) -> None:
    counts = {f"{method} {path} {mode.name}": fuzz(server, method, path, mode, MANY) for method, path, mode in CASES}
    print(sum(counts.values()), "requests:", counts)
