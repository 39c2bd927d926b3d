"""IncDE: centralities, distances, the order of facts and the distillation, against loops and breadth-first search."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from intarsia.knowledge.graph.growing import directed
from intarsia.knowledge.learning.centrality import centralities, distances
from intarsia.knowledge.learning.settings import Settings
from intarsia.knowledge.methods.incde import Distilled, Ordered, hierarchy
from tests.knowledge_help import added, differentiated, growing_for, small_graph

pytest.importorskip("rustworkx")
OPTIONS = {"layer": 16, "frozen_epochs": 1, "strength": 0.8}


def neighbours(facts):
    near = {}
    for h, _, t in facts.tolist():
        near.setdefault(h, set()).add(t)
        near.setdefault(t, set()).add(h)
    return near


def steps(near, start):
    """How far all others are, and by how many shortest ways."""
    far, ways, edge = {start: 0}, {start: 1}, [start]
    while edge:
        reached = []
        for node in edge:
            for other in near.get(node, ()):
                if other not in far:
                    far[other], ways[other] = far[node] + 1, 0
                    reached.append(other)
                if far[other] == far[node] + 1:
                    ways[other] += ways[node]
        edge = reached
    return far, ways


def naive_centralities(facts, entities):
    near, degree, between = neighbours(facts), [0.0] * entities, [0.0] * entities
    n, found = len(near), {node: steps(near, node) for node in near}
    for node in near:
        degree[node] = len(near[node]) / (n - 1)
        for a in near:
            for b in found[a][0]:
                on_the_way = a < b and node not in (a, b) and node in found[a][0]
                if on_the_way and found[a][0][node] + found[node][0][b] == found[a][0][b]:
                    between[node] += found[a][1][node] * found[node][1][b] / found[a][1][b]
        between[node] /= (n - 1) * (n - 2) / 2
    return degree, between


def test_centralities_are_shares_of_neighbours_and_of_shortest_ways():
    graph = small_graph(train=15)
    facts, entities = graph.snapshots[1].train, graph.snapshots[1].entities
    degree, between = centralities(facts, entities)
    wanted = naive_centralities(facts, entities)
    np.testing.assert_allclose(degree, wanted[0])
    np.testing.assert_allclose(between, wanted[1])
    assert degree[entities - 1] == between[entities - 1] == 0


def test_distances_are_steps_from_what_is_known():
    facts = np.array([[0, 0, 3], [3, 0, 4], [5, 0, 4], [6, 0, 7], [2, 0, 3]])
    assert distances(facts, 8, 3).tolist() == [0, 0, 0, 1, 2, 3, 8, 8]


def test_facts_go_from_the_known_outwards_and_the_most_central_first():
    graph = small_graph(train=15)
    snapshot, known = graph.snapshots[1], graph.snapshots[0].entities
    facts = snapshot.train
    degree, between = naive_centralities(facts, snapshot.entities)
    far = distances(facts, snapshot.entities, known)

    def place(i):
        h, r, t = facts[i].tolist()
        same = [(between[a] + between[b]) / 2 for a, s, b in facts.tolist() if s == r]
        return min(far[h], far[t]), -(max(degree[h], degree[t]) + sum(same) / len(same))

    found = [place(i) for i in hierarchy(facts, snapshot.entities, known)]
    assert sorted({layer for layer, _ in found}) != [0]
    for (layer, value), (later, other) in pairwise(found):
        assert layer < later or (layer == later and value <= other + 1e-12)


def test_later_snapshots_are_never_shuffled_and_a_fact_goes_with_its_inverse():
    graph, settings = small_graph(), Settings(width=6, options=OPTIONS)
    growing, objective = growing_for(graph, 1, settings), Ordered(settings)
    epochs = [list(objective.batches(growing)) for _ in range(2)]
    assert [len(batch) for batch in epochs[0]] == [16, 16, 8]
    first, second = (torch.cat(batches).tolist() for batches in epochs)
    assert first == second
    assert sorted(first) == sorted(directed(graph.snapshots[1].train).tolist())
    assert all([t, r + 1, h] == back for (h, r, t), back in zip(first[::2], first[1::2], strict=True))


def test_the_distillation_is_a_huber_loss_to_the_layer_before():
    growing = growing_for(small_graph(train=15), 1, Settings(width=6, options=OPTIONS))
    part = Distilled(growing.settings)
    part.begin(growing)
    assert part.accumulate(growing, growing.facts[:8]) == 0  # old rows are frozen still
    growing.epoch = 1
    last = growing.tables.entities.detach().clone()
    growing.tables.entities.detach().add_(torch.randn(20, 6, generator=growing.random).double())
    batch = growing.facts[:8]
    here = sorted({e for h, _, t in batch.tolist() for e in (h, t)})
    old = [e for e in here if e < 10]
    assert 0 < len(old) < len(here)
    degree, between = naive_centralities(growing.graph.snapshots[1].train, 20)

    def loss(entities):
        def of(x, q):
            total = 0
            for e in entities:
                huber = torch.nn.functional.huber_loss(x[e], last[e], reduction="sum")
                total = total + 0.8 * (1 if e < 10 else degree[e] + between[e]) * huber
            return total

        return differentiated(growing, of)

    def compare(found, wanted):
        assert found[0] == pytest.approx(wanted[0])
        torch.testing.assert_close(found[1:], wanted[1:])

    compare(added(growing, lambda: part.accumulate(growing, batch)), loss(range(10)))
    part.stepped(growing)
    new = [e for e in here if e >= 10]
    last[new] = growing.tables.entities.detach()[new]
    growing.tables.entities.detach()[new] += 0.3
    part.state["weights"].fill_(1)
    compare(added(growing, lambda: part.accumulate(growing, batch)), loss([*range(10), *new]))


def test_learned_weights_never_push_away():
    growing = growing_for(small_graph(train=15), 1, Settings(width=6, learning_rate=0.4, options=OPTIONS))
    part = Distilled(growing.settings)
    part.begin(growing)
    growing.epoch = 1
    part.accumulate(growing, growing.facts)
    part.stepped(growing)
    growing.tables.entities.detach().add_(1)
    for _ in range(5):
        assert part.accumulate(growing, growing.facts) >= 0
    weights = part.state["weights"]
    assert (weights >= 0).all() and (weights == 0).any()


def test_old_rows_are_frozen_in_the_first_epochs():
    growing = growing_for(small_graph(), 1, Settings(width=6, options=OPTIONS))
    part = Distilled(growing.settings)
    for epoch, frozen in ((0, True), (1, False)):
        growing.epoch = epoch
        growing.tables.to_entities.fill_(1)
        growing.tables.to_relations.fill_(1)
        part.adjust(growing)
        assert bool((growing.tables.to_entities[:10] == 0).all()) is frozen
        assert bool((growing.tables.to_relations[:4] == 0).all()) is frozen
        assert (growing.tables.to_entities[10:] == 1).all() and (growing.tables.to_relations[4:] == 1).all()
