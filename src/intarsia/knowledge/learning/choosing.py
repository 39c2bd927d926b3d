"""The scorer that suits a graph, tried on the held-out facts of its first snapshot."""

from __future__ import annotations

from intarsia.knowledge.graph.growing import GrowingGraph
from intarsia.knowledge.learning.learner import Learner
from intarsia.knowledge.learning.parts import Method
from intarsia.knowledge.learning.settings import Settings
from intarsia.progress import tell

TRIED = ("complex", "transe")


def choose(
    graph: GrowingGraph, method: Method, settings: Settings, scorer: str | None, seed: int, device: str
) -> tuple[Settings, dict[str, float]]:
    """Settings with their scorer, and the MRR that each scorer that was tried had on held-out facts.

    `auto` learns the first snapshot once with each of a few; another name is taken as it is."""
    if scorer != "auto":
        return settings.with_(scorer=scorer), {}
    first = GrowingGraph(graph.entities, graph.relations, graph.snapshots[:1], {})
    if not len(first.snapshots[0].valid):
        return settings, {}
    tried: dict[str, float] = {}
    for i, name in enumerate(TRIED):
        tell("trying scorers", i, len(TRIED), step=name)
        learner = Learner(first, method, settings.with_(scorer=name), seed=seed, device=device, sample=1)
        tried[name] = max(mrr for _, mrr in learner.take().curve)
    tell("trying scorers", len(TRIED), len(TRIED), finished=True)
    return settings.with_(scorer=max(tried, key=lambda name: tried[name])), tried
