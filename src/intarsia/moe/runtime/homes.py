"""Homes: which rank holds a request's keys and values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray


def spread(load: Sequence[int], wanted: Sequence[int | None]) -> list[int]:
    """A rank for each new request: the one it asks for, else the first of those with the fewest requests so far."""
    load, chosen = list(load), []
    for asked in wanted:
        rank = asked if asked is not None else int(np.argmin(load))
        load[rank] += 1
        chosen.append(rank)
    return chosen


def nearest(rows: Mapping[int, Sequence[int]], load: Sequence[int], asked: Mapping[int, int]) -> dict[int, int]:
    """Homes near the experts: for each new request the rank that ran most of its prompt's rows, with no rank getting
    more than its share (a linear sum assignment of requests to places; specification 7.4).

    - rows: request -> rows that each rank ran for it. load: requests that each rank has already.
    - asked: requests whose home is said."""
    from scipy.optimize import linear_sum_assignment

    taken = list(load)
    for rank in asked.values():
        taken[rank] += 1
    free = [request for request in rows if request not in asked]
    homes = dict(asked)
    if free:
        most = math.ceil((sum(taken) + len(free)) / len(taken))
        places = [rank for rank, n in enumerate(taken) for _ in range(max(0, most - n))]
        gain: NDArray[np.float64] = np.array([rows[request] for request in free], dtype=np.float64)[:, places]
        for request, place in zip(*linear_sum_assignment(-gain), strict=True):
            homes[free[request]] = places[place]
    return homes
