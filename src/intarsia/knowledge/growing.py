"""The work of `knowledge.grow`: facts in, snapshots learned one by one, each kept when it is whole."""

from __future__ import annotations

import json
import time
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from intarsia.data import read_facts, read_snapshots
from intarsia.data.files import is_archive, must_exist, split_name
from intarsia.data.snapshots import described_beside
from intarsia.errors import BadInput, Note, did_you_mean
from intarsia.knowledge.answering import held_out_answers
from intarsia.knowledge.asking.asker import Asker
from intarsia.knowledge.asking.confidence import fitted_temperature
from intarsia.knowledge.grow import GrowConfig, Growth
from intarsia.knowledge.learning.choosing import choose
from intarsia.knowledge.learning.learner import Learner
from intarsia.knowledge.learning.results import SnapshotResult
from intarsia.knowledge.learning.settings import Settings, given_in
from intarsia.knowledge.methods import method_called
from intarsia.knowledge.store import Added, KnowledgeGraph
from intarsia.knowledge.store.place import KNOWN
from intarsia.measure import provenance
from intarsia.models.saved import Saved

CHECKPOINT = "training.safetensors"


def run(graph: KnowledgeGraph, config: GrowConfig, facts: Any, seed: int) -> Growth:
    """Take in facts, learn what is not learned yet, and say how it went."""
    begun = time.perf_counter()
    skipped: list[str] = []
    check(config)
    if facts is None and graph.source is None and not graph.exists:
        around = [p.name for p in graph.path.parent.iterdir()] if graph.path.parent.is_dir() else []
        near = did_you_mean(graph.path.name, around)
        raise BadInput(f"{graph}: no graph there{near}; to make one, give facts with --facts")
    if isinstance(facts, str | Path):
        must_exist(Path(facts))
    with graph.writing():
        _begun(graph, config)  # before any fact is taken in
        try:
            added = take_in(graph, config, facts, seed, skipped)
            if not _holds(graph):
                given = facts if isinstance(facts, str | Path) else graph.source
                raise BadInput(
                    f"{graph}: no facts in this graph yet: give some with --facts"
                    if given is None else f"{given}: no facts in it"
                )  # fmt: skip
        except BaseException:
            if not _holds(graph):
                graph.remove()  # nothing of it is worth keeping, and no later call shall find half a graph
            raise
        if config.relearn:
            # Before the new settings are noted: a stop in between leaves nothing learned, not another method's.
            graph.forget()
            (graph.path / CHECKPOINT).unlink(missing_ok=True)
        settings = settings_of(graph, config, seed)
        grown = learn(graph, config, settings, seed)
    finding = summary_of(graph)
    return finding.model_copy(
        update={
            "added": added.facts, "known": added.known, "skipped": skipped, "grown": grown,
            "seconds": time.perf_counter() - begun,
            "summary": _told(graph, finding, added, grown, len(skipped)),
            "provenance": provenance(seed=seed, settings=config.model_dump(mode="json")),
        }
    )  # fmt: skip


def check(config: GrowConfig) -> None:
    """Raise `BadInput` for settings that cannot be, before any work."""
    method = method_called(config.method)
    method.defaults().tuned(config.options, method.name)
    try:
        torch.empty(0, device=config.accelerator)
    except (RuntimeError, AssertionError) as error:
        line = str(error).splitlines()[0]
        raise BadInput(f"knowledge.grow: accelerator '{config.accelerator}' cannot be used: {line}") from None


# ---- facts


def take_in(graph: KnowledgeGraph, config: GrowConfig, facts: Any, seed: int, skipped: list[str]) -> Added:
    """Put the facts of the source and the given ones into the graph, and close its open snapshot."""
    added = Added()
    if graph.source is not None:
        graph.create()
        _same_source(graph)
        graph.set_note("source", str(graph.source))

    def on_bad(where: str, problem: str) -> None:
        skipped.append(f"{where}: {problem}")

    several = [x for x in (graph.source, facts) if isinstance(x, str | Path) and (str(x) in KNOWN or _many(Path(x)))]
    if config.name is not None and several:
        raise BadInput(f"{several[0]} brings snapshots with names of their own: leave out --name")
    reading = {"skip_bad": config.skip_bad, "on_bad": on_bad}
    if graph.source is not None and (str(graph.source) in KNOWN or _many(Path(graph.source))):
        snapshots = graph.facts_of_source(**reading)
        added += graph.append(snapshots, hold_out=config.hold_out, seed=seed)
    elif graph.source is not None:
        added += _stream(graph, Path(graph.source), config, seed, reading)
    if isinstance(facts, str | Path):
        graph.create()
        if _many(Path(facts)):
            snapshots = read_snapshots(facts, **reading)
            added += graph.append(snapshots, hold_out=config.hold_out, seed=seed, more=True)
        else:
            added += _stream(graph, Path(facts), config, seed, reading)
    elif facts is not None:
        added += graph.add(facts)
    if graph.exists:
        graph.close_snapshot(config.name, config.hold_out, seed)
    return added


def _holds(graph: KnowledgeGraph) -> bool:
    return graph.exists and any(stage.facts for stage in graph.stages())


def _same_source(graph: KnowledgeGraph) -> None:
    """Raise `BadInput` where the graph has facts of another file, of which only the name is alike."""
    had = graph.note("source")
    if had is None or not graph.stages() or Path(had).resolve() == Path(str(graph.source)).resolve():
        return
    raise BadInput(
        f"{graph}: made of {had}, not of {graph.source}: to add these facts, give them to that graph "
        f"(intarsia knowledge grow {graph} --facts {graph.source}); for a graph of its own, rename the file"
    )


def _many(path: Path) -> bool:
    return path.is_dir() or is_archive(path)


def _stream(graph: KnowledgeGraph, path: Path, config: GrowConfig, seed: int, reading: dict[str, Any]) -> Added:
    """The facts of one file as one snapshot: those of them that are not there yet."""
    about = described_beside(path, **reading)
    added = graph.add(read_facts(path, **reading), about=about)
    graph.close_snapshot(config.name or split_name(path.name)[0], config.hold_out, seed)
    return added


# ---- learning


def settings_of(graph: KnowledgeGraph, config: GrowConfig, seed: int) -> Settings:
    """The settings that the graph is learned with: as it was begun, or as the config and the first snapshot say."""
    method = method_called(config.method)
    if (told := _begun(graph, config)) is not None:
        return Settings(**told["settings"])
    settings = method.defaults().tuned(config.options, method.name).with_(**given_in(config))
    growing = graph.growing()
    settings, tried = choose(growing, method, settings, seed, config.accelerator)
    graph.set_note("learning", {"method": method.name, "settings": asdict(settings), "tried": tried})
    return settings


def _begun(graph: KnowledgeGraph, config: GrowConfig) -> dict[str, Any] | None:
    """How the graph was begun, where it goes on so. Raises `BadInput` where the config says otherwise."""
    told = graph.note("learning")
    if told is None or config.relearn or not graph.learned:
        return None
    have_all = {**told["settings"]["options"], **told["settings"], "method": told["method"]}
    asked = {"method": config.method if "method" in config.model_fields_set else None}
    asked |= given_in(config) | config.options
    if config.scorer == "auto":
        asked["scorer"] = None
    for name, value in asked.items():
        have = have_all.get(name)
        if value is not None and value != have:
            raise BadInput(
                f"{graph}: learned with {name} {have}, not {value}: leave it out, or learn all again with --relearn"
            )
    return told


def learn(graph: KnowledgeGraph, config: GrowConfig, settings: Settings, seed: int) -> int:
    """Learn the snapshots that are not learned yet, and give their number."""
    growing = graph.growing()
    begin, count = graph.learned, len(growing)
    if begin == count:
        return 0
    method = method_called(graph.note("learning")["method"])
    learner = Learner(growing, method, settings, seed=seed, device=config.accelerator)
    if begin:
        learner.restore(graph.state(begin - 1))
    path = graph.path / CHECKPOINT
    for index in range(begin, count):
        # As JSON gives it back: whatever differs, what was saved is of no use.
        mark = {"snapshot": index, "facts": len(growing.facts(index)), "seed": seed, "method": method.name}
        mark = json.loads(json.dumps({**mark, "settings": asdict(settings)}))
        interrupted = _checkpoint(path, mark)
        result = learner.take(
            save=lambda saved, mark=mark: Saved(saved.tensors, {**saved.note, "of": mark}).write(path),
            interrupted=interrupted,
        )
        saved = learner.state()
        note = {**saved.note, "scorer": settings.scorer, "temperature": fitted_temperature(learner, index)}
        graph.keep(index, Saved(saved.tensors, note), result.model_dump(mode="json"), config.history)
        path.unlink(missing_ok=True)
    return count - begin


def _checkpoint(path: Path, mark: dict[str, Any]) -> Saved | None:
    try:
        saved = Saved.read(path)
    except BadInput:
        saved = None
    if saved is None or saved.note.get("of") != mark:
        return None
    warnings.warn(Note(f"going on at epoch {saved.note['epoch']}, where it was stopped"), stacklevel=2)
    return saved


# ---- what to say


def standing(graph: KnowledgeGraph) -> Growth:
    """The finding about a graph that nothing is done to."""
    stages = graph.stages()
    waiting = [stage for stage in stages if not stage.learned]
    finding = summary_of(graph)
    last = finding.results[-1] if finding.results else None
    parts = [f"{len(stages)} snapshot{'s' * (len(stages) != 1)}, {sum(stage.facts for stage in stages):,} facts."]
    if last is not None and (every := last.overall("all")).count:
        parts.append(f"Held-out facts: MRR {every.mrr:.3f}, first answer right {every.hits1:.0%}.")
    if waiting:
        facts = sum(stage.facts for stage in waiting)
        parts.append(f"{facts:,} facts are not learned yet: intarsia knowledge grow {graph.path}")
    return finding.model_copy(update={"summary": " ".join(parts), "technique": "knowledge.status"})


def summary_of(graph: KnowledgeGraph) -> Growth:
    """The finding about a graph as it is stored."""
    told = graph.note("learning") or {"method": "", "settings": {"scorer": ""}, "tried": {}}
    results = [SnapshotResult.model_validate(stage.result) for stage in graph.stages() if stage.result]
    return Growth(
        title=f"How {graph.path.name} grew", technique="knowledge.grow", graph=str(graph.path), method=told["method"],
        scorer=told["settings"]["scorer"], chosen=told["tried"], results=results,
        answered=held_out_answers(graph) if results else [],
        calibrated=not results or Asker.of(graph).calibrated,
    )  # fmt: skip


def _told(graph: KnowledgeGraph, finding: Growth, added: Added, grown: int, skipped: int) -> str:
    last = finding.results[-1] if finding.results else None
    parts = []
    # What `KnowledgeGraph.add` took in before is new as well, though not added by this call.
    if added.facts or added.known or not grown:
        parts.append(f"{added.facts:,} new facts" + (f" ({added.known:,} were known)" if added.known else "") + ".")
    if skipped:
        parts.append(f"{skipped} lines left out.")
    if last is not None:
        done = f"{grown} snapshot{'s' * (grown != 1)} learned" if grown else "Nothing was left to learn"
        parts.append(f"{done}; {last.entities:,} entities, {last.relations:,} relations by now.")
        if (every := last.overall("all")).count:
            parts.append(f"Held-out facts: MRR {every.mrr:.3f}, first answer right {every.hits1:.0%}.")
    if grown and finding.chosen:
        tried = ", ".join(f"{name} {mrr:.3f}" for name, mrr in finding.chosen.items())
        parts.append(f"Scorer: {finding.scorer}, by the held-out MRR of the first snapshot ({tried}).")
    parts.append(f"Ask it: intarsia knowledge ask {graph.path} --help")
    return " ".join(parts)
