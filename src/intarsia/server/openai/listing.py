"""`GET /v1/models` and `GET /v1/models/{id}`."""

from __future__ import annotations

import time
from typing import Any

from fastapi import FastAPI, Request

from intarsia.server.openai import answers
from intarsia.server.serving import CALLER, Serving


def add(api: FastAPI, serving: Serving) -> None:
    """Add the routes."""
    begun = int(time.time())

    def row(name: str) -> dict[str, Any]:
        version = serving.registry.current.get(name)
        return {
            "id": name,
            "object": "model",
            "created": int(version.begun) if version else begun,
            "owned_by": "intarsia",
            "version": version.label if version else None,
            "max_model_len": version.backend.context_length if version else None,
        }

    def allowed(request: Request, name: str) -> bool:
        caller = request.scope.get(CALLER)
        return caller is None or caller.may_use(name)

    @api.get("/v1/models", response_model=answers.Models, responses=answers.ERRORS, tags=["openai"])
    async def models(request: Request) -> Any:
        """All models that this key may use."""
        return {"object": "list", "data": [row(n) for n in serving.registry.names if allowed(request, n)]}

    @api.get("/v1/models/{name:path}", response_model=answers.ModelSaid, responses=answers.ERRORS, tags=["openai"])
    async def model(name: str, request: Request) -> Any:
        """One model."""
        if name not in serving.registry.names or not allowed(request, name):
            raise serving.registry.unknown(name)
        return row(name)
