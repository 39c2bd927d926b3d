"""The ensemble against plain loops in float64: every form, sizes, padding, gradients."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from intarsia.errors import BadInput
from intarsia.tokens.ensemble import FORMS, combine
from intarsia.tokens.matching import MATCHERS, Pairs, dominance


def naive(stream, sizes, pairs, weights=None, temperature=1.0, form="convex", norm=False):
    """One sample, plain numbers: the rows that are left and where the old ones went."""
    groups: dict[int, list[int]] = {}
    for source, target in pairs:
        groups.setdefault(target, []).append(source)
    gone = [source for source, _ in pairs]
    keep = [t for t in range(len(stream)) if t not in gone]
    weights = [0.0] * len(stream) if weights is None or form == "mean" else [w / temperature for w in weights]
    rows = []
    for b in keep:
        members = [b, *groups.get(b, [])]
        if len(members) == 1:
            rows.append(stream[b])
            continue
        total = sum(sizes[i] for i in members)
        if form == "official":
            share = {a: math.exp(weights[a]) / (math.exp(weights[a]) + math.exp(weights[b])) for a in members[1:]}
            parts = {a: 2 * share[a] * sizes[a] / total for a in members[1:]}
            parts[b] = sizes[b] * (1 + sum(2 * (1 - share[a]) - 1 for a in members[1:])) / total
        else:
            parts = {i: sizes[i] * math.exp(weights[i]) for i in members}
            whole = sum(parts.values())
            parts = {i: part / whole for i, part in parts.items()}
        row = [sum(parts[i] * stream[i][c] for i in members) for c in range(len(stream[b]))]
        if norm:
            longest = max(math.hypot(*stream[i]) for i in members)
            row = [v * longest / math.hypot(*row) for v in row]
        rows.append(row)
    into = [keep.index(t) if t in keep else keep.index(dict(pairs)[t]) for t in range(len(stream))]
    return rows, keep, into


def drawn(seed, batch=3, tokens=14, width=5, r=6):
    g = torch.Generator().manual_seed(seed)
    stream = torch.randn(batch, tokens, width, generator=g, dtype=torch.float64)
    sizes = torch.randint(1, 6, (batch, tokens), generator=g).double()
    weights = torch.rand(batch, tokens, generator=g, dtype=torch.float64) * 2
    # A few rows close to all others take several sources each.
    metric = torch.randn(batch, tokens, 4, generator=g) * 0.5 + torch.tensor([1.0, 0, 0, 0])
    blocked = torch.zeros(batch, tokens, dtype=torch.bool)
    blocked[:, 0] = True
    return stream, sizes, weights, dominance(metric, r, blocked=blocked)


def listed(pairs, sample):
    return list(zip(pairs.source[sample].tolist(), pairs.target[sample].tolist(), strict=True))


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("temperature", [None, 0.3])
def test_as_by_plain_loops(form, norm, temperature):
    stream, sizes, weights, pairs = drawn(1)
    assert any(len(set(pairs.target[i].tolist())) < 6 for i in range(3))  # some target has several sources
    for given_weights in (weights, None):
        step = combine(stream, sizes, pairs, weights=given_weights, temperature=temperature, form=form, norm=norm)
        for i in range(3):
            weight = None if given_weights is None else weights[i].tolist()
            rows, keep, into = naive(
                stream[i].tolist(), sizes[i].tolist(), listed(pairs, i), weight, temperature or 1.0, form, norm
            )
            assert step.keep[i].tolist() == keep and step.into[i].tolist() == into
            assert torch.allclose(step.rows[i], torch.tensor(rows, dtype=torch.float64), atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_sizes_and_the_weighted_sum_are_kept(data):
    batch, tokens = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 16))
    seed, r = data.draw(st.integers(0, 999)), data.draw(st.integers(0, 9))
    stream, sizes, weights, _ = drawn(seed, batch, tokens)
    g = torch.Generator().manual_seed(seed)
    blocked = torch.rand(batch, tokens, generator=g) < data.draw(st.sampled_from([0.0, 0.4]))
    name = data.draw(st.sampled_from(sorted(MATCHERS)))
    pairs = MATCHERS[name](torch.randn(batch, tokens, 4, generator=g), r, blocked=blocked)
    form, options = data.draw(
        st.sampled_from([("mean", {}), ("convex", {"weights": weights, "temperature": math.inf}), ("official", {})])
    )
    step = combine(stream, sizes, pairs, form=form, **options)
    assert (step.into >= 0).all()
    after = torch.zeros(step.keep.shape, dtype=torch.float64).scatter_add(1, step.into, sizes)
    assert torch.equal(after.sum(1), sizes.sum(1))
    assert ((after == 0) == (step.keep < 0)).all()
    before = (stream * sizes[..., None]).sum(1)
    assert torch.allclose((step.rows * after[..., None]).sum(1), before, atol=1e-10)


@pytest.mark.parametrize("temperature", [0.01, 1.0, math.inf])
def test_a_merged_row_lies_between_its_members(temperature):
    """On a stream that is the identity the new rows are the coefficients."""
    _, sizes, weights, pairs = drawn(2)
    stream = torch.eye(14, dtype=torch.float64).expand(3, -1, -1)
    step = combine(stream, sizes, pairs, weights=100 * weights, temperature=temperature)
    assert (step.rows >= -1e-15).all()
    assert torch.allclose(step.rows.sum(2), torch.ones(3, 8, dtype=torch.float64))


def test_the_official_form_does_not():
    """Four sources that matter more than their target by 0.6: its coefficient is negative (0.165 in all sizes 1)."""
    pairs = Pairs(torch.tensor([[1, 2, 3, 4]]), torch.tensor([[0, 0, 0, 0]]))
    weights = torch.tensor([[0.0, 0.6, 0.6, 0.6, 0.6]])
    step = combine(torch.eye(5)[None], torch.ones(1, 5), pairs, weights=weights, form="official")
    assert step.rows[0, 0, 0] == pytest.approx((1 + 4 * (2 / (1 + math.exp(0.6)) - 1)) / 5, abs=1e-6)
    assert step.rows[0, 0, 0] < 0
    # And with unequal sizes the row shrinks: sizes 1 and 5, softmax weights 0.6 and 0.4.
    weights = torch.tensor([[math.log(0.6), math.log(0.4)]])
    one = Pairs(torch.tensor([[0]]), torch.tensor([[1]]))
    shrunk = combine(torch.eye(2)[None], torch.tensor([[1.0, 5.0]]), one, weights=weights, form="official")
    assert shrunk.rows.sum() == pytest.approx(0.867, abs=1e-3)


def test_nothing_to_merge_is_the_identity():
    stream, sizes, _, _ = drawn(3)
    none = torch.zeros(3, 0, dtype=torch.long)
    step = combine(stream, sizes, Pairs(none, none))
    assert step.rows is stream
    assert step.keep.tolist() == step.into.tolist() == [list(range(14))] * 3


def test_rows_that_are_equal_stay_so_to_the_bit():
    stream = torch.randn(1, 6, 7).repeat_interleave(2, dim=1)
    pairs = Pairs(torch.arange(0, 12, 2)[None], torch.arange(1, 12, 2)[None])
    step = combine(stream, torch.rand(1, 12) + 1, pairs, weights=torch.rand(1, 12))
    assert torch.equal(step.rows, stream[:, 1::2])


def test_rows_of_size_zero_are_never_merged():
    stream, sizes, _, _ = drawn(4, batch=1, tokens=5)
    sizes[0, 4] = sizes[0, 1] = 0
    step = combine(stream, sizes, Pairs(torch.tensor([[0, 1, 3]]), torch.tensor([[4, 2, 2]])))
    assert step.keep.tolist() == [[0, 1, 2, 4]]
    assert step.into.tolist() == [[0, 1, 2, 2, 3]]
    assert torch.equal(step.rows[0, [0, 1, 3]], stream[0, [0, 1, 4]])


def test_samples_that_lose_fewer_rows():
    """The others are padded with zeros behind; and each sample is as it would be alone."""
    stream, sizes, weights, _ = drawn(5, batch=3, tokens=9)
    blocked = torch.zeros(3, 9, dtype=torch.bool)
    blocked[1, :5] = blocked[2] = True
    pairs = dominance(stream, 4, blocked=blocked)
    step = combine(stream, sizes, pairs, weights=weights)
    assert (step.keep >= 0).sum(1).tolist() == [5, 7, 9]
    for i, count in enumerate([4, 2, 0]):
        one = combine(
            stream[i : i + 1],
            sizes[i : i + 1],
            Pairs(pairs.source[i : i + 1, :count], pairs.target[i : i + 1, :count]),
            weights=weights[i : i + 1],
        )
        rows = 9 - count
        assert torch.equal(step.rows[i, :rows], one.rows[0]) and (step.rows[i, rows:] == 0).all()
        assert torch.equal(step.into[i], one.into[0]) and torch.equal(step.keep[i, :rows], one.keep[0])


def test_dropped_rows_are_part_of_nothing():
    stream, sizes, _, _ = drawn(6, batch=1, tokens=5)
    drop = torch.tensor([[False, False, True, False, False]])
    step = combine(stream, sizes, Pairs(torch.tensor([[0]]), torch.tensor([[3]])), drop=drop)
    assert step.keep.tolist() == [[1, 3, 4]] and step.into.tolist() == [[1, 0, -1, 1, 2]]
    none = torch.zeros(1, 0, dtype=torch.long)
    alone = combine(stream, sizes, Pairs(none, none), drop=drop)
    assert torch.equal(alone.rows, stream[:, [0, 1, 3, 4]]) and alone.into.tolist() == [[0, 1, -1, 2, 3]]


@pytest.mark.parametrize("form", FORMS)
def test_gradients(form):
    stream, sizes, weights, pairs = drawn(7, batch=2, tokens=8, width=3, r=3)

    def rows(stream, weights):
        return combine(stream, sizes, pairs, weights=weights, temperature=0.7, form=form, norm=True).rows

    weights = weights if form == "mean" else weights.requires_grad_()
    assert torch.autograd.gradcheck(rows, (stream.requires_grad_(), weights))


def test_gradients_where_pairs_are_passed_over():
    stream, sizes, weights, pairs = drawn(8, batch=2, tokens=8, r=3)
    sizes[0, pairs.source[0, 0]] = 0
    sizes[1, pairs.target[1, 1]] = 0
    stream, weights = stream.requires_grad_(), weights.requires_grad_()
    combine(stream, sizes, pairs, weights=weights).rows.square().sum().backward()
    assert stream.grad.isfinite().all() and weights.grad.isfinite().all() and weights.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rounds_once(dtype):
    stream, sizes, weights, pairs = drawn(9)
    stream = stream.to(dtype)
    step = combine(stream, sizes.float(), pairs, weights=weights.float())
    exact = combine(stream.double(), sizes, pairs, weights=weights.float().double())
    assert step.rows.dtype == dtype
    assert torch.allclose(step.rows.double(), exact.rows, rtol=torch.finfo(dtype).eps, atol=1e-6)


def test_extreme_weights_neither_overflow_nor_vanish():
    pairs = Pairs(torch.tensor([[0, 3]]), torch.tensor([[1, 2]]))
    weights = torch.tensor([[500.0, 0.0, -900.0, -901.0]])
    step = combine(torch.eye(4)[None], torch.ones(1, 4), pairs, weights=weights)
    assert torch.allclose(step.rows[0, 0], torch.tensor([1.0, 0, 0, 0]))
    assert step.rows[0, 1, 2] == pytest.approx(1 / (1 + math.exp(-1)))


def test_bad_input():
    stream, sizes, _, pairs = drawn(10)
    with pytest.raises(BadInput, match="unknown form of ensemble 'max'; known: convex"):
        combine(stream, sizes, pairs, form="max")
    for temperature in (0.0, -1.0, math.nan):
        with pytest.raises(BadInput, match="a number above 0"):
            combine(stream, sizes, pairs, temperature=temperature)
