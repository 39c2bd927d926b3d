"""Losses and their gradients against loops over facts, differentiated by autograd in float64."""

import math

import numpy as np
import pytest
import torch

from intarsia.knowledge.graph.answers import Questions
from intarsia.knowledge.learning.settings import Settings
from intarsia.knowledge.objectives import SelfAdversarial, Softmax, margin_objective, objective_for
from intarsia.knowledge.objectives.corrupting import L1Margin, Margin, corrupted
from intarsia.knowledge.objectives.softmax import Asked
from intarsia.knowledge.scorers import SCORERS, scorer_called
from tests.knowledge_help import added, differentiated, formula, growing_for, small_graph

every = pytest.mark.parametrize("name", list(SCORERS))


def case(name, index=1, **settings):
    return growing_for(small_graph(), index, Settings(scorer=name, width=6, negatives=3, **settings))


def same(found, wanted):
    assert found[0] == pytest.approx(wanted[0], rel=1e-9)
    torch.testing.assert_close(found[1:], wanted[1:], rtol=1e-7, atol=1e-9)


# ---- corruptions


def scores_of_each(name, facts, others, heads):
    """Loops over facts: the score of each, and those of its corruptions."""

    def give(x, q):
        for (h, r, t), row, sides in zip(facts.tolist(), others.tolist(), heads.tolist(), strict=True):
            wrong = [
                formula(name, x[o], q[r], x[t]) if side else formula(name, x[h], q[r], x[o])
                for o, side in zip(row, sides, strict=True)
            ]
            yield formula(name, x[h], q[r], x[t]), wrong

    return give


def margin_loss(each, margin, negatives):
    def loss(x, q):
        losses = [margin - right + sum(wrong) / negatives for right, wrong in each(x, q)]
        return sum(value if value > 0 else 0 * value for value in losses) / len(losses) / (1 + negatives)

    return loss


@every
@pytest.mark.parametrize("margin", [8.0, 0.0])
def test_the_mean_over_corruptions_stands_inside_the_hinge_of_the_margin_loss(name, margin):
    growing = case(name, margin=margin)
    facts, (others, heads) = growing.facts[:15], corrupted(growing, 15)
    wanted = differentiated(growing, margin_loss(scores_of_each(name, facts, others, heads), margin, 3))
    same(added(growing, lambda: Margin().learn(growing, facts, others, heads)), wanted)
    if name == "transe":
        same(added(growing, lambda: L1Margin().learn(growing, facts, others, heads)), wanted)


def test_without_a_margin_some_hinges_are_closed_and_pull_nothing():
    growing = case("transe", margin=0.0)
    others, heads = corrupted(growing, 15)
    each = scores_of_each("transe", growing.facts[:15], others, heads)
    tables = growing.tables.copy()
    apart = [float(sum(wrong) / 3 - right) for right, wrong in each(tables.entities, tables.relations)]
    assert 0 < sum(value > 0 for value in apart) < 15
    closed = torch.tensor(apart) < 0
    given = growing.facts[:15][closed], others[closed], heads[closed]
    for objective in (Margin(), L1Margin()):
        value, x, q = added(growing, lambda objective=objective: objective.learn(growing, *given))
        assert value == 0 and not x.any() and not q.any()


def test_the_fast_form_of_the_margin_loss_is_taken_for_translations_alone():
    assert [isinstance(margin_objective(Settings(scorer=name)), L1Margin) for name in SCORERS] == [
        name == "transe" for name in SCORERS
    ]
    assert type(objective_for(Settings(scorer="complex", loss="margin"))) is Margin


@every
def test_corruptions_are_weighed_by_the_softmax_of_their_scores_in_the_self_adversarial_loss(name):
    growing = case(name, margin=2.0, loss="self-adversarial")
    facts, (others, heads) = growing.facts[:15], corrupted(growing, 15)
    each = scores_of_each(name, facts, others, heads)

    def loss(x, q):
        losses = []
        for right, wrong in each(x, q):
            sizes = [math.exp(float(score.detach())) for score in wrong]
            weights = [size / sum(sizes) for size in sizes]
            below = sum(-w * torch.sigmoid(-2 - s).log() for w, s in zip(weights, wrong, strict=True))
            losses.append((below - torch.sigmoid(2 + right).log()) / 2)
        return sum(losses) / len(losses)

    objective = objective_for(growing.settings)
    assert isinstance(objective, SelfAdversarial)
    same(added(growing, lambda: objective.learn(growing, facts, others, heads)), differentiated(growing, loss))


def test_a_fair_coin_replaces_head_or_tail_by_any_entity_the_last_one_included():
    growing = case("transe")
    others, heads = corrupted(growing, 4000)
    assert others.shape == heads.shape == (4000, 3)
    counts = torch.bincount(others.flatten(), minlength=growing.entities)
    assert len(counts) == growing.entities
    assert (counts - 600).abs().max() < 5 * 600**0.5
    assert abs(int(heads.sum()) - 6000) < 5 * 3000**0.5


def test_batches_have_every_fact_once_in_an_order_of_chance():
    growing = case("transe", batch_size=16)
    epochs = [list(Margin().batches(growing)) for _ in range(2)]
    assert [len(batch) for batch in epochs[0]] == [16, 16, 8]
    first, second = (torch.cat(batches).tolist() for batches in epochs)
    assert first != second
    assert sorted(first) == sorted(second) == sorted(growing.facts.tolist())


# ---- softmax


def softmax_loss(growing, questions, n3=0.0, candidates=None, correction=None):
    """The mean over facts of -log softmax of the tail, and n3 times the mean of their cubed moduli."""
    name, sharpness = growing.scorer.name, growing.scorer.sharpness
    candidates = list(range(growing.entities)) if candidates is None else candidates

    def loss(x, q):
        total = []
        for i in range(len(questions)):
            e, r = int(questions.entities[i]), int(questions.relations[i])
            scores = torch.stack([sharpness * formula(name, x[e], q[r], x[c]) for c in candidates])
            scores = scores if correction is None else scores + correction
            for t in questions.tails[questions.starts[i] : questions.starts[i + 1]].tolist():
                total.append(-(scores[candidates.index(t)].exp() / scores.exp().sum()).log())
                if n3:
                    total[-1] = total[-1] + n3 * sum(cubes(name, row) for row in (x[e], q[r], x[t]))
        return sum(total) / len(total)

    return loss


def cubes(name, row):
    return ((torch.complex(*row.chunk(2)) if SCORERS[name].even else row).abs() ** 3).sum()


def questions_of(growing, count=None):
    return Questions.of(growing.facts[:count].numpy(), growing.relations)


@pytest.mark.parametrize(
    ("name", "n3"),
    [("transe", None), ("transe", 0.2), ("distmult", None), ("complex", None), ("complex", 0.5), ("rotate", None)],
)
def test_the_softmax_is_the_mean_over_facts_of_the_cross_entropy_and_their_cubed_moduli(name, n3):
    growing = case(name, index=0, loss="softmax", n3=n3)
    questions = questions_of(growing)
    assert len(questions) < len(questions.tails) == len(growing.facts)
    n3 = {"distmult": 0.03, "complex": 0.03}.get(name, 0.0) if n3 is None else n3
    wanted = differentiated(growing, softmax_loss(growing, questions, n3))
    same(added(growing, lambda: Softmax().accumulate(growing, questions)), wanted)


def test_batches_of_the_softmax_have_every_question_once_with_all_its_answers():
    growing = case("distmult", batch_size=7)
    batches = list(Softmax().batches(growing))
    assert {len(batch) for batch in batches[:-1]} == {7}
    asked = [(e, r) for b in batches for e, r in zip(b.entities.tolist(), b.relations.tolist(), strict=True)]
    assert len(set(asked)) == len(asked)
    facts = []
    for batch in batches:
        counts = np.diff(batch.starts)
        facts += zip(np.repeat(batch.entities, counts), np.repeat(batch.relations, counts), batch.tails, strict=True)
    assert sorted(map(tuple, facts)) == sorted(map(tuple, growing.facts.tolist()))


def test_as_many_candidates_as_entities_are_all_of_them():
    growing = case("complex", loss="softmax", candidates=20)
    questions = questions_of(growing)
    assert growing.entities == 20
    wanted = differentiated(growing, softmax_loss(growing, questions, 0.03))
    same(added(growing, lambda: Softmax().accumulate(growing, questions)), wanted)


@every
def test_a_sample_counts_for_all_that_were_not_drawn(name):
    growing = case(name, loss="softmax", candidates=12, n3=0.0)
    questions = questions_of(growing, 6)
    at = growing.random.get_state()
    asked = Asked.of(growing, questions.entities, questions.relations, questions.tails)
    candidates, needed = asked.candidates.tolist(), sorted(set(questions.tails.tolist()))
    drawn = len(candidates) - len(needed)
    assert candidates[: len(needed)] == needed
    assert len(set(candidates)) == len(candidates) <= 12 and drawn > 0
    correction = torch.zeros(len(candidates), dtype=torch.float64)
    correction[len(needed) :] = math.log((20 - len(needed)) / drawn)
    growing.random.set_state(at)
    wanted = differentiated(growing, softmax_loss(growing, questions, 0.0, candidates, correction))
    same(added(growing, lambda: Softmax().accumulate(growing, questions)), wanted)


@every
def test_sums_over_samples_are_those_over_all_entities_on_average(name):
    growing = case(name, loss="softmax", candidates=9)
    e, r, needed = np.array([3, 11]), np.array([0, 5]), np.array([4, 0, 4, 15])
    sums = torch.stack([Asked.of(growing, e, r, needed).scores.exp().sum(1) for _ in range(300)])
    x, q, sharpness = growing.tables.entities.detach(), growing.tables.relations.detach(), growing.scorer.sharpness
    whole = [sum(math.exp(sharpness * formula(name, x[a], q[b], t)) for t in x) for a, b in zip(e, r, strict=True)]
    error = sums.std(0) / len(sums) ** 0.5
    assert (error > 0).all()
    assert ((sums.mean(0) - torch.tensor(whole, dtype=torch.float64)).abs() < 4 * error).all()


def test_more_answers_than_candidates_are_all_kept():
    growing = case("distmult", loss="softmax", candidates=2)
    questions = questions_of(growing)
    asked = Asked.of(growing, questions.entities, questions.relations, questions.tails)
    assert set(questions.tails.tolist()) <= set(asked.candidates.tolist())
    assert math.isfinite(Softmax().accumulate(growing, questions))


def test_sharpness_is_that_of_translations_alone():
    assert {name: scorer_called(name).sharpness for name in SCORERS} == {
        "transe": 0.7, "distmult": 1.0, "complex": 1.0, "rotate": 1.0,
    }  # fmt: skip
