"""Homes: which rank holds a request's keys and values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from intarsia.moe.placement.homes import assign


def spread(load: Sequence[int], wanted: Sequence[int | None]) -> list[int]:
    """A rank for each new request: the one it asks for, else the first of those with the fewest requests so far."""
    load, chosen = list(load), []
    for asked in wanted:
        rank = asked if asked is not None else int(np.argmin(load))
        load[rank] += 1
        chosen.append(rank)
    return chosen


def nearest(rows: Mapping[int, Sequence[int]], load: Sequence[int], asked: Mapping[int, int]) -> dict[int, int]:
    """Homes near the experts for new requests (`placement.homes.assign`; specification 7.4).

    - rows: request -> rows that each rank ran for it. load: requests that each rank has already.
    - asked: requests whose home is said."""
    taken = np.array(load, dtype=np.int64)
    np.add.at(taken, list(asked.values()), 1)
    free = [request for request in rows if request not in asked]
    if not free:
        return dict(asked)
    chosen = assign(np.array([rows[request] for request in free]), taken)
    return dict(asked) | dict(zip(free, chosen.tolist(), strict=True))
