"""Copies: a few experts more on every device, those that tokens already there want most."""

from __future__ import annotations

import numpy as np

from intarsia.moe.placement.arrays import Devices
from intarsia.moe.routing import Trace

MOST = 200_000  # tokens that copies are chosen by


def replicas(trace: Trace, device_of: Devices, devices: int, copies: int) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """[layer][device] experts to copy there, `copies` of them, chosen layer by layer.

    Tokens are followed through the layers so far, copies included: on every device those experts are copied that most
    of its tokens go to next and that it lacks. A token takes a copy where it is before it moves. In the first layer
    tokens are everywhere, so copies are of what is used most."""
    every = max(1, -(-trace.tokens // MOST))
    first = np.concatenate([piece[::every, :, 0] for piece in trace.pieces()]).astype(np.int64)
    experts = device_of.shape[1]
    at = np.arange(len(first)) % devices
    out = []
    for layer in range(device_of.shape[0]):
        wanted = np.zeros((devices, experts), np.int64)
        np.add.at(wanted, (at, first[:, layer]), 1)
        own = device_of[layer]
        wanted[own, np.arange(experts)] = -1
        chosen = [
            tuple(sorted(e for e in np.argsort(-row, kind="stable")[:copies].tolist() if row[e] > 0)) for row in wanted
        ]
        has = np.zeros((devices, experts), bool)
        for device, some in enumerate(chosen):
            has[device, list(some)] = True
        at = np.where(has[at, first[:, layer]], at, own[first[:, layer]])
        out.append(tuple(chosen))
    return tuple(out)
