"""Models that come, are replaced while they are in use, and come back.

versions = Versions(serving, open_version)
await versions.put("assistant", "runs/2")     # loaded beside the old one, warmed, switched to; the old one ends
await versions.back("assistant")              # what was served before"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from intarsia.errors import BadInput
from intarsia.models import Model
from intarsia.prompting.base import Backend, Sampling
from intarsia.server.recording import LOG
from intarsia.server.registry import Version
from intarsia.server.serving import Serving

WATCH = 1.0
"""Seconds between looks at a `current` link."""
CURRENT = "current"


class Versions:
    """What a server does about the versions of its models. opened: a version from a source and a name, in a thread."""

    def __init__(self, serving: Serving, opened: Callable[[str, str], Version]):
        self.serving, self.opened = serving, opened
        self.before: dict[str, list[tuple[str, str]]] = {}
        self._turns: dict[str, asyncio.Lock] = {}

    async def put(self, name: str, source: str, label: str | None = None) -> Version:
        """Serve `source` as `name`. Requests that run go on with the version they began with; none is dropped. Raises
        as opening does; then all stays as it was."""
        async with self._turns.setdefault(name, asyncio.Lock()):
            old = self.serving.registry.current.get(name)
            version = await asyncio.to_thread(self.opened, source, name)
            try:
                await warm(version.backend)
            except BaseException:
                await version.backend.close()
                raise
            number = len(self.before.get(name, [])) + 2
            version.label, version.source = label or (str(number) if old else "1"), source
            if old is not None:
                self.before.setdefault(name, []).append((old.source, old.label))
            self.serving.registry.switch(name, version)
            return version

    async def back(self, name: str) -> Version:
        """Serve again what was served before. Raises `BadInput` where there was nothing."""
        if not self.before.get(name):
            raise BadInput(f"'{name}' had no version before this one")
        source, label = self.before[name][-1]
        version = await self.put(name, source, label)
        self.before[name] = self.before[name][:-2]
        return version

    def rows(self) -> list[dict[str, Any]]:
        """Every version that is in memory."""
        registry = self.serving.registry
        out = []
        for name in dict.fromkeys([*registry.names, *registry.previous]):
            now = [registry.current[name]] if name in registry.current else []
            for version in [*now, *registry.previous.get(name, [])]:
                out.append(
                    {"name": name, "version": version.label, "source": version.source, "running": version.running,
                     "state": "ending" if version.retired else "serving", "fingerprint": version.backend.fingerprint}
                )  # fmt: skip
            if name not in registry.current and name in registry.loading:
                out.append({"name": name, "state": "loading"})
        return out

    def watching(self, name: str, folder: Path) -> Callable[[], Any]:
        """A part of a server that follows the link `current` in a folder of versions, from what it is now."""
        seen = (folder / CURRENT).resolve()

        @contextlib.asynccontextmanager
        async def part() -> AsyncIterator[None]:
            task = asyncio.ensure_future(self._watch(name, folder, seen))
            try:
                yield
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

        return part

    async def _watch(self, name: str, folder: Path, seen: Path) -> None:
        while True:
            await asyncio.sleep(WATCH)
            now = (folder / CURRENT).resolve()
            if now == seen or not now.exists():
                continue
            seen = now
            try:
                await self.put(name, str(now), now.name)
            except Exception as error:
                LOG.error("%s stays as it is: %s", name, error)


async def warm(backend: Backend) -> None:
    """Have a backend make a token, or a vector where it makes none, so that no client waits for what is done once."""
    try:
        await backend.generate("a", Sampling(max_tokens=1))
    except BadInput:
        await backend.embed(["a"])


def resolved(source: str, engine: str | None = None) -> str:
    """Where the model of a source is: a run or a bundle is its last state; `current` in a folder of versions.

    engine: an export to use in place of the weights; None: that which `compression fit` found to be the quickest, where
    it made the model. Raises `BadInput` for an export that is not there."""
    folder = Path(source).expanduser()
    if not folder.is_dir():
        return source  # by name, or a file: `open_local` finds its engine
    if (folder / CURRENT).is_symlink():
        folder = (folder / CURRENT).resolve()
    if (folder / "manifest.json").is_file() or (folder / "bundle").is_dir() or (folder / "run.json").is_file():
        from intarsia.recipes.bundle import Bundle

        bundle = Bundle.open(folder)
        if not (bundle.path / "model").is_dir():
            return str(bundle.manifest["model"]["source"])
        folder = bundle.path / "model"
    exports = sorted(p.name for p in (folder / "export").iterdir()) if (folder / "export").is_dir() else []
    wanted = engine or _quickest(folder)
    if wanted in (None, "torch"):
        weights = any(folder.glob("*.safetensors")) or not exports
        return str(folder if weights else folder / "export" / exports[0])
    if wanted not in exports:
        known = ", ".join(exports) or "none"
        raise BadInput(f"{source} has no export '{wanted}': there are {known} (`intarsia compression export`)")
    return str(folder / "export" / wanted)


def _quickest(folder: Path) -> str | None:
    try:
        extras = json.loads((folder / "intarsia.json").read_text("utf-8")).get("extras", {})
        found = extras.get("compression.fit", {}).get("engine")
    except (OSError, ValueError, AttributeError):
        return None
    return found if isinstance(found, str) else None


def open_version(
    source: str, name: str, *, threads: int | None = None, max_batch: int = 32, memory: int = 2048,
    engine: str | None = None, adapters: dict[str, Path] | None = None,
) -> Version:  # fmt: skip
    """A version from a source, as `open_backend` takes it; a bundle or a run is its model.

    - max_batch: requests that are worked on at once. memory: megabytes for keys and values. adapters: LoRA folders by
      name, of a model in this process.

    `version.more["model"]` is the `Model`, where it is in this process. Raises as `open_backend`."""
    place = resolved(source, engine)
    backend: Any
    if _is_local(place):
        from intarsia.prompting.base.local import open_local

        backend = open_local(
            place, name=name, threads=threads, max_batch=max_batch, memory=memory * 2**20, adapters=adapters,
            engine=engine or "auto",
        )  # fmt: skip
    else:
        if adapters:
            raise BadInput(f"{source} is no model in this process: it takes no --adapter")
        from intarsia.prompting.base.opening import open_backend

        remote = place.startswith(("fake:", "openai:", "http://", "https://"))
        backend = open_backend(place, threads=None if remote else threads, trace=False)
    model = getattr(backend, "model", None)
    return Version(backend, source=source, more={"model": model} if isinstance(model, Model) else {})


def _is_local(place: str) -> bool:
    return not place.startswith(("fake:", "openai:", "http://", "https://"))


async def loaded(work: Awaitable[Version]) -> Version:
    """A version that is warm."""
    version = await work
    await warm(version.backend)
    return version
