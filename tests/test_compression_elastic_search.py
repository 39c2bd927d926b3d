"""The search over the networks that one holds: budgets are kept, fronts are fronts, and shared weights learn."""

import itertools
import random
import warnings

import pytest
import torch

from intarsia.compression import search_architecture
from intarsia.compression.elastic.candidates import alone, even, uneven, within
from intarsia.compression.elastic.choices import Choice, Space
from intarsia.compression.elastic.costs import Costs, read_budget
from intarsia.compression.elastic.evolving import Problem, by_optuna, crowding, evolve, sorted_fronts
from intarsia.compression.elastic.harms import Harms
from intarsia.compression.elastic.judging import Judge
from intarsia.compression.elastic.timing import Timing
from intarsia.compression.elastic.training import Sandwich
from intarsia.compression.pruning.ranking import divergence
from intarsia.compression.statistics import batches
from intarsia.errors import OutOfBudget
from intarsia.training.lora import LoraConfig
from tests.failing import fails
from tests.test_compression_elastic import TEXTS, logits, supernet, windows
from tests.tiny import tiny

QUICK = dict(multiple=8, tokens=256, rank_tokens=64, quality_tokens=128, finalists=3, most_blocks=0.5)
SPACE = Space((24, 36, 48), (1, 2), (32,), 2, True)


def found(model, **given):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return search_architecture(model, calibration=TEXTS, **QUICK | given)


@pytest.fixture(scope="module")
def model():
    return tiny("llama")


@pytest.fixture(scope="module")
def net(model):
    return supernet(model, narrower=False)


@pytest.fixture(scope="module")
def problem(net):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        harms = Harms(net, SPACE, windows(net.base), rank_tokens=64, ridge=0.5)
    return Problem(net, SPACE, harms, Costs(net, read_budget("params<0.8x", "a search"), None))


@pytest.mark.parametrize(
    "given",
    [
        {}, {"uneven": True}, {"width": True, "width_multiple": 4},
        {"by": "evolution", "generations": 3, "population": 8}, {"heads": False, "most_blocks": 0.0, "least": 0.25},
    ],
    ids=["even", "uneven", "width", "evolution", "neurons alone"],
)  # fmt: skip
def test_a_search_keeps_its_budget(model, given):
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    small = found(model, budget="params<0.8x", **given)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.network.state_dict().items())
    whole = sum(p.numel() for p in model.network.parameters())
    count = sum(p.numel() for p in small.network.parameters())
    assert count < 0.8 * whole
    finding, facts = small.finding, small.extras["compression.search_architecture"]
    (taken,) = [one for one in finding.tested if one.taken]
    assert taken.params == facts["params"] == count and taken.kl == min(o.kl for o in finding.tested if not o.broken)
    front = [(one.kl, one.params) for one in finding.tested if one.front]
    for one, other in itertools.permutations(front, 2):
        assert not (one[0] <= other[0] and one[1] <= other[1])
    for one in finding.tested:
        assert one.front or any(o.kl <= one.kl and o.params <= one.params for o in finding.tested if o.front)
    assert next(t.title for t in finding.tables()) == "The Pareto front" and len(finding.figures()) == 2
    # What cuts one part alone was made as well, so that nothing simpler is better.
    full = (4, {48}, 2, 32)
    shapes = [(len(one.blocks), set(one.neurons), one.heads, one.width) for one in finding.tested]
    differ = [[i for i in range(4) if shape[i] != full[i]] for shape in shapes]
    parts = [0, 1, 2, 3] if "width" in given else [1] if "heads" in given else [0, 1, 2]
    assert all([part] in differ for part in parts)
    if "heads" in given:
        assert len(taken.blocks) == 4 and taken.heads == 2


def test_what_is_measured_is_what_is_given(model):
    small = found(model, budget="params<0.85x", refit=False)
    facts = small.extras["compression.search_architecture"]
    net = supernet(model, narrower=False)
    again = net.slice(Choice(tuple(facts["blocks"]), tuple(facts["neurons"]), facts["heads"], facts["width"]))
    assert (len(facts["blocks"]), facts["heads"]) == (small.config.num_hidden_layers, small.config.num_key_value_heads)
    assert again.config.intermediate_size == small.config.intermediate_size == facts["neurons"][0]


def test_impossible_budgets_are_refused(model):
    for given, why in (
        ({"budget": "params<0.2x"}, "the smallest network"),
        ({"budget": "kl<0.1"}, "bounds on params, bytes, latency, energy"),
        ({"budget": "energy<3J"}, "good for ratios"),
        ({"budget": "params<0.9x", "multiple": 48, "heads": False, "most_blocks": 0.0}, "nothing may vary"),
    ):
        fails(lambda given=given: found(model, **given), why)


def test_latency_that_nothing_keeps_is_out_of_budget(model, monkeypatch):
    # By the table every network is as quick as it is small; by the clock none is quicker.
    monkeypatch.setattr(Timing, "clock", lambda self, small: float(sum(p.numel() for p in small.network.parameters())))
    monkeypatch.setattr(Timing, "answer", lambda self, lap: 1.0)
    with pytest.raises(OutOfBudget, match=r"which breaks latency<0\.9x") as raised:
        found(model, budget="latency<0.9x, params<1x", prompt_tokens=4, new_tokens=2, repeats=1, generations=2)
    assert raised.value.finding.tested and raised.value.finding.table_error is not None


def test_a_table_that_is_too_hopeful_is_corrected(model, monkeypatch):
    # By the table time goes as parameters do; by the clock a third of it stays whatever goes.
    def slower(self, small, timing, values, ratios):
        ratios["latency"] = 1 / 3 + 2 / 3 * values["params"] / self.costs.base["params"]

    monkeypatch.setattr(Timing, "clock", lambda self, small: float(sum(p.numel() for p in small.network.parameters())))
    monkeypatch.setattr(Judge, "_clock", slower)
    small = found(model, budget="latency<0.85x", prompt_tokens=4, new_tokens=2, repeats=1, by="knapsack")
    (taken,) = [one for one in small.finding.tested if one.taken]
    assert not taken.broken and taken.latency < 0.85
    whole = sum(p.numel() for p in model.network.parameters())
    assert taken.params < (0.85 - 1 / 3) * 1.5 * whole


def test_costs_learn_from_what_was_measured(net, monkeypatch):
    monkeypatch.setattr(Timing, "clock", lambda self, small: float(sum(p.numel() for p in small.network.parameters())))
    table = Timing(net, SPACE, 4, 2, 1)
    costs = Costs(net, read_budget("latency<0.9x, energy<0.9x", "a search"), table)
    some = [net.choice(neurons=24), net.choice(neurons=36), net.choice(heads=1)]
    told = {choice: costs(choice)["latency"] / costs.base["latency"] for choice in some}
    measured = {c: {"latency": told[c] * by, "energy": None} for c, by in zip(some, (1.1, 1.2, 1.6), strict=True)}
    for _ in range(2):  # once more changes nothing
        costs.learn(measured)
        assert costs.scales == {"latency": pytest.approx(1.2), "energy": 1.0}
        assert costs(some[0])["latency"] == pytest.approx(1.2 * told[some[0]] * costs.base["latency"])


def test_each_part_alone(problem):
    costs, harms, net = problem.costs, problem.harms, problem.supernet
    found = alone(net, SPACE, harms, costs)
    assert set(found) == {"blocks", "neurons", "heads"}  # the width does not vary here
    assert found["neurons"] == net.choice(neurons=found["neurons"].neurons[0])
    assert len(found["blocks"].blocks) < 4 and set(found["blocks"].neurons) == {48}
    every = [net.choice(neurons=n) for n in SPACE.neurons]
    fitting = [c for c in every if costs.excess(c) <= 0]
    wanted = min(fitting, key=harms) if fitting else min(every, key=costs.excess)
    assert found["neurons"] == wanted
    # What was measured of one part alone is what is predicted of it from then on, and of other parts nothing changes.
    before = {part: harms(choice) for part, choice in found.items()}
    harms.learn("neurons", found["neurons"], 3 * before["neurons"])
    try:
        assert harms(found["neurons"]) == pytest.approx(3 * before["neurons"])
        assert harms(found["blocks"]) == before["blocks"] and harms(found["heads"]) == before["heads"]
        harms.learn("neurons", found["neurons"], 3 * before["neurons"])
        assert harms.scales["neurons"] == pytest.approx(3)
    finally:
        harms.scales["neurons"] = 1.0


def test_finalists_are_of_different_forms(problem):
    costs, harms, net = problem.costs, problem.harms, problem.supernet
    some = even(net, SPACE, harms.order)
    taken = [c for c in within(some, harms, costs, 6) if costs.excess(c) <= 0]
    forms = [(len(c.blocks), c.heads, c.width) for c in taken]
    assert len(set(forms)) == len(forms) and harms(taken[0]) == min(harms(c) for c in some if costs.excess(c) <= 0)


def test_the_knapsack_is_exact(problem):
    costs, harms, net = problem.costs, problem.harms, problem.supernet
    limit = costs.limits["params"]
    some = uneven(net, SPACE, harms, costs)
    for blocks in {c.blocks for c in some}:
        fitting = [
            harms(choice)
            for heads in SPACE.heads for each in itertools.product(SPACE.neurons, repeat=len(blocks))
            if costs(choice := Choice(blocks, each, heads, 32))["params"] <= limit
        ]  # fmt: skip
        mine = [harms(c) for c in some if c.blocks == blocks and costs(c)["params"] <= limit]
        assert bool(mine) == bool(fitting) and (not mine or min(mine) == pytest.approx(min(fitting), rel=1e-9))
    assert len(even(net, SPACE, harms.order)) == 3 * 3 * 2


def test_harms_tell_what_is_worse(problem):
    harms, net = problem.harms, problem.supernet
    assert harms(net.largest) == 0
    assert 0 < harms(net.choice(neurons=36)) < harms(net.choice(neurons=24))
    assert harms.depth == sorted(harms.depth) and harms.depth[0] == 0
    order = harms.order
    # Sets beside the ranking cost no less than the best known set of their size.
    for gone in itertools.combinations(range(4), 2):
        kept = [b for b in range(4) if b not in gone]
        assert harms(net.choice(blocks=kept)) >= harms.depth[2]
    best = net.choice(blocks=[b for b in range(4) if b not in order[:1]])
    text = batches(net.base, [windows(net.base)[0][:64]])
    assert harms(best) == pytest.approx(divergence(net.slice(best), net.base, text), rel=1e-3)


def test_fronts_and_crowding():
    chance = random.Random(0)
    points = [(chance.randrange(6), chance.randrange(6)) for _ in range(30)]
    fronts = sorted_fronts(points, [0.0] * 30)
    assert sorted(i for front in fronts for i in front) == list(range(30))
    left = set(range(30))
    for front in fronts:  # naively: what nothing that is left beats
        beaten = {
            i for i in left for j in left
            if points[j] != points[i] and all(a <= b for a, b in zip(points[j], points[i], strict=True))
        }  # fmt: skip
        assert set(front) == left - beaten
        left -= set(front)
    # What exceeds the budget comes last, what exceeds it least first.
    assert sorted_fronts([(1, 1), (0, 0), (0, 0)], [0, 0.2, 0.1]) == [[0], [2], [1]]
    assert crowding([(0, 4), (1, 2), (4, 0)]) == [float("inf"), 2.0, float("inf")]


@pytest.mark.parametrize("how", [evolve, by_optuna])
def test_evolution_finds_what_the_knapsack_finds(problem, how):
    if how is by_optuna:
        pytest.importorskip("optuna", reason="the extra 'search' is not installed")
    problem.known.clear()
    start = [problem.supernet.choice(neurons=n) for n in SPACE.neurons]
    looked = how(problem, start, 16, 12, 0)
    inside = [problem.harms(c) for c in looked if problem.excess(c) == 0]
    some = uneven(problem.supernet, SPACE, problem.harms, problem.costs)
    exact = [problem.harms(c) for c in some if problem.excess(c) == 0]
    first = [problem.harms(c) for c in start if problem.excess(c) == 0]
    assert min(inside) <= 2 * min(exact) and (not first or min(inside) <= min(first))
    for choice in looked:
        problem.supernet.check(choice)
        assert len(choice.blocks) >= SPACE.fewest
    problem.known.clear()
    assert how(problem, start, 16, 12, 0) == looked  # the same seed, the same search


def test_the_table_adds_up(net, monkeypatch):
    """Of networks whose time is so much a block, a neuron and a head: the table gives it back."""

    def clock(self, small):
        blocks = small.network.model.layers
        neurons, keys = (
            sum(len(w) for w in some)
            for some in ([b.mlp.up_proj.weight for b in blocks], [b.self_attn.k_proj.weight for b in blocks])
        )
        return 5.0 + 0.5 * len(blocks) + 0.01 * neurons + 0.02 * keys

    monkeypatch.setattr(Timing, "clock", clock)
    table = Timing(net, Space((8, 16, 24, 32, 40, 48), (1, 2), (32,), 2, True), 4, 2, 1)
    table.measure()
    assert len(table.anchors) == 3 and table.tried(0) < 1e-9
    choice = net.choice(blocks=[1, 2], neurons=[16, 40], heads=1)
    assert table.seconds(choice) == pytest.approx(5 + 2 * 0.5 + 0.01 * 56 + 0.02 * 16)


def lesson(**given):
    return LoraConfig(learning_rate=5e-3, rank=8, alpha=16, batch_size=2, epochs=1e9, **{"max_steps": 20, **given})


@pytest.mark.parametrize("adapters", [True, False])
def test_the_shared_weights_learn(adapters):
    model = tiny("llama")
    net, text = supernet(model), windows(model)
    space = Space((24, 48), (1, 2), (24, 32), 4)
    smallest = space.smallest(net.full[0])
    judged = batches(model, text)
    net.unite()
    before = divergence(net.slice(smallest), model, judged)
    task = Sandwich(net, space, text, lesson(), adapters=adapters, seed=1)
    losses = task.go()
    after = divergence(net.slice(smallest), model, judged)
    assert len(losses) == 20 and after < 0.7 * before
    # The full network is still near what it was, the model given is just as it was.
    assert divergence(net.slice(net.largest), model, judged) < 0.3 * before
    assert torch.equal(logits(model), logits(tiny("llama")))
    assert {task.networks(3)[i] for i in (0, 1)} == {net.largest, smallest} and task.networks(3) == task.networks(3)


def test_a_training_that_was_stopped_goes_on(tmp_path):
    model = tiny("llama")
    text, space = windows(model), Space((24, 48), (2,), (32,), 4)

    def taught(keep, stop=None):
        net = supernet(model, narrower=False)
        task = Sandwich(net, space, text, lesson(max_steps=9), adapters=True, keep=keep, seed=2)
        if stop:
            task.training.go(stop)
            task._store()
            return None
        return task.go(), logits(net.slice(net.choice(neurons=24)))

    losses, wanted = taught(None)
    taught(tmp_path, stop=5)
    again, same = taught(tmp_path)
    assert again == losses and torch.equal(same, wanted)
