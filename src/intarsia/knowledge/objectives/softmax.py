"""A softmax over all entities: each question's known answers against everything else at once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from intarsia.knowledge.graph.answers import Questions
from intarsia.knowledge.learning.parts import Growing
from intarsia.knowledge.objectives.corrupting import batch_size


class Softmax:
    """Cross-entropy of each fact's tail among the entities, with N3 regularisation (Lacroix et al. 2018).

    Facts are grouped by question, so that a question is scored once for all its answers: the gradient is that of the
    sum over the facts. Where there are more entities than `candidates`, a batch is scored against its own answers and a
    uniform sample of the others, whose share of the softmax is scaled up."""

    def __init__(self) -> None:
        self.questions: tuple[int, Questions] | None = None

    def batches(self, growing: Growing) -> Iterator[Questions]:
        if self.questions is None or self.questions[0] != growing.index:
            self.questions = growing.index, Questions.of(growing.facts.cpu().numpy(), growing.relations)
        questions = self.questions[1]
        order = growing.shuffled(len(questions)).numpy()
        size = batch_size(growing.settings, len(questions))
        for start in range(0, len(order), size):
            yield questions.take(order[start : start + size])

    def accumulate(self, growing: Growing, batch: Questions) -> float:
        asked = Asked.of(growing, batch.entities, batch.relations, batch.tails)
        counts = np.diff(batch.starts)
        rows = torch.from_numpy(np.repeat(np.arange(len(batch)), counts)).to(growing.device)
        times = torch.from_numpy(counts).to(asked.scores)
        facts = len(batch.tails)
        scores, columns = asked.scores, asked.columns(batch.tails)
        given = scores[rows, columns].sum()
        top = scores.amax(1, keepdim=True)
        weights = scores.sub_(top).exp_()
        total = weights.sum(1)
        loss = float((times * (total.log() + top[:, 0])).sum() - given) / facts
        weights.mul_((times / total / facts)[:, None])
        places = rows * weights.shape[1] + columns
        weights.view(-1).index_add_(0, places, weights.new_full((len(rows),), -1 / facts))
        asked.learn(growing, weights)
        n3 = growing.scorer.n3 if growing.settings.n3 is None else growing.settings.n3
        return loss + (_n3(growing, asked, batch, times, n3 / facts) if n3 else 0.0)


class Asked:
    """Questions with their scores against candidates, and the way back for a gradient over these.

    - scores: [question, candidate], times the scorer's sharpness and with the sample's correction.
    - correction: [candidate] the logarithm of how many entities each candidate stands for; None where all are there."""

    def __init__(self, growing: Growing, entities: Tensor, relations: Tensor, candidates: Tensor | None, sampled: int):
        tables, scorer = growing.tables, growing.scorer
        self.entities, self.relations, self.candidates = entities, relations, candidates
        self.heads = tables.entities.detach()[entities].requires_grad_()
        self.rows = tables.relations.detach()[relations].requires_grad_()
        self.queries = scorer.ask(scorer.place(self.heads), self.rows)
        whole = tables.entities.detach()
        # Where placing an entity is more than the identity, the way back goes through it.
        self.vectors = (whole if candidates is None else whole[candidates]).requires_grad_()
        self.placed = scorer.place(self.vectors)
        self.scores = scorer.similarity.pairs(self.queries.detach(), self.placed.detach())
        if scorer.sharpness != 1:
            self.scores *= scorer.sharpness
        self.correction = None
        if candidates is not None and sampled:
            self.correction = self.scores.new_zeros(len(candidates))
            self.correction[-sampled:] = float(np.log((growing.entities - len(candidates) + sampled) / sampled))
            self.scores += self.correction

    @staticmethod
    def of(growing: Growing, entities: np.ndarray, relations: np.ndarray, needed: np.ndarray) -> Asked:
        """Questions against all entities, or against the `needed` ones and a sample of the others."""
        on = growing.device
        e, r = torch.from_numpy(entities).to(on), torch.from_numpy(relations).to(on)
        if growing.entities <= growing.settings.candidates:
            return Asked(growing, e, r, None, 0)
        forced = np.unique(needed)
        most = max(1, growing.settings.candidates - len(forced))
        drawn = torch.randint(growing.entities, (most,), generator=growing.random).unique().numpy()
        drawn = np.setdiff1d(drawn, forced, assume_unique=True)
        asked = Asked(growing, e, r, torch.from_numpy(np.concatenate([forced, drawn])).to(on), len(drawn))
        asked.forced = forced
        return asked

    forced: np.ndarray | None = None

    def columns(self, tails: np.ndarray) -> Tensor:
        """Where entities that were needed stand among the candidates."""
        places = tails if self.forced is None else np.searchsorted(self.forced, tails)
        return torch.from_numpy(places).to(self.scores.device)

    def learn(self, growing: Growing, weights: Tensor) -> None:
        """Add the gradient that d loss / d scores = weights gives."""
        tables, scorer = growing.tables, growing.scorer
        if scorer.sharpness != 1:
            weights = weights * scorer.sharpness
        to_queries, to_placed = scorer.similarity.pull(self.queries.detach(), self.placed.detach(), weights)
        self.queries.backward(to_queries)
        if self.placed is self.vectors:
            to_vectors = to_placed
        else:
            self.placed.backward(to_placed)
            to_vectors = self.vectors.grad
        if self.candidates is None:
            tables.to_entities.add_(to_vectors)
        else:
            tables.to_entities.index_add_(0, self.candidates, to_vectors)
        tables.to_entities.index_add_(0, self.entities, self.heads.grad)
        tables.to_relations.index_add_(0, self.relations, self.rows.grad)


def _n3(growing: Growing, asked: Asked, batch: Questions, times: Tensor, weight: float) -> float:
    """Cubed moduli of head, relation and tail of every fact."""
    tables, scorer = growing.tables, growing.scorer
    tails = torch.from_numpy(batch.tails).to(growing.device)
    total = 0.0
    for table, to, which, count in (
        (tables.entities, tables.to_entities, asked.entities, times),
        (tables.relations, tables.to_relations, asked.relations, times),
        (tables.entities, tables.to_entities, tails, None),
    ):
        rows = table.detach()[which]
        size = scorer.size(rows)
        pull = 3 * weight * size * rows
        cubes = size.pow(3).sum(1)
        if count is not None:
            pull, cubes = pull * count[:, None], cubes * count
        to.index_add_(0, which, pull)
        total += float(cubes.sum()) * weight / (2 if scorer.even else 1)
    return total
