"""Every error as an answer: problem+json on our routes (RFC 9457), plain text under Ray's protocol. No trace leaves."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.requests import HTTPConnection
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException

from carbon_sched.domain.errors import CarbonSchedError, InvalidInput, NotFound

if TYPE_CHECKING:
    from collections.abc import Mapping

    from carbon_sched.wire import Problem

log = logging.getLogger(__name__)

RAY = "/api/"
"""Below here Ray's clients ask, which show an error's text as it is."""
MAY_HOLD_SECRETS = {"runtime_env", "secrets", "token", "headers", "metadata"}
"""Fields whose values no error repeats."""


def answer(path: str, error: CarbonSchedError) -> Response:
    """An error of ours in the form that clients of this path read."""
    problem = _problem(error.http_status, error.code, str(error), error.exit_code)
    if isinstance(error, InvalidInput):
        problem["field"], problem["value"], problem["remedy"] = error.field, error.value, error.remedy
    return _answer(path, problem, {"Retry-After": "1"} if error.retryable else None)


def domain_error(request: HTTPConnection, error: Exception) -> Response:
    """What the services raise."""
    return answer(request.url.path, cast("CarbonSchedError", error))


def request_error(request: Request, error: Exception) -> Response:
    """The first thing the schema found, said as every other bad input is."""
    first = cast("RequestValidationError", error).errors()[0]
    field = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path"))
    remedy = "See GET /v1/openapi.json for what is accepted"
    value = first.get("input", "")
    # whole bodies, unknown fields and what belongs into these fields may hold secrets in the wrong place
    if (
        not isinstance(value, (str, int, float))
        or first["type"] == "extra_forbidden"
        or MAY_HOLD_SECRETS & {*first["loc"]}
    ):
        value = "(not shown)"
    return answer(request.url.path, InvalidInput(field or "body", value, first["msg"].lower(), remedy))


def http_error(request: Request, error: Exception) -> Response:
    """What the framework refuses: no such route, no such method."""
    told = cast("HTTPException", error)
    code = HTTPStatus(told.status_code).phrase.lower().replace(" ", "-")
    exit_code = NotFound.exit_code if told.status_code in (404, 405) else InvalidInput.exit_code
    return _answer(request.url.path, _problem(told.status_code, code, str(told.detail), exit_code), told.headers)


def bug(request: Request, error: Exception) -> Response:
    """What nobody foresaw: logged here, and told without its details."""
    log.error("request failed with a bug", exc_info=error)
    detail = "a bug in carbon-sched; the server's log has the details (`carbon-sched server logs`)"
    return _answer(request.url.path, _problem(500, "internal", detail, 127))


def _problem(status: int, code: str, detail: str, exit_code: int) -> Problem:
    return {
        "type": f"about:blank#{code}",
        "title": code.replace("-", " "),
        "status": status,
        "detail": detail,
        "code": code,
        "exit_code": exit_code,
    }


def _answer(path: str, problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    status = problem["status"]
    if path.startswith(RAY):
        return PlainTextResponse(problem["detail"], status, headers)
    return JSONResponse(problem, status, headers, media_type="application/problem+json")
