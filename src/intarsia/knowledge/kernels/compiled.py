"""The few loops that torch has no fast operation for on a CPU, compiled by numba. `plain.py` has the same in torch.

Each writes only what its own turn of the parallel loop owns, and sums in a fixed order, so that results do not depend
on the number of threads. Inner loops write one row each: only then does the compiler vectorise them."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

Array = np.ndarray[Any, Any]
_options = {"parallel": True, "fastmath": {"contract", "reassoc", "arcp", "nsz"}, "cache": True, "nogil": True}


@numba.njit(**_options)
def l1(queries: Array, vectors: Array, out: Array) -> None:
    """out[i, j] = sum over k of |queries[i, k] - vectors[j, k]|."""
    n, width = queries.shape
    for block in numba.prange((n + 3) // 4):
        i = 4 * block
        if i + 4 <= n:  # four at a time: each vector is loaded once for four queries
            for j in range(len(vectors)):
                a = b = c = d = queries.dtype.type(0)
                for k in range(width):
                    x = vectors[j, k]
                    a += abs(queries[i, k] - x)
                    b += abs(queries[i + 1, k] - x)
                    c += abs(queries[i + 2, k] - x)
                    d += abs(queries[i + 3, k] - x)
                out[i, j] = a
                out[i + 1, j] = b
                out[i + 2, j] = c
                out[i + 3, j] = d
        else:
            for row in range(i, n):
                for j in range(len(vectors)):
                    a = queries.dtype.type(0)
                    for k in range(width):
                        a += abs(queries[row, k] - vectors[j, k])
                    out[row, j] = a


@numba.njit(**_options)
def l1_pull(queries: Array, vectors: Array, weights: Array, out: Array) -> None:
    """out[i] += sum over j of weights[i, j] * sign(queries[i] - vectors[j])."""
    n, width = queries.shape
    for i in numba.prange(n):
        for j in range(len(vectors)):
            w = weights[i, j]
            if w != 0:
                for k in range(width):
                    out[i, k] += w if queries[i, k] > vectors[j, k] else -w


@numba.njit(**_options)
def modulus(queries: Array, vectors: Array, out: Array) -> None:
    """out[i, j] = sum over complex components of |queries[i] - vectors[j]|; real parts first, then imaginary ones."""
    n, width = queries.shape
    half = width // 2
    for i in numba.prange(n):
        for j in range(len(vectors)):
            total = queries.dtype.type(0)
            for k in range(half):
                a = queries[i, k] - vectors[j, k]
                b = queries[i, half + k] - vectors[j, half + k]
                total += np.sqrt(a * a + b * b)
            out[i, j] = total


@numba.njit(**_options)
def modulus_pull(queries: Array, vectors: Array, weights: Array, out: Array) -> None:
    """out[i] += sum over j of weights[i, j] times the unit complex numbers of queries[i] - vectors[j]."""
    n, width = queries.shape
    half = width // 2
    tiny = queries.dtype.type(1e-30)
    for i in numba.prange(n):
        real, imaginary = out[i, :half], out[i, half:]
        for j in range(len(vectors)):
            w = weights[i, j]
            if w != 0:
                for k in range(half):
                    a = queries[i, k] - vectors[j, k]
                    b = queries[i, half + k] - vectors[j, half + k]
                    real[k] += w * a / np.sqrt(a * a + b * b + tiny)
                for k in range(half):
                    a = queries[i, k] - vectors[j, k]
                    b = queries[i, half + k] - vectors[j, half + k]
                    imaginary[k] += w * b / np.sqrt(a * a + b * b + tiny)


@numba.njit(**_options)
def count_better(
    scores: Array,
    rows: Array,
    answers: Array,
    low: Array,
    high: Array,
    tails: Array,
    flags: Array,
    old: int,
    out: Array,
) -> None:
    """For each answer, twice the number of candidates before it plus the number level with it, under three filters.

    - rows, answers: [answer] the row of scores and the column in question; higher scores are better.
    - tails[low : high] are its question's known answers, with flags: 1 known at the time of the test, 2 of these not in
      valid, 4 known by now; a known answer is taken out of the counts where its flag holds.
    - old: how many columns existed at the time of the test.
    - out: [3, answer]: old columns filtered by 1, old columns filtered by 2, all columns filtered by 4."""
    for p in numba.prange(len(answers)):
        row = scores[rows[p]]
        value = row[answers[p]]
        before = 0
        for k in range(old):
            before += 2 * (row[k] > value) + (row[k] == value)
        every = before
        for k in range(old, len(row)):
            every += 2 * (row[k] > value) + (row[k] == value)
        first = second = before - 1 if answers[p] < old else before
        third = every - 1
        for a in range(low[p], high[p]):
            k = tails[a]
            if k == answers[p] or k >= len(row):
                continue
            level = 2 * (row[k] > value) + (row[k] == value)
            if k < old and flags[a] & 1:
                first -= level
            if k < old and flags[a] & 2:
                second -= level
            if flags[a] & 4:
                third -= level
        out[0, p] = first
        out[1, p] = second
        out[2, p] = third


@numba.njit(**_options)
def margin_distances(entities: Array, relations: Array, facts: Array, others: Array, heads: Array, out: Array) -> None:
    """out[p, 0]: L1 distance of each fact; out[p, 1 + k]: of the fact with others[p, k] for its head or tail."""
    width = entities.shape[1]
    for p in numba.prange(len(facts)):
        h, r, t = entities[facts[p, 0]], relations[facts[p, 1]], entities[facts[p, 2]]
        forth = h + r
        back = t - r
        total = entities.dtype.type(0)
        for k in range(width):
            total += abs(forth[k] - t[k])
        out[p, 0] = total
        for n in range(others.shape[1]):
            other = entities[others[p, n]]
            anchor = back if heads[p, n] else forth
            total = entities.dtype.type(0)
            for k in range(width):
                total += abs(anchor[k] - other[k])
            out[p, 1 + n] = total


@numba.njit(**_options)
def margin_pull(
    entities: Array, relations: Array, facts: Array, others: Array, heads: Array, weights: Array, slices: int,
    to_entities: Array, to_relations: Array,
) -> None:  # fmt: skip
    """Gradient of sum(weights * distances) of `margin_distances`, added to to_entities and to_relations.

    Parallel over slices of the width: every sum is done by one turn alone, in the order of the facts."""
    width = entities.shape[1]
    step = (width + slices - 1) // slices
    for part in numba.prange(slices):
        low, high = part * step, min(width, (part + 1) * step)
        size = max(0, high - low)
        at_head = np.empty(size, entities.dtype)
        at_tail = np.empty(size, entities.dtype)
        for p in range(len(facts)):
            if not np.any(weights[p]):
                continue
            h, r, t = entities[facts[p, 0], low:high], relations[facts[p, 1], low:high], entities[facts[p, 2], low:high]
            w = weights[p, 0]
            for k in range(size):
                x = h[k] + r[k] - t[k]
                at_head[k] = w if x > 0 else -w
                at_tail[k] = at_head[k]
            for n in range(others.shape[1]):
                w = weights[p, 1 + n]
                other = entities[others[p, n], low:high]
                to_other = to_entities[others[p, n], low:high]
                if heads[p, n]:
                    for k in range(size):
                        x = other[k] + r[k] - t[k]
                        s = w if x > 0 else -w
                        to_other[k] += s
                    for k in range(size):
                        x = other[k] + r[k] - t[k]
                        at_tail[k] += w if x > 0 else -w
                else:
                    for k in range(size):
                        x = h[k] + r[k] - other[k]
                        to_other[k] -= w if x > 0 else -w
                    for k in range(size):
                        x = h[k] + r[k] - other[k]
                        at_head[k] += w if x > 0 else -w
            to_h, to_t = to_entities[facts[p, 0], low:high], to_entities[facts[p, 2], low:high]
            to_r = to_relations[facts[p, 1], low:high]
            for k in range(size):
                to_h[k] += at_head[k]
            for k in range(size):
                to_t[k] -= at_tail[k]
            # The fact itself is in both sums, and counts once for its relation.
            w = weights[p, 0]
            for k in range(size):
                x = h[k] + r[k] - t[k]
                to_r[k] += at_head[k] + at_tail[k] - (w if x > 0 else -w)
