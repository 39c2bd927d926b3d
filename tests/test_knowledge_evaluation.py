"""Ranks against a plain loop in float64, what is filtered, and the figures of growth worked out by hand."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from intarsia.data.snapshots import SPLITS
from intarsia.knowledge import SCORERS, kernels
from intarsia.knowledge.evaluation.metrics import (
    EVALUATORS,
    Ranking,
    backward_transfer,
    forgetting,
    forward_transfer,
    rankings,
)
from intarsia.knowledge.evaluation.ranking import TableRanker, ranked_scores, ranks
from intarsia.knowledge.graph.answers import Answers, Questions, runs
from intarsia.knowledge.graph.growing import GrowingGraph, Snapshot, directed

ENTITIES, RELATIONS = (9, 12, 12, 16), (2, 2, 3, 3)


def random_graph(seed: int) -> GrowingGraph:
    """Four snapshots, dense enough that most questions have several answers; one brings no new entity."""
    random = np.random.default_rng(seed)
    seen: set[tuple[int, int, int]] = set()
    snapshots = []
    for i, (entities, relations) in enumerate(zip(ENTITIES, RELATIONS, strict=True)):
        drawn = random.integers(0, (entities, relations, entities), (60, 3)).tolist()
        facts = [fact for fact in dict.fromkeys(map(tuple, drawn)) if fact not in seen]
        seen |= set(facts)
        parts = np.split(np.array(facts), [len(facts) // 2, 3 * len(facts) // 4])
        snapshots.append(Snapshot(str(i), *parts, entities=entities, relations=relations))
    names = [f"e{i}" for i in range(ENTITIES[-1])]
    return GrowingGraph(names, [f"r{i}" for i in range(RELATIONS[-1])], tuple(snapshots))


class Told:
    """A ranker that knows the score of every fact, [entity, row, entity], and answers in small blocks."""

    def __init__(self, table: torch.Tensor, block: int = 7):
        self.table, self.block = table, block

    def scores(self, entities, relations) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        for start in range(0, len(entities), self.block):
            part = np.arange(start, min(len(entities), start + self.block))
            yield part, self.table[torch.from_numpy(entities[part]), torch.from_numpy(relations[part])]


def told(by: int, levels: int, seed: int = 0) -> Told:
    """Scores out of so many different ones: the fewer, the more ties."""
    generator = torch.Generator().manual_seed(seed)
    shape = (ENTITIES[by], 2 * RELATIONS[by], ENTITIES[by])
    return Told(torch.randint(0, levels, shape, generator=generator).float())


def known_answers(graph: GrowingGraph, upto: int, splits=SPLITS) -> set[tuple[int, int, int]]:
    return set(map(tuple, directed(graph.facts(upto, splits)).tolist()))


def naive(graph: GrowingGraph, table, at: int, by: int) -> np.ndarray:
    """The rank of every answer as the definition says it, evaluator by evaluator."""
    table = np.asarray(table, np.float64)
    rules = {
        "all": (ENTITIES[by], known_answers(graph, by)),
        "old": (ENTITIES[at], known_answers(graph, at)),
        "official": (ENTITIES[at], known_answers(graph, at, ("train", "test"))),
    }
    out = np.empty((3, 2 * len(graph.snapshots[at].test)))
    for i, name in enumerate(EVALUATORS):
        candidates, known = rules[name]
        for j, (h, r, t) in enumerate(directed(graph.snapshots[at].test).tolist()):
            rank = 1.0
            for other in range(candidates):
                if other == t or (h, r, other) in known:
                    continue
                rank += 1.0 if table[h, r, other] > table[h, r, t] else 0.0
                rank += 0.5 if table[h, r, other] == table[h, r, t] else 0.0
            out[i, j] = rank
    return out


def ranked(graph: GrowingGraph, ranker, at: int, by: int, **options) -> np.ndarray:
    snapshot = graph.snapshots[at]
    return ranks(ranker, Answers.of(graph), snapshot.test, at=at, by=by, old=snapshot.entities, **options)


# ---- ranks


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("levels", [1, 3, 1 << 20])
def test_ranks_are_those_of_a_plain_loop(levels, compiled, monkeypatch):
    if not compiled:
        monkeypatch.setattr(kernels, "_fast", lambda tensor: None)
    for seed in range(3):
        graph = random_graph(seed)
        for by in range(len(graph)):
            ranker = told(by, levels, seed)
            for at in range(by + 1):
                assert np.array_equal(ranked(graph, ranker, at, by), naive(graph, ranker.table, at, by))


@pytest.mark.parametrize("name", SCORERS)
def test_ranks_by_the_tables_of_a_scorer(name):
    graph, scorer, generator = random_graph(5), SCORERS[name], torch.Generator().manual_seed(5)
    entities = scorer.start_entities(ENTITIES[-1], 8, ENTITIES[-1], generator).double()
    entities[3] = entities[10] = entities[0]  # the same vector: ties with an old entity and with a new one
    relations = scorer.start_relations(2 * RELATIONS[-1], 8, 2 * RELATIONS[-1], generator).double()
    placed = scorer.place(entities)
    table = torch.stack(
        [scorer.similarity.pairs(scorer.ask(placed, row.expand_as(placed)), placed) for row in relations]
    )
    for at in range(len(graph)):
        found = ranked(graph, TableRanker(scorer, entities, relations), at, len(graph) - 1)
        assert np.array_equal(found, naive(graph, table.transpose(0, 1), at, len(graph) - 1))


def test_an_answer_among_equals_has_the_mean_of_its_places():
    graph = random_graph(1)
    found = ranked(graph, told(3, 1), 0, 3)
    for j, (h, r, _) in enumerate(directed(graph.snapshots[0].test).tolist()):
        for i, (size, known) in enumerate([(ENTITIES[3], known_answers(graph, 3)), (9, known_answers(graph, 0))]):
            rivals = size - len({fact for fact in known if fact[:2] == (h, r)})
            assert found[i, j] == 1 + rivals / 2


# ---- what is filtered


def test_a_known_answer_of_any_split_never_competes():
    """Known facts get the best of all scores: no rank may change by it, but for `official` by what is in valid."""
    graph = random_graph(2)
    for by in range(len(graph)):
        for at in range(by + 1):
            plain, boosted = told(by, 4), told(by, 4)
            asked = known_answers(graph, at, ("test",))
            for h, r, t in known_answers(graph, at) - asked:
                boosted.table[h, r, t] = 99.0
            before, after = ranked(graph, plain, at, by), ranked(graph, boosted, at, by)
            assert np.array_equal(before[:2], after[:2])
            valid = known_answers(graph, at, ("valid",))
            rivals = [
                sum(fact[:2] == (h, r) and plain.table[fact] <= plain.table[h, r, t] for fact in valid)
                for h, r, t in directed(graph.snapshots[at].test).tolist()
            ]
            assert np.array_equal(after[2] > before[2], np.array(rivals) > 0)


def test_later_facts_are_filtered_only_where_all_entities_compete():
    graph = random_graph(3)
    plain, boosted = told(3, 4), told(3, 4)
    old = known_answers(graph, 0)
    later = [fact for fact in known_answers(graph, 3) - old if max(fact[0], fact[2]) < ENTITIES[0]]
    for fact in later:
        boosted.table[fact] = 99.0
    before, after = ranked(graph, plain, 0, 3), ranked(graph, boosted, 0, 3)
    assert np.array_equal(before[0], after[0])
    assert (after[1] > before[1]).any() and (after[1] >= before[1]).all()


def test_new_entities_compete_only_in_all():
    graph = random_graph(4)
    plain, boosted = told(3, 4), told(3, 4)
    boosted.table[:, :, ENTITIES[0] :] = 99.0
    before, after = ranked(graph, plain, 0, 3), ranked(graph, boosted, 0, 3)
    assert np.array_equal(before[1:], after[1:])
    assert (after[0] > before[0]).any()


def test_the_evaluators_agree_on_a_snapshot_of_its_own_time():
    graph = random_graph(6)
    for at in range(len(graph)):
        by_all, by_old, by_official = ranked(graph, told(at, 5), at, at)
        assert np.array_equal(by_all, by_old)
        assert (by_official >= by_old).all()


def test_scores_without_known_answers():
    graph = random_graph(7)
    answers, facts, by = Answers.of(graph), graph.snapshots[1].valid, 2
    ranker, known, place = told(by, 1 << 20), known_answers(graph, by), 0
    for scores, right in ranked_scores(ranker, answers, facts, by=by):
        for row, answer in zip(scores, right.tolist(), strict=True):
            h, r, t = directed(facts)[place].tolist()
            assert t == answer
            for other in range(ENTITIES[by]):
                hidden = (h, r, other) in known and other != t
                assert row[other] == (-torch.inf if hidden else ranker.table[h, r, other])
            place += 1
    assert place == 2 * len(facts)


# ---- samples


def test_a_sample_of_questions_is_a_fixed_part_of_all():
    graph, ranker = random_graph(8), told(3, 1 << 20)
    every = ranked(graph, ranker, 1, 3)
    some = ranked(graph, ranker, 1, 3, sample=6, seed=4)
    chosen = np.sort(np.random.default_rng(4).choice(every.shape[1], 6, replace=False))
    assert np.array_equal(some, every[:, chosen])
    assert np.array_equal(some, ranked(graph, ranker, 1, 3, sample=6, seed=4))
    assert not np.array_equal(some, ranked(graph, ranker, 1, 3, sample=6, seed=5))
    assert np.array_equal(every, ranked(graph, ranker, 1, 3, sample=every.shape[1]))


def test_no_facts_no_ranks():
    graph = random_graph(9)
    assert ranks(told(0, 3), Answers.of(graph), np.empty((0, 3), np.int64), at=0, by=0, old=9).shape == (3, 0)
    assert rankings(np.empty((3, 0)))["all"] == Ranking(mrr=0, hits1=0, hits3=0, hits10=0, count=0)


# ---- questions and answers


def test_a_fact_is_asked_in_both_directions():
    assert directed(np.array([[4, 1, 7], [0, 0, 0]])).tolist() == [[4, 2, 7], [0, 0, 0], [7, 3, 4], [0, 1, 0]]


def test_known_answers_of_each_question():
    graph = random_graph(10)
    for upto in range(len(graph)):
        for splits in (SPLITS, ("train",)):
            answers, known = Answers.of(graph, upto, splits), known_answers(graph, upto, splits)
            for h in range(ENTITIES[upto]):
                for r in range(2 * RELATIONS[upto]):
                    assert sorted(answers.to(h, r).tolist()) == sorted(t for a, b, t in known if (a, b) == (h, r))


def test_questions_hold_every_fact_once():
    facts = directed(random_graph(11).facts(3))
    questions = Questions.of(facts, 2 * RELATIONS[-1])

    def held(some: Questions) -> list[tuple[int, int, int]]:
        counts = np.diff(some.starts)
        return list(zip(some.entities.repeat(counts), some.relations.repeat(counts), some.tails, strict=True))

    assert sorted(held(questions)) == sorted(map(tuple, facts.tolist()))
    which = np.array([5, 0, len(questions) - 1])
    part = questions.take(which)
    assert part.entities.tolist() == questions.entities[which].tolist()
    wanted = [questions.tails[questions.starts[i] : questions.starts[i + 1]].tolist() for i in which]
    assert [part.tails[a:b].tolist() for a, b in zip(part.starts, part.starts[1:], strict=False)] == wanted
    assert runs(np.array([0, 2, 2, 5]), np.array([2, 1, 0])).tolist() == [2, 3, 4, 0, 1]


# ---- figures by hand


def test_mrr_and_hits():
    found = Ranking.of(np.array([1, 2, 4, 10, 20, 1.5]))
    assert found.mrr == pytest.approx((1 + 1 / 2 + 1 / 4 + 1 / 10 + 1 / 20 + 2 / 3) / 6)
    assert (found.hits1, found.hits3, found.hits10, found.count) == pytest.approx((1 / 6, 3 / 6, 5 / 6, 6))
    assert rankings(np.array([[1.0], [2.0], [4.0]]))["official"].mrr == 0.25


def test_a_mean_of_rankings_is_weighted_by_their_facts():
    one, two = Ranking.of(np.array([1.0, 1.0, 1.0])), Ranking.of(np.array([4.0]))
    both = Ranking.mean([one, Ranking.of(np.empty(0)), two])
    assert both == Ranking.of(np.array([1.0, 1.0, 1.0, 4.0])) and both.mrr == 3.25 / 4
    assert Ranking.mean([]).count == 0


def result(mrr: float, everything: float | None = None) -> dict[str, Ranking]:
    """A test whose MRR is this among the entities of its time, and that among all."""
    both = {"old": mrr, "all": mrr if everything is None else everything}
    return {name: Ranking(mrr=value, hits1=0, hits3=0, hits10=0, count=4) for name, value in both.items()}


def test_forward_transfer():
    before = [None, result(0.2)["all"], result(0.4)["all"]]
    assert forward_transfer(before) == pytest.approx(0.3)
    assert forward_transfer([None, Ranking.of(np.empty(0)), result(0.4)["all"]]) == pytest.approx(0.4)
    assert forward_transfer([None]) is None and forward_transfer([]) is None


def test_backward_transfer_and_what_forgetting_is_made_of():
    matrix = [
        [result(0.50)],
        [result(0.45, 0.40), result(0.60)],
        [result(0.40, 0.25), result(0.62, 0.50), result(0.70)],
    ]

    def by(name):
        return backward_transfer([[tests[name] for tests in row] for row in matrix])

    assert by("old") == pytest.approx(((0.40 - 0.50) + (0.62 - 0.60)) / 2)
    assert by("all") == pytest.approx(((0.25 - 0.50) + (0.50 - 0.60)) / 2)
    drift, interference = forgetting(matrix)
    assert drift == pytest.approx((0.10 - 0.02) / 2) and interference == pytest.approx((0.15 + 0.12) / 2)
    assert drift + interference == pytest.approx(-by("all")) and drift == pytest.approx(-by("old"))


def test_a_graph_of_one_snapshot_forgets_nothing():
    assert backward_transfer([[result(0.5)["all"]]]) is None and forgetting([[result(0.5)]]) is None
    assert backward_transfer([]) is None and forgetting([]) is None


def test_forgetting_of_real_ranks_adds_up():
    graph = random_graph(12)
    matrix = [[rankings(ranked(graph, told(by, 50, by), at, by)) for at in range(by + 1)] for by in range(len(graph))]
    drift, interference = forgetting(matrix)
    assert drift + interference == pytest.approx(-backward_transfer([[t["all"] for t in row] for row in matrix]))
