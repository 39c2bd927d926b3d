"""Facts around some entities, those first that a random walk from there passes most.

Source: personalised PageRank: Haveliwala 2002."""

from __future__ import annotations

from typing import Any

import numpy as np

RESTART, ROUNDS = 0.2, 30
Array = np.ndarray[Any, Any]


def ranked(facts: Array, entities: int, start: list[int], hops: int, most: int) -> tuple[Array, Array]:
    """(places, weights) of the facts with most weight within `hops` steps of the start."""
    heads, tails = np.concatenate([facts[:, 0], facts[:, 2]]), np.concatenate([facts[:, 2], facts[:, 0]])
    reached = np.zeros(entities, bool)
    reached[start] = True
    touched = np.zeros(len(heads), bool)
    for _ in range(hops):
        touched |= reached[heads]
        reached[tails[reached[heads]]] = True
    touched[: len(facts)] |= touched[len(facts) :]
    use = np.flatnonzero(touched[: len(facts)])
    weight = _walk(facts[use], entities, start)
    degree = np.maximum(np.bincount(np.concatenate([facts[use, 0], facts[use, 2]]), minlength=entities), 1)
    # What flows over a fact in both directions: of a hub with a thousand facts, little over each.
    flow = weight[facts[use, 0]] / degree[facts[use, 0]] + weight[facts[use, 2]] / degree[facts[use, 2]]
    order = np.argsort(-flow, kind="stable")[:most]
    return use[order], flow[order]


def _walk(facts: Array, entities: int, start: list[int]) -> Array:
    """Personalised PageRank over the facts in both directions: [entity]."""
    heads, tails = np.concatenate([facts[:, 0], facts[:, 2]]), np.concatenate([facts[:, 2], facts[:, 0]])
    degree = np.maximum(np.bincount(heads, minlength=entities), 1)
    home = np.bincount(start, minlength=entities) / len(start)
    weight = home.copy()
    for _ in range(ROUNDS):
        weight = RESTART * home + (1 - RESTART) * np.bincount(tails, weight[heads] / degree[heads], minlength=entities)
    return weight
