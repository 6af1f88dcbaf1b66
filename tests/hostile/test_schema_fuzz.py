"""Every operation of our OpenAPI, fuzzed from its schema: no answer of the 5xx kind, no trace, and answers as declared.

A few cases for each operation at every run; ten thousand in all with `make test-all`.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.fakes.served import TOKEN, served

schemathesis = pytest.importorskip("schemathesis")
from schemathesis.checks import not_a_server_error  # noqa: E402 - after the skip
from schemathesis.specs.openapi.checks import response_schema_conformance  # noqa: E402

__all__ = ["served"]

CALM = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "phases": (Phase.explicit, Phase.generate),
    "database": None,
}
AUTH = {"Authorization": f"Bearer {TOKEN}"}
WAITS = {"timeout_s": 0, "wait_s": 0}
"""A question that waits is asked without waiting: a fuzzer would wait for minutes."""


def fuzz(served, examples: int) -> int:
    """So many of each operation, or as many as there are; how many requests that were."""
    asked = 0
    schema = schemathesis.openapi.from_dict(served.app.openapi())
    operations = [result.ok() for result in schema.get_all_operations()]
    assert len(operations) > 40
    for operation in operations:

        @settings(max_examples=examples, derandomize=True, **CALM)
        @given(case=operation.as_strategy())
        def ask(case) -> None:
            nonlocal asked
            asked += 1
            case.query = {**(case.query or {}), **{name: 0 for name in WAITS if name in (case.query or {})}}
            answer = case.call(base_url=served.url, headers=AUTH, timeout=30)
            assert b"Traceback" not in answer.content
            case.validate_response(answer, checks=[not_a_server_error, response_schema_conformance])

        ask()
    return asked


def test_no_request_that_the_schema_allows_or_nearly_allows_breaks_the_server(served):
    fuzz(served, 3)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_thousand_requests(served):
    assert fuzz(served, 200) >= 10_000
