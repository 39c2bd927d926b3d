"""The OpenAPI document says what the server does: schemathesis finds nothing else."""

from __future__ import annotations

import pytest

pytest.importorskip("fastapi", reason="the extra 'server' is not installed")
pytest.importorskip("schemathesis", reason="a development dependency")

import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from intarsia.server import administering
from intarsia.server.registry import Version
from intarsia.server.service import Serving, service
from intarsia.server.versions import Versions
from tests.server_help import Spelling

serving = Serving()
serving.registry.add("spelling", Spelling())
app = service(serving)
administering.add(app, serving, Versions(serving, lambda source, name: Version(Spelling(source))))
schema = schemathesis.openapi.from_asgi("/openapi.json", app)
CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance)


@schema.parametrize()
@settings(
    max_examples=8, deadline=None, phases=[Phase.explicit, Phase.generate], derandomize=True,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
def test_every_route_answers_as_documented(case):
    if isinstance(case.body, dict) and "model" in case.body:
        case.body["model"] = "spelling"  # (any other is a 404 before anything else is looked at)
    response = case.call()
    case.validate_response(response, checks=CHECKS)
    assert case.operation.path.startswith(("/v1/", "/admin/", "/metrics", "/health", "/readyz"))
