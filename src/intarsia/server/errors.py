"""Every error that a server of this house tells, in the form of OpenAI's API, in one place."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from intarsia.errors import BadInput, IntarsiaError, OutOfBudget
from intarsia.prompting.base import BackendError, BudgetExceeded, ContextOverflow

GONE = 499  # the client went away before its answer was there: nobody reads this, the log does


class ApiError(IntarsiaError):
    """A request that is answered with `status`. param: the field it is about; code: a word for programs."""

    def __init__(
        self, status: int, message: str, *, code: str | None = None, param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):  # fmt: skip
        super().__init__(message)
        self.status, self.code, self.param, self.headers = status, code, param, dict(headers or {})


class ClientGone(ApiError):
    """Whoever asked has hung up."""

    def __init__(self) -> None:
        super().__init__(GONE, "the client went away", code="client_gone")


class Stopping(ApiError):
    """The server is about to end, and takes nothing new."""

    def __init__(self, after: float = 1.0):
        said = "the server is stopping: try again in a moment"
        super().__init__(503, said, code="server_stopping", headers={"retry-after": str(math.ceil(after))})


def as_api_error(error: BaseException) -> ApiError:
    """What a client is told of any error."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, ContextOverflow):
        return ApiError(400, str(error), code="context_length_exceeded")
    if isinstance(error, BadInput):
        return ApiError(400, str(error))
    if isinstance(error, (BudgetExceeded, OutOfBudget)):
        return ApiError(429, str(error), code="insufficient_quota")
    if isinstance(error, BackendError):
        if error.status == 429 or error.retryable:
            headers = {"retry-after": str(math.ceil(error.after))} if error.after is not None else {}
            return ApiError(429 if error.status == 429 else 503, str(error), code="backend_busy", headers=headers)
        return ApiError(502, str(error), code="backend_failed")
    if isinstance(error, IntarsiaError):
        return ApiError(503 if "stopped" in str(error) else 500, str(error))
    if isinstance(error, (TimeoutError, asyncio.TimeoutError)):
        return ApiError(504, "it took too long", code="timeout")
    # What went wrong inside is for the log: it may hold anything, and helps no client.
    return ApiError(500, "the server failed; its log says why", code="internal_error")


def body_of(error: ApiError) -> dict[str, Any]:
    """The JSON that tells of an error."""
    kinds = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
    kind = kinds.get(error.status, "invalid_request_error" if error.status < 500 else "server_error")
    return {"error": {"message": str(error), "type": kind, "param": error.param, "code": error.code}}


def response_of(error: BaseException) -> JSONResponse:
    """The answer to a request that cannot be served."""
    told = as_api_error(error)
    return JSONResponse(body_of(told), told.status, headers=told.headers)


def error_of(message: str, status: int) -> JSONResponse:
    """The same from a message."""
    return response_of(ApiError(status, message))


def install(api: FastAPI) -> None:
    """Have an application answer every error in this form: its own, those of validation, unknown routes, failures."""

    @api.exception_handler(IntarsiaError)
    async def known(request: Request, error: IntarsiaError) -> JSONResponse:
        return response_of(error)

    @api.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return response_of(_of_validation(error))

    @api.exception_handler(HTTPException)
    async def plain(request: Request, error: HTTPException) -> JSONResponse:
        told = {404: f"no route {request.method} {request.url.path[:200]} here: GET /openapi.json lists them all",
                405: f"{request.method} is not for this route"}  # fmt: skip
        detail = told.get(error.status_code, str(error.detail))
        return response_of(ApiError(error.status_code, detail, headers=error.headers))

    @api.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        return response_of(error)


def _of_validation(error: RequestValidationError) -> ApiError:
    """The first thing that is wrong, in one line. What was given is not said again: it may be anything."""
    found = _nearest(error.errors())
    if found["type"] == "json_invalid":
        return ApiError(400, f"the body is not JSON: {found.get('ctx', {}).get('error', found['msg'])}")
    where = ".".join(str(part) for part in found["loc"][1:] if not str(part).startswith("function-"))
    said = found["msg"].removeprefix("Value error, ")
    if found["type"] == "extra_forbidden":
        said = "not a field that this server knows: leave it out"
    elif not where and found["type"] in ("missing", "model_attributes_type", "dict_type"):
        said = "a JSON object is wanted as body, with content-type: application/json"
    return ApiError(400, f"{where[:200]}: {said}" if where else said, param=where[:200] or None)


def _nearest(errors: Any) -> Any:
    """Of a value that fits none of several types: what is wrong with the type that it comes nearest to."""
    return max(errors, key=lambda e: (e["type"] in ("value_error", "extra_forbidden"), -errors.index(e)))
