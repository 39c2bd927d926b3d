"""How central the entities of new facts are, and how far from what is known."""

from __future__ import annotations

from typing import Any

import numpy as np

from intarsia.errors import MissingExtra

Array = np.ndarray[Any, Any]


def centralities(facts: Array, entities: int) -> tuple[Array, Array]:
    """Degree divided by (n - 1), and betweenness, of each entity in a graph of facts [fact, 3] (n: entities in it)."""
    import_rustworkx()
    import rustworkx

    graph, nodes = _graph(facts)
    n = max(2, len(nodes))
    degree, between = np.zeros(entities), np.zeros(entities)
    degree[nodes] = np.array([graph.degree(i) for i in range(len(nodes))]) / (n - 1)
    found = rustworkx.graph_betweenness_centrality(graph)
    between[nodes] = [found[i] for i in range(len(nodes))]
    return degree, between


def distances(facts: Array, entities: int, known: int) -> Array:
    """Steps from each entity to the nearest one below `known`, over the facts; `entities` where there is no way."""
    far = np.full(entities, entities)
    far[:known] = 0
    near, step = np.arange(known), 0
    heads, tails = np.concatenate([facts[:, 0], facts[:, 2]]), np.concatenate([facts[:, 2], facts[:, 0]])
    while len(near):
        step += 1
        reached = np.zeros(entities, bool)
        reached[tails[far[heads] == step - 1]] = True
        near = np.flatnonzero(reached & (far > step))
        far[near] = step
    return far


def import_rustworkx() -> None:
    """Raise `MissingExtra` where it is not installed."""
    try:
        import rustworkx  # noqa: F401
    except ImportError:
        raise MissingExtra("centralities", "knowledge") from None


def _graph(facts: Array) -> tuple[Any, Array]:
    import rustworkx

    nodes, places = np.unique(facts[:, [0, 2]], return_inverse=True)
    graph = rustworkx.PyGraph(multigraph=False)
    graph.add_nodes_from(range(len(nodes)))
    graph.extend_from_edge_list([tuple(pair) for pair in places.reshape(-1, 2).tolist()])
    return graph, nodes
