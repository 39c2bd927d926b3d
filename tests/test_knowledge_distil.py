"""Recall of old answers: its divergence against a loop over questions, differentiated by autograd, and its memory."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from intarsia.data import Fact, FactSnapshot
from intarsia.knowledge.graph.answers import Questions
from intarsia.knowledge.graph.growing import GrowingGraph, directed
from intarsia.knowledge.learning.memory import remembered
from intarsia.knowledge.learning.settings import Settings
from intarsia.knowledge.methods.distil import Recall, distilled
from intarsia.knowledge.objectives.softmax import Asked
from intarsia.knowledge.scorers import SCORERS
from tests.knowledge_help import added, differentiated, formula, growing_for, small_graph

every = pytest.mark.parametrize("name", list(SCORERS))


def case(name, index=1, moved=0.3, **settings):
    return growing_for(small_graph(), index, Settings(scorer=name, width=6, loss="softmax", **settings), moved=moved)


def old_questions(growing, count=None):
    facts = directed(growing.graph.facts(growing.index - 1, ("train",)))
    return Questions.of(facts[:count], growing.relations)


def divergence(growing, questions, candidates=None, correction=None):
    """The mean over questions of sum over old candidates of p log(p / now)."""
    name, before = growing.scorer.name, growing.before
    candidates = list(range(growing.entities)) if candidates is None else candidates
    correction = torch.zeros(len(candidates)).double() if correction is None else correction
    old = [i for i, c in enumerate(candidates) if c < growing.old_entities]

    def answers(x, q, e, r, places):
        scores = [growing.scorer.sharpness * formula(name, x[e], q[r], x[candidates[i]]) for i in places]
        sizes = (torch.stack(scores) + correction[places]).exp()
        return sizes / sizes.sum()

    def loss(x, q):
        total = 0
        for e, r in zip(questions.entities.tolist(), questions.relations.tolist(), strict=True):
            then = answers(before.entities, before.relations, e, r, old)
            now = answers(x, q, e, r, range(len(candidates)))
            total = total + sum(p * (p / now[i]).log() for p, i in zip(then, old, strict=True))
        return total / len(questions)

    return loss


def same(found, wanted, strength=1.0):
    assert found[0] == pytest.approx(wanted[0], rel=1e-9)
    torch.testing.assert_close(found[1:], tuple(strength * pull for pull in wanted[1:]), rtol=1e-7, atol=1e-9)


@every
def test_the_loss_is_the_divergence_of_the_answers_before_from_those_now(name):
    growing = case(name)
    questions = old_questions(growing)
    wanted = differentiated(growing, divergence(growing, questions))
    assert wanted[0] > 0.01
    same(added(growing, lambda: distilled(growing, growing.before, questions, 2.5)), wanted, 2.5)


@every
def test_a_sample_of_candidates_stands_for_all_of_them_before_and_now(name):
    growing = case(name, candidates=12)
    questions = old_questions(growing, 6)
    at = growing.random.get_state()
    candidates = Asked.of(growing, questions.entities, questions.relations, questions.tails).candidates.tolist()
    needed = len(set(questions.tails.tolist()))
    correction = torch.zeros(len(candidates)).double()
    correction[needed:] = math.log((20 - needed) / (len(candidates) - needed))
    assert any(c < 10 for c in candidates[needed:]) and any(c >= 10 for c in candidates)
    growing.random.set_state(at)
    wanted = differentiated(growing, divergence(growing, questions, candidates, correction))
    same(added(growing, lambda: distilled(growing, growing.before, questions, 1.0)), wanted)


@pytest.mark.parametrize("candidates", [1000, 6])
def test_nothing_is_pulled_while_nothing_has_changed(candidates):
    first = FactSnapshot("0", [Fact(f"e{i}", "r", f"e{(i * i + 1) % 20}") for i in range(20)])
    graph = GrowingGraph.of([first, FactSnapshot("1", [Fact("e0", "r", "e3")])])
    growing = growing_for(graph, 1, Settings(scorer="complex", width=6, candidates=candidates))
    for _ in range(5):
        given = old_questions(growing, 3)
        value, x, q = added(growing, lambda given=given: distilled(growing, growing.before, given, 1.0))
        assert value == pytest.approx(0, abs=1e-12)
        assert x.abs().max() < 1e-12 and q.abs().max() < 1e-12


@every
def test_new_entities_are_pushed_down_for_an_old_question(name):
    growing = case(name, moved=0.0)
    x, q = growing.tables.entities.detach(), growing.tables.relations.detach()
    for i in range(8):
        question = old_questions(growing).take(np.array([i]))
        _, pull, _ = added(growing, lambda question=question: distilled(growing, growing.before, question, 1.0))
        e, r = int(question.entities[0]), int(question.relations[0])
        for new in range(10, 20):
            was, now = (formula(name, x[e], q[r], row) for row in (x[new], x[new] - 1e-6 * pull[new]))
            assert now < was


# ---- the part


def test_the_first_snapshot_has_nothing_to_recall_and_one_without_strength_recalls_nothing():
    graph = small_graph()
    for index, strength in ((0, 2.0), (1, 0.0)):
        part, growing = Recall(strength, 10, 0.5, 1), growing_for(graph, index, Settings(scorer="complex", width=6))
        part.state["memory"] = torch.from_numpy(directed(graph.snapshots[0].train))
        part.begin(growing)
        value, x, q = added(growing, lambda part=part, growing=growing: part.accumulate(growing, range(4)))
        assert value == 0 and not x.any() and not q.any()


def test_a_batch_is_given_its_share_of_old_questions():
    graph = small_graph()
    growing, part = case("complex"), Recall(2.0, 100, 0.5, 1)
    part.state["memory"] = torch.from_numpy(directed(graph.snapshots[0].train))
    part.begin(growing)
    asked = len(part.questions)
    assert asked == len({(h, r) for h, r, _ in part.state["memory"].tolist()})
    at = growing.random.get_state()
    drawn = part.questions.take(torch.randint(asked, (4,), generator=growing.random).numpy())
    growing.random.set_state(at)
    value, x, q = differentiated(growing, divergence(growing, drawn))
    found = added(growing, lambda: part.accumulate(growing, range(7)))
    same(found, (2 * value, 2 * x, 2 * q))


def test_old_answers_weigh_by_the_square_root_of_old_facts_for_each_new_one():
    weights = []
    for train, rows in ((20, 20), (45, 5), (20, 40)):
        graph = small_graph(snapshots=2, train=train)
        first, second = graph.snapshots
        graph = replace(graph, snapshots=(first, replace(second, train=np.resize(second.train, (rows, 3)))))
        growing, part = growing_for(graph, 1, Settings(scorer="complex", width=6)), Recall(2.0, 100, 0.5, 1)
        part.state["memory"] = torch.from_numpy(directed(first.train))
        part.begin(growing)
        weights.append(part.weight)
    assert weights == [2.0, 6.0, 2.0]


def test_a_batch_of_few_facts_is_given_many_old_questions_all_the_same():
    graph = small_graph()
    growing, part = case("complex"), Recall(2.0, 100, 0.5, 9)
    part.state["memory"] = torch.from_numpy(directed(graph.snapshots[0].train))
    part.begin(growing)
    at = growing.random.get_state()
    drawn = part.questions.take(torch.randint(len(part.questions), (9,), generator=growing.random).numpy())
    growing.random.set_state(at)
    value, *_ = differentiated(growing, divergence(growing, drawn))
    assert part.accumulate(growing, range(2)) == pytest.approx(2 * float(value))


# ---- memory


def test_the_memory_holds_at_most_its_size_of_facts_so_far_and_none_twice():
    graph, most, memory = small_graph(), 15, None
    for index in range(3):
        memory = remembered(growing_for(graph, index), memory, most)
        assert len(memory) == 2 * most
        rows = set(map(tuple, memory.tolist()))
        assert len(rows) == len(memory)
        assert rows <= set(map(tuple, directed(graph.facts(index, ("train",))).tolist()))


def test_every_snapshot_has_the_share_of_its_facts_in_the_memory():
    graph, counts = small_graph(train=40), np.zeros(3)
    belongs = {tuple(f): i for i in range(3) for f in directed(graph.snapshots[i].train).tolist()}
    for seed in range(30):
        memory = None
        for index in range(3):
            memory = remembered(growing_for(graph, index, seed=seed), memory, 30)
        for fact in memory.tolist():
            counts[belongs[tuple(fact)]] += 1
    assert (abs(counts / counts.sum() - 1 / 3) < 0.06).all()


def test_a_memory_with_room_for_all_keeps_all():
    graph, memory = small_graph(), None
    for index in range(3):
        memory = remembered(growing_for(graph, index), memory, 60)
        assert sorted(memory.tolist()) == sorted(directed(graph.facts(index, ("train",))).tolist())
