"""How far a run has come, from its folder alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from intarsia import catalog
from intarsia.errors import BadInput, did_you_mean
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
    # A folder of that name may be something else: the model that a change was saved to, say.
    start = next((p for p in (start, Path("runs") / start) if _is_run(p)), None)
    if start is None:
        raise BadInput(f"{path}: no bundle and no run there{_nearest(path)}")
    if (start / "manifest.json").is_file():
        return _finished(Bundle.open(start), start)
    place = RunFolder(start)
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
        if (folder / "finding.json").is_file():
            finding = Finding.from_json((folder / "finding.json").read_text(encoding="utf-8"))
            against = tuple(record["models"].values())
            entries.append(
                Entry(number, record["technique"], record["gives"] or record["on"], against, folder.name, finding)
            )
    units = [(unit["title"], done[unit["digest"]] is not None) for unit in plan["units"]]
    return Status(plan["name"], place.path, units, states, entries, None)


def _is_run(folder: Path) -> bool:
    return (folder / "manifest.json").is_file() or RunFolder(folder).plan.is_file()


def _nearest(path: str | Path) -> str:
    runs = [folder.name for folder in Path("runs").glob("*") if _is_run(folder)]
    return did_you_mean(str(path), runs)


def _finished(bundle: Bundle, path: Path) -> Status:
    steps = bundle.manifest["steps"]
    units = [(f"{s['technique']} on {s['on']}" + (f" → {s['gives']}" if s["gives"] else ""), True) for s in steps]
    return Status(bundle.manifest["name"], path, units, bundle.manifest["states"], bundle.entries, bundle)
