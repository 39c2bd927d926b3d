"""Homes near the experts: the device that holds most of what a request's prompt used."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def assign(rows: NDArray[np.floating | np.integer], taken: NDArray[np.integer]) -> NDArray[np.int64]:
    """[request] the device that each gets: the most rows at home over all, and no device more than its share.

    A linear sum assignment of requests to places.

    - rows: [request, device] rows of its prompt that each device ran.
    - taken: [device] requests that live there already."""
    from scipy.optimize import linear_sum_assignment

    most = math.ceil((int(taken.sum()) + len(rows)) / len(taken))
    places = np.repeat(np.arange(len(taken)), np.maximum(0, most - taken))
    mine, columns = linear_sum_assignment(rows[:, places], maximize=True)
    out = np.empty(len(rows), np.int64)
    out[mine] = places[columns]
    return out
