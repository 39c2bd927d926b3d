"""Losses that hold each fact against corrupted ones, drawn for it alone."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from intarsia.knowledge import kernels
from intarsia.knowledge.learning.parts import Growing
from intarsia.knowledge.learning.settings import Settings


class Corrupting:
    """Facts in shuffled batches; each gets `negatives` corruptions: a fair coin chooses head or tail, which becomes any
    entity there is, without a look at known facts."""

    def batches(self, growing: Growing) -> Iterator[Tensor]:
        size = batch_size(growing.settings, len(growing.facts))
        order = growing.shuffled(len(growing.facts))
        for start in range(0, len(order), size):
            yield growing.facts[order[start : start + size]]

    def accumulate(self, growing: Growing, batch: Tensor) -> float:
        others, heads = corrupted(growing, len(batch))
        return self.learn(growing, batch, others, heads)

    def learn(self, growing: Growing, facts: Tensor, others: Tensor, heads: Tensor) -> float:
        """Add the gradient of given facts and corruptions, and give the loss.

        - facts: [fact, 3]; others: [fact, negative] entities; heads: [fact, negative] whether they replace the head."""
        x, r = growing.tables.entities.detach(), growing.tables.relations.detach()
        parts = [facts[:, 0], facts[:, 2], others.flatten()]
        head, tail, other = (x[part].requires_grad_() for part in parts)
        relation = r[facts[:, 1]].requires_grad_()
        scores = scores_of(growing, head, relation, tail, other.view(*others.shape, -1), heads)
        loss = self.loss(growing.settings, scores)
        loss.backward()
        for part, rows in zip(parts, (head, tail, other), strict=True):
            growing.tables.to_entities.index_add_(0, part, rows.grad)
        growing.tables.to_relations.index_add_(0, facts[:, 1], relation.grad)
        return float(loss.detach())

    def loss(self, settings: Settings, scores: Tensor) -> Tensor:
        """From the scores of each fact and its corruptions, [fact, 1 + negative]."""
        raise NotImplementedError


def scores_of(growing: Growing, head: Tensor, relation: Tensor, tail: Tensor, other: Tensor, heads: Tensor) -> Tensor:
    """Scores [fact, 1 + negative] of facts and their corruptions, of rows [fact, width] and [fact, negative, width]."""
    scorer = growing.scorer
    h, t, o = scorer.place(head), scorer.place(tail), scorer.place(other)
    given = scorer.ask(h, relation)
    forth = scorer.similarity.rows(given[:, None], o)
    asked = scorer.ask(o.flatten(0, 1), relation.repeat_interleave(o.shape[1], 0)).view_as(o)
    back = scorer.similarity.rows(asked, t[:, None])
    return torch.cat([scorer.similarity.rows(given, t)[:, None], torch.where(heads, back, forth)], 1)


class Margin(Corrupting):
    """max(0, margin + f(fact) - mean over its corruptions of f), f = -score, divided by (1 + negatives).

    The mean stands inside the hinge (Cui et al. 2023, official code, which divides by the negatives as well)."""

    def loss(self, settings: Settings, scores: Tensor) -> Tensor:
        apart = scores[:, 1:].mean(1) - scores[:, 0]
        return (settings.margin + apart).clamp_min(0).mean() / scores.shape[1]


class L1Margin(Margin):
    """The same for TransE, without a tensor of every corruption's vector."""

    def learn(self, growing: Growing, facts: Tensor, others: Tensor, heads: Tensor) -> float:
        tables, settings = growing.tables, growing.settings
        entities, relations = tables.entities.detach(), tables.relations.detach()
        units = [_unit(table) for table in (entities, relations)]
        distances = kernels.margin_distances(units[0][0], units[1][0], facts, others, heads)
        negatives = others.shape[1]
        hinge = settings.margin + distances[:, 0] - distances[:, 1:].mean(1)
        share = 1 / (len(facts) * (1 + negatives))
        weights = torch.full_like(distances, -share / negatives)
        weights[:, 0] = share
        weights[hinge <= 0] = 0
        pulls = [torch.zeros_like(entities), torch.zeros_like(relations)]
        kernels.margin_pull(units[0][0], units[1][0], facts, others, heads, weights, *pulls)
        for (unit, length), pull, to in zip(units, pulls, (tables.to_entities, tables.to_relations), strict=True):
            to += (pull - (pull * unit).sum(1, keepdim=True) * unit) / length
        return float(hinge.clamp_min(0).sum() * share)


class SelfAdversarial(Corrupting):
    """-log sigmoid(gamma + score) of the fact, and of its corruptions -log sigmoid(-gamma - score), weighted with the
    softmax of their scores; half of each (Sun et al. 2019, equation 6; gamma is `margin`, the temperature 1)."""

    def loss(self, settings: Settings, scores: Tensor) -> Tensor:
        weights = scores[:, 1:].detach().softmax(1)
        wrong = -(weights * logsigmoid(-settings.margin - scores[:, 1:])).sum(1)
        return (wrong - logsigmoid(settings.margin + scores[:, 0])).mean() / 2


def margin_objective(settings: Settings) -> Margin:
    """The margin loss, in its fast form where the scorer allows it."""
    return L1Margin() if settings.scorer == "transe" else Margin()


def corrupted(growing: Growing, count: int) -> tuple[Tensor, Tensor]:
    """Entities that stand in for a head or a tail, and which of the two: two tensors [count, negatives]."""
    size = (count, growing.settings.negatives)
    others = torch.randint(growing.entities, size, generator=growing.random)
    heads = torch.randint(2, size, generator=growing.random, dtype=torch.bool)
    return others.to(growing.device), heads.to(growing.device)


def batch_size(settings: Settings, count: int) -> int:
    """The one that is set, or one that gives about forty steps an epoch, between 32 and 512."""
    return settings.batch_size or min(512, max(32, count // 40))


def _unit(table: Tensor) -> tuple[Tensor, Tensor]:
    length = table.norm(dim=1, keepdim=True).clamp_min(1e-12)
    return table / length, length
