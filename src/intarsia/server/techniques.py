"""Looks inside the models that are served: `/v1/explain`, `/v1/diff`, and every technique that looks.

They are jobs. While one runs, the model's answers wait: a network is read or written by one at a time."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Annotated, Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import Field

from intarsia.errors import BadInput
from intarsia.server.errors import ApiError
from intarsia.server.jobs import Jobs, begun
from intarsia.server.openai.answers import ERRORS
from intarsia.server.openai.requests import Strict, Text
from intarsia.server.registry import Lease
from intarsia.server.serving import Serving

Name = Annotated[str, Field(min_length=1, max_length=500)]
Texts = Annotated[list[Text], Field(min_length=1, max_length=500)]


class LookRequest(Strict):
    """model: one that is served. models: others, by what the technique calls them. texts: what it is to look at."""

    model: Name
    models: dict[str, Name] = Field(default_factory=dict)
    texts: Texts | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0


class ExplainRequest(Strict):
    """Which tokens of texts made the model say what it says? settings: of `interpretation.explain`."""

    model: Name
    texts: Texts
    settings: dict[str, Any] = Field(default_factory=dict)
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0


class DiffRequest(Strict):
    """What differs between two served models, `model` after and `against` before? settings: `interpretation.diff`'s."""

    model: Name
    against: Name
    texts: Texts
    settings: dict[str, Any] = Field(default_factory=dict)
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0


def add(api: FastAPI, serving: Serving, jobs: Jobs) -> None:
    """Add the routes."""

    async def look(request: Request, name: str, body: LookRequest) -> JSONResponse:
        from intarsia import catalog

        technique = await asyncio.to_thread(catalog.find, name)  # (the first time, every wing is imported)
        if technique.kind != "look" or technique.subject is not None:
            raise BadInput(f"{name} does not look at a model: it is for the command line")
        wanted = catalog.model_inputs(technique)
        data = catalog.data_inputs(technique)
        if unknown := [key for key in body.models if key not in wanted]:
            raise BadInput(f"{name} takes no model '{unknown[0]}'; it takes {', '.join(wanted) or 'one alone'}")
        if missing := [key for key, needed in wanted.items() if needed and key not in body.models]:
            raise BadInput(f"{name} wants another model: models.{missing[0]}")
        if body.texts is not None and "texts" not in data and "text" not in data:
            raise BadInput(f"{name} takes no texts")
        for key in body.settings:
            kind = technique.config.model_fields.get(key)
            if kind is not None and "Path" in str(kind.annotation):
                raise BadInput(f"{key} names a file of this server: that is for the command line")
        config = catalog.parse(technique.config, body.settings, technique.name)
        given: dict[str, Any] = {"seed": body.seed} if "seed" in technique.inputs else {}
        if body.texts is not None:
            given["texts" if "texts" in data else "text"] = list(body.texts)
        leases: dict[str, Lease] = {}

        def release() -> None:
            for lease in leases.values():
                lease.release()

        def work() -> Any:
            with contextlib.ExitStack() as stack:
                for backend in {id(one.backend): one.backend for one in leases.values()}.values():
                    if hasattr(backend, "paused"):
                        stack.enter_context(backend.paused())
                models = {key: lease.version.more["model"] for key, lease in leases.items()}
                finding = technique.function(models.pop(""), config, **models, **given)
            return json.loads(finding.to_json())

        try:
            for key, model in {"": body.model, **body.models}.items():
                leases[key] = await serving.take(request, model, name)
                if leases[key].version.more.get("model") is None:
                    raise ApiError(400, f"'{model}' runs elsewhere or in another engine: nothing can look inside")
            return begun(jobs, request, name, work, release)
        except BaseException:
            release()
            raise

    @api.post("/v1/explain", status_code=202, responses=ERRORS, tags=["looking inside"])
    async def explain(body: ExplainRequest, request: Request) -> JSONResponse:
        """Which tokens made the model say what it says, and whether that is so: a job."""
        asked = LookRequest(model=body.model, texts=body.texts, settings=body.settings, seed=body.seed)
        return await look(request, "interpretation.explain", asked)

    @api.post("/v1/diff", status_code=202, responses=ERRORS, tags=["looking inside"])
    async def diff(body: DiffRequest, request: Request) -> JSONResponse:
        """What differs between two models, and where inside: a job."""
        asked = LookRequest(
            model=body.model, models={"against": body.against}, texts=body.texts, settings=body.settings,
            seed=body.seed,
        )  # fmt: skip
        return await look(request, "interpretation.diff", asked)

    @api.get("/v1/techniques", responses=ERRORS, tags=["looking inside"])
    async def listed() -> dict[str, Any]:
        """Every technique that can look at a served model, with its settings' JSON schema."""
        from intarsia import catalog

        rows = [
            {"id": t.name, "object": "technique", "family": t.family, "summary": t.summary, "source": t.source,
             "models": list(catalog.model_inputs(t)), "data": list(catalog.data_inputs(t)),
             "settings": t.config.model_json_schema()}
            for t in (await asyncio.to_thread(catalog.load)).values() if t.kind == "look" and t.subject is None
        ]  # fmt: skip
        return {"object": "list", "data": rows}

    @api.post("/v1/techniques/{name}", status_code=202, responses=ERRORS, tags=["looking inside"])
    async def run(name: str, body: LookRequest, request: Request) -> JSONResponse:
        """Run a technique on a served model: a job."""
        return await look(request, name, body)
