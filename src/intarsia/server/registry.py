"""The models of a server: names, versions, and who is still using which.

A new version is put beside the old one; requests that come from then on get it, and the old one is closed when its last
request is over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from intarsia.errors import BadInput, did_you_mean
from intarsia.prompting.base import Backend
from intarsia.server import sweeping
from intarsia.server.errors import ApiError, Stopping


@dataclass
class Version:
    """A model as it is served. source: where it came from; running: requests that use it; retired: a newer one has
    taken its place. more: what else is served of it, by the routes' names (a `Model` for explanations)."""

    backend: Backend
    label: str = "1"
    source: str = ""
    begun: float = field(default_factory=time.time)
    running: int = 0
    retired: bool = False
    more: dict[str, Any] = field(default_factory=dict)
    _idle: asyncio.Event = field(default_factory=asyncio.Event, repr=False)


class Lease:
    """A version while a request uses it; `release` it once."""

    def __init__(self, registry: Registry, name: str, version: Version):
        self.registry, self.name, self.version, self.backend = registry, name, version, version.backend
        version.running += 1
        self._held = True

    def release(self) -> None:
        """The request is over."""
        if self._held:
            self._held = False
            self.version.running -= 1
            if self.version.running == 0:
                self.version._idle.set()

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Registry:
    """Names and what answers to them. Used from one event loop.

    `loading`: names whose model is on its way: requests for them wait."""

    def __init__(self) -> None:
        self.current: dict[str, Version] = {}
        self.previous: dict[str, list[Version]] = {}
        self.loading: dict[str, asyncio.Future[Version]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def names(self) -> list[str]:
        """All names, those that are still loading included."""
        return [*self.current, *(name for name in self.loading if name not in self.current)]

    @property
    def ready(self) -> bool:
        """Whether every model is there."""
        return all(name in self.current for name in self.loading)

    def add(self, name: str, backend: Backend, **facts: Any) -> Version:
        """Serve a backend as `name`. Raises `BadInput` where there is one of that name: `switch` replaces it."""
        if name in self.current:
            raise BadInput(f"'{name}' is served already: switch to a new version, or take another name")
        version = self.current[name] = Version(backend, **facts)
        return version

    def load(self, name: str, work: Awaitable[Version]) -> asyncio.Task[Version]:
        """Serve what `work` gives as `name` once it is there; requests wait until then, and fail if it fails."""

        async def loaded() -> Version:
            version = await work
            self.current[name] = version
            return version

        task = asyncio.ensure_future(loaded())
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # (requests are told of it)
        self.loading[name] = task
        return task

    async def take(self, name: str) -> Lease:
        """The current version of a model, held until released. Raises `ApiError` (404) for a name that is not here."""
        if name not in self.current and name in self.loading:
            try:
                await asyncio.shield(self.loading[name])
            except asyncio.CancelledError:
                if not self.loading[name].cancelled():
                    raise
                raise Stopping from None
            except Exception as error:
                raise ApiError(503, f"'{name}' could not be loaded: {error}", code="model_failed") from None
        if name not in self.current:
            raise self.unknown(name)
        return Lease(self, name, self.current[name])

    def unknown(self, name: str) -> ApiError:
        """What is said of a name that is not here."""
        known = self.names
        hint = did_you_mean(name, known) or (f": this server has {', '.join(known)}" if known else "")
        return ApiError(404, f"no model '{name[:100]}' here{hint}", code="model_not_found", param="model")

    def switch(self, name: str, version: Version) -> Version | None:
        """Give requests from now on `version`; the one before is closed when its last request is over. It is given."""
        old = self.current.get(name)
        self.current[name] = version
        if old is not None:
            self.previous.setdefault(name, []).append(old)
            self._retire(name, old)
        return old

    def remove(self, name: str) -> None:
        """Serve `name` no more. Raises `ApiError` for a name that is not here."""
        if name not in self.current:
            raise self.unknown(name)
        self.loading.pop(name, None)
        old = self.current.pop(name)
        self.previous.setdefault(name, []).append(old)
        self._retire(name, old)

    def _retire(self, name: str, version: Version) -> None:
        version.retired = True
        version._idle.clear()

        async def end() -> None:
            if version.running:
                await version._idle.wait()
            # Adapters of one network share its backend with other names.
            if all(v.backend is not version.backend for v in self.current.values()):
                await version.backend.close()
            self.previous[name].remove(version)

        task = asyncio.ensure_future(end())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        task.add_done_callback(lambda _: sweeping.let_go())

    async def close(self) -> None:
        """Let go of all models; requests under way end first."""
        for task in self.loading.values():
            task.cancel()
        backends = {id(v.backend): v.backend for v in self.current.values()}
        self.current.clear()
        await asyncio.gather(*(b.close() for b in backends.values()), *self._closing, return_exceptions=True)


Loader = Callable[[str], Awaitable[Version]]
"""Makes a version from a source: a folder, a bundle, a name."""
