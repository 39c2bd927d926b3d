"""The work of `knowledge.compare`: each run is kept as it goes, so that a stop costs seconds."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryFile

from intarsia.errors import BadInput, writing_to
from intarsia.knowledge.compare import CompareConfig, Course, GrowthComparison
from intarsia.knowledge.graph.growing import GrowingGraph
from intarsia.knowledge.learning.choosing import choose
from intarsia.knowledge.learning.learner import Learner
from intarsia.knowledge.learning.parts import Method
from intarsia.knowledge.learning.settings import Settings, given_in
from intarsia.knowledge.methods import method_called
from intarsia.knowledge.store import KnowledgeGraph
from intarsia.measure import provenance
from intarsia.models.saved import Saved
from intarsia.progress import tell


def look(graph: KnowledgeGraph, config: CompareConfig, seed: int) -> GrowthComparison:
    """Run every method with every seed."""
    growing = graph.growing()
    if not len(growing) or not any(len(snapshot.test) for snapshot in growing.snapshots):
        raise BadInput(f"{graph}: no test facts to compare methods by")
    if not config.methods:
        raise BadInput("knowledge.compare: give at least one of --methods")
    planned = [(name, *method_of(name, config)) for name in dict.fromkeys(config.methods)]
    if config.keep is not None:
        with writing_to(config.keep):
            config.keep.mkdir(parents=True, exist_ok=True)
            TemporaryFile(dir=config.keep).close()
    courses = []
    todo = [(entry, seed + run) for entry in planned for run in range(config.seeds)]
    for done, ((name, method, settings), own) in enumerate(todo):
        tell("comparing", done, len(todo), step=f"{name}, seed {own}")
        found = course(
            growing, method, settings, own, name=name, keep=config.keep, sample=config.sample, device=config.accelerator
        )
        courses.append(found)
    tell("comparing", len(todo), len(todo), finished=True)
    names = [name for name, *_ in planned]
    found = GrowthComparison(
        title=f"Ways to learn {graph.path.name}", technique="knowledge.compare", graph=str(graph.path), methods=names,
        courses=courses, official=config.official,
        provenance=provenance(seed=seed, settings=config.model_dump(mode="json")),
    )  # fmt: skip
    return found.model_copy(update={"summary": _told(found)})


def method_of(name: str, config: CompareConfig) -> tuple[Method, Settings]:
    """A method by name, and its settings; of A@B those of B."""
    first, at, second = name.partition("@")
    method = method_called(first)
    settings = method.defaults()
    if at:
        settings = replace(method_called(second).settings, options=settings.options)
    known = {key: value for key, value in config.options.items() if key in settings.options}
    if unknown := [
        k for k in config.options if not any(k in method_called(n.partition("@")[0]).options for n in config.methods)
    ]:
        raise BadInput(f"none of these methods has the option '{unknown[0]}'")
    return method, settings.with_(**given_in(config)).tuned(known, first)


def course(
    growing: GrowingGraph,
    method: Method,
    settings: Settings,
    seed: int,
    *,
    name: str | None = None,
    keep: Path | None = None,
    sample: int | None = None,
    device: str = "cpu",
) -> Course:
    """One run of a method over all snapshots.

    - keep: a folder; a run of the same graph, method, settings and seed goes on from what lies there."""
    settings, _ = choose(growing, method, settings, seed, device)
    learner = Learner(growing, method, settings, seed=seed, device=device, sample=sample)
    whole = part = None
    if keep is not None:
        stem = f"{name or method.name}-{seed}-{_mark(growing, method, settings, sample)}"
        whole, part = keep / f"{stem}.safetensors", keep / f"{stem}.part.safetensors"
        if (saved := Saved.read(whole)) is not None:
            learner.restore(saved)
    while len(learner.results) < len(growing):
        interrupted = Saved.read(part) if part is not None else None
        if interrupted is not None and interrupted.note["index"] != len(learner.results):
            interrupted = None
        learner.take(save=None if part is None else lambda saved: saved.write(part), interrupted=interrupted)
        if whole is not None and part is not None:
            learner.state().write(whole)
            part.unlink(missing_ok=True)
    return Course(method=name or method.name, seed=seed, results=learner.results)


def _mark(growing: GrowingGraph, method: Method, settings: Settings, sample: int | None) -> str:
    """Tells one run from another with a different graph or other settings."""
    facts = hashlib.sha256()
    for snapshot in growing.snapshots:
        for split in (snapshot.train, snapshot.valid, snapshot.test):
            facts.update(split.tobytes())
    told = json.dumps([facts.hexdigest(), method.name, asdict(settings), sample], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:10]


def _told(found: GrowthComparison) -> str:
    scored = {name: _mean(found, name, "all") for name in found.methods}
    best = max(scored, key=lambda name: scored[name])
    parts = [f"Best among all entities: {best} (MRR {scored[best]:.3f})."]
    parts.append(" ".join(f"{name} {value:.3f};" for name, value in scored.items() if name != best).rstrip(";") + ".")
    return " ".join(part for part in parts if part != ".")


def _mean(found: GrowthComparison, method: str, evaluator: str) -> float:
    runs = found.of(method)
    return sum(course.overall(evaluator).mrr for course in runs) / len(runs)
