"""What each learned fact did for a prediction: one vector learned again, with all its facts and with all but one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from intarsia.knowledge.asking.asker import Asker
from intarsia.knowledge.explain import Support
from intarsia.progress import tell

STEPS = 40
CANDIDATES = 4096  # entities that a softmax is over while a vector is learned again


@dataclass(frozen=True)
class Facts:
    """The facts of one entity. - rows, others: [fact] (entity, row, other), both directions of a fact being one."""

    rows: Tensor
    others: Tensor


def supports(asker: Asker, head: int, row: int, tail: int, most: int) -> list[Support]:
    """The effect of each fact of the head, and of the tail, the largest first."""
    out = []
    for entity, other, asked in ((head, tail, row), (tail, head, row ^ 1)):
        facts = _facts(asker, entity, asked, other, most)
        if len(facts.rows):
            out += _effects(asker, head, row, tail, entity, facts)
    return sorted(out, key=lambda support: -support.effect)


def _facts(asker: Asker, entity: int, asked: int, other: int, most: int) -> Facts:
    """Learned facts of an entity, without the one in question; the most telling `most` of them.

    A fact tells the more, the nearer what it asks for lies to what the prediction asks for."""
    learned = asker.learned
    low, high = np.searchsorted(learned.keys, [entity * learned.stride, (entity + 1) * learned.stride])
    rows = torch.from_numpy(learned.keys[low:high] - entity * learned.stride)
    others = torch.from_numpy(learned.tails[low:high].astype(np.int64))
    keep = ~((rows == asked) & (others == other)) & (others != entity)
    rows, others = rows[keep], others[keep]
    if len(rows) > most:
        # What the facts say of the entity, seen from the other end, against what the prediction says of it.
        said = asker.scorer.ask(asker.placed[others], asker.relations[rows ^ 1])
        wanted = asker.scorer.ask(asker.placed[torch.tensor([other])], asker.relations[torch.tensor([asked ^ 1])])
        near = torch.nn.functional.cosine_similarity(said, wanted)
        best = near.argsort(descending=True)[:most].sort().values
        rows, others = rows[best], others[best]
    return Facts(rows, others)


def _effects(asker: Asker, head: int, row: int, tail: int, entity: int, facts: Facts) -> list[Support]:
    vectors = learned_again(asker, entity, facts)
    known = torch.from_numpy(asker.left_out(head, row, np.array([tail]))).long()
    logits = torch.stack([_logits(asker, head, row, entity, vector, known) for vector in vectors])
    odds = log_odds(logits, tail)
    stands = float(log_odds(_logits(asker, head, row, entity, asker.entities[entity], known)[None], tail)[0])
    names, of = asker.graph.entities, asker.graph.entities[entity]
    out = []
    for i, (r, other) in enumerate(zip(facts.rows.tolist(), facts.others.tolist(), strict=True), 1):
        pair = (names[other], names[entity]) if r % 2 else (names[entity], names[other])
        fact = f"{pair[0]} {asker.graph.relations[r // 2]} {pair[1]}"
        effect = float(odds[0] - odds[i])
        without = 1 / (1 + math.exp(min(700.0, effect - stands)))
        out.append(Support(fact=fact, of=of, effect=effect, without=without))
    return out


def log_odds(logits: Tensor, answer: int) -> Tensor:
    """Of one answer against all others together, for logits [question, entity]: [question]."""
    rest = logits.clone()
    rest[:, answer] = -torch.inf
    return logits[:, answer] - rest.logsumexp(1)


def _logits(asker: Asker, head: int, row: int, entity: int, vector: Tensor, known: Tensor) -> Tensor:
    """Of all entities that are not known for the question, with another vector for one entity: [entity]."""
    scorer, scale = asker.scorer, asker.scorer.sharpness / asker.temperature
    placed = scorer.place(vector[None])
    first = placed if entity == head else asker.placed[head : head + 1]
    query = scorer.ask(first, asker.relations[row : row + 1])
    scores = scorer.similarity.pairs(query.contiguous(), asker.placed)[0]
    scores[entity] = scorer.similarity.rows(query, placed)[0]
    scores[known] = -torch.inf
    return scores * scale


def learned_again(asker: Asker, entity: int, facts: Facts) -> Tensor:
    """The entity's vector from all facts, and from all but each one: [1 + fact, width].

    Every vector starts where the entity stands and takes the same steps on the softmax of its facts, as heads and as
    tails; the other vectors stay (Rossi et al. 2022, post-training of a mimic)."""
    scorer, width = asker.scorer, asker.entities.shape[1]
    count = len(facts.rows)
    generator = torch.Generator().manual_seed(0)
    vectors = asker.entities[entity].repeat(count + 1, 1)
    keep = torch.ones(count + 1, count)
    keep[torch.arange(1, count + 1), torch.arange(count)] = 0
    total = len(asker.placed)
    drawn = torch.randperm(total, generator=generator)[:CANDIDATES]
    candidates = torch.cat([facts.others, drawn[~torch.isin(drawn, facts.others)]])
    candidates = candidates[candidates != entity].unique()
    places = torch.searchsorted(candidates, facts.others)
    against = asker.placed[candidates]
    # As a tail: its own logit among those of the others, which stay.
    asked = scorer.ask(asker.placed[facts.others], asker.relations[facts.rows ^ 1])
    beside = (scorer.similarity.pairs(asked.contiguous(), against.contiguous()) * scorer.sharpness).logsumexp(1)
    relations = asker.relations[facts.rows]
    moments: dict[str, Tensor] = {"vectors": vectors}
    from intarsia.knowledge.learning.adam import adam

    rate = scorer.learning_rate
    for step in range(STEPS):
        tell("learning one vector again", step, STEPS)
        rows = moments["vectors"].detach().requires_grad_()
        placed = scorer.place(rows)
        queries = scorer.ask(placed.repeat_interleave(count, 0), relations.repeat(count + 1, 1))
        scores = _pairs(asker, queries, against).view(count + 1, count, -1) * scorer.sharpness
        as_head = scores.logsumexp(2) - scores.gather(2, places.expand(count + 1, count)[..., None])[..., 0]
        own = scorer.similarity.rows(asked[None], placed[:, None]) * scorer.sharpness
        as_tail = torch.nn.functional.softplus(beside[None] - own)
        loss = (keep * (as_head + as_tail)).sum() / count
        (gradient,) = torch.autograd.grad(loss, rows)
        adam(moments, {"vectors": gradient}, rate)
    tell("learning one vector again", STEPS, STEPS, finished=True)
    assert moments["vectors"].shape == (count + 1, width)
    return moments["vectors"]


class _Pairs(torch.autograd.Function):
    """Similarities of all pairs, differentiable for the queries."""

    @staticmethod
    def forward(ctx, similarity, queries: Tensor, vectors: Tensor) -> Tensor:  # type: ignore[override]
        ctx.similarity = similarity
        ctx.save_for_backward(queries, vectors)
        return similarity.pairs(queries, vectors)

    @staticmethod
    def backward(ctx, weights: Tensor):  # type: ignore[override]
        queries, vectors = ctx.saved_tensors
        return None, ctx.similarity.pull(queries, vectors, weights.contiguous())[0], None


def _pairs(asker: Asker, queries: Tensor, vectors: Tensor) -> Tensor:
    return _Pairs.apply(asker.scorer.similarity, queries.contiguous(), vectors.contiguous())
