"""Finished parts of a long benchmark, a JSON file each."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Kept:
    """What `made` gave under a name, now or in an earlier run."""

    def __init__(self, folder: Path | None, data: str, quick: bool):
        self.folder = None if folder is None else folder / (f"{data}-quick" if quick else data)

    def __call__(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The result called `name`."""
        file = None if self.folder is None else self.folder / f"{name}.json"
        if file is not None and file.is_file():
            return json.loads(file.read_text())
        made = make()
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_suffix(".part")
            part.write_text(json.dumps(made, indent=1))
            part.replace(file)
        return made
