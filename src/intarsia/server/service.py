"""The application: models behind an API that existing clients speak.

serving = Serving()
serving.registry.add("smollm2-135m", backend)
app = service(serving)"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse

from intarsia.server import metrics, openai, page
from intarsia.server.application import application
from intarsia.server.guarding import BODY, PATIENCE, Bodies, Ending, Heads, Hosts
from intarsia.server.keys import Keys, Limits
from intarsia.server.keys.callers import Callers, flushing
from intarsia.server.recording import Recording
from intarsia.server.serving import Serving
from intarsia.server.spans import Spans

__all__ = ["Serving", "guarded", "service"]


def service(
    serving: Serving, name: str = "server", *, hosts: Sequence[str] | None = None, origins: Sequence[str] = (),
    body: int = BODY, patience: float = PATIENCE, keys: Keys | None = None,
) -> FastAPI:  # fmt: skip
    """An application that serves what `serving` holds.

    - hosts: names that it goes by; None: any. origins: of pages that may ask from a browser.
    - body: bytes of a request at most; patience: seconds in which they must have come.
    - keys: who may ask; None: anybody."""

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for part in serving.parts:
                await stack.enter_async_context(part())
            yield
            await serving.registry.close()

    api = application(name, lifespan=life)
    openai.add(api, serving)
    metrics.add(api, serving)
    page.add(api, name)
    serving.listeners.append(Spans())

    @api.get("/healthz", tags=["state"])
    async def alive() -> dict[str, str]:
        """Whether the process answers."""
        return {"status": "ok"}

    @api.get("/readyz", tags=["state"], responses={503: {"description": "Still loading, or stopping."}})
    async def ready() -> JSONResponse:
        """Whether requests are taken: all models are there, and the server is not about to end."""
        state = "stopping" if serving.draining else "ok" if serving.registry.ready else "loading"
        return JSONResponse({"status": state}, 200 if state == "ok" else 503)

    return guarded(api, serving, hosts=hosts, origins=origins, body=body, patience=patience, keys=keys)


def guarded(
    api: FastAPI, serving: Serving, *, hosts: Sequence[str] | None = None, origins: Sequence[str] = (),
    body: int = BODY, patience: float = PATIENCE, keys: Keys | None = None,
) -> FastAPI:  # fmt: skip
    """The same application behind the layers that every server here has; settings as for `service`."""
    layers: list[tuple[Any, dict[str, Any]]] = [
        (Recording, {"serving": serving}),
        *([(Hosts, {"allowed": hosts})] if hosts is not None else []),
        *([(_cors(), {"allow_origins": list(origins), "allow_methods": ["GET", "POST", "DELETE"],
                      "allow_headers": ["authorization", "content-type"]})] if origins else []),
        (Heads, {}),
        (Ending, {"ending": lambda: serving.draining}),
        *_looking(keys, serving),
        (Bodies, {"most": body, "patience": patience}),
    ]  # fmt: skip
    for kind, settings in reversed(layers):
        api.add_middleware(kind, **settings)
    return api


def _looking(keys: Keys | None, serving: Serving) -> list[tuple[Any, dict[str, Any]]]:
    """The layer that looks at keys."""
    if keys is None:
        return []
    limits = Limits(keys)
    serving.parts.append(flushing(limits))
    return [(Callers, {"keys": keys, "limits": limits})]


def _cors() -> Any:
    from starlette.middleware.cors import CORSMiddleware

    return CORSMiddleware
