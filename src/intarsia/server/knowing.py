"""`/v1/knowledge`: questions to a grown graph of facts, and what it knows around a text."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any

from fastapi import FastAPI
from pydantic import Field

from intarsia import catalog
from intarsia.knowledge import KnowledgeGraph
from intarsia.server.late import Late
from intarsia.server.openai.answers import ERRORS
from intarsia.server.openai.requests import Strict

Named = Annotated[str, Field(min_length=1, max_length=2000)]


class AskRequest(Strict):
    """A question: leave out what is asked for. top: answers; snapshot: as the graph was then."""

    head: Named | None = None
    relation: Named | None = None
    tail: Named | None = None
    top: Annotated[int, Field(ge=1, le=1000)] = 10
    snapshot: Annotated[int, Field(ge=0)] | None = None


class RetrieveRequest(Strict):
    """text: whose entities are looked up. The others: as `knowledge.retrieve`."""

    text: Annotated[str, Field(min_length=1, max_length=100_000)]
    most: Annotated[int, Field(ge=1, le=1000)] = 20
    predicted: Annotated[int, Field(ge=0, le=1000)] = 0
    least_confidence: Annotated[float, Field(ge=0, le=1)] = 0.5
    hops: Annotated[int, Field(ge=1, le=3)] = 2


def add(api: FastAPI, graph: Late[KnowledgeGraph]) -> None:
    """Add the routes."""

    @api.post("/v1/knowledge/ask", responses=ERRORS, tags=["knowledge"])
    async def ask(body: AskRequest) -> dict[str, Any]:
        """Answer a question: known facts first, then the likely ones, each with its confidence."""
        return await look(graph, "knowledge.ask", body.model_dump(exclude_none=True))

    @api.post("/v1/knowledge/retrieve", responses=ERRORS, tags=["knowledge"])
    async def retrieve(body: RetrieveRequest) -> dict[str, Any]:
        """The facts around what a text names."""
        return await look(graph, "knowledge.retrieve", body.model_dump())


async def look(graph: Late[KnowledgeGraph], name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """What a technique finds in a graph, as JSON."""
    opened = await graph.get()
    technique = await asyncio.to_thread(catalog.find, name)  # (the first time, every wing is imported)
    config = catalog.parse(technique.config, settings, name)
    finding = await asyncio.to_thread(technique.function, opened, config)
    return json.loads(finding.to_json())
