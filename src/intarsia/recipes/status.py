"""How far a run has come, from its folder alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from intarsia import catalog
from intarsia.errors import BadInput
from intarsia.recipes.bundle import Bundle, read_json
from intarsia.recipes.folder import RunFolder
from intarsia.recipes.headline import Entry, headline
from intarsia.report import Finding, Table


@dataclass(frozen=True)
class Status:
    """A run that is finished, stopped or going on.

    - units: title -> whether it is finished, in order.
    - entries: the findings there are so far."""

    name: str
    path: Path
    units: list[tuple[str, bool]]
    states: list[str]
    entries: list[Entry]
    bundle: Bundle | None

    def headline(self) -> Table:
        """The headline table, as far as it goes."""
        return headline(self.entries, self.states, self.name)


def status(path: str | Path) -> Status:
    """The state of a run folder, or of a bundle. A bare name is looked for under `runs/` too."""
    start = Path(path).expanduser()
    if not start.exists() and (Path("runs") / start).exists():
        start = Path("runs") / start
    if (start / "manifest.json").is_file():
        return _finished(Bundle.open(start), start)
    place = RunFolder(start)
    if not place.plan.is_file():
        raise BadInput(f"{path}: no bundle and no run there")
    catalog.load()
    plan = read_json(place.plan)
    done = {unit["digest"]: place.finished(unit["digest"]) for unit in plan["units"]}
    if place.bundle.is_dir() and all(done.values()):
        return _finished(Bundle.open(place.bundle), place.path)
    entries, states = [], ["base"]
    for number, unit in enumerate(plan["units"], 1):
        folder = done[unit["digest"]]
        if folder is None:
            continue
        record = read_json(folder / "step.json")
        if record["gives"]:
            states.append(record["gives"])
        else:
            finding = Finding.from_json((folder / "finding.json").read_text(encoding="utf-8"))
            against = tuple(record["models"].values())
            entries.append(Entry(number, record["technique"], record["on"], against, folder.name, finding))
    units = [(unit["title"], done[unit["digest"]] is not None) for unit in plan["units"]]
    return Status(plan["name"], place.path, units, states, entries, None)


def _finished(bundle: Bundle, path: Path) -> Status:
    steps = bundle.manifest["steps"]
    units = [(f"{s['technique']} on {s['on']}" + (f" → {s['gives']}" if s["gives"] else ""), True) for s in steps]
    return Status(bundle.manifest["name"], path, units, bundle.manifest["states"], bundle.entries, bundle)
