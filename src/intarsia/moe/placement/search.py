"""Search where not all partitions can be listed: many descents, joined by Viterbi, shaken, and descended again.

Two ways share the work. `pooled` keeps the partitions of every solution and lets Viterbi join their best parts; it is
the better one where a device holds few experts. `kicked` goes on from one solution, each time a little displaced, and
is the better one where a device holds many. `search` runs both and joins what they found. All draw from one seed and
count rounds, not seconds, so that the same call gives the same placement on any machine."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from intarsia.moe.placement.arrays import Devices
from intarsia.moe.placement.descent import EPSILON, Descent
from intarsia.moe.placement.problem import Problem, cost
from intarsia.moe.placement.viterbi import Pool

STARTS = 24
PATIENCE = 3  # the share of its rounds, one in so many, that a kind of shake may bring nothing before it is over


def search(
    problem: Problem, real: int, seed: int, rounds: int, first: tuple[Devices, ...] = ()
) -> Iterator[tuple[int, Devices, float]]:
    """(rounds done, best placement so far, its cost), from time to time; the last one is the result.

    - problem: with all slots filled; real: experts that are no filling.
    - rounds: shakes in all, half of each kind. first: solutions to begin from, beside the descents."""
    rng = np.random.default_rng(seed)
    descent = Descent(problem, real)
    pool = Pool(problem) if problem.nodes == 1 or problem.far == 1.0 else None
    best, least = None, np.inf
    for rows in [*(row.copy() for row in first), *_starts(descent, rng)]:
        descent.descend(rows)
        if pool is not None:
            pool.add(rows)
        if (value := cost(problem, rows)) < least - EPSILON:
            best, least = rows.copy(), value
    assert best is not None
    half = rounds // 2 if pool is not None else 0
    gained = 0
    for done in range(half):
        assert pool is not None
        if done - gained > max(100, half / PATIENCE):
            break
        joined = descent.descend(pool.best())
        if (value := cost(problem, joined)) < least - EPSILON:
            best, least, gained = joined.copy(), value, done
            pool.add(best)
            pool.trim(best)
        shaken, layers = _shake(problem, best, rng, real)
        pool.add(descent.descend(shaken, layers))
        if max(map(len, pool.lists)) > pool.most + STARTS:
            pool.trim(best)
        if done % 8 == 7:
            yield done + 1, best, least
    current, value, gained = best.copy(), least, half
    for done in range(half, rounds):
        if done - gained > max(100, (rounds - half) / PATIENCE):
            break
        shaken, layers = _shake(problem, current, rng, real)
        descent.descend(shaken, layers)
        new = cost(problem, shaken)
        # A little worse is taken while there is time to make it good.
        if new < value + (1e-4 * problem.layers if done < half + 0.7 * (rounds - half) else -EPSILON):
            current, value = shaken, new
        if new < least - EPSILON:
            best, least, gained = shaken.copy(), new, done
            if pool is not None:
                pool.add(best)
        if done % 32 == 31:
            yield done + 1, best, least
    if pool is not None:
        joined = descent.descend(pool.best())
        if (value := cost(problem, joined)) < least - EPSILON:
            best, least = joined, value
    yield rounds, best, least


def _starts(descent: Descent, rng: np.random.Generator) -> Iterator[Devices]:
    problem = descent.problem
    for number in range(STARTS):
        rows = np.zeros((problem.layers, problem.experts), np.int64)
        start = number % problem.layers if number < problem.layers else int(rng.integers(problem.layers))
        rows[start] = _random_row(problem, rng, descent.real)
        yield descent.greedy(rows, start)


def _random_row(problem: Problem, rng: np.random.Generator, real: int) -> np.ndarray:
    """A random row that leaves no device more than one empty slot."""
    row = np.empty(problem.experts, np.int64)
    free = rng.permutation(problem.devices)[: problem.experts - real]
    row[real:] = free
    slots = [d for d in range(problem.devices) for _ in range(problem.slots - int(d in free))]
    row[:real] = rng.permutation(slots)
    return row


def _shake(problem: Problem, rows: Devices, rng: np.random.Generator, real: int) -> tuple[Devices, range]:
    """A displaced copy, and the layers that changed: a window of layers in which some experts change places, or two
    devices are thrown together and split anew."""
    out = rows.copy()
    size = int(rng.integers(1, max(2, min(problem.layers, 8) + 1)))
    start = int(rng.integers(0, problem.layers - size + 1))
    kind = int(rng.integers(3))
    pair = rng.choice(problem.devices, 2, replace=False)
    for layer in range(start, start + size):
        row = out[layer]
        if kind == 0:
            among = rng.choice(real, max(2, min(real, problem.experts // 4)), replace=False)
        elif kind == 1:
            both = [np.flatnonzero(row[:real] == d) for d in pair]
            among = np.array([rng.choice(b) for b in both])[::-1]
        else:
            among = np.flatnonzero(np.isin(row[:real], pair))
        row[among] = row[rng.permutation(among)] if kind != 1 else row[among[::-1]]
    return out, range(start, start + size)
