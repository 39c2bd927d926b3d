"""GEM's projection, EMR's mean, what EWC and SI hold fast, and Adam, against naive solutions and loops."""

import itertools

import numpy as np
import pytest
import torch

from intarsia.knowledge.graph.answers import Questions
from intarsia.knowledge.graph.growing import directed
from intarsia.knowledge.learning.adam import adam
from intarsia.knowledge.learning.settings import Settings
from intarsia.knowledge.methods.emr import Replay
from intarsia.knowledge.methods.ewc import Fisher
from intarsia.knowledge.methods.gem import MARGIN, RIDGE, Projection, project
from intarsia.knowledge.methods.si import DAMPING, Path
from intarsia.knowledge.objectives import Softmax, objective_for
from tests.knowledge_help import differentiated, formula, growing_for, small_graph


def random_rows(count, width=30, seed=0):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---- the quadratic programme


def solved(gradient, memory, margin=MARGIN, ridge=RIDGE):
    """The best of all solutions in which some multipliers stand at the margin: (gradient, multipliers, scale)."""
    g, m = gradient.numpy(), memory.numpy()
    scale = max(float(np.linalg.norm(row)) for row in [g, *m])
    g, m = g / scale, m / scale
    inner, linear = m @ m.T + ridge * np.eye(len(m)), m @ g
    best, value = None, np.inf
    for held in itertools.product([True, False], repeat=len(m)):
        fixed, free = np.flatnonzero(held), np.flatnonzero(~np.array(held))
        v = np.full(len(m), margin)
        if len(free):
            rest = linear[free] + inner[np.ix_(free, fixed)] @ v[fixed]
            v[free] = np.linalg.solve(inner[np.ix_(free, free)], -rest)
        cost = v @ inner @ v / 2 + linear @ v
        if (v >= margin - 1e-12).all() and cost < value:
            best, value = v, cost
    return torch.from_numpy((g + best @ m) * scale), torch.from_numpy(best), scale


@pytest.mark.parametrize("margin", [MARGIN, 0.0])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_projection_is_the_solution_of_the_quadratic_programme(count, margin):
    for seed in range(10):
        gradient = random_rows(1, seed=seed)[0]
        memory = random_rows(count, seed=100 + seed) - gradient * torch.linspace(0.1, 2, count)[:, None]
        wanted, _, _ = solved(gradient, memory, margin)
        torch.testing.assert_close(project(gradient, memory, margin), wanted, rtol=1e-6, atol=1e-8)


def test_the_projection_goes_against_no_memory_but_for_the_ridge():
    for seed in range(10):
        gradient = random_rows(1, seed=seed)[0]
        memory = random_rows(2, seed=100 + seed) - gradient
        assert (memory @ gradient < 0).all()
        _, multipliers, scale = solved(gradient, memory)
        assert (memory @ project(gradient, memory) >= -RIDGE * multipliers * scale**2 - 1e-8).all()


def test_without_a_margin_a_gradient_that_agrees_stays_as_it_is():
    gradient = random_rows(1)[0]
    memory = gradient + 0.1 * random_rows(2, seed=1)
    torch.testing.assert_close(project(gradient, memory, margin=0.0), gradient)
    assert not project(torch.zeros(30), torch.zeros(2, 30)).any()


# ---- GEM


def cross_entropy(facts, n3=0.03):
    """The mean over directed facts of DistMult's softmax, with cubed sizes."""

    def loss(x, q):
        total = 0
        for h, r, t in facts:
            scores = formula("distmult", x[h], q[r], x)
            sizes = x[h].abs() ** 3 + q[r].abs() ** 3 + x[t].abs() ** 3
            total = total - scores.log_softmax(0)[t] + n3 * sizes.sum()
        return total / len(facts)

    return loss


def softmax_case(index, **settings):
    return growing_for(small_graph(), index, Settings(scorer="distmult", width=6, loss="softmax", **settings))


def flat(x, q):
    return torch.cat([x.flatten(), q.flatten()])


def test_a_gradient_is_projected_where_it_goes_against_the_loss_on_a_memory():
    growing = softmax_case(2, options={"memory": 10})
    part, past = Projection(growing.settings), []
    for i in range(2):
        facts = directed(growing.graph.snapshots[i].train[:5])
        part.state[f"memory.{i}"] = torch.from_numpy(facts)
        past.append(flat(*differentiated(growing, cross_entropy(facts.tolist()))[1:]))
    memory, size = torch.stack(past), growing.tables.to_entities.numel()
    agrees, against = memory.sum(0), -memory[0] + 0.1 * random_rows(1, memory.shape[1])[0] * memory.std()
    assert (memory @ agrees > 0).all() and (memory @ against).min() < 0
    for given, wanted in ((agrees, agrees), (against, solved(against, memory)[0])):
        growing.tables.to_entities.copy_(given[:size].view_as(growing.tables.entities))
        growing.tables.to_relations.copy_(given[size:].view_as(growing.tables.relations))
        part.adjust(growing)
        found = flat(growing.tables.to_entities, growing.tables.to_relations)
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-10)


def test_memories_of_snapshots_share_its_size_and_keep_both_directions_of_a_fact():
    part, graph = Projection(Settings(options={"memory": 13})), small_graph()
    for index, share in enumerate((13, 6, 4)):
        part.end(growing_for(graph, index))
        assert list(part.state) == [f"memory.{i}" for i in range(index + 1)]
        for i in range(index + 1):
            kept = part.state[f"memory.{i}"].tolist()
            assert len(kept) == len(set(map(tuple, kept))) == 2 * share
            assert {(h, r // 2, t) for h, r, t in kept[:share]} <= set(map(tuple, graph.snapshots[i].train.tolist()))
            assert kept[share:] == [[t, r + 1, h] for h, r, t in kept[:share]]


# ---- EMR


@pytest.mark.parametrize("loss", ["margin", "softmax"])
def test_the_loss_is_the_mean_over_the_facts_of_the_batch_and_of_the_memory(loss):
    settings = Settings(scorer="distmult", loss=loss, width=6, negatives=3, n3=0.01, options={"memory": 7})
    growing, old = growing_for(small_graph(), 1, settings), growing_for(small_graph(), 0, settings).facts[:7]
    batch, replay = growing.facts[:12], Replay(settings)
    replay.state["memory"] = old
    as_given = [Questions.of(f.numpy(), growing.relations) if loss == "softmax" else f for f in (batch, old)]
    objective, random = objective_for(settings), growing.random.get_state()
    each = []
    for given in as_given:  # alone, with the same corruptions
        growing.tables.clear()
        objective.accumulate(growing, given)
        each.append([growing.tables.to_entities.clone(), growing.tables.to_relations.clone()])
    growing.random.set_state(random)
    growing.tables.clear()
    objective.accumulate(growing, as_given[0])
    replay.accumulate(growing, as_given[0])
    for found, new, kept in zip((growing.tables.to_entities, growing.tables.to_relations), *each, strict=True):
        torch.testing.assert_close(found, (12 * new + 7 * kept) / 19)


# ---- EWC and SI


def test_the_importance_of_ewc_is_the_sum_over_snapshots_of_squared_gradients_of_batches():
    graph, part, sums = small_graph(), None, None
    for index in range(2):
        settings = Settings(scorer="distmult", width=6, loss="softmax", batch_size=9, options={"strength": 0.1})
        growing = growing_for(graph, index, settings, seed=index)
        part = part or Fisher(settings)
        part.begin(growing)
        at = growing.random.get_state()
        batches, new = list(Softmax().batches(growing)), None
        assert len(batches) > 1
        for batch in batches:
            facts = [
                (int(batch.entities[i]), int(batch.relations[i]), t)
                for i in range(len(batch))
                for t in batch.tails[batch.starts[i] : batch.starts[i + 1]].tolist()
            ]
            squares = [pull**2 for pull in differentiated(growing, cross_entropy(facts))[1:]]
            new = squares if new is None else [a + b for a, b in zip(new, squares, strict=True)]
        new = [table / table.mean() for table in new]
        if sums is not None:
            for table, old in zip(new, sums, strict=True):
                table[: len(old)] += old
        sums = new
        growing.random.set_state(at)
        part.end(growing)
        found = [part.state["entities"], part.state["relations"]]
        torch.testing.assert_close(found, sums, rtol=1e-7, atol=1e-10)
    later = growing_for(graph, 2, settings)
    part.begin(later)
    assert part.weights == (part.state["entities"], part.state["relations"])


def test_the_importance_of_si_is_the_way_down_over_the_squared_way_gone():
    graph, settings = small_graph(), Settings(width=6, options={"strength": 0.1})
    part, wanted = Path(0.1), []
    for index in range(2):
        growing = growing_for(graph, index, settings, seed=index)
        part.begin(growing)
        tables = [growing.tables.entities, growing.tables.relations]
        start = [table.detach().clone() for table in tables]
        path = [torch.zeros_like(table) for table in start]
        for step in range(3):
            growing.tables.to_entities.copy_(random_rows(len(tables[0]), 6, seed=step))
            growing.tables.to_relations.copy_(random_rows(len(tables[1]), 6, seed=step + 10))
            part.adjust(growing)
            for i, table in enumerate(tables):
                by = -0.1 * table.grad + 0.05 * random_rows(len(table), 6, seed=step + 20)
                table.detach().add_(by)
                path[i] -= table.grad * by
            part.stepped(growing)
        part.end(growing)
        for i, table in enumerate(tables):
            new = path[i].clamp_min(0) / ((table.detach() - start[i]) ** 2 + DAMPING)
            new = new / new.mean()
            if index:
                new[: len(wanted[i])] += wanted[i]
                wanted[i] = new
            else:
                wanted.append(new)
        torch.testing.assert_close([part.state["entities"], part.state["relations"]], wanted)
    assert set(part.state) == {"entities", "relations"}


# ---- Adam


def test_adam_over_a_state_steps_as_that_of_torch():
    start = random_rows(3, 4)
    table, state = start.clone().requires_grad_(), {"rows": start.clone()}
    optimiser = torch.optim.Adam([table], lr=0.05)
    for step in range(5):
        table.grad = random_rows(3, 4, seed=step + 1)
        optimiser.step()
        adam(state, {"rows": table.grad}, 0.05)
    torch.testing.assert_close(state["rows"], table.detach())
