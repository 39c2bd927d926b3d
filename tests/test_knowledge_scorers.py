"""Scorers against the formulas of their papers, written with Python's numbers."""

import cmath
import math

import pytest
import torch
from torch.nn.functional import cosine_similarity

from intarsia.errors import BadInput
from intarsia.knowledge.evaluation.ranking import TableRanker
from intarsia.knowledge.learning.learner import Learner
from intarsia.knowledge.learning.settings import Settings
from intarsia.knowledge.methods import method_called
from intarsia.knowledge.scorers import SCORERS, scorer_called
from tests.knowledge_help import small_graph

every = pytest.mark.parametrize("name", list(SCORERS))


def rows(count, width=6, seed=0):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def as_complex(row):
    half = len(row) // 2
    return [complex(a, b) for a, b in zip(row[:half], row[half:], strict=True)]


def unit(row):
    length = math.sqrt(sum(v * v for v in row))
    return [v / length for v in row]


def transe(h, r, t):
    return -sum(abs(a + b - c) for a, b, c in zip(unit(h), unit(r), unit(t), strict=True))


def distmult(h, r, t):
    return sum(a * b * c for a, b, c in zip(h, r, t, strict=True))


def complex_(h, r, t):
    return sum(a * b * c.conjugate() for a, b, c in zip(*map(as_complex, (h, r, t)), strict=True)).real


def rotate(h, r, t):
    turned = [z * cmath.exp(1j * angle) for z, angle in zip(as_complex(h), r, strict=False)]
    return -sum(abs(a - b) for a, b in zip(turned, as_complex(t), strict=True))


PAPER = {"transe": transe, "distmult": distmult, "complex": complex_, "rotate": rotate}


def scores(scorer, heads, relations, tails):
    """Of each head and relation with every tail."""
    return scorer.similarity.pairs(scorer.ask(scorer.place(heads), relations), scorer.place(tails))


@every
def test_scores_are_those_of_the_paper(name):
    h, r, t = rows(5), rows(5, seed=1), rows(4, seed=2)
    wanted = [[PAPER[name](a, b, c) for c in t.tolist()] for a, b in zip(h.tolist(), r.tolist(), strict=True)]
    torch.testing.assert_close(scores(SCORERS[name], h, r, t), torch.tensor(wanted, dtype=torch.float64))


@every
def test_the_ranker_gives_the_same_scores_block_after_block(name):
    x, q = rows(5), rows(4, seed=1)
    heads, relations = torch.arange(70) % 5, torch.arange(70) % 4
    blocks = list(TableRanker(SCORERS[name], x, q, block=64).scores(heads.numpy(), relations.numpy()))
    assert [part.tolist() for part, _ in blocks] == [list(range(64)), list(range(64, 70))]
    asked = zip(x[heads].tolist(), q[relations].tolist(), strict=True)
    wanted = [[PAPER[name](h, r, t) for t in x.tolist()] for h, r in asked]
    torch.testing.assert_close(torch.cat([scores for _, scores in blocks]), torch.tensor(wanted, dtype=torch.float64))


def moduli(queries, vectors):
    real, imaginary = (queries - vectors).chunk(2, -1)
    return -torch.complex(real, imaginary).abs().sum(-1)


NEAR = {
    "transe": lambda queries, vectors: -(queries - vectors).abs().sum(-1),
    "distmult": lambda queries, vectors: torch.einsum("...k,...k->...", queries, vectors),
    "complex": lambda queries, vectors: torch.einsum("...k,...k->...", queries, vectors),
    "rotate": moduli,
}


@every
def test_similarities_of_pairs_and_of_rows_are_the_same(name):
    similarity, queries, vectors = SCORERS[name].similarity, rows(4), rows(3, seed=1)
    wanted = NEAR[name](queries[:, None], vectors)
    torch.testing.assert_close(similarity.rows(queries[:, None], vectors), wanted)
    torch.testing.assert_close(similarity.pairs(queries, vectors), wanted)


@every
def test_the_pull_of_a_similarity_is_its_gradient(name):
    queries, vectors, weights = rows(4).requires_grad_(), rows(3, seed=1).requires_grad_(), rows(4, width=3, seed=2)
    (NEAR[name](queries[:, None], vectors) * weights).sum().backward()
    found = SCORERS[name].similarity.pull(queries.detach(), vectors.detach(), weights)
    torch.testing.assert_close(found, (queries.grad, vectors.grad))


# ---- estimates


@pytest.mark.parametrize("name", ["distmult", "complex"])
def test_the_estimate_of_a_product_is_the_way_in_which_its_score_rises_most(name):
    h, r, t = rows(5), rows(5, seed=1), rows(5, seed=2)
    wanted = [PAPER[name](*row) for row in zip(h.tolist(), r.tolist(), t.tolist(), strict=True)]
    wanted = torch.tensor(wanted, dtype=torch.float64)
    torch.testing.assert_close((SCORERS[name].reach(h, r) * t).sum(1), wanted)
    torch.testing.assert_close((SCORERS[name].relate(h, t) * r).sum(1), wanted)


def test_the_relation_that_a_fact_estimates_leads_from_its_head_to_its_tail():
    h, t, angles = rows(5), rows(5, seed=1), rows(5, seed=2)
    torch.testing.assert_close(scorer_called("transe").reach(h, scorer_called("transe").relate(h, t)), t)
    scorer = scorer_called("rotate")
    turned = scorer.reach(h, angles)
    found = scorer.settle_relations(scorer.relate(h, turned), angles)
    torch.testing.assert_close(found[:, :3], torch.remainder(angles[:, :3] + math.pi, 2 * math.pi) - math.pi)
    assert not found[:, 3:].any()


@pytest.mark.parametrize("name", ["transe", "rotate"])
def test_a_distance_is_nothing_at_the_estimate_of_the_tail(name):
    h, r = rows(5), rows(5, seed=1)
    if name == "transe":
        h, r = h / h.norm(dim=1)[:, None], r / r.norm(dim=1)[:, None]
    reached = SCORERS[name].reach(h, r)
    apart = NEAR[name](SCORERS[name].ask(h, r), reached)
    torch.testing.assert_close(apart, torch.zeros(5, dtype=torch.float64))


def opposite(name, relations):
    """The row under which the inverse relation says the same."""
    half = relations.shape[1] // 2
    match name:
        case "distmult":
            return relations
        case "complex":
            return torch.cat([relations[:, :half], -relations[:, half:]], 1)
    return -relations


@every
def test_a_relation_has_an_inverse_row_that_says_the_same_of_head_and_tail(name):
    h, r, t = rows(5), rows(5, seed=1), rows(5, seed=2)
    forth = scores(SCORERS[name], h, r, t).diagonal()
    torch.testing.assert_close(scores(SCORERS[name], t, opposite(name, r), h).diagonal(), forth)


@every
def test_the_size_of_a_row_is_that_of_its_numbers(name):
    row = rows(2)
    wanted = [[abs(v) for v in as_complex(r)] * 2 if SCORERS[name].even else [abs(v) for v in r] for r in row.tolist()]
    torch.testing.assert_close(SCORERS[name].size(row), torch.tensor(wanted, dtype=torch.float64))


@pytest.mark.parametrize("name", ["distmult", "complex"])
def test_estimates_of_products_get_the_usual_length(name):
    like = rows(7)
    mean = sum(math.sqrt(sum(v * v for v in row)) for row in like.tolist()) / 7
    for settle in (SCORERS[name].settle_entities, SCORERS[name].settle_relations):
        found = settle(rows(3, seed=1), like)
        torch.testing.assert_close(found.norm(dim=1), torch.full((3,), mean, dtype=torch.float64))
        torch.testing.assert_close(cosine_similarity(found, rows(3, seed=1)), torch.ones(3, dtype=torch.float64))
        assert torch.equal(settle(rows(3), like[:0]), rows(3))


@every
def test_random_starts_spread_as_the_source_says(name):
    scorer, random = SCORERS[name], torch.Generator().manual_seed(0)
    x, q = scorer.start_entities(200, 100, 300, random), scorer.start_relations(200, 100, 300, random)
    spread = {"transe": (2 / 400) ** 0.5, "distmult": 0.05, "complex": 0.05, "rotate": 0.22 / 3**0.5}[name]
    assert float(x.std()) == pytest.approx(spread, rel=0.03)
    assert float(q.std()) == pytest.approx(math.pi / 3**0.5 if name == "rotate" else spread, rel=0.03)


@pytest.mark.parametrize("name", ["complex", "rotate"])
def test_an_odd_width_is_refused_where_rows_have_two_halves(name):
    method = method_called("finetune")
    with pytest.raises(BadInput, match=rf"{name} wants an even width, given: 7"):
        Learner(small_graph(), method, Settings(scorer=name, width=7))
    Learner(small_graph(), method, Settings(scorer="distmult", width=7))


def test_a_name_that_is_no_scorer_is_answered_with_those_there_are():
    with pytest.raises(BadInput, match=r"no scorer 'transE'.*transe, distmult, complex, rotate"):
        scorer_called("transE")
