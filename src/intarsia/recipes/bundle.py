"""`Bundle`: what a finished run leaves: weights, findings, manifest, recipe and one page.

    bundle/
        model/           the final state, a plain Hugging Face folder (absent when no step changes the model)
        findings/        one JSON file a look and state, without what depends on the clock or the machine
        clock.json       exactly that: times, speeds, memory
        manifest.json    recipe, versions, seeds, hashes, the command that repeats it
        recipe.yaml      as run: overrides applied, paths absolute
        report.html      all of it on one page

Two runs of one recipe on one machine agree byte for byte on everything but `clock.json` and the page drawn from it."""

from __future__ import annotations

import hashlib
import json
import platform
import shlex
import time
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import intarsia
from intarsia import catalog
from intarsia.data import Dataset
from intarsia.errors import BadInput
from intarsia.models import Identity, Model
from intarsia.recipes.binding import records_hash
from intarsia.recipes.folder import RunFolder, dumps, link_tree
from intarsia.recipes.headline import Entry, headline, story
from intarsia.recipes.plan import Unit
from intarsia.recipes.recipe import Recipe
from intarsia.recipes.steps import BASE
from intarsia.report import Finding, RunPage, Section, Table

CLOCK = "clock.json"
REPORT = "report.html"
LIBRARIES = (
    "torch",
    "transformers",
    "safetensors",
    "numpy",
    "peft",
    "onnxruntime",
    "onnxruntime-genai",
    "scikit-learn",
)


@dataclass(frozen=True)
class Bundle:
    """A bundle on the disk, read when asked."""

    path: Path

    @staticmethod
    def open(path: str | Path) -> Bundle:
        """Open a bundle, or the bundle of a run folder. Raises `BadInput` when there is none."""
        start = Path(path).expanduser()
        for place in (start, start / "bundle"):
            if (place / "manifest.json").is_file():
                return Bundle(place.resolve())
        if (start / "run.json").is_file():
            raise BadInput(f"{path}: the run is not finished: give its `intarsia run` command again to go on")
        raise BadInput(f"{path}: no bundle and no run there")

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Recipe, versions, seeds, hashes, steps."""
        return read_json(self.path / "manifest.json")

    @cached_property
    def clock(self) -> dict[str, Any]:
        """What depends on the clock and the machine."""
        return read_json(self.path / CLOCK)

    @cached_property
    def entries(self) -> list[Entry]:
        """The findings with the steps they come from, in the recipe's order."""
        catalog.load()  # findings are read as the classes their techniques declare
        out = []
        for row in self.manifest["findings"]:
            value = read_json(self.path / "findings" / row["file"])
            value.update(self.clock["findings"].get(row["file"], {}))
            finding = Finding.from_json(json.dumps(value))
            out.append(Entry(row["step"], row["technique"], row["on"], tuple(row["against"]), row["file"], finding))
        return out

    @property
    def findings(self) -> list[Finding]:
        """The findings, in the recipe's order."""
        return [entry.finding for entry in self.entries]

    @property
    def report(self) -> Path:
        """The page."""
        return self.path / REPORT

    def model(self) -> Model:
        """The final state of the model, loaded. Where no step changed it: the base, loaded from its source."""
        from intarsia.models import load

        folder = self.path / "model"
        return load(str(folder) if folder.is_dir() else self.manifest["model"]["source"])

    def headline(self) -> Table:
        """One row for each state measured, one column for each figure."""
        return headline(self.entries, self.manifest["states"], self.manifest["name"])

    def page(self) -> RunPage:
        """The run's page as data: a pure function of what the bundle holds."""
        manifest = {key: value for key, value in self.manifest.items() if key != "findings"}
        shown = self.headline()
        return RunPage(
            title=self.manifest["name"],
            subtitle=self.manifest["description"],
            summary=story(shown),
            headline=shown,
            sections=[Section(title=_heading(entry), finding=entry.finding) for entry in self.entries],
            manifest={**manifest, "machine": self.clock["machine"]},
        )

    def __str__(self) -> str:
        return f"Bundle({self.path})"


def fingerprint(bundle: Bundle | str | Path) -> dict[str, str]:
    """The sha256 of every file that two runs of one recipe agree on (all but the clock and the page), by its path."""
    root = bundle.path if isinstance(bundle, Bundle) else Bundle.open(bundle).path
    out = {}
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        name = path.relative_to(root).as_posix()
        if name not in (CLOCK, REPORT):
            with path.open("rb") as file:
                out[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return out


def assemble(
    recipe: Recipe,
    place: RunFolder,
    units: list[Unit],
    data: Dataset | None,
    base: Identity,
    threads: int,
    started: float,
) -> Bundle:
    """Put the bundle together beside its place, then rename it there. A bundle that is up to date is left alone."""
    telling = [unit for unit in units if _tells(place, unit)]
    manifest = _manifest(recipe, units, telling, data, base, threads)
    text = dumps(manifest)
    if place.bundle.is_dir() and _same(place.bundle / "manifest.json", text) and (place.bundle / REPORT).is_file():
        return Bundle(place.bundle)
    with place.writing(place.bundle) as folder:
        (folder / "findings").mkdir()
        clock: dict[str, Any] = {
            "started": started,
            "finished": time.time(),
            "machine": _machine(),
            "folder": str(place.path),
        }
        clock["steps"], clock["findings"] = {}, {}
        for unit in units:
            source = place.finished(unit.digest)
            assert source is not None
            clock["steps"][f"{unit.number:02d} {unit.title}"] = read_json(source / "step.json")["clock"]
            if unit in telling:
                value = read_json(source / "finding.json")
                volatile = Finding.from_json(json.dumps(value)).volatile
                file = _file(unit)
                clock["findings"][file] = {key: value.pop(key) for key in sorted(volatile) if key in value}
                (folder / "findings" / file).write_text(dumps(value), encoding="utf-8")
        final = [unit for unit in units if unit.gives]
        if final:
            source = place.finished(final[-1].digest)
            assert source is not None
            link_tree(source / "model", folder / "model")
        (folder / CLOCK).write_text(dumps(clock), encoding="utf-8")
        (folder / "manifest.json").write_text(text, encoding="utf-8")
        (folder / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
        draw(Bundle(folder))
    return Bundle(place.bundle)


def draw(bundle: Bundle) -> Path:
    """Draw the page of a bundle anew."""
    from intarsia.report import render

    bundle.report.write_text(render(bundle.page()), encoding="utf-8")
    return bundle.report


def _tells(place: RunFolder, unit: Unit) -> bool:
    """Whether a step left a finding: every look does, and a change that looked at what it made."""
    source = place.finished(unit.digest)
    return source is not None and (source / "finding.json").is_file()


def _manifest(
    recipe: Recipe, units: list[Unit], telling: list[Unit], data: Dataset | None, base: Identity, threads: int
) -> dict[str, Any]:
    states = [BASE, *(unit.gives for unit in units if unit.gives)]
    return {
        "name": recipe.name,
        "description": recipe.description,
        "command": _command(recipe),
        "model": asdict(base),
        "states": states,
        "final": states[-1],
        "data": data
        and {
            "name": data.name,
            "sha256": data.sha256,
            "splits": {
                name: {"records": len(rows), "sha256": records_hash(rows)} for name, rows in data.splits.items()
            },
        },
        "seed": recipe.seed,
        "threads": threads,
        "versions": _versions(),
        "steps": [
            {
                "step": unit.number,
                "technique": unit.step.technique.name,
                "on": unit.on,
                "gives": unit.gives,
                "settings": unit.step.config.model_dump(mode="json"),
                "models": unit.step.models,
                "splits": unit.splits,
                "seed": unit.seed,
                "hash": unit.digest,
            }
            for unit in units
        ],
        "findings": [
            {
                "file": _file(unit),
                "step": unit.number,
                "technique": unit.step.technique.name,
                "on": unit.gives or unit.on,
                "against": list(unit.step.models.values()),
            }
            for unit in telling
        ],
        "recipe": recipe.to_yaml(),
    }


def _command(recipe: Recipe) -> str:
    if recipe.shipped:
        settings = [word for setting in recipe.settings for word in ("--set", setting)]
        return shlex.join(["intarsia", "run", recipe.shipped, *settings])
    return "intarsia run recipe.yaml"  # the file beside the manifest, where overrides are written in


def _versions() -> dict[str, str]:
    out = {"intarsia": intarsia.__version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            out[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return out


def _machine() -> dict[str, Any]:
    import psutil

    return {
        "system": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": psutil.cpu_count(logical=False),
        "memory": psutil.virtual_memory().total,
    }


def _file(unit: Unit) -> str:
    against = "".join(f"-vs-{state}" for state in unit.step.models.values())
    return f"{unit.number:02d}-{unit.step.technique.name}-{unit.gives or unit.on}{against}.json"


def _heading(entry: Entry) -> str:
    against = f" against {', '.join(entry.against)}" if entry.against else ""
    return f"{entry.technique.rpartition('.')[2].capitalize()}: {entry.on}{against}"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file of a run."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise BadInput(f"{path}: cannot be read: {error}") from None


def _same(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text
