"""Matchers against plain loops in float64: ties, duplicates, caps, blocked rows, padding."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from intarsia.errors import BadInput
from intarsia.tokens.matching import MATCHERS, Pairs, bipartite, complete, dominance, greedy, prune

ALL = {**MATCHERS, "greedy": greedy}
INF = math.inf


def found(pairs: Pairs, sample: int) -> list[tuple[int, int]]:
    valid = torch.ones_like(pairs.source, dtype=torch.bool) if pairs.valid is None else pairs.valid
    both = zip(pairs.source[sample].tolist(), pairs.target[sample].tolist(), valid[sample].tolist(), strict=True)
    return [(a, b) for a, b, real in both if real]


# ---- the references: one sample, plain numbers


def cosines(rows, free, later=False):
    rows = [[float(v) for v in row] for row in rows]
    norm = [math.sqrt(sum(v * v for v in row)) or 1.0 for row in rows]
    table = {}
    for i in free:
        for j in free:
            if i == j or (later and j < i):
                table[i, j] = -INF
            else:
                table[i, j] = sum(a * b for a, b in zip(rows[i], rows[j], strict=True)) / norm[i] / norm[j]
                # Products of the same numbers, divided in another order, must not break a tie.
                table[i, j] = round(table[i, j], 12)
    return table


def naive_complete(rows, r, free, importance, strength, later):
    r = min(r, len(free) // 2)
    cos = cosines(rows, free, later)
    best = {i: max(cos[i, j] for j in free) for i in free} if free else {}
    order = sorted(free, key=lambda i: (-best[i], importance[i], i))
    edge = {}
    for i in free:
        counting = [cos[i, j] for j in free if later or order.index(j) > order.index(i)]
        edge[i] = max(counting, default=-INF)
    sources = sorted(free, key=lambda i: (strength * importance[i] - edge[i], importance[i], i))[:r]
    targets = [j for j in free if j not in sources]
    return [(i, max(targets, key=lambda j: (cos[i, j], -j))) for i in sources]


def naive_bipartite(rows, r, free, importance, strength, later):
    r = min(r, len(free) // 2)
    cos = cosines(rows, free, later)
    sources, targets = (free[::2], free[1::2]) if later else (free[1::2], free[::2])
    pairs = []
    for i in sources:
        if targets:
            j = max(targets, key=lambda j: (cos[i, j], -j))
            pairs.append((strength * importance[i] - cos[i, j], importance[i], i, j))
    return [(i, j) for _, _, i, j in sorted(pairs)[:r]]


def naive_greedy(rows, r, free, importance, strength, later):
    r = min(r, len(free) // 2)
    cos = cosines(rows, free, later)
    pairs: list[tuple[int, int]] = []
    while len(pairs) < r:
        gone, kept = {i for i, _ in pairs}, {j for _, j in pairs}
        options = [
            (strength * importance[i] - cos[i, j], importance[i], i, j)
            for i, j in itertools.product(free, free)
            if cos[i, j] > -INF and i not in gone and i not in kept and j not in gone
        ]
        pairs.append(min(options)[2:])
    return pairs


def naive_dominance(rows, r, free, importance, strength, later, rounds=8):
    r = min(r, len(free) // 2)
    cos = cosines(rows, free, later)
    merged: dict[int, int] = {}
    choice = {i: max(free, key=lambda j: (cos[i, j], -j)) for i in free}

    def rank(i):
        return strength * importance[i] - cos[i, choice[i]], importance[i], i

    turn = 0
    while r:
        while True:
            full = len(merged) == r
            bar = max(rank(i) for i in merged) if full else (INF, INF, INF)
            live = [i for i in free if i not in merged and i not in merged.values() and rank(i) < bar]
            live = [i for i in live if cos[i, choice[i]] > -INF and not (full and turn >= rounds)]
            again = [i for i in live if choice[i] in merged]
            for i in again:
                choice[i] = max((j for j in free if j not in merged), key=lambda j: (cos[i, j], -j))
            if not again:
                break
        if not live:
            break
        wins = {i for i in live if all(rank(i) < rank(k) for k in live if choice[k] == i)}
        merged.update({i: choice[i] for i in wins if choice[i] not in wins})
        merged = {i: merged[i] for i in sorted(merged, key=rank)[:r]}
        turn += 1
    return sorted(merged.items(), key=lambda pair: rank(pair[0]))


NAIVE = {
    "complete": naive_complete,
    "bipartite": naive_bipartite,
    "greedy": naive_greedy,
    "dominance": naive_dominance,
}


def agree(name, metric, r, blocked=None, importance=None, strength=0.0, later=False):
    pairs = ALL[name](metric, r, blocked=blocked, importance=importance, strength=strength, later=later)
    for sample, rows in enumerate(metric.double().tolist()):
        free = [t for t in range(metric.shape[1]) if blocked is None or not blocked[sample, t]]
        weight = [0.0] * metric.shape[1] if importance is None else importance[sample].double().tolist()
        wanted = NAIVE[name](rows, r, free, weight, strength, later)
        assert found(pairs, sample) == wanted, (name, sample)
    return pairs


def signs(generator, *shape):
    """Rows of +1 and -1, 4 or 16 wide: their cosines are exact in float32 and full of ties."""
    return torch.randint(0, 2, shape, generator=generator).float() * 2 - 1


# ---- agreement


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("name", NAIVE)
def test_random_rows_as_by_plain_loops(name, later):
    g = torch.Generator().manual_seed(1)
    for tokens, r in ((7, 2), (20, 6), (33, 16), (18, 100)):
        metric = torch.randn(3, tokens, 8, generator=g)
        agree(name, metric, r, later=later)
        blocked = torch.rand(3, tokens, generator=g) < 0.3
        importance = torch.rand(3, tokens, generator=g)
        agree(name, metric, r, blocked, importance, 0.5, later)


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("name", NAIVE)
def test_ties_go_to_the_less_important_then_the_lower_index(name, later):
    g = torch.Generator().manual_seed(2)
    for width, tokens in itertools.product((4, 16), (5, 12, 19, 24)):
        metric = signs(g, 2, tokens, width)
        coarse = torch.randint(0, 3, (2, tokens), generator=g).float() / 4
        for importance, strength in ((None, 0.0), (coarse, 0.0), (coarse, 0.5)):
            agree(name, metric, tokens // 3, None, importance, strength, later)
            agree(name, metric, tokens, torch.rand(2, tokens, generator=g) < 0.2, importance, strength, later)


@pytest.mark.parametrize("name", NAIVE)
def test_duplicates(name):
    g = torch.Generator().manual_seed(3)
    metric = signs(g, 2, 9, 16).repeat_interleave(2, dim=1)
    agree(name, metric, 9)
    agree(name, torch.ones(1, 11, 4), 5)


@pytest.mark.parametrize("free", [0, 1, 2, 3])
@pytest.mark.parametrize("name", NAIVE)
def test_few_free_rows(name, free):
    g = torch.Generator().manual_seed(4)
    metric = torch.randn(2, 6, 5, generator=g)
    blocked = torch.ones(2, 6, dtype=torch.bool)
    blocked[0, 1 : 1 + free] = blocked[1, 5 - free : 5] = False
    pairs = agree(name, metric, 4, blocked)
    assert pairs.source.shape == (2, free // 2)


@pytest.mark.parametrize("name", ALL)
def test_nothing_to_do(name):
    metric = torch.randn(2, 5, 4)
    assert ALL[name](metric, 0).source.shape == (2, 0)
    assert ALL[name](metric, 3, blocked=torch.ones(2, 5, dtype=torch.bool)).target.shape == (2, 0)
    assert ALL[name](torch.randn(2, 1, 4), 3).source.shape == (2, 0)
    assert ALL[name](torch.randn(0, 7, 4), 3).source.shape == (0, 0)
    assert ALL[name](torch.randn(2, 0, 4), 3).source.shape == (2, 0)


# ---- what holds for all


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_pairs_are_pairs(data):
    name = data.draw(st.sampled_from(sorted(ALL)))
    batch, tokens, width = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 24)), data.draw(st.integers(1, 6))
    later = data.draw(st.booleans())
    g = torch.Generator().manual_seed(data.draw(st.integers(0, 999)))
    metric = (
        signs(g, batch, tokens, width) if data.draw(st.booleans()) else torch.randn(batch, tokens, width, generator=g)
    )
    blocked = torch.rand(batch, tokens, generator=g) < data.draw(st.sampled_from([0.0, 0.3, 0.9]))
    r = data.draw(st.integers(0, tokens + 2))
    pairs = ALL[name](metric, r, blocked=blocked, importance=torch.rand(batch, tokens, generator=g), later=later)
    for sample in range(batch):
        got = found(pairs, sample)
        sources, targets = {a for a, _ in got}, {b for _, b in got}
        # As many as were asked for, or half of the free rows.
        assert len(got) == len(sources) == min(r, int((~blocked[sample]).sum()) // 2)
        assert not sources & targets
        assert not blocked[sample, sorted(sources | targets)].any()
        assert not later or all(a < b for a, b in got)


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("name", ALL)
def test_a_sample_does_not_depend_on_its_mates_nor_on_padding(name, later):
    g = torch.Generator().manual_seed(5)
    lengths = [9, 40, 41, 23, 3, 2, 1]
    samples = [torch.randn(n, 8, generator=g).round(decimals=1) for n in lengths]
    weights = [torch.randint(0, 3, (n,), generator=g).float() for n in lengths]
    for side, shift in (("right", 0), ("left", 1)):
        metric, blocked = torch.randn(7, 44, 8, generator=g), torch.ones(7, 44, dtype=torch.bool)
        importance = torch.rand(7, 44, generator=g)
        for i, n in enumerate(lengths):
            place = slice(0, n) if side == "right" else slice(44 - n, 44)
            metric[i, place], blocked[i, place], importance[i, place] = samples[i], False, weights[i]
        for r in (1, 6, 20):
            options = {"strength": 0.1, "later": later}
            together = ALL[name](metric, r, blocked=blocked, importance=importance, **options)
            for i, n in enumerate(lengths):
                alone = ALL[name](samples[i][None], r, importance=weights[i][None], **options)
                offset = (44 - n) * shift
                assert found(together, i) == [(a + offset, b + offset) for a, b in found(alone, 0)], (side, r, n)


@pytest.mark.parametrize("name", ALL)
def test_large_batches_are_worked_on_in_chunks(name, monkeypatch):
    from intarsia.tokens.matching import free

    metric = torch.randn(5, 30, 8, generator=torch.Generator().manual_seed(6))
    whole = ALL[name](metric, 9)
    monkeypatch.setattr(free, "CHUNK", 2 * 30 * 30)
    parts = ALL[name](metric, 9)
    assert torch.equal(whole.source, parts.source) and torch.equal(whole.target, parts.target)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("name", NAIVE)
def test_similarities_are_float32_whatever_the_features_are(name, dtype):
    metric = torch.randn(2, 24, 8, generator=torch.Generator().manual_seed(7)).to(dtype)
    same = ALL[name](metric.float(), 8)
    given_as = ALL[name](metric, 8)
    assert torch.equal(same.source, given_as.source) and torch.equal(same.score, given_as.score)
    cosine = torch.nn.functional.cosine_similarity(
        metric[0, given_as.source[0]].double(), metric[0, given_as.target[0]].double(), dim=1
    )
    assert torch.allclose(cosine, given_as.score[0].double(), atol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_rows_without_a_direction_do_no_harm(name):
    metric = torch.randn(1, 20, 4, generator=torch.Generator().manual_seed(8))
    metric[0, 3], metric[0, 7], metric[0, 11] = 0.0, math.nan, math.inf
    pairs = ALL[name](metric, 10, importance=torch.full((1, 20), math.nan), strength=0.1)
    assert len(set(pairs.source[0].tolist())) == 10
    assert name == "random" or pairs.score.isfinite().all()


@pytest.mark.parametrize("name", ALL)
def test_the_same_wherever_it_runs(name):
    metric = torch.randn(2, 40, 8, generator=torch.Generator().manual_seed(13))
    plain = ALL[name](metric, 12)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = ALL[name](metric, 12)
    with torch.inference_mode():
        for_inference = ALL[name](metric * 1.0, 12)
    for other in (under_autocast, for_inference):
        assert torch.equal(plain.source, other.source) and torch.equal(plain.target, other.target)


def test_matching_makes_no_gradients():
    metric = torch.randn(1, 12, 4, requires_grad=True)
    assert all(not ALL[name](metric, 4).score.requires_grad for name in NAIVE)


# ---- what sets them apart


def clustered(seed):
    g = torch.Generator().manual_seed(seed)
    centres, which = torch.randn(4, 4, 32, generator=g), torch.randint(0, 4, (4, 96, 1), generator=g)
    return centres.gather(1, which.expand(-1, -1, 32)) + 0.5 * torch.randn(4, 96, 32, generator=g)


@pytest.mark.parametrize("r", [8, 24, 45])
@pytest.mark.parametrize("kind", ["random", "clusters"])
def test_dominance_closes_the_gap_to_greedy(kind, r):
    metric = clustered(9) if kind == "clusters" else torch.randn(4, 96, 32, generator=torch.Generator().manual_seed(9))
    tome, paper, ours, best = (f(metric, r).score.mean().item() for f in (bipartite, complete, dominance, greedy))
    assert best > tome
    assert ours > paper
    assert (ours - tome) / (best - tome) > 0.9


def test_a_star_goes_into_its_hub():
    """A hub that four others are close to, which are far from one another; and two rows away from all."""
    rows = torch.eye(7)
    rows[1:5] = 0.6 * rows[1:5] + 0.8 * rows[0]
    importance = torch.zeros(1, 7)
    importance[0, 0] = 1.0
    # Every spoke is as close to the hub as the hub to it: the important one stays, whatever the strength.
    assert found(dominance(rows[None], 3, importance=importance), 0) == [(1, 0), (2, 0), (3, 0)]
    # The hub outranks its spokes by index and is the only one of them that the paper's rule merges.
    assert [a for a, _ in found(complete(rows[None], 3), 0)].count(0) == 1


@pytest.mark.parametrize("matcher", [complete, dominance, greedy])
def test_a_clique_leaves_one(matcher):
    metric = torch.eye(12)
    metric[:5] = metric[0]
    pairs = found(matcher(metric[None], 4), 0)
    assert {row for pair in pairs for row in pair} == set(range(5))
    assert len({target for _, target in pairs}) == 1


def test_importance_spares_rows():
    metric = torch.randn(1, 30, 8, generator=torch.Generator().manual_seed(10))
    importance = torch.zeros(1, 30)
    importance[0, ::3] = 10.0
    for name in ("complete", "bipartite", "dominance", "greedy"):
        sources = {a for a, _ in found(ALL[name](metric, 9, importance=importance, strength=1.0), 0)}
        assert not any(a % 3 == 0 for a in sources), name


@pytest.mark.parametrize("strength", [0.3, 4.0, 1e6, 1e38])
@pytest.mark.parametrize("name", NAIVE)
def test_importance_may_outweigh_similarity_by_far(name, strength):
    """All pairs that were asked for are given, whatever they cost, and the order of bids holds over the whole range."""
    g = torch.Generator().manual_seed(12)
    metric, importance = torch.randn(2, 16, 6, generator=g), torch.randint(1, 9, (2, 16), generator=g).float()
    agree(name, metric, 8, None, importance, strength if strength < 1e6 else 1024.0)
    pairs = ALL[name](metric, 8, importance=importance, strength=strength)
    for sample in range(2):
        got = found(pairs, sample)
        assert len({a for a, _ in got}) == 8 and not {a for a, _ in got} & {b for _, b in got}


def test_random_pairs_follow_their_seed():
    metric = torch.randn(2, 40, 4)
    one, same, other = (MATCHERS["random"](metric, 10, seed=s).source for s in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)


# ---- pruning


def test_pruning_drops_the_least_important():
    stream = torch.randn(2, 6, 3)
    importance = torch.tensor([[9.0, 1, 2, 1, 3, 0], [0.0, 5, 4, 3, 2, 1]])
    blocked = torch.tensor([[False] * 5 + [True], [True] + [False] * 5])
    step = prune(stream, 2, importance=importance, blocked=blocked)
    assert step.keep.tolist() == [[0, 2, 4, 5], [0, 1, 2, 3]]
    assert step.into.tolist() == [[0, -1, 1, -1, 2, 3], [0, 1, 2, 3, -1, -1]]
    assert torch.equal(step.rows, torch.stack([stream[i, step.keep[i]] for i in range(2)]))


def test_pruning_leaves_a_row_and_pads_the_shorter():
    stream, importance = torch.randn(2, 4, 3), torch.rand(2, 4)
    blocked = torch.tensor([[False] * 4, [True, True, True, False]])
    step = prune(stream, 9, importance=importance, blocked=blocked)
    assert step.keep.tolist() == [[int(importance[0].argmax()), -1, -1, -1], [0, 1, 2, 3]]
    assert (step.rows[0, 1:] == 0).all()
    assert torch.equal(prune(stream, 0, importance=importance).rows, stream)


# ---- bad input


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"metric": torch.zeros(3, 4)}, r"\[batch, token, width\] is wanted"),
        ({"r": -1}, "0 or more"),
        ({"blocked": torch.zeros(2, 4, dtype=torch.bool)}, "blocked has shape"),
        ({"blocked": torch.zeros(2, 5)}, "give bool"),
        ({"importance": torch.zeros(2, 5, 1)}, "importance has shape"),
        ({"strength": -0.5}, "strength is -0.5"),
        ({"strength": math.nan}, "strength is nan"),
    ],
)
def test_bad_input(change, words):
    for matcher in ALL.values():
        with pytest.raises(BadInput, match=words):
            matcher(**{"metric": torch.zeros(2, 5, 3), "r": 1, **change})


def test_bad_input_of_pruning():
    with pytest.raises(BadInput, match="needs an importance"):
        prune(torch.zeros(1, 3, 2), 1, importance=None)
    with pytest.raises(BadInput, match="0 or more"):
        prune(torch.zeros(1, 3, 2), -1, importance=torch.zeros(1, 3))


def test_more_rounds_come_closer_to_greedy():
    metric = torch.randn(4, 96, 16, generator=torch.Generator().manual_seed(11))
    score = [dominance(metric, 45, rounds=rounds).score.mean().item() for rounds in (1, 8)]
    best = greedy(metric, 45).score.mean().item()
    assert score[0] < score[1] <= best + 1e-6


@pytest.mark.real
def test_the_gap_to_greedy_on_pictures():
    """At least nine tenths of the way from bipartite to greedy, on keys of a trained tower and on pixels."""
    matching = pytest.importorskip("bench.tokens.matching")
    if not (features := matching.image_features(8)):
        pytest.skip("the data set vision_language is not here")
    figures, rows = matching.quality(features)
    assert len(rows) == len(features) * len(matching.SHARES)
    assert figures["greedy_gap_closed"] > 0.9
    assert figures["greedy_gap_closed"] > figures["greedy_gap_closed_crossget"]
