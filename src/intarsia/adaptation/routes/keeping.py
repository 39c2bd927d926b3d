"""Where finished rungs lie, each under a mark of all that went into it.

<keep>/<rung>-<mark>/learned.safetensors   what the rung learned; its size is what the rung adds on disk
<keep>/<rung>-<mark>/result.json           what was measured; written last: a folder without it is not finished
<keep>/<what>-<mark>.safetensors           what several rungs use (embeddings, scores), with the seconds it took
<keep>/ladder.json                         the last climb: its task, settings, rungs, and which one to take"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from intarsia.errors import BadInput, writing_to
from intarsia.models import results
from intarsia.models.results import read_json, write_json
from intarsia.models.saved import Saved

FORMAT = 1
LADDER = "ladder.json"


def mark(*facts: Any) -> str:
    """Of plain facts: equal ones have equal marks."""
    return results.mark(FORMAT, *facts)


class Kept:
    """The folder."""

    def __init__(self, folder: Path):
        self.folder = Path(folder).expanduser().absolute()
        with writing_to(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)

    def result(self, name: str) -> dict[str, Any] | None:
        """What was measured of a rung, if it is finished and can be read."""
        return read_json(self.folder / name / "result.json")

    def learned(self, name: str) -> Saved:
        """What a finished rung learned."""
        saved = Saved.read(self.folder / name / "learned.safetensors")
        if saved is None:
            raise BadInput(f"{self.folder / name} is not whole: remove it, and climb again")
        return saved

    def keep_learned(self, name: str, saved: Saved) -> int:
        """Write what a rung learned; gives the bytes it takes."""
        path = self.folder / name / "learned.safetensors"
        with writing_to(self.folder):
            saved.write(path)
        return path.stat().st_size

    def keep_result(self, name: str, result: dict[str, Any]) -> None:
        """The rung is finished."""
        write_json(self.folder / name / "result.json", result)

    def shared(self, name: str) -> Saved | None:
        """What several rungs use, if it is there."""
        return Saved.read(self.folder / f"{name}.safetensors")

    def keep_shared(self, name: str, saved: Saved) -> None:
        """Keep it for the next one."""
        with writing_to(self.folder):
            saved.write(self.folder / f"{name}.safetensors")

    def keep_ladder(self, facts: dict[str, Any]) -> None:
        """Say what the last climb was."""
        write_json(self.folder / LADDER, facts)


def ladder_of(folder: Path) -> dict[str, Any]:
    """What the last climb in a folder was. Raises `BadInput` where none was."""
    facts = read_json(Path(folder).expanduser() / LADDER)
    if facts is None:
        raise BadInput(f"{folder} holds no ladder: climb one with `intarsia adaptation plan --keep {folder}`")
    if facts.get("format") != FORMAT:
        raise BadInput(f"{folder} was written by another version of Intarsia: climb again")
    return facts
