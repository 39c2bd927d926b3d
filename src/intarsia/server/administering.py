"""`/admin/models`: versions of models, put in place of others while the server runs."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from pydantic import Field

from intarsia.errors import BadInput
from intarsia.server.openai.answers import ERRORS
from intarsia.server.openai.requests import Strict
from intarsia.server.serving import Serving
from intarsia.server.versions import Versions


class VersionRequest(Strict):
    """source: of the new version, as `intarsia serve` takes it. rollback: what was served before, instead."""

    name: Annotated[str, Field(min_length=1, max_length=500)]
    source: Annotated[str, Field(min_length=1, max_length=4000)] | None = None
    label: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    rollback: bool = False


def add(api: FastAPI, serving: Serving, versions: Versions) -> None:
    """Add the routes."""

    @api.get("/admin/models", responses=ERRORS, tags=["admin"])
    async def listed() -> dict[str, Any]:
        """Every version that is in memory, and how many requests use it."""
        return {"object": "list", "data": versions.rows()}

    @api.post("/admin/models", responses=ERRORS, tags=["admin"])
    async def put(body: VersionRequest) -> JSONResponse:
        """Load a version beside the one that is served, warm it, and switch: no request is dropped. Answered when
        that is done."""
        if body.rollback == (body.source is not None):
            raise BadInput("give either a source or rollback: true")
        if body.rollback:
            version = await versions.back(body.name)
        else:
            version = await versions.put(body.name, body.source or "", body.label)
        return JSONResponse({"name": body.name, "version": version.label, "source": version.source})

    @api.delete("/admin/models/{name:path}", responses=ERRORS, tags=["admin"])
    async def remove(name: str) -> dict[str, Any]:
        """Serve a model no more; requests that use it end first."""
        serving.registry.remove(name)
        return {"name": name, "deleted": True}
