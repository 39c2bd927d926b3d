"""A whole server from what `intarsia serve` was told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from fastapi import FastAPI

from intarsia.server import administering, redacting, spans
from intarsia.server.guarding import is_loopback
from intarsia.server.keys import Keys
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
        return open_version(source, name, threads=wanted.threads, max_batch=wanted.max_batch, engine=wanted.engine)

    versions = Versions(serving, opened)
    administering.add(api, serving, versions)
    serving.parts.append(lambda: _arriving(wanted, serving))
    for name, source in wanted.sources.items():
        folder = Path(source).expanduser()
        if (folder / CURRENT).is_symlink():
            serving.parts.append(versions.watching(name, folder))
    return api, serving


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
