"""LKGE: autoencoder, embedding transfer and pull, against loops over facts and numbers worked out by hand."""

import pytest
import torch

from intarsia.data import Fact, FactSnapshot
from intarsia.knowledge.graph.growing import GrowingGraph
from intarsia.knowledge.learning.autoencoder import Autoencoder
from intarsia.knowledge.learning.counts import occurrences
from intarsia.knowledge.learning.learner import Learner
from intarsia.knowledge.learning.pull import Pull
from intarsia.knowledge.learning.settings import Settings
from intarsia.knowledge.learning.transfer import transfer
from intarsia.knowledge.methods import method_called
from intarsia.knowledge.methods.lkge import Counted
from intarsia.knowledge.scorers import SCORERS
from tests.knowledge_help import added, differentiated, growing_for, small_graph

every = pytest.mark.parametrize("name", list(SCORERS))


def same(found, wanted):
    assert found[0] == pytest.approx(wanted[0], rel=1e-9)
    torch.testing.assert_close(found[1:], wanted[1:], rtol=1e-7, atol=1e-10)


def both_ways(facts):
    return [(h, 2 * r, t) for h, r, t in facts.tolist()] + [(t, 2 * r + 1, h) for h, r, t in facts.tolist()]


def reach(name, h, r):
    if name == "transe":
        return h + r
    if name == "distmult":
        return h * r
    head = torch.complex(*h.chunk(2))
    turned = head * (torch.complex(*r.chunk(2)) if name == "complex" else torch.exp(1j * r.chunk(2)[0]))
    return torch.cat([turned.real, turned.imag])


def relate(name, h, t):
    if name == "transe":
        return t - h
    if name == "distmult":
        return h * t
    between = torch.complex(*h.chunk(2)).conj() * torch.complex(*t.chunk(2))
    return torch.cat([between.real, between.imag])


# ---- autoencoder


def reconstruction_loss(growing, beta, relu=False, loops=False):
    name, facts = growing.scorer.name, both_ways(growing.graph.snapshots[growing.index].train)
    past = [f for i in range(growing.index) for f in both_ways(growing.graph.snapshots[i].train)] if not loops else []

    def loss(x, q):
        total = 0 * x.sum()
        for e in range(len(x)):
            says = [reach(name, x[h], q[r]) for h, r, t in facts if t == e]
            says += [x[e]] if loops else [growing.before.entities[e] for _, _, t in past if t == e]
            if says:
                mean = sum(says) / len(says)
                total = total + ((mean.relu() if relu else mean) - x[e]).square().sum() / len(x)
        for k in range(len(q)):
            says = [relate(name, x[h], x[t]) for h, r, t in facts if r == k]
            says += [growing.before.relations[k] for _, r, _ in past if r == k]
            if says or loops:
                total = total + (sum(says) / max(1, len(says)) - q[k]).square().sum() / len(q)
        return beta * total

    return loss


@every
@pytest.mark.parametrize("index", [0, 2])
def test_the_past_stands_in_with_the_weight_of_its_facts_in_a_reconstruction(name, index):
    growing = growing_for(small_graph(), index, Settings(scorer=name, width=6), moved=0.3)
    part = Autoencoder(0.7)
    part.begin(growing)
    wanted = differentiated(growing, reconstruction_loss(growing, 0.7))
    same(added(growing, lambda: part.accumulate(growing, None)), wanted)


@every
@pytest.mark.parametrize("index", [0, 2])
def test_the_code_counts_an_entity_itself_and_cuts_what_is_negative(name, index):
    growing = growing_for(small_graph(), index, Settings(scorer=name, width=6), moved=0.3)
    part = Autoencoder(0.7, relu=True, loops=True)
    part.begin(growing)
    wanted = differentiated(growing, reconstruction_loss(growing, 0.7, relu=True, loops=True))
    same(added(growing, lambda: part.accumulate(growing, None)), wanted)


def test_a_part_that_begins_again_forgets_the_snapshot_before():
    graph, part = small_graph(), Autoencoder(0.7)
    for index in range(3):
        growing = growing_for(graph, index, moved=0.3)
        part.begin(growing)
        wanted = differentiated(growing, reconstruction_loss(growing, 0.7))
        same(added(growing, lambda growing=growing: part.accumulate(growing, None)), wanted)


def test_an_entity_without_any_fact_is_neither_pulled_nor_counted():
    growing = growing_for(small_graph(), 0)
    last = growing.entities - 1
    assert last not in growing.facts[:, [0, 2]]
    part = Autoencoder(1.0)
    part.begin(growing)
    value, pull, _ = added(growing, lambda: part.accumulate(growing, None))
    assert not pull[last].any()
    growing.tables.entities.detach()[last] = 100
    assert added(growing, lambda: part.accumulate(growing, None))[0] == value


# ---- embedding transfer


def facts(*texts):
    return [Fact(*text.split()) for text in texts]


def transferred(snapshot, name="transe", rounds=2):
    """A graph of a, b and c with relation r that grows: its rows before and after the transfer, by name."""
    first = FactSnapshot("0", facts("a r b", "b r c"))
    graph = GrowingGraph.of([first, snapshot])
    growing = growing_for(graph, 1, Settings(scorer=name, width=4))
    was = growing.tables.copy()
    transfer(growing, rounds)
    now = growing.tables.copy()
    assert torch.equal(was.entities[:3], now.entities[:3]) and torch.equal(was.relations[:2], now.relations[:2])
    places = {entity: i for i, entity in enumerate(graph.entities)}
    rows = {r: 2 * i for i, r in enumerate(graph.relations)} | {
        f"~{r}": 2 * i + 1 for i, r in enumerate(graph.relations)
    }

    def table(copy):
        return {n: copy.entities[i] for n, i in places.items()} | {n: copy.relations[i] for n, i in rows.items()}

    return table(was), table(now)


def test_a_new_entity_starts_at_the_mean_of_what_its_facts_say():
    was, now = transferred(FactSnapshot("1", facts("a r new", "new r c")))
    says = [was["a"] + was["r"], was["c"] + was["~r"]]
    torch.testing.assert_close(now["new"], (says[0] + says[1]) / 2)


def test_a_new_relation_starts_at_the_mean_of_the_steps_of_its_facts():
    was, now = transferred(FactSnapshot("1", facts("a s b", "a s c")))
    steps = [was["b"] - was["a"], was["c"] - was["a"]]
    torch.testing.assert_close(now["s"], (steps[0] + steps[1]) / 2)
    torch.testing.assert_close(now["~s"], -now["s"])


def test_what_two_new_entities_say_of_one_another_comes_in_the_second_round():
    snapshot = FactSnapshot("1", facts("a r near", "near r far"))
    was, now = transferred(snapshot, rounds=1)
    torch.testing.assert_close(now["near"], was["a"] + was["r"])
    assert torch.equal(now["far"], was["far"])
    was, now = transferred(snapshot)
    first = was["a"] + was["r"]
    torch.testing.assert_close(now["far"], first + was["r"])
    torch.testing.assert_close(now["near"], first)


def test_a_new_relation_between_new_entities_waits_for_them():
    was, now = transferred(FactSnapshot("1", facts("a r x", "b r y", "x s y")))
    x, y = was["a"] + was["r"], was["b"] + was["r"]
    torch.testing.assert_close(now["s"], y - x)
    torch.testing.assert_close(now["x"], (x + y - (y - x)) / 2)


def test_what_only_held_out_facts_name_keeps_its_random_start():
    was, now = transferred(FactSnapshot("1", facts("a r new"), facts("a r in-valid"), facts("in-test r b", "a s b")))
    assert not torch.equal(was["new"], now["new"])
    for name in ("in-valid", "in-test", "s", "~s"):
        assert torch.equal(was[name], now[name])


@pytest.mark.parametrize("name", ["distmult", "complex"])
def test_estimates_of_products_are_as_long_as_old_rows_are_on_average(name):
    was, now = transferred(FactSnapshot("1", facts("a r new", "a s b")), name)
    for new, estimate, old in (
        ("new", reach(name, was["a"], was["r"]), "abc"),
        ("s", relate(name, was["a"], was["b"]), ["r", "~r"]),
    ):
        length = sum(was[n].norm() for n in old) / len(old)
        torch.testing.assert_close(now[new], estimate / estimate.norm() * length)


def test_a_new_rotation_starts_at_the_angle_of_the_mean():
    was, now = transferred(FactSnapshot("1", facts("a s b", "a s c")), "rotate")
    between = (relate("rotate", was["a"], was["b"]) + relate("rotate", was["a"], was["c"])) / 2
    torch.testing.assert_close(now["s"], torch.cat([torch.complex(*between.chunk(2)).angle(), torch.zeros(2).double()]))


def test_only_methods_that_transfer_do_so():
    starts = {}
    for name in ("lkge", "lkge-code"):
        method = method_called(name)
        settings = method.defaults().with_(width=4, epochs=1, learning_rate=1e-12, least_epochs=1)
        learner = Learner(small_graph(), method, settings, dtype=torch.float64)
        learner.take()
        was = learner.tables.copy()
        learner.take()
        torch.testing.assert_close(learner.tables.entities.detach()[:10], was.entities)
        starts[name] = learner.tables.entities.detach()[10:19]
    assert (starts["lkge"] - starts["lkge-code"]).abs().amax(1).min() > 1e-3


# ---- how much is known of what

GROWING = GrowingGraph.of(
    [
        FactSnapshot("0", facts("a r b", "a r c", "a s b"), facts("d r a")),
        FactSnapshot("1", facts("a r d", "e r e"), [], facts("b t c")),
        FactSnapshot("2", facts("a r e", "b s d", "f u a")),
    ]
)


def test_occurrences_are_those_in_training_facts_of_both_directions():
    assert GROWING.entities == list("abcdef") and GROWING.relations == list("rstu")
    assert [c.tolist() for c in occurrences(GROWING, 0)] == [[3, 2, 1, 0], [2, 2, 1, 1]]
    assert [c.tolist() for c in occurrences(GROWING, 1, 1)] == [[1, 0, 0, 1, 2], [2, 2, 0, 0, 0, 0]]
    assert [c.tolist() for c in occurrences(GROWING, 1)] == [[4, 2, 1, 1, 2], [4, 4, 1, 1, 0, 0]]


def weights(index, squared=False):
    found = Counted(1.0, squared).weigh(growing_for(GROWING, index))
    assert all(weight.shape[1] == 1 for weight in found)
    return [weight[:, 0] for weight in found]


def test_an_old_element_is_held_by_its_share_of_facts():
    """Snapshot 1: a has 3 + 1 and 1 + 1 more. Snapshot 2: a has (3 + 1) + (1 + 1), and 2 + 1 more."""
    entities, relations = weights(1)
    third = torch.tensor([4 / 6, 3 / 4, 2 / 3, 1 / 3]).double()
    torch.testing.assert_close(entities, third, rtol=1e-6, atol=0)
    torch.testing.assert_close(relations, torch.tensor([3 / 6, 3 / 6, 2 / 3, 2 / 3]).double(), rtol=1e-6, atol=0)
    entities, relations = weights(2)
    wanted = [6 / 9, 4 / 6, 3 / 4, 3 / 5, 3 / 5]
    torch.testing.assert_close(entities, torch.tensor(wanted).double(), rtol=1e-6, atol=0)
    wanted = [6 / 8, 6 / 8, 3 / 5, 3 / 5, 1 / 2, 1 / 2]
    torch.testing.assert_close(relations, torch.tensor(wanted).double(), rtol=1e-6, atol=0)


def test_the_code_squares_the_share():
    for squared, share in zip(weights(2, squared=True), weights(2), strict=True):
        torch.testing.assert_close(squared, share * share, rtol=1e-6, atol=0)


# ---- pull


class Weighed(Pull):
    def weigh(self, growing):
        return self.given


def test_the_pull_is_that_of_the_squared_way_from_where_old_rows_were():
    growing = growing_for(small_graph(), 2, moved=0.3)
    for width in (1, 6):
        part = Weighed(0.7)
        part.given = torch.rand(20, width).double(), torch.rand(8, width).double()
        part.begin(growing)

        def loss(x, q, part=part):
            total = 0
            for table, old, weight in zip(
                (x, q), (growing.before.entities, growing.before.relations), part.given, strict=True
            ):
                for i in range(len(old)):
                    total = total + (weight[i] * (table[i] - old[i]) ** 2).sum()
            return 0.7 * total

        wanted = differentiated(growing, loss)
        same(added(growing, lambda part=part: part.accumulate(growing, None)), wanted)
        assert not wanted[1][20:].any() and wanted[1][:20].all()


def test_the_first_snapshot_and_one_without_strength_are_pulled_nowhere():
    first, later = growing_for(small_graph(), 0), growing_for(small_graph(), 1, moved=0.3)
    for growing, strength in ((first, 1.0), (later, 0.0)):
        part = Counted(strength)
        part.begin(growing)
        value, x, q = added(growing, lambda part=part, growing=growing: part.accumulate(growing, None))
        assert value == 0 and not x.any() and not q.any()
