"""Running a recipe: each finished step is a folder, and a rerun starts at the first that is missing."""

from __future__ import annotations

import contextlib
import gc
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from intarsia.data import Dataset
from intarsia.errors import BadInput, IntarsiaError, is_disk_full
from intarsia.models import Identity, Model
from intarsia.progress import Listener, listening, tell
from intarsia.recipes.binding import facts_for, with_task
from intarsia.recipes.bundle import Bundle, assemble
from intarsia.recipes.folder import RunFolder, disk_full, dumps, write_json
from intarsia.recipes.plan import Unit, plan, weights_id
from intarsia.recipes.recipe import Recipe
from intarsia.recipes.steps import BASE
from intarsia.report import Finding

PROGRESS_TASK = "recipe"


def run(
    recipe: Recipe | str | Path,
    folder: str | Path | None = None,
    *,
    force: bool = False,
    progress: Listener | None = None,
) -> Bundle:
    """Execute a recipe in `folder` (default `runs/<name>`) and give its bundle.

    A run that was stopped, killed or out of disk goes on at the first step that is missing, and ends with the same
    bundle, byte for byte (`fingerprint`), as one that was never disturbed. `force` forgets finished steps. `progress`
    gets every event; inside an outer `listening` block it may be left out.

    Raises `BadInput` before any work when something given cannot be used, or when another live process owns the
    folder; `IntarsiaError` when a step fails; `KeyboardInterrupt`, with a message that says how to go on, on Ctrl-C."""
    if not isinstance(recipe, Recipe):
        recipe = Recipe.read(recipe)
    place = RunFolder(folder if folder is not None else Path("runs") / recipe.name)
    with contextlib.ExitStack() as stack:
        if progress is not None:
            stack.enter_context(listening(progress))
        stack.enter_context(place.owned())
        started = time.time()
        done: list[Unit] = []
        try:
            if force:
                place.clear()
            return _run(recipe, place, done, started)
        except KeyboardInterrupt:
            steps = "1 step is" if len(done) == 1 else f"{len(done)} steps are"
            raise KeyboardInterrupt(
                f"stopped; {steps} finished and kept: give the same command again to go on"
            ) from None
        except OSError as error:
            if is_disk_full(error):
                raise disk_full(place.path) from error
            raise


def _run(recipe: Recipe, place: RunFolder, done: list[Unit], started: float) -> Bundle:
    data = recipe.load_data()
    states = _States(recipe, place, data)
    with _settled(recipe.threads) as threads:
        units = plan(recipe, states.get(BASE), data)
        write_json(
            place.plan,
            {
                "name": recipe.name,
                "recipe": recipe.to_yaml(),
                "units": [{"folder": u.folder, "digest": u.digest, "title": u.title} for u in units],
            },
        )
        for unit in units:
            if not place.finished(unit.digest):
                tell(PROGRESS_TASK, len(done), len(units), step=unit.title)
                _execute(unit, recipe, data, states, place, threads)
            states.note(unit)
            done.append(unit)
        tell(PROGRESS_TASK, len(units), len(units), step="bundle")
        bundle = assemble(recipe, place, units, data, states.base_identity, threads, started)
        tell(PROGRESS_TASK, len(units), len(units), finished=True)
    return bundle


class _States:
    """The model states of a run: the base, and what changes gave, read back from their step folders when needed."""

    def __init__(self, recipe: Recipe, place: RunFolder, data: Dataset | None):
        self.recipe, self.place, self.data = recipe, place, data
        self.folders: dict[str, Path] = {}
        self.held: dict[str, Model] = {}
        self.base_identity = Identity(recipe.model)

    def get(self, name: str) -> Model:
        from intarsia.models import load

        if name not in self.held:
            if name == BASE:
                try:
                    model = load(self.recipe.model)
                except BadInput as error:
                    raise self.recipe.marked.error(("model",), str(error)) from None
                self.base_identity = replace(model.identity, source=self.recipe.model, sha256=weights_id(model))
                model = with_task(model, self.data)
            else:
                # Also an undisturbed run works with what was saved, never with what is still in memory: so a resumed
                # run sees the same bits.
                folder = self.folders[name]
                model = load(str(folder / "model"))
                model = replace(model, identity=_identity(folder))
            self.held[name] = model
        return self.held[name]

    def keep(self, names: tuple[str, ...]) -> None:
        """Let go of every other state, so that no more models are in memory than a step needs."""
        for name in [held for held in self.held if held not in names]:
            del self.held[name]
        gc.collect()

    def note(self, unit: Unit) -> None:
        if unit.gives:
            self.folders[unit.gives] = self.place.finished(unit.digest)  # type: ignore[assignment]


def _identity(folder: Path) -> Identity:
    saved = json.loads((folder / "step.json").read_text(encoding="utf-8"))["identity"]
    return Identity(**{**saved, "changes": tuple(saved["changes"])})


def _execute(unit: Unit, recipe: Recipe, data: Dataset | None, states: _States, place: RunFolder, threads: int) -> None:
    step, started, clock = unit.step, time.time(), time.perf_counter()
    states.keep(unit.states)
    inputs: dict[str, Any] = {entry: data[split] for entry, split in unit.splits.items()}  # type: ignore[index]
    inputs.update(facts_for(step.technique, data))
    inputs.update({entry: states.get(state) for entry, state in step.models.items()})
    if "seed" in step.technique.inputs:
        inputs["seed"] = unit.seed
    model = states.get(unit.on)
    with place.writing(place.steps / unit.folder) as folder:
        _seed_all(unit.seed)
        result = _named(unit, lambda: step.technique.function(model, step.config, **inputs))
        record: dict[str, Any] = {
            "technique": step.technique.name,
            "config": step.config.model_dump(mode="json"),
            "on": unit.on,
            "gives": unit.gives,
            "models": step.models,
            "seed": unit.seed,
            "digest": unit.digest,
            "threads": threads,
        }
        if unit.gives:
            if not isinstance(result, Model):
                raise IntarsiaError(f"{step.technique.name} gave a {type(result).__name__} where a Model was wanted")
            tell(f"saving {unit.gives}", 0, 1)
            result.save(folder / "model")
            tell(f"saving {unit.gives}", 1, 1, finished=True)
            record["identity"] = asdict(result.identity)
            if result.finding is not None:
                _with_provenance(result.finding, unit, model, step.models).write(folder / "finding.json")
        else:
            if not isinstance(result, Finding):
                raise IntarsiaError(f"{step.technique.name} gave a {type(result).__name__} where a Finding was wanted")
            _with_provenance(result, unit, model, step.models).write(folder / "finding.json")
        record["clock"] = {"started": started, "seconds": time.perf_counter() - clock}
        (folder / "step.json").write_text(dumps(record), encoding="utf-8")


def _named(unit: Unit, work: Callable[[], Any]) -> Any:
    """Say in every failure which step it was."""
    where = f"step {unit.number} ({unit.title})"
    try:
        return work()
    except IntarsiaError as error:
        error.args = (f"{where}: {error}",)
        raise
    except Exception as error:
        if is_disk_full(error):
            raise
        raise IntarsiaError(f"{where}: {type(error).__name__}: {error}") from error


def _with_provenance(finding: Finding, unit: Unit, model: Model, models: dict[str, str]) -> Finding:
    told = {
        "state": unit.on,
        **models,
        "model": model.identity.source,
        "changes": [change.get("technique", "?") for change in model.identity.changes],
        "settings": unit.step.config.model_dump(mode="json"),
        "seed": unit.seed,
        "data": unit.hashes,
    }
    return finding.model_copy(
        update={
            "technique": finding.technique or unit.step.technique.name,
            "provenance": {**told, **finding.provenance},
        }
    )


def _seed_all(seed: int) -> None:
    import random

    import numpy
    import torch

    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)


@contextlib.contextmanager
def _settled(threads: int | None) -> Iterator[int]:
    """A fixed number of threads and deterministic kernels for the block: the same machine gives the same bits."""
    import random

    import numpy
    import torch
    from torch.utils import deterministic

    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    warn, fill = torch.is_deterministic_algorithms_warn_only_enabled(), deterministic.fill_uninitialized_memory
    randomness = random.getstate(), numpy.random.get_state(), torch.get_rng_state()
    if threads:
        torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    deterministic.fill_uninitialized_memory = False  # it costs time and guards against nothing here
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1], warn_only=warn)
        deterministic.fill_uninitialized_memory = fill
        random.setstate(randomness[0])
        numpy.random.set_state(randomness[1])
        torch.set_rng_state(randomness[2])


def tidy(folder: str | Path) -> int:
    """Remove the steps that the last plan of a run folder does not need. Gives the number of bytes freed."""
    place = RunFolder(folder)
    if not place.plan.is_file():
        raise BadInput(f"{place.path} is no run folder")
    with place.owned():
        wanted = {unit["digest"] for unit in json.loads(place.plan.read_text(encoding="utf-8"))["units"]}
        freed = 0
        for path in place.steps.iterdir():
            if path.name.rpartition("-")[2] not in wanted:
                freed += sum(f.stat().st_size for f in path.rglob("*") if f.is_file())
                shutil.rmtree(path)
    return freed
