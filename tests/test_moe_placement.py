"""Placement: solvers against all placements tried one by one, bounds that hold, objectives as written."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intarsia.errors import BadInput
from intarsia.moe.placement import Placement, Problem, bounds, contiguous, cost, crossing, solve, viterbi
from intarsia.moe.placement.balance import pareto
from intarsia.moe.placement.baselines import baselines, packed
from intarsia.moe.placement.descent import Descent
from intarsia.moe.placement.homes import assign
from intarsia.moe.placement.problem import check, imbalance, layer_cost
from intarsia.moe.placement.programme import aggregated, per_token
from intarsia.moe.placement.replicas import replicas
from intarsia.moe.placement.staged import solve_grouped, solve_staged
from intarsia.moe.placement.traffic import traffic
from intarsia.moe.routing import Counts, Trace


def problem(layers, experts, devices, seed=0, sharp=2.0, **more):
    """Random flow with affinity, and random loads and mates where a weight asks for them."""
    rng = np.random.default_rng(seed)
    flow = np.exp(sharp * rng.normal(size=(layers - 1, experts, experts)))
    flow /= flow.sum((1, 2), keepdims=True)
    mates = rng.random((layers, experts, experts)) / experts
    mates = mates + mates.transpose(0, 2, 1)
    mates[:, np.arange(experts), np.arange(experts)] = 0
    load = rng.random((layers, experts)) ** 2
    load /= load.sum(1, keepdims=True)
    return Problem(flow, devices, mates=mates, load=load, **more)


def every_row(experts, devices):
    low, high = experts // devices, -(-experts // devices)
    for row in itertools.product(range(devices), repeat=experts):
        held = np.bincount(row, minlength=devices)
        if held.min() >= low and held.max() <= high:
            yield np.array(row)


def brute(p):
    """The least cost over all placements, by dynamic programming over every row there is (names included)."""
    rows = np.stack(list(every_row(p.experts, p.devices)))
    best = np.array([layer_cost(p, 0, row) for row in rows])
    for layer, flow in enumerate(p.flow):
        step = np.array([[(flow * p.distance[a][:, b]).sum() for b in rows] for a in rows])
        best = (best[:, None] + step).min(0) + np.array([layer_cost(p, layer + 1, row) for row in rows])
    return best.min()


@pytest.mark.parametrize(("experts", "devices"), [(4, 2), (4, 4), (6, 3), (6, 2)])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_optimum_is_the_least_of_all_placements(experts, devices, seed):
    p = problem(3, experts, devices, seed)
    found = solve(p)
    assert found.proof == "optimal"
    assert cost(p, found.device_of) == pytest.approx(brute(p), abs=1e-12)
    assert found.value * 2 == pytest.approx(brute(p), abs=1e-12)
    check(p, found.device_of)


@pytest.mark.parametrize("weights", [dict(together=1.5), dict(balance=0.8), dict(together=0.7, balance=0.5)])
@pytest.mark.parametrize(("experts", "devices"), [(4, 2), (6, 3)])
def test_the_optimum_with_experts_used_together_and_load(weights, experts, devices):
    p = problem(3, experts, devices, 3, **weights)
    assert cost(p, solve(p).device_of) == pytest.approx(brute(p), abs=1e-12)


@pytest.mark.parametrize(("experts", "devices"), [(5, 2), (7, 3), (5, 4)])
def test_a_number_of_experts_that_does_not_divide(experts, devices):
    p = problem(3, experts, devices, 2)
    found = solve(p, effort=60)
    check(p, found.device_of)
    assert found.device_of.shape == (3, experts)
    assert cost(p, found.device_of) == pytest.approx(brute(p), abs=1e-12)
    assert found.bound <= found.value
    for table in baselines(p).values():
        check(p, table)


@given(seed=st.integers(0, 10_000), shape=st.sampled_from([(4, 2), (6, 2), (6, 3), (5, 2), (4, 4), (6, 4)]))
@settings(max_examples=10, deadline=None)
def test_no_placement_goes_below_the_bound(seed, shape):
    p = problem(2, *shape, seed, sharp=np.random.default_rng(seed).choice([0.2, 1.0, 3.0]))
    least = brute(p)
    assert bounds.lower_bound(p) <= least + 1e-9
    slots = p.flow[0].sum() - bounds.matched(p.flow[0], p.slots)
    spectral = p.flow[0].sum() - bounds.spectral(p.flow[0], p.devices, p.slots, p.empty)
    assert slots <= least + 1e-9 and spectral <= least + 1e-9
    if (alone := bounds.pair_optimum(p.flow[0], p)) is not None:
        assert alone == pytest.approx(least, abs=1e-9)


def test_search_finds_what_viterbi_proves():
    p = problem(6, 8, 4, 5)
    best = solve(p)
    assert best.solver.startswith("Viterbi")
    from intarsia.moe.placement.search import search

    *_, (_, rows, value) = search(p, 8, seed=0, rounds=120)
    assert value == pytest.approx(cost(p, best.device_of), abs=1e-9)
    assert cost(p, rows) == pytest.approx(value)


def test_search_gives_the_same_again_and_never_worse_than_it_began_from():
    p = problem(5, 16, 4, 1)
    first = solve(p, effort=40)
    assert (solve(p, effort=40).device_of == first.device_of).all()
    again = solve(p, effort=5, seed=9, first=(first.device_of,))
    assert again.value <= first.value + 1e-12


@given(seed=st.integers(0, 10_000), uneven=st.booleans(), far=st.sampled_from([1.0, 3.0]))
@settings(max_examples=25, deadline=None)
def test_descent_never_gets_worse_and_keeps_the_balance(seed, uneven, far):
    experts = 7 if uneven else 8
    p = problem(4, experts, 4, seed, nodes=2, far=far, together=0.5, balance=0.3)
    padded = p.padded()
    rows = contiguous(4, padded.experts, 4)
    if uneven:
        rows[:, 6:] = [3, 3]
    for weights in (dict(), dict(together=0.0, balance=0.0)):
        q = replace(padded, **weights)
        before = rows.copy()
        after = Descent(q, experts).descend(rows.copy())
        assert cost(q, after) <= cost(q, before) + 1e-9
        check(p, after[:, :experts])


def test_an_exchange_saves_what_the_formula_says():
    p = problem(3, 6, 3, 4, together=0.9, balance=0.6)
    rows = contiguous(3, 6, 3)
    descent = Descent(p)
    before = cost(p, rows)
    least = before
    for e, f in itertools.combinations(range(6), 2):
        other = rows.copy()
        other[1, e], other[1, f] = rows[1, f], rows[1, e]
        least = min(least, cost(p, other))
    new = rows.copy()
    # One exchange only: the best of all.
    gain = descent.gain(new, 1)
    steps = []
    heavier = descent._heavier(rows[1], p.load[1])
    for e, f in itertools.combinations(range(6), 2):
        row = rows[1].copy()
        row[e], row[f] = row[f], row[e]
        full = np.bincount(row, p.load[1], 3).max() - np.bincount(rows[1], p.load[1], 3).max()
        if rows[1][e] != rows[1][f]:
            assert heavier[e, f] == pytest.approx(full, abs=1e-12)
            steps.append(heavier[e, f])
    assert steps
    assert descent._exchange(new, 1, gain) == (least < before - 1e-12)
    assert cost(p, new) <= least + 1e-12


def test_integer_programmes_agree_with_viterbi():
    p = problem(3, 6, 3, 6)
    best = solve(p)
    found = aggregated(p, seconds=60)
    assert found.optimal and found.value == pytest.approx(best.value, abs=1e-6)
    assert crossing(p.flow, found.device_of) == pytest.approx(found.value, abs=1e-6)
    assert found.bound == pytest.approx(best.value, abs=1e-5)
    rng = np.random.default_rng(0)
    ids = rng.integers(4, size=(60, 3))
    ids[:, 1] = (ids[:, 0] + (rng.random(60) < 0.3)) % 4
    counts = Counts.empty(3, 4, 1)
    counts.add(ids[:, :, None])
    q = Problem(counts.flow(), 2)
    token = per_token(ids, 4, 2, seconds=60)
    assert token.optimal and token.value == pytest.approx(solve(q).value, abs=1e-6)
    assert crossing(q.flow, token.device_of) == pytest.approx(token.value, abs=1e-6)
    with pytest.raises(BadInput, match="divide"):
        aggregated(problem(2, 5, 2), 1)


def test_partitions_are_all_there_and_different():
    every = viterbi.partitions(6, 3)
    assert len(every) == viterbi.count(6, 3) == 15
    assert len({tuple(row) for row in every}) == 15
    assert (np.stack([np.bincount(row) for row in every]) == 2).all()


@pytest.mark.parametrize(("experts", "devices"), [(6, 2), (6, 3), (12, 6)])
def test_what_stays_under_the_best_matching_of_blocks(experts, devices):
    p = problem(2, experts, devices, 8)
    rng = np.random.default_rng(1)
    rows = np.stack([rng.permutation(contiguous(1, experts, devices)[0]) for _ in range(3)])
    table = viterbi.kept(p.flow[0], rows[:2], rows, devices)
    for s, left in enumerate(rows[:2]):
        for t, right in enumerate(rows):
            best = max(
                sum(p.flow[0][a, b] for a in range(experts) for b in range(experts) if left[a] == order[right[b]])
                for order in itertools.permutations(range(devices))
            )
            assert table[s, t] == pytest.approx(best)


def test_nodes_first_then_devices():
    p = problem(6, 16, 8, 2, nodes=2, far=4.0)
    found, node_bound = solve_staged(p, effort=60)
    check(p, found.device_of)
    nodes = found.device_of // 4
    check(replace(p, devices=2, nodes=1), nodes)
    flat = solve(replace(p, nodes=1), effort=60)
    assert crossing(p.flow, nodes) < crossing(p.flow, flat.device_of // 4)
    assert node_bound <= crossing(p.flow, nodes) + 1e-9 and found.bound <= found.value
    with pytest.raises(BadInput, match="equal nodes"):
        solve_staged(problem(3, 9, 4, nodes=2))


@pytest.mark.parametrize(("groups", "devices"), [(4, 2), (4, 4), (2, 4)])
def test_groups_stay_whole(groups, devices):
    p = problem(4, 8, devices, 5)
    found = solve_grouped(p, groups, effort=30)
    check(p, found.device_of)
    size = 8 // groups
    for row in found.device_of:
        order = np.argsort(row, kind="stable")
        assert all(len({*(order[i : i + size] // size).tolist()}) == 1 for i in range(0, 8, size))
    if found.proof == "optimal":
        every = [np.repeat(row, size) for row in every_row(groups, devices)]
        best = min(
            sum((p.flow[i] * (a[:, None] != b[None])).sum() for i, (a, b) in enumerate(itertools.pairwise(path)))
            for path in itertools.product(every, repeat=4)
        )
        assert found.value * 3 == pytest.approx(best)
    with pytest.raises(BadInput, match="take a number"):
        solve_grouped(problem(3, 12, 3), 4)


def test_load_is_bought_with_crossing():
    p = problem(5, 16, 4, 3)
    best = solve(p, effort=100)
    points = pareto(p, best.device_of, effort=20)
    assert (points[0].device_of == best.device_of).all() and len(points) > 2
    loads, values = [q.load for q in points], [q.value for q in points]
    assert loads == sorted(loads, reverse=True) and values[1:] == sorted(values[1:])
    for point in points:
        check(p, point.device_of)
        assert point.load == pytest.approx(imbalance(p.load, point.device_of, 4).mean())
        assert point.crossing == pytest.approx(crossing(p.flow, point.device_of))


def test_packing_is_even_and_blind_to_affinity():
    p = problem(4, 12, 4, 1)
    rows = packed(p.load, 4)
    check(p, rows)
    assert imbalance(p.load, rows, 4).mean() < imbalance(p.load, contiguous(4, 12, 4), 4).mean()


def some_trace(k, tokens=90, layers=4, experts=6, seed=0):
    rng = np.random.default_rng(seed)
    ids = rng.random((tokens, layers, experts)).argsort(-1)[..., :k]
    return Trace.of(ids, experts, seq=np.arange(tokens) // 10)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("copies", [0, 1])
def test_rows_are_those_a_loop_counts(k, copies):
    trace = some_trace(k)
    device_of = np.stack([np.random.default_rng(i).permutation([0, 0, 1, 1, 2, 2]) for i in range(4)])
    extra = replicas(trace, device_of, 3, copies) if copies else ()
    placement = Placement(device_of, 3, replicas=extra)
    ids, sequence = trace.whole(), trace.whole("seq")
    numbers = sorted(set(sequence.tolist()))
    moved = rows = vanilla = late = 0
    load = np.zeros((4, 3))
    for t, token in enumerate(ids):
        at = home = numbers.index(sequence[t]) % 3
        counts = t % 10 >= 5
        late += counts
        for layer in range(4):
            held = {d: set(placement.held(layer, d)) for d in range(3)}
            there = [at if e in held[at] and extra else int(device_of[layer, e]) for e in token[layer]]
            for d in there:
                load[layer, d] += 1
            if layer:
                moved += there[0] != at
                rows += counts * (len({*there} - {at}) + len({*there}) - 1)
            at_home = {home if e in held[home] else int(device_of[layer, e]) for e in token[layer]}
            vanilla += counts * 2 * len(at_home - {home})
            at = there[0]
    found = traffic(trace, placement)
    assert found.crossing == pytest.approx(moved / (90 * 3))
    assert found.coherent == pytest.approx(rows / (late * 3))
    assert found.vanilla == pytest.approx(vanilla / (late * 4))
    assert found.load == pytest.approx((load.max(1) / load.mean(1)).mean())
    assert found.home <= found.vanilla + 0.3 and found.tokens == 90


def test_homes_are_the_best_that_leave_every_device_its_share():
    rng = np.random.default_rng(3)
    ids = rng.integers(4, size=(24, 2, 1))
    request = np.arange(24) // 6
    placement = Placement(contiguous(2, 4, 2), 2)
    ran = np.zeros((4, 2))
    np.add.at(ran, (request[:, None], placement.device_of[[0, 1], ids[:, :, 0]]), 1)
    homes = assign(ran, np.zeros(2, np.int64))
    assert np.bincount(homes, minlength=2).tolist() == [2, 2]

    def rows(assigned):
        return sum((placement.device_of[[0, 1], ids[t, :, 0]] == assigned[request[t]]).sum() for t in range(24))

    every = [np.array(a) for a in itertools.product((0, 1), repeat=4) if sum(a) == 2]
    assert rows(homes) == max(map(rows, every))


def test_copies_keep_tokens_where_they_are():
    trace = some_trace(1, tokens=400, experts=8)
    device_of = contiguous(4, 8, 4)
    rates = [
        traffic(trace, Placement(device_of, 4, replicas=replicas(trace, device_of, 4, n) if n else ())).crossing
        for n in (0, 1, 2)
    ]
    assert rates[0] > rates[1] > rates[2]
    chosen = replicas(trace, device_of, 4, 2)
    for layer in range(4):
        for device in range(4):
            assert len(chosen[layer][device]) == 2
            assert not {*chosen[layer][device]} & {*np.flatnonzero(device_of[layer] == device).tolist()}


def test_a_placement_is_read_back_and_bad_ones_are_refused(tmp_path):
    made = Placement(contiguous(3, 4, 2), 2, 2, (((2,), ()),) * 3, (1, 2, 5), "m", "abc", 2, {"crossing": 0.25})
    made.save(tmp_path / "placement.json")
    back = Placement.open(tmp_path / "placement.json")
    assert back.to_json() == made.to_json() and back.held(0, 0) == [0, 1, 2] and back.node_of(1) == 1
    with pytest.raises(BadInput, match="there already"):
        made.save(tmp_path / "placement.json")
    (tmp_path / "other.json").write_text('{"format": "x"}')
    for name in ("other.json", "missing.json"):
        with pytest.raises(BadInput):
            Placement.open(tmp_path / name)
    with pytest.raises(BadInput, match="equal nodes"):
        Placement(contiguous(2, 4, 2), 2, nodes=3)
    with pytest.raises(BadInput, match="names the device 1"):
        Placement(contiguous(2, 4, 2), 1)
    with pytest.raises(BadInput, match="at most 4 devices"):
        Problem(np.zeros((1, 4, 4)), 5)
