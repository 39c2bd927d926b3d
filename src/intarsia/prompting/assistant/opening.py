"""`Assistant`: its folder, opened."""

from __future__ import annotations

import threading
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from intarsia.errors import BadInput
from intarsia.prompting.assistant.settings import FILE, Settings, read_settings

if TYPE_CHECKING:
    from intarsia.prompting.base import Backend
    from intarsia.prompting.data.store import Store
    from intarsia.prompting.execute.flows import Flow
    from intarsia.prompting.execute.prompt import Prompt
    from intarsia.prompting.execute.tools import Tool

_opened: dict[Path, Assistant] = {}


class Assistant:
    """The folder that `intarsia new assistant` made. What is in it belongs to whoever made it; this opens it.

    - folder, settings: `assistant.yaml`. store, backend: opened when they are first used, then kept."""

    def __init__(self, folder: Path, settings: Settings):
        self.folder, self.settings = folder, settings
        self._lock = threading.RLock()
        self._backend: Backend | None = None

    @staticmethod
    def open(path: str | Path) -> Assistant:
        """The assistant of a folder, or of a file in it (`Assistant.open(__file__)`); the same one each time.

        Raises `BadInput` where there is none, or its settings are wrong."""
        folder = Path(path).expanduser().absolute()
        folder = folder.parent if folder.is_file() else folder
        if folder not in _opened or not (folder / FILE).is_file():
            _opened[folder] = Assistant(folder, read_settings(folder))
        return _opened[folder]

    @cached_property
    def store(self) -> Store:
        from intarsia.prompting.data.store import Store

        if not (self.store_path / "rows.sqlite").is_file():
            raise BadInput(f"{self.store_path}: no store there; `intarsia assistant update {self.folder}` makes it")
        return Store.open(self.store_path, create=False)

    @property
    def store_path(self) -> Path:
        return self.folder / self.settings.store

    @property
    def backend(self) -> Backend:
        """The model, loaded now where it was not yet."""
        with self._lock:
            if self._backend is None:
                from intarsia.prompting.base.opening import open_backend

                name = self.settings.model
                here = self.folder / name
                self._backend = open_backend(here if here.exists() else name)
            return self._backend

    @backend.setter
    def backend(self, backend: Backend) -> None:
        self._backend = backend

    def prompt(self, name: str) -> Prompt:
        """`prompts/NAME.md.j2`, read anew each time: it is edited while an assistant is being made."""
        from intarsia.prompting.execute.prompt import Prompt

        return Prompt.load(self.folder / "prompts" / f"{name}.md.j2")

    def tools(self) -> list[Tool]:
        """The tools of `tools.py`."""
        from intarsia.prompting.execute.flows.loading import module_of
        from intarsia.prompting.execute.tools import Tool

        module = module_of(str(self.folder / "tools.py"))
        return [one for one in vars(module).values() if isinstance(one, Tool)]

    def flow(self, name: str = "answer") -> Flow[Any, Any]:
        """A flow of `flow.py`."""
        from intarsia.prompting.execute.flows.loading import load_flow

        return load_flow(f"{self.folder / 'flow.py'}:{name}")

    async def close(self) -> None:
        """Let go of the model and of the store."""
        if self._backend is not None:
            await self._backend.close()
            self._backend = None
        if "store" in self.__dict__:
            self.__dict__.pop("store").close()
        _opened.pop(self.folder, None)
