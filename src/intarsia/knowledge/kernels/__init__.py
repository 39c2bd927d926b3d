"""Loops over pairs of vectors: compiled where that is possible (a CPU with numba), in torch elsewhere.

Both take and give tensors, and agree to rounding. `sign(0)` is taken as -1 in gradients of L1 distances: where two
coordinates are equal, any slope in between is right."""

from __future__ import annotations

import os
import sys
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from intarsia.knowledge.kernels import plain

SLICES = 2


def l1(queries: Tensor, vectors: Tensor) -> Tensor:
    """L1 distances [n, m] of queries [n, width] and vectors [m, width]."""
    return _pairs("l1", queries, vectors)


def l1_pull(queries: Tensor, vectors: Tensor, weights: Tensor) -> Tensor:
    """Gradient of sum(weights * l1(queries, vectors)) for the queries: [n, width]."""
    return _pull("l1_pull", queries, vectors, weights)


def modulus(queries: Tensor, vectors: Tensor) -> Tensor:
    """Sums of moduli of complex differences [n, m]; the first half of the width is real, the second imaginary."""
    return _pairs("modulus", queries, vectors)


def modulus_pull(queries: Tensor, vectors: Tensor, weights: Tensor) -> Tensor:
    """Gradient of sum(weights * modulus(queries, vectors)) for the queries: [n, width]."""
    return _pull("modulus_pull", queries, vectors, weights)


def count_better(
    scores: Tensor, rows: Tensor, answers: Tensor, low: Tensor, high: Tensor, tails: Tensor, flags: Tensor, old: int
) -> Tensor:
    """For each answer, twice the number of better candidates plus the number of equal ones, under three filters.

    - scores: [question, candidate], higher is better; rows, answers: [answer] where each stands in them.
    - tails[low : high]: known answers of its question, with flags: 1 known at the time of the test, 2 known then and
      not in valid, 4 known by now. A known answer is not counted where its flag holds; the answer itself never is.
    - old: how many candidates existed at the time of the test.

    Gives [3, answer]: old candidates with filter 1, old ones with filter 2, all with filter 4."""
    if (fast := _fast(scores)) is None:
        return plain.count_better(scores, rows, answers, low, high, tails, flags, old)
    out = torch.empty(3, len(answers), dtype=torch.int64)
    fast.count_better(*map(_array, (scores, rows, answers, low, high, tails, flags)), old, out.numpy())
    return out


def margin_distances(entities: Tensor, relations: Tensor, facts: Tensor, others: Tensor, heads: Tensor) -> Tensor:
    """L1 distances ||h + r - t|| of facts and of their corruptions: [fact, 1 + other].

    - facts: [fact, 3] rows of head, relation, tail; others: [fact, other] entities that stand in for the head where
      `heads` (bool, same shape) says so, else for the tail."""
    if (fast := _fast(entities)) is None:
        return plain.margin_distances(entities, relations, facts, others, heads)
    out = entities.new_empty(len(facts), 1 + others.shape[1])
    fast.margin_distances(*map(_array, (entities, relations, facts, others, heads)), out.numpy())
    return out


def margin_pull(
    entities: Tensor,
    relations: Tensor,
    facts: Tensor,
    others: Tensor,
    heads: Tensor,
    weights: Tensor,
    to_entities: Tensor,
    to_relations: Tensor,
) -> None:
    """Add the gradient of sum(weights * margin_distances(...)) to two tables shaped as entities and relations."""
    if (fast := _fast(entities)) is None:
        plain.margin_pull(entities, relations, facts, others, heads, weights, to_entities, to_relations)
        return
    given = map(_array, (entities, relations, facts, others, heads, weights))
    fast.margin_pull(*given, SLICES, to_entities.numpy(), to_relations.numpy())


def _pairs(name: str, queries: Tensor, vectors: Tensor) -> Tensor:
    if (fast := _fast(queries)) is None:
        return getattr(plain, name)(queries, vectors)
    out = queries.new_empty(len(queries), len(vectors))
    getattr(fast, name)(_array(queries), _array(vectors), out.numpy())
    return out


def _pull(name: str, queries: Tensor, vectors: Tensor, weights: Tensor) -> Tensor:
    if (fast := _fast(queries)) is None:
        return getattr(plain, name)(queries, vectors, weights)
    out = torch.zeros_like(queries)
    getattr(fast, name)(_array(queries), _array(vectors), _array(weights), out.numpy())
    return out


@cache
def _compiled() -> ModuleType | None:
    # An idle thread of a larger pool spins at every call: on a busy machine that takes longer than the work.
    if "numba" not in sys.modules:
        os.environ.setdefault("NUMBA_NUM_THREADS", str(torch.get_num_threads()))
    try:
        from intarsia.knowledge.kernels import compiled
    except ImportError:
        return None
    return compiled


def _fast(tensor: Tensor) -> ModuleType | None:
    if tensor.device.type != "cpu" or tensor.dtype not in (torch.float32, torch.float64):
        return None
    module = _compiled()
    if module is not None:
        module.numba.set_num_threads(min(torch.get_num_threads(), module.numba.config.NUMBA_NUM_THREADS))
    return module


def _array(tensor: Tensor):
    return tensor.detach().contiguous().numpy()
