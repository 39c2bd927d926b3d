"""The work of `knowledge.map`."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from intarsia.errors import MissingExtra
from intarsia.knowledge.asking.asker import Asker
from intarsia.knowledge.map import GraphMap, MapConfig, Spot
from intarsia.knowledge.store import KnowledgeGraph
from intarsia.progress import tell

NEAR = 10
MOST_GROUPS = 6
Array = np.ndarray[Any, Any]


def look(graph: KnowledgeGraph, config: MapConfig, seed: int) -> GraphMap:
    """Choose entities, lay them out, and say how true the map is."""
    asker = Asker.of(graph, config.snapshot)
    facts = asker.graph.facts(asker.index, ("train",))
    degree = np.bincount(facts[:, [0, 2]].ravel(), minlength=len(asker.entities))
    chosen = _chosen(asker, degree, config.most, seed)
    vectors = asker.placed[chosen].numpy()
    places = _laid_out(vectors, config.method, seed)
    group_of, groups = _groups(asker, facts, chosen, config.by)
    spots = [
        Spot(name=asker.graph.entities[i], x=float(x), y=float(y), group=group, facts=int(degree[i]))
        for i, (x, y), group in zip(chosen.tolist(), places, group_of, strict=True)
    ]
    together = _together(vectors, places) if len(spots) > 2 * NEAR else None
    last = asker.graph.snapshots[asker.index].name
    return GraphMap(
        title=f"A map of {graph.path.name} after {last}", technique="knowledge.map", spots=spots, groups=groups,
        entities=len(asker.entities), together=together, named=config.names,
        summary=f"{len(spots):,} entities; new in {last}: {sum(spot.group == groups[-1] for spot in spots):,}."
        if config.by == "snapshot" else f"{len(spots):,} entities by the relation most of their facts have.",
    )  # fmt: skip


def _chosen(asker: Asker, degree: Array, most: int, seed: int) -> Array:
    """Entities to draw: the same share of every snapshot, those with most facts among them."""
    known = np.flatnonzero(degree)
    if len(known) <= most:
        return known
    random, out = np.random.default_rng(seed), []
    bounds = [asker.graph.before(i)[0] for i in range(asker.index + 1)] + [len(asker.entities)]
    for low, high in pairwise(bounds):
        mine = known[(known >= low) & (known < high)]
        count = min(len(mine), max(1, round(most * len(mine) / len(known))))
        first = mine[np.argsort(-degree[mine], kind="stable")][: count // 4]
        rest = np.setdiff1d(mine, first)
        out += [first, random.choice(rest, count - len(first), replace=False)]
    return np.sort(np.concatenate(out))


def _laid_out(vectors: Array, method: str, seed: int) -> Array:
    try:
        from sklearn.decomposition import PCA
        from sklearn.manifold import TSNE
    except ImportError:
        raise MissingExtra("knowledge.map", "knowledge") from None
    tell("laying out", 0, None)
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    if len(vectors) < 2:
        places = np.zeros((len(vectors), 2))
    elif method == "pca" or len(vectors) < 8:
        places = PCA(2, random_state=seed).fit_transform(vectors)
    else:
        perplexity = min(30.0, (len(vectors) - 1) / 3)
        # On the sphere the squared Euclidean distance is twice one minus the cosine.
        places = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(vectors)
    tell("laying out", 1, 1, finished=True)
    return places


def _groups(asker: Asker, facts: Array, chosen: Array, by: str) -> tuple[list[str], list[str]]:
    """(the group of each chosen entity, all groups in order; the last one is drawn last)."""
    if by == "snapshot":
        old = asker.graph.before(asker.index)[0]
        last = asker.graph.snapshots[asker.index].name
        groups = ["known before", f"new in {last}"] if asker.index else [f"new in {last}"]
        return [groups[-1] if i >= old else groups[0] for i in chosen.tolist()], groups
    count = np.zeros((len(asker.entities), len(asker.relations) // 2), np.int32)
    np.add.at(count, (facts[:, 0], facts[:, 1]), 1)
    np.add.at(count, (facts[:, 2], facts[:, 1]), 1)
    best = count[chosen].argmax(1)
    common = np.bincount(best, minlength=count.shape[1]).argsort()[::-1][: MOST_GROUPS - 1]
    names = asker.graph.relations
    told = [names[i] if i in common else "others" for i in best.tolist()]
    return told, [*(names[i] for i in common if names[i] in told), *(["others"] if "others" in told else [])]


def _together(vectors: Array, places: Array) -> float:
    """The share of each point's nearest neighbours that are its nearest on the plane too."""
    from sklearn.neighbors import NearestNeighbors

    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    # Without points of its own to ask about, a point is not its own neighbour.
    one, two = (NearestNeighbors(n_neighbors=NEAR).fit(x).kneighbors(return_distance=False) for x in (unit, places))
    return float(np.mean([len(np.intersect1d(a, b)) / NEAR for a, b in zip(one, two, strict=True)]))
