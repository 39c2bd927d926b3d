"""A whole server from what `intarsia serve` was told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from intarsia.server import administering, jobs, redacting, spans, techniques
from intarsia.server.guarding import is_loopback
from intarsia.server.keys import Keys
from intarsia.server.late import Late
from intarsia.server.log import RequestLog
from intarsia.server.registry import Version
from intarsia.server.service import service
from intarsia.server.serving import Serving
from intarsia.server.versions import CURRENT, Versions, loaded, open_version


@dataclass
class Wanted:
    """What is to be served, and how. loading: models on their way, by name; sources: where they come from; adapters:
    names of LoRAs of the one model; told: is given a line when something is ready. The others: as the command's."""

    loading: dict[str, Future[Version]] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    adapters: list[str] = field(default_factory=list)
    keys: Keys | None = None
    told: Callable[[str], None] = lambda line: None
    threads: int | None = None
    max_batch: int = 32
    memory: int = 2048
    engine: str | None = None
    detector: str | None = None
    labeller: str | None = None
    store: Path | None = None
    graph: Path | None = None
    flows: str | None = None
    mcp: bool = True
    host: str = "127.0.0.1"
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    log: Path | None = None
    log_content: bool = False
    max_body: int = 8


def set_up(wanted: Wanted) -> tuple[FastAPI, Serving]:
    """The application, and its state. What is still on its way is waited for by requests, not by this."""
    redacting.install()
    spans.export()
    serving = Serving(keep_content=wanted.log_content)
    if wanted.log is not None:
        serving.listeners.append(RequestLog(wanted.log, content=wanted.log_content))
    # On loopback a page of a stranger could have its name point here; elsewhere names are many, and keys stand guard.
    hosts = [*LOCAL, wanted.host, *wanted.hosts] if is_loopback(wanted.host) or wanted.hosts else None
    title = next(iter(wanted.sources), "server")
    api = service(serving, title, hosts=hosts, origins=wanted.origins, body=wanted.max_body * 2**20, keys=wanted.keys)

    def opened(source: str, name: str) -> Version:
        return open_version(
            source, name, threads=wanted.threads, max_batch=wanted.max_batch, memory=wanted.memory, engine=wanted.engine
        )

    versions = Versions(serving, opened)
    administering.add(api, serving, versions)
    if wanted.sources:
        techniques.add(api, serving, jobs.add(api, serving))
    _wings(api, wanted, serving)
    serving.parts.append(lambda: _arriving(wanted, serving))
    for name, source in wanted.sources.items():
        folder = Path(source).expanduser()
        if (folder / CURRENT).is_symlink():
            serving.parts.append(versions.watching(name, folder))
    return api, serving


def _wings(api: FastAPI, wanted: Wanted, serving: Serving) -> None:
    """Routes of what is served beside models. What is slow to open is opened meanwhile."""
    from intarsia.server.served import Served

    served = served_of(wanted, serving if wanted.sources else None)
    if served.detector is not None:
        from intarsia.server import detecting

        detecting.add(api, served.detector, Path(wanted.detector or "").name)
    if wanted.labeller is not None:
        from intarsia.server import labelling

        labelling.add(api, Late(lambda: _labeller(wanted.labeller or ""), "labeller"), Path(wanted.labeller).name)
    if served.store is not None:
        from intarsia.server import documents

        documents.add(api, served.store)
    if served.graph is not None:
        from intarsia.server import knowing

        knowing.add(api, served.graph)
    if wanted.flows is not None:
        from intarsia.server import flowing

        given: dict[str, Any] = {}
        if wanted.sources:
            given["backend"] = _first(serving, next(iter(wanted.sources)))
        if served.store is not None:
            given["store"] = served.store.get
        flowing.add(api, flowing.flows_of(wanted.flows), given)
    if wanted.mcp and served != Served():
        from intarsia.server import mounting

        mounting.add(api, serving, mounting.Mount(served, list(wanted.loading.values())))


def _first(serving: Serving, name: str) -> Any:
    async def backend() -> Any:
        lease = await serving.registry.take(name)
        lease.release()
        return lease.backend

    return backend


def served_of(wanted: Wanted, serving: Serving | None) -> Any:
    """What tools can be made of; it is being opened."""
    from intarsia.server.served import Served

    return Served(
        serving=serving,
        store=Late(lambda: _store(wanted.store), "store") if wanted.store is not None else None,
        graph=Late(lambda: _graph(wanted.graph), "graph") if wanted.graph is not None else None,
        detector=Late(lambda: _detector(wanted.detector or ""), "detector") if wanted.detector is not None else None,
    )


def _store(path: Any) -> Any:
    from intarsia.prompting.data.store import Store

    return Store.open(path, create=False)


def _graph(path: Any) -> Any:
    from intarsia.knowledge import KnowledgeGraph

    return KnowledgeGraph.open(path)


def _detector(source: str) -> Any:
    from intarsia.detection import Detector

    opened = Detector.open(source)
    _ = opened.kept  # what is wrong with it is told now
    return opened


def _labeller(source: str) -> Any:
    from intarsia.models import load
    from intarsia.server.labelling import check_labels

    model = load(source)
    check_labels(model, source)
    return model


LOCAL = ("localhost", "127.0.0.1", "::1")


@contextlib.asynccontextmanager
async def _arriving(wanted: Wanted, serving: Serving) -> AsyncIterator[None]:
    """Hand out models as they arrive; where one does not, the server ends with its error."""

    async def follow(name: str, future: Future[Version]) -> None:
        try:
            version = await serving.registry.load(name, loaded(asyncio.wrap_future(future)))
            version.source = wanted.sources[name]
            for adapter in wanted.adapters:
                other = version.backend.with_adapter(adapter)  # type: ignore[attr-defined]
                serving.registry.add(adapter, other, source=adapter, more=version.more)
            wanted.told(f"ready: {', '.join([name, *wanted.adapters])}")
        except Exception as error:
            serving.failed = error
            serving.stop()

    tasks = [asyncio.ensure_future(follow(*pair)) for pair in wanted.loading.items()]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def over_stdio(wanted: Wanted) -> None:
    """The tools alone, for the program at the other end of standard input and output, until that ends. Raises what
    opening a model raised."""
    from intarsia.server import mcp

    redacting.install()
    serving = Serving()
    made = mcp.server(served_of(wanted, serving if wanted.sources else None))
    async with _arriving(wanted, serving):
        await made.run_stdio_async()
    await serving.registry.close()
    if serving.failed is not None:
        raise serving.failed
