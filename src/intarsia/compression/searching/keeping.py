"""Where a search keeps what it has done, so that one that was stopped goes on.

<keep>/known.json                  what the calibration told: scales, harms, the order of blocks
<keep>/<stage>-<mark>.json         what was measured of one composition; a file is whole or absent
<keep>/models/<mark>/              a composition as it was verified, with the file of its engine
<keep>/report.html, finding.json   what the last search found"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from intarsia.errors import writing_to
from intarsia.models.results import mark, read_json, write_json

FORMAT = 1


class Kept:
    """The folder."""

    def __init__(self, folder: Path):
        self.folder = Path(folder).expanduser().absolute()
        with writing_to(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)

    def once(self, stage: str, facts: Any, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What was measured at a stage under these facts; measured now where that was not done yet."""
        path = self.folder / f"{stage}-{mark(FORMAT, facts)}.json"
        found = read_json(path)
        if found is None:
            found = measure()
            write_json(path, found)
        return found

    def has(self, stage: str, facts: Any) -> bool:
        """Whether `once` would have nothing to do."""
        return read_json(self.folder / f"{stage}-{mark(FORMAT, facts)}.json") is not None

    def model(self, facts: Any) -> Path:
        """Where a composition's model lies, or will."""
        return self.folder / "models" / mark(FORMAT, facts)
