"""Ranks of held-out facts, for every method the same: three evaluators at once, ties as the realistic rank."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from intarsia.knowledge import kernels
from intarsia.knowledge.graph.answers import Answers, runs
from intarsia.knowledge.graph.growing import Array, directed
from intarsia.knowledge.scorers import Scorer


class Ranker(Protocol):
    """Whoever can compare all entities with a question."""

    def scores(self, entities: Array, relations: Array) -> Iterator[tuple[Array, Tensor]]:
        """Questions in blocks: (their places in the arrays given, scores [question, entity], higher is better)."""
        ...


@dataclass(frozen=True)
class TableRanker:
    """A scorer with its tables. `block` questions are scored at a time; smaller where there are many entities."""

    scorer: Scorer
    entities: Tensor
    relations: Tensor
    block: int = 1024

    def scores(self, entities: Array, relations: Array) -> Iterator[tuple[Array, Tensor]]:
        with torch.no_grad():
            vectors = self.scorer.place(self.entities).contiguous()
            step = max(64, min(self.block, (1 << 22) // max(1, len(vectors))))
            for start in range(0, len(entities), step):
                part = np.arange(start, min(len(entities), start + step))
                e = torch.from_numpy(entities[part]).to(vectors.device)
                r = torch.from_numpy(relations[part]).to(vectors.device)
                yield part, self.scorer.similarity.pairs(self.scorer.ask(vectors[e], self.relations[r]), vectors)


def ranks(
    ranker: Ranker,
    answers: Answers,
    facts: Array,
    *,
    at: int,
    by: int,
    old: int,
    sample: int | None = None,
    seed: int = 0,
) -> Array:
    """Ranks of the tails of facts in both directions: [evaluator, 2 x fact], in the order of `directed(facts)` (of a
    sample drawn from it, where `sample` says so).

    - at: the snapshot whose test it is; old: how many entities there were at that time; by: the snapshot learned last.

    The rank is 1 + number of better candidates + half the number of equal ones, known answers left out (Berrendorf et
    al. 2020; PyKEEN's "realistic")."""
    asked = directed(facts)
    if sample is not None and sample < len(asked):
        asked = asked[np.sort(np.random.default_rng(seed).choice(len(asked), sample, replace=False))]
    out = np.empty((3, len(asked)))
    if not len(asked):
        return out
    keys = answers.key(asked[:, 0], asked[:, 1])
    distinct, owner = np.unique(keys, return_inverse=True)
    order = np.argsort(owner, kind="stable")  # the facts, question after question
    ends = np.searchsorted(owner[order], np.arange(len(distinct) + 1))
    place = np.empty(len(distinct), np.int64)
    low, high = answers.range(asked[:, 0], asked[:, 1])
    flags = _flags(answers, at, by)
    told: dict[torch.device, tuple[Tensor, Tensor]] = {}
    for part, scores in ranker.scores(distinct // answers.stride, distinct % answers.stride):
        mine = order[runs(ends, part)]
        place[part] = np.arange(len(part))
        if scores.device not in told:
            told[scores.device] = (_on(answers.tails, scores), _on(flags, scores))
        counted = kernels.count_better(
            scores,
            _on(place[owner[mine]], scores),
            _on(asked[mine, 2], scores),
            _on(low[mine], scores),
            _on(high[mine], scores),
            *told[scores.device],
            old,
        )
        by_old, by_official, by_all = 1 + counted.cpu().numpy() / 2
        out[:, mine] = by_all, by_old, by_official
    return out


def ranked_scores(ranker: Ranker, answers: Answers, facts: Array, *, by: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Blocks of (scores [fact, entity], answers [fact]) of facts in both directions, in no certain order; entities that
    are another known answer by snapshot `by` have the score -inf."""
    asked = directed(facts)
    low, high = answers.range(asked[:, 0], asked[:, 1])
    for part, scores in ranker.scores(asked[:, 0], asked[:, 1]):
        known = runs(np.stack([low, high], 1).ravel(), 2 * part)
        owner = np.repeat(np.arange(len(part)), high[part] - low[part])
        tails = answers.tails[known]
        out = (answers.since[known] <= by) & (tails != asked[part, 2][owner]) & (tails < scores.shape[1])
        scores[torch.from_numpy(owner[out]), torch.from_numpy(tails[out]).long()] = -torch.inf
        yield scores, torch.from_numpy(asked[part, 2]).to(scores.device)


def _flags(answers: Answers, at: int, by: int) -> Any:
    then = answers.since <= at
    return (then * 1 + (then & (answers.held != 1)) * 2 + (answers.since <= by) * 4).astype(np.int8)


def _on(array: Array, like: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(like.device)
