"""`/flows`: flows of a module, asked over HTTP. Each run is a trace, and waits for a person where the flow does."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import Field

from intarsia.errors import BadInput
from intarsia.prompting.execute.flows import Flow, Waiting
from intarsia.prompting.execute.flows.keys import Resource
from intarsia.prompting.execute.flows.loading import module_of
from intarsia.prompting.execute.schemas import adapter_of
from intarsia.server.errors import ApiError
from intarsia.server.openai.answers import ERRORS
from intarsia.server.openai.generating import or_gone
from intarsia.server.openai.requests import Strict


class FlowRequest(Strict):
    """inputs: of the flow, by name. resume: the trace to go on with; answers: to what it waits for."""

    inputs: dict[str, Any] = Field(default_factory=dict)
    resume: Annotated[str, Field(min_length=8, max_length=64)] | None = None
    answers: list[str] = Field(default_factory=list)


def flows_of(place: str) -> dict[str, Flow]:
    """The flows of a file or a module, by name. Raises `BadInput` where there is none."""
    found = {one.name: one for one in vars(module_of(place)).values() if isinstance(one, Flow)}
    if not found:
        raise BadInput(f"{place}: there is no @flow in it")
    return found


def add(api: FastAPI, flows: dict[str, Flow], given: dict[str, Any]) -> None:
    """Add the routes. given: what flows get from the server by the name of an input (`backend`, `store`): clients
    cannot name other models or folders."""

    @api.get("/flows", responses=ERRORS, tags=["flows"])
    async def listed() -> dict[str, Any]:
        """All flows, and what they take."""
        rows = []
        for name, flow in flows.items():
            takes = [key for key in inspect.signature(flow.function).parameters if key not in given]
            rows.append({"name": name, "about": inspect.getdoc(flow.function) or "", "inputs": takes})
        return {"object": "list", "data": rows}

    @api.post("/flows/{name}", responses=ERRORS, tags=["flows"])
    async def run(name: str, body: FlowRequest, request: Request) -> JSONResponse:
        """Run a flow. 200 with its output; 202 where it waits for an answer: go on with `resume` and `answers`."""
        if name not in flows:
            raise ApiError(404, f"no flow '{name[:100]}' here: there are {', '.join(flows)}")
        flow = flows[name]
        parameters = inspect.signature(flow.function).parameters
        if fixed := [key for key in body.inputs if key in given]:
            raise BadInput(f"'{fixed[0]}' is given by the server: leave it out")
        own = {}
        for key, value in given.items():
            if key in parameters:
                own[key] = await value() if inspect.iscoroutinefunction(value) else value
        inputs = {**_checked(flow, body.inputs), **own}
        try:
            done = await or_gone(request, flow.run(inputs, resume=body.resume, answers=body.answers))
        except Waiting as waiting:
            return JSONResponse({"status": "waiting", "question": waiting.question, "trace": waiting.trace}, 202)
        trace = done.trace.id if done.trace is not None else None
        return JSONResponse({"status": "done", "output": plain(done.value), "trace": trace})


def _checked(flow: Flow, inputs: dict[str, Any]) -> dict[str, Any]:
    """Inputs of the types that the flow says; nothing is opened by a name that a client gives."""
    hints = inspect.get_annotations(inspect.unwrap(flow.function), eval_str=True)
    for key in inputs:
        kind = getattr(hints.get(key), "__name__", "")
        if kind in ("Backend", "Store", "Model", "Path"):
            raise BadInput(f"'{key}' is a {kind}, which the server does not have: --store gives it a store")
    return flow.from_json(inputs)


def plain(value: Any) -> Any:
    """A flow's output as JSON."""
    if isinstance(value, Resource):
        return str(value)
    return adapter_of(type(value)).dump_python(value, mode="json")
