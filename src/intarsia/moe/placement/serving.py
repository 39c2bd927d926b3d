"""Who serves a token: a copy of the expert where the token is, else the device that the placement names."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from intarsia.moe.placement.placement import Placement

Whole = NDArray[np.int64]


class Serving:
    """A placement's rule of service in numpy; the runtime has the same in tensors (`runtime.plan.Plan`)."""

    def __init__(self, placement: Placement):
        self.first = placement.device_of
        self.held = placement.table()

    def at(self, layer: int, ids: Whole, here: Whole) -> Whole:
        """[token, choice] the devices that run experts `ids` of one layer for tokens that are on devices `here`
        [token]."""
        return np.where(self.held[layer][here[:, None], ids], here[:, None], self.first[layer][ids])

    def through(self, ids: Whole, here: Whole) -> Whole:
        """[token, layer, choice] the same in every layer, for tokens that stay where they are."""
        layers = np.arange(ids.shape[1])[None, :, None]
        at = here[:, None, None]
        return np.where(self.held[layers, at, ids], at, self.first[layers, ids])
