"""The scorer that suits a graph, tried on the held-out facts of its first snapshot."""

from __future__ import annotations

from intarsia.knowledge.graph.growing import GrowingGraph
from intarsia.knowledge.learning.learner import Learner
from intarsia.knowledge.learning.parts import Method
from intarsia.knowledge.learning.settings import Settings
from intarsia.progress import tell

AUTO = "auto"
TRIED = ("complex", "transe")  # the first is taken where nothing is tried
MOST = 20_000  # learned facts of a first snapshot up to which scorers are tried


def choose(
    graph: GrowingGraph, method: Method, settings: Settings, seed: int, device: str
) -> tuple[Settings, dict[str, float]]:
    """Settings whose scorer is one, and the MRR that each scorer that was tried had on held-out facts.

    Of `auto`, the first snapshot is learned once with each of a few. On sparse graphs, which are small, a distance may
    do better than a product; on a large first snapshot the trial would cost as much as the learning, and ComplEx is
    taken, which was better on every such graph it was measured on."""
    if settings.scorer != AUTO:
        return settings, {}
    first = GrowingGraph(graph.entities, graph.relations, graph.snapshots[:1], {})
    if not 0 < len(first.snapshots[0].train) <= MOST or not len(first.snapshots[0].valid):
        return settings.with_(scorer=TRIED[0]), {}
    tried: dict[str, float] = {}
    for i, name in enumerate(TRIED):
        tell("trying scorers", i, len(TRIED), step=name)
        learner = Learner(first, method, settings.with_(scorer=name), seed=seed, device=device, sample=1)
        tried[name] = max(mrr for _, mrr in learner.take().curve)
    tell("trying scorers", len(TRIED), len(TRIED), finished=True)
    return settings.with_(scorer=max(tried, key=lambda name: tried[name])), tried
