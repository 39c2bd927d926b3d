"""JSON of strangers: no NaN, no endless numbers, no bottomless nesting, no half characters."""

from __future__ import annotations

import json
import math
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute

from intarsia.server.errors import ApiError

DEPTH = 64  # of lists and objects in one another
DIGITS = 300  # of a number


def parse(body: bytes) -> Any:
    """A JSON text as values. Raises `ApiError` (400) for what is none, or none that can be worked with."""
    try:
        value = json.loads(body, parse_constant=_constant, parse_float=_float, parse_int=_int)
    except RecursionError:
        raise ApiError(400, f"the body nests deeper than {DEPTH}") from None
    except UnicodeDecodeError:
        raise ApiError(400, "the body is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ApiError(400, f"the body is not JSON: {error.msg} at character {error.pos}") from None
    if _deeper(body):
        _check_depth(value, DEPTH)
    if b"\\ud" in body.lower():
        _check_text(value)
    return value


def _constant(name: str) -> Any:
    raise ApiError(400, f"the body is not JSON: {name} is no number there")


def _float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value) or len(digits) > DIGITS:
        raise ApiError(400, "the body holds a number that is too large")
    return value


def _int(digits: str) -> int:
    if len(digits) > DIGITS:
        raise ApiError(400, "the body holds a number that is too large")
    return int(digits)


def _deeper(body: bytes) -> bool:
    """Whether there are brackets enough to nest too deeply; in most bodies there are not."""
    return body.count(b"[") + body.count(b"{") > DEPTH


def _check_depth(value: Any, left: int) -> None:
    if left < 0:
        raise ApiError(400, f"the body nests deeper than {DEPTH}")
    if isinstance(value, (dict, list)):
        for inner in value.values() if isinstance(value, dict) else value:
            if isinstance(inner, (dict, list)):
                _check_depth(inner, left - 1)


def _check_text(value: Any) -> None:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ApiError(400, "the body holds half a character (a lone surrogate)") from None
    elif isinstance(value, dict):
        for key, inner in value.items():
            _check_text(key)
            _check_text(inner)
    elif isinstance(value, list):
        for inner in value:
            _check_text(inner)


class _Request(Request):
    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            self._json = parse(await self.body())
        return self._json


class StrictRoute(APIRoute):
    """A route whose bodies are read by `parse`."""

    def get_route_handler(self) -> Any:
        handler = super().get_route_handler()

        async def strict(request: Request) -> Any:
            return await handler(_Request(request.scope, request.receive))

        return strict
