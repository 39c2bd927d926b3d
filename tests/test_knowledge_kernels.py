"""Kernels, compiled and in torch, against plain loops over numbers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from intarsia.knowledge import kernels
from intarsia.knowledge.kernels import plain

TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-12}
numbers = torch.Generator()


@pytest.fixture(params=["compiled", "torch"])
def way(request, monkeypatch):
    if request.param == "torch":
        monkeypatch.setattr(kernels, "_compiled", lambda: None)
    elif kernels._compiled() is None:
        pytest.skip("numba is not installed")
    return request.param


dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
# Compiled loops take four queries a turn: none, some or all of them are left over.
shapes = pytest.mark.parametrize(("n", "m", "width"), [(4, 3, 6), (6, 7, 10), (1, 1, 2), (9, 2, 34)])


def drawn(*shape, dtype=torch.float64, seed=0):
    """Numbers in steps of a quarter, so that some coordinates are equal."""
    numbers.manual_seed(seed)
    return (torch.randint(-8, 9, shape, generator=numbers) / 4).to(dtype)


def off(*shape, dtype=torch.float64, seed=0):
    numbers.manual_seed(seed)
    return torch.randn(shape, generator=numbers, dtype=torch.float64).to(dtype)


def sign(x):
    return 1.0 if x > 0 else -1.0


def close(found, wanted):
    wanted = torch.tensor(wanted, dtype=torch.float64)
    assert found.shape == wanted.shape
    torch.testing.assert_close(found.double(), wanted, rtol=TOLERANCE[found.dtype], atol=TOLERANCE[found.dtype])


# ---- references


def naive_l1(queries, vectors):
    return [[sum(abs(a - b) for a, b in zip(q, v, strict=True)) for v in vectors] for q in queries]


def naive_l1_pull(queries, vectors, weights):
    return [
        [sum(w * sign(q[k] - v[k]) for w, v in zip(row, vectors, strict=True)) for k in range(len(q))]
        for q, row in zip(queries, weights, strict=True)
    ]


def as_complex(row):
    half = len(row) // 2
    return [complex(a, b) for a, b in zip(row[:half], row[half:], strict=True)]


def naive_modulus(queries, vectors):
    q, v = [as_complex(row) for row in queries], [as_complex(row) for row in vectors]
    return [[sum(abs(a - b) for a, b in zip(x, y, strict=True)) for y in v] for x in q]


def naive_modulus_pull(queries, vectors, weights):
    out = []
    for q, row in zip(queries, weights, strict=True):
        total = [0j] * (len(q) // 2)
        for w, v in zip(row, vectors, strict=True):
            for k, (a, b) in enumerate(zip(as_complex(q), as_complex(v), strict=True)):
                total[k] += w * (a - b) / abs(a - b) if a != b else 0
        out.append([z.real for z in total] + [z.imag for z in total])
    return out


def corruptions(facts, others, heads):
    """Head, relation and tail of each fact and of each of its corruptions."""
    for (h, r, t), row, sides in zip(facts, others, heads, strict=True):
        yield [(h, r, t)] + [(o, r, t) if side else (h, r, o) for o, side in zip(row, sides, strict=True)]


def naive_margin_distances(x, q, facts, others, heads):
    return [
        [sum(abs(a + b - c) for a, b, c in zip(x[h], q[r], x[t], strict=True)) for h, r, t in row]
        for row in corruptions(facts, others, heads)
    ]


def naive_margin_pull(x, q, facts, others, heads, weights):
    """As the kernels take sign(0): -1 of h + r - t, and of o + r - t or h + r - o."""
    to_x, to_q = [[0.0] * len(x[0]) for _ in x], [[0.0] * len(x[0]) for _ in q]
    for row, ws in zip(corruptions(facts, others, heads), weights, strict=True):
        for (h, r, t), w in zip(row, ws, strict=True):
            for k in range(len(x[0])):
                s = w * sign(x[h][k] + q[r][k] - x[t][k])
                to_x[h][k] += s
                to_q[r][k] += s
                to_x[t][k] -= s
    return to_x, to_q


def naive_counts(scores, rows, answers, low, high, tails, flags, old):
    """Twice the better candidates and once the level ones, of those that no filter takes out."""
    out = [[], [], []]
    for row, answer, first, last in zip(rows, answers, low, high, strict=True):
        known = {tails[a]: flags[a] for a in range(first, last)}
        for i, (most, flag) in enumerate([(old, 1), (old, 2), (len(scores[0]), 4)]):
            left = [s for k, s in enumerate(scores[row][:most]) if k != answer and not known.get(k, 0) & flag]
            value = scores[row][answer]
            out[i].append(2 * sum(s > value for s in left) + sum(s == value for s in left))
    return out


# ---- pairs


@dtypes
@shapes
def test_l1_is_the_sum_of_absolute_differences(way, dtype, n, m, width):
    queries, vectors = off(n, width, dtype=dtype), off(m, width, dtype=dtype, seed=1)
    close(kernels.l1(queries, vectors), naive_l1(queries.tolist(), vectors.tolist()))


@dtypes
def test_l1_works_on_odd_widths(way, dtype):
    for width in (1, 3, 17):
        queries, vectors = off(5, width, dtype=dtype), off(3, width, dtype=dtype, seed=1)
        weights = off(5, 3, dtype=dtype, seed=2)
        close(kernels.l1(queries, vectors), naive_l1(queries.tolist(), vectors.tolist()))
        wanted = naive_l1_pull(queries.tolist(), vectors.tolist(), weights.tolist())
        close(kernels.l1_pull(queries, vectors, weights), wanted)


@dtypes
@shapes
def test_the_pull_of_l1_takes_the_sign_of_nothing_as_minus_one(way, dtype, n, m, width):
    queries, vectors = drawn(n, width, dtype=dtype), drawn(m, width, dtype=dtype, seed=1)
    weights = off(n, m, dtype=dtype, seed=2)
    weights[0, 0] = 0
    wanted = naive_l1_pull(queries.tolist(), vectors.tolist(), weights.tolist())
    close(kernels.l1_pull(queries, vectors, weights), wanted)
    same = torch.ones(1, 4, dtype=dtype)
    assert kernels.l1_pull(same, same, torch.full((1, 1), 2.0, dtype=dtype)).tolist() == [[-2.0] * 4]


@dtypes
@shapes
def test_modulus_is_the_sum_of_complex_distances(way, dtype, n, m, width):
    queries, vectors = drawn(n, width, dtype=dtype), drawn(m, width, dtype=dtype, seed=1)
    close(kernels.modulus(queries, vectors), naive_modulus(queries.tolist(), vectors.tolist()))


@dtypes
@shapes
def test_the_pull_of_modulus_is_its_unit_numbers_and_nothing_where_two_are_equal(way, dtype, n, m, width):
    queries, vectors = drawn(n, width, dtype=dtype), drawn(m, width, dtype=dtype, seed=1)
    weights = off(n, m, dtype=dtype, seed=2)
    wanted = naive_modulus_pull(queries.tolist(), vectors.tolist(), weights.tolist())
    close(kernels.modulus_pull(queries, vectors, weights), wanted)
    same = torch.ones(1, 4, dtype=dtype)
    assert not kernels.modulus_pull(same, same, torch.ones(1, 1, dtype=dtype)).any()


def test_tensors_need_not_be_contiguous(way):
    queries, vectors, weights = off(6, 5).T, off(6, 3, seed=1).T, off(3, 5, seed=2).T
    close(kernels.l1(queries, vectors), naive_l1(queries.tolist(), vectors.tolist()))
    wanted = naive_l1_pull(queries.tolist(), vectors.tolist(), weights.tolist())
    close(kernels.l1_pull(queries, vectors, weights), wanted)
    close(kernels.modulus(queries, vectors), naive_modulus(queries.tolist(), vectors.tolist()))
    wanted = naive_modulus_pull(queries.tolist(), vectors.tolist(), weights.tolist())
    close(kernels.modulus_pull(queries, vectors, weights), wanted)


def test_pieces_of_the_torch_kernels_make_the_whole(monkeypatch):
    queries, vectors, weights = off(7, 6), off(5, 6, seed=1), off(7, 5, seed=2)
    whole = [plain.l1_pull(queries, vectors, weights), plain.modulus_pull(queries, vectors, weights)]
    monkeypatch.setattr(plain, "MOST", 60)
    torch.testing.assert_close(plain.l1_pull(queries, vectors, weights), whole[0])
    torch.testing.assert_close(plain.modulus_pull(queries, vectors, weights), whole[1])
    close(plain.modulus(queries, vectors), naive_modulus(queries.tolist(), vectors.tolist()))


# ---- facts and their corruptions


def facts_of(negatives=3, count=8, entities=5, relations=3, width=7, dtype=torch.float64, seed=0):
    x, q = drawn(entities, width, dtype=dtype, seed=seed), drawn(relations, width, dtype=dtype, seed=seed + 1)
    sizes = (entities, relations, entities)
    facts = torch.stack([torch.randint(size, (count,), generator=numbers) for size in sizes], 1)
    others = torch.randint(entities, (count, negatives), generator=numbers)
    return x, q, facts, others, torch.rand(count, negatives, generator=numbers) < 0.5


def pulled(x, q, facts, others, heads, weights):
    to = torch.ones_like(x), torch.ones_like(q)
    kernels.margin_pull(x, q, facts, others, heads, weights, *to)
    return to[0] - 1, to[1] - 1


@dtypes
@pytest.mark.parametrize(("negatives", "width"), [(1, 1), (3, 7), (4, 16)])
def test_distances_of_facts_and_their_corruptions_are_those_of_translations(way, dtype, negatives, width):
    given = facts_of(negatives, width=width, dtype=dtype)
    close(kernels.margin_distances(*given), naive_margin_distances(*(each.tolist() for each in given)))


@dtypes
@pytest.mark.parametrize(("negatives", "width"), [(1, 1), (3, 7), (4, 16)])
def test_their_pull_is_added_to_what_the_gradients_hold(way, dtype, negatives, width):
    given = facts_of(negatives, width=width, dtype=dtype)
    weights = off(8, 1 + negatives, dtype=dtype, seed=5)
    wanted = naive_margin_pull(*(each.tolist() for each in (*given, weights)))
    for found, right in zip(pulled(*given, weights), wanted, strict=True):
        close(found, right)


def test_a_fact_without_weight_takes_nothing_from_its_corruptions(way):
    given = facts_of()
    weights = off(8, 4, seed=5)
    weights[::2, 0] = 0
    wanted = naive_margin_pull(*(each.tolist() for each in (*given, weights)))
    for found, right in zip(pulled(*given, weights), wanted, strict=True):
        close(found, right)


# ---- ranks


@dtypes
def test_better_and_level_candidates_are_counted_under_three_filters(way, dtype):
    numbers.manual_seed(3)
    scores = torch.randint(4, (5, 12), generator=numbers).to(dtype)
    rows, answers = torch.tensor([0, 1, 1, 2, 3, 4, 4]), torch.tensor([3, 11, 0, 7, 8, 2, 9])
    counts = torch.tensor([3, 0, 5, 12, 1, 4, 6])
    high = counts.cumsum(0)
    tails = torch.cat([torch.randperm(12, generator=numbers)[:count] for count in counts]).int()
    flags = torch.randint(8, (len(tails),), generator=numbers).to(torch.int8)
    for old in (8, 12):
        found = kernels.count_better(scores, rows, answers, high - counts, high, tails, flags, old)
        given = [each.tolist() for each in (scores, rows, answers, high - counts, high, tails, flags)]
        assert found.tolist() == naive_counts(*given, old)


def test_a_known_answer_that_is_no_candidate_is_passed_over(way):
    scores, nothing = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([0])
    tails, flags = torch.tensor([1, 7], dtype=torch.int32), torch.tensor([7, 7], dtype=torch.int8)
    found = kernels.count_better(scores, nothing, nothing, nothing, torch.tensor([2]), tails, flags, 3)
    assert found.tolist() == [[2], [2], [2]]


# ---- threads


def many_results(dtype):
    queries, vectors, weights = (off(*shape, dtype=dtype) for shape in [(37, 200), (53, 200), (37, 53)])
    x, q, facts, others, heads = facts_of(count=60, width=200, dtype=dtype)
    return [
        kernels.l1(queries, vectors), kernels.l1_pull(queries, vectors, weights), kernels.modulus(queries, vectors),
        kernels.modulus_pull(queries, vectors, weights), kernels.margin_distances(x, q, facts, others, heads),
        *pulled(x, q, facts, others, heads, off(60, 4, dtype=dtype, seed=5)),
    ]  # fmt: skip


THREADS = """
import torch
from tests.test_knowledge_kernels import kernels, many_results
torch.set_num_threads(3)
assert kernels._compiled().numba.config.NUMBA_NUM_THREADS == 3
for dtype in (torch.float32, torch.float64):
    results = []
    for threads in (3, 1, 2):
        torch.set_num_threads(threads)
        results.append(many_results(dtype))
        assert kernels._compiled().numba.get_num_threads() == threads
    assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(*results, strict=True))
"""


def test_the_number_of_threads_changes_no_bit_and_there_are_as_many_as_torch_has():
    if kernels._compiled() is None:
        pytest.skip("numba is not installed")
    environ = {name: value for name, value in os.environ.items() if name != "NUMBA_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", THREADS], env=environ, cwd=Path(__file__).parent.parent,
        text=True, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_kernels_are_the_compiled_ones_on_a_cpu_and_those_of_torch_for_other_numbers():
    there = kernels._compiled() is not None
    assert (kernels._fast(torch.zeros(1)) is not None) is there
    assert (kernels._fast(torch.zeros(1, dtype=torch.float64)) is not None) is there
    assert kernels._fast(torch.zeros(1, dtype=torch.bfloat16)) is None
    assert kernels._fast(torch.zeros(1, device="meta")) is None
