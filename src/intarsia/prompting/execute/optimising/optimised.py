"""What an optimisation found."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from intarsia.errors import BadInput, writing_to
from intarsia.measure.quality_parts import Interval
from intarsia.prompting.execute.prompt import Prompt, difference


@dataclass(frozen=True)
class Attempt:
    """One candidate.

    - kind: `base`, `wording` (a stretch of text written anew), `shots` (other demonstrations), `merge` (the wording of
      one and the demonstrations of another). parents: numbers of the candidates it was made of.
    - before, after: mean score of the parent and of it on the examples it was tried on first. dev: mean on all of dev,
      where it came so far. why_not: where it never became a candidate.
    - calls: spent when it was done."""

    number: int
    kind: str
    version: str
    parents: tuple[int, ...] = ()
    before: float | None = None
    after: float | None = None
    dev: float | None = None
    why_not: str = ""
    calls: int = 0
    text: str = ""


@dataclass(frozen=True)
class Optimised:
    """- best, base: the prompt with the best mean on dev, and the one that was given. The best one's words come from a
      model that saw the data: read what changed (`diff`) before it is used.
    - dev: means of base and best on dev, which chose the best, so that its own is flattered. test: on examples that
      nothing was chosen by: means of both, `gain` with its 95 % interval (paired bootstrap over groups).
    - front: numbers of the candidates that are the best on some example of dev.
    - calls: spent; stopped: why it ended."""

    best: Prompt
    base: Prompt
    metric: str
    dev: tuple[float, float]
    test: tuple[float, float]
    gain: Interval
    history: tuple[Attempt, ...]
    front: tuple[int, ...]
    calls: int
    stopped: str
    sizes: dict[str, int] = field(default_factory=dict)

    @property
    def diff(self) -> list[str]:
        """What the best says otherwise, as lines of a unified diff."""
        return difference(self.base, self.best)

    def save(self, path: str | Path, *, force: bool = False) -> Path:
        """Write the best prompt's file. Raises `BadInput` where one is there already."""
        path = Path(path).expanduser()
        if path.exists() and not force:
            raise BadInput(f"{path}: is there already; give --force to write over it, or another name")
        with writing_to(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            beside = path.with_name(f".{path.name}.new")
            beside.write_text(self.best.source, "utf-8")
            beside.replace(path)
        return path

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "best": {"version": self.best.version, "source": self.best.source},
            "base": {"version": self.base.version},
            "metric": self.metric, "dev": self.dev, "test": self.test, "gain": self.gain, "calls": self.calls,
            "stopped": self.stopped, "sizes": self.sizes, "front": self.front, "diff": self.diff,
            "history": [asdict(attempt) for attempt in self.history],
        }  # fmt: skip
