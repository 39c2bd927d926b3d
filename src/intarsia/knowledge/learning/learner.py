"""The one loop: a method takes snapshot after snapshot, and every method is measured alike."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from intarsia.errors import BadInput
from intarsia.knowledge.evaluation.metrics import rankings
from intarsia.knowledge.evaluation.ranking import Ranker, TableRanker, ranks
from intarsia.knowledge.graph.answers import Answers
from intarsia.knowledge.graph.growing import GrowingGraph, Snapshot, directed
from intarsia.knowledge.learning.parts import Growing, Method
from intarsia.knowledge.learning.results import SnapshotResult
from intarsia.knowledge.learning.settings import Settings
from intarsia.knowledge.learning.tables import Copy, Tables
from intarsia.knowledge.learning.transfer import transfer
from intarsia.knowledge.objectives import objective_for
from intarsia.knowledge.scorers import scorer_called
from intarsia.models.saved import Saved
from intarsia.progress import tell

SAVE_EVERY = 20.0  # seconds of learning that a stop may cost


@dataclass
class Course:
    """How far the learning of a snapshot has come."""

    epoch: int = 0
    best_mrr: float = -1.0
    best_epoch: int = 0
    count: int = 0
    stopped: bool = False
    result: SnapshotResult = field(default_factory=lambda: SnapshotResult(name="", entities=0, relations=0, facts=0))


class Learner:
    """Learns the snapshots of a graph one after the other, in the manner of a method.

    - save, interrupted: called with the state while a snapshot is learned (every `SAVE_EVERY` seconds), and given such
      a state, goes on from it. What was learned wholly is in `state()`, for `restore`.
    - sample: rank no more than this many questions of a test (None: all of them)."""

    def __init__(
        self,
        graph: GrowingGraph,
        method: Method,
        settings: Settings | None = None,
        *,
        seed: int = 0,
        device: str | torch.device = "cpu",
        sample: int | None = None,
        dtype: torch.dtype = torch.float32,
    ):
        self.graph, self.method, self.settings = graph, method, settings or method.defaults()
        self.scorer = scorer_called(self.settings.scorer)
        if self.scorer.even and self.settings.width % 2:
            raise BadInput(f"{self.scorer.name} wants an even width, given: {self.settings.width}")
        self.seed, self.device, self.sample, self.dtype = seed, torch.device(device), sample, dtype
        self.random = torch.Generator().manual_seed(seed)
        self.parts = method.parts(self.settings)
        self.objective = (method.objective or objective_for)(self.settings)
        self.tables: Tables | None = None
        self.squares: list[Tensor] = []  # Adagrad's, of entities and of relations
        self.results: list[SnapshotResult] = []
        self.ranker: Ranker | None = None
        self.answers = Answers.of(graph)

    # ---- the state between snapshots

    def state(self) -> Saved:
        """All that the next snapshot needs."""
        assert self.tables is not None
        tensors = {"entities": self.tables.entities.detach(), "relations": self.tables.relations.detach()}
        tensors |= {f"squares.{i}": squares for i, squares in enumerate(self.squares)}
        return Saved({**tensors, **self._parts()}, {"results": [r.model_dump(mode="json") for r in self.results]})

    def restore(self, saved: Saved) -> None:
        """Go on after what `state` gave."""
        self.tables = Tables(
            saved.tensors["entities"].to(self.device, self.dtype).clone(),
            saved.tensors["relations"].to(self.device, self.dtype).clone(),
        )
        self.squares = [
            t.to(self.device, self.dtype) for n, t in sorted(saved.tensors.items()) if n.startswith("squares.")
        ]
        self._put_parts(saved.tensors)
        self.results = [SnapshotResult.model_validate(row) for row in saved.note["results"]]

    def _parts(self) -> dict[str, Tensor]:
        named = {f"part.{i}.{name}": value for i, part in enumerate(self.parts) for name, value in part.state.items()}
        return {**named, "random": self.random.get_state()}

    def _put_parts(self, tensors: dict[str, Tensor]) -> None:
        for i, part in enumerate(self.parts):
            prefix = f"part.{i}."
            part.state = {n.removeprefix(prefix): t.clone() for n, t in tensors.items() if n.startswith(prefix)}
        self.random.set_state(tensors["random"].cpu())

    # ---- one snapshot

    def take(self, *, save: Callable[[Saved], None] | None = None, interrupted: Saved | None = None) -> SnapshotResult:
        """Learn the next snapshot, and answer the tests of all so far."""
        index = len(self.results)
        growing, course = self._begin(index)
        optimiser = self._optimiser(growing)
        best = growing.tables.copy()
        if interrupted is not None:
            best = self._take_up(interrupted, growing, course, optimiser)
        elif index:
            course.result.before = rankings(self._ranks(growing, index))
        if index == 0 or self.method.relearns:
            best = self._learn(growing, course, optimiser, best, save)
        growing.tables.set(best)
        if self.settings.optimiser == "adagrad":
            self.squares = [
                optimiser.state[rows]["sum"] for rows in (growing.tables.entities, growing.tables.relations)
            ]
        for part in self.parts:
            part.end(growing)
        self.ranker = self._ranker(growing)
        course.result.tests = [rankings(self._ranks(growing, j)) for j in range(index + 1)]
        self.results.append(course.result)
        return course.result

    def _begin(self, index: int) -> tuple[Growing, Course]:
        snapshot = self.graph.snapshots[index]
        fresh = index == 0 or self.tables is None or not self.method.keeps
        old_entities, old_relations = self.graph.before(index)
        width = self.settings.width
        if fresh:
            given = (self.scorer, snapshot.entities, snapshot.rows, width, self.random, self.device)
            self.tables = Tables.start(*given, dtype=self.dtype)
        else:
            assert self.tables is not None
            self.tables = self.tables.grown(self.scorer, snapshot.entities, snapshot.rows, self.random)
        facts = self.graph.facts(index, ("train",), 0 if self.method.learns == "all" else index)
        growing = Growing(
            graph=self.graph, index=index, scorer=self.scorer, settings=self.settings, tables=self.tables,
            before=self.tables.copy().first(old_entities, old_relations), old_entities=old_entities,
            old_relations=old_relations, facts=torch.from_numpy(directed(facts)).to(self.device), random=self.random,
        )  # fmt: skip
        if not fresh and self.method.start == "transfer" and self.settings.options.get("transfer", 1):
            transfer(growing)
        for part in self.parts:
            part.begin(growing)
        result = SnapshotResult(
            name=snapshot.name, entities=snapshot.entities, relations=snapshot.relations, facts=len(facts),
            new_entities=snapshot.entities - old_entities,
        )  # fmt: skip
        return growing, Course(result=result)

    def _optimiser(self, growing: Growing) -> Any:
        params = [growing.tables.entities, growing.tables.relations]
        rate = self.settings.learning_rate or self.scorer.learning_rate
        fused = self.device.type in ("cpu", "cuda")
        if self.settings.optimiser == "adam":
            return torch.optim.Adam(params, lr=rate, fused=fused)
        optimiser = torch.optim.Adagrad(params, lr=rate, fused=fused)
        for param, squares in zip(params, self.squares if self.method.keeps else [], strict=False):
            optimiser.state[param]["sum"][: len(squares)] = squares
        return optimiser

    def _learn(
        self, growing: Growing, course: Course, optimiser: Any, best: Copy, save: Callable[[Saved], None] | None
    ) -> Copy:
        settings, result = self.settings, course.result
        held = self._held(growing)
        task = f"learning {growing.graph.snapshots[growing.index].name}"
        last_saved = time.monotonic()
        while course.epoch < settings.epochs and not course.stopped:
            wall, cpu = time.perf_counter(), time.process_time()
            loss = self._epoch(growing, optimiser)
            course.epoch += 1
            result.epochs = course.epoch
            if not held:
                course.best_epoch, best = course.epoch, growing.tables.copy()
                self._improved(growing)
            elif course.epoch % settings.validate_every == 0 or course.epoch == settings.epochs:
                since, since_cpu = time.perf_counter(), time.process_time()
                better = self._validate(growing, course)
                if better:
                    best = growing.tables.copy()
                    self._improved(growing)
                result.validating += time.perf_counter() - since
                result.validating_cpu += time.process_time() - since_cpu
            result.seconds += time.perf_counter() - wall
            result.cpu_seconds += time.process_time() - cpu
            tell(task, course.epoch, settings.epochs, loss=loss, **_shown(course))
            if save is not None and time.monotonic() - last_saved > SAVE_EVERY and not course.stopped:
                save(self._saved(growing, course, optimiser, best))
                last_saved = time.monotonic()
        result.best = course.best_epoch
        tell(task, course.epoch, settings.epochs, finished=True)
        return best

    def _improved(self, growing: Growing) -> None:
        for part in self.parts:
            part.improved(growing)

    def _epoch(self, growing: Growing, optimiser: Any) -> float:
        total, count = 0.0, 0
        for batch in self.objective.batches(growing):
            growing.tables.clear()
            total += self.objective.accumulate(growing, batch)
            for part in self.parts:
                total += part.accumulate(growing, batch)
            for part in self.parts:
                part.adjust(growing)
            optimiser.step()
            for part in self.parts:
                part.stepped(growing)
            count += 1
        growing.epoch += 1
        if total != total:
            raise BadInput("learning diverged (the loss is no number): give a smaller learning_rate")
        return total / max(1, count)

    # ---- choosing the epoch

    def _held(self, growing: Growing) -> int:
        return len(self._selection(growing))

    def _selection(self, growing: Growing) -> Any:
        since = 0 if self.method.learns == "all" or self.settings.validate_all else growing.index
        return self.graph.facts(growing.index, ("valid",), since)

    def _validate(self, growing: Growing, course: Course) -> bool:
        """Rank held-out facts; whether this epoch is the best so far."""
        settings, snapshot = self.settings, growing.graph.snapshots[growing.index]
        found = ranks(
            self._ranker(growing), self.answers, self._selection(growing), at=growing.index, by=growing.index,
            old=snapshot.entities, sample=settings.validate_on, seed=self.seed,
        )  # fmt: skip
        mrr = round(float((1 / found[1]).mean()), 4)
        course.result.curve.append((course.epoch, mrr))
        if mrr > course.best_mrr:
            course.best_mrr, course.best_epoch = mrr, course.epoch
            course.count = max(0, course.count - settings.forgive)
            return True
        course.count += 1
        course.stopped = course.count >= settings.patience and course.epoch >= settings.least_epochs
        return False

    def _ranker(self, growing: Growing) -> Ranker:
        for part in self.parts:
            if (own := part.ranker(growing)) is not None:
                return own
        return TableRanker(self.scorer, growing.tables.entities.detach(), growing.tables.relations.detach())

    def _ranks(self, growing: Growing, test: int) -> Any:
        snapshot: Snapshot = self.graph.snapshots[test]
        return ranks(
            self._ranker(growing), self.answers, snapshot.test, at=test, by=growing.index, old=snapshot.entities,
            sample=self.sample, seed=self.seed,
        )  # fmt: skip

    # ---- a stop in the middle

    def _saved(self, growing: Growing, course: Course, optimiser: Any, best: Copy) -> Saved:
        tensors = {
            "entities": growing.tables.entities.detach(), "relations": growing.tables.relations.detach(),
            "best.entities": best.entities, "best.relations": best.relations,
        }  # fmt: skip
        for i, state in optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{i}.{name}": torch.as_tensor(value) for name, value in state.items()}
        note = {
            "index": growing.index, "epoch": course.epoch, "best_mrr": course.best_mrr,
            "best_epoch": course.best_epoch, "count": course.count, "result": course.result.model_dump(mode="json"),
        }  # fmt: skip
        return Saved({**tensors, **self._parts()}, note)

    def _take_up(self, saved: Saved, growing: Growing, course: Course, optimiser: Any) -> Copy:
        note, tensors = saved.note, {name: t.to(self.device) for name, t in saved.tensors.items()}
        if note["index"] != growing.index:
            raise BadInput(f"what was saved belongs to snapshot {note['index']}, not to {growing.index}")
        growing.tables.set(Copy(tensors["entities"], tensors["relations"]))
        growing.epoch = course.epoch = note["epoch"]
        course.best_mrr, course.best_epoch, course.count = note["best_mrr"], note["best_epoch"], note["count"]
        course.result = SnapshotResult.model_validate(note["result"])
        self._put_parts(saved.tensors)
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimiser."):
                _, i, key = name.split(".")
                state.setdefault(int(i), {})[key] = tensor
        optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
        return Copy(tensors["best.entities"], tensors["best.relations"])


def _shown(course: Course) -> dict[str, float | str]:
    if course.best_mrr < 0:
        return {}
    return {"MRR": course.result.curve[-1][1], "best": course.best_mrr}
