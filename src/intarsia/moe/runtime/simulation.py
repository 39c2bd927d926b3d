"""What more experts and more devices than there are here would exchange: a simulation, and called so.

Routing is drawn from counts (of a trace, or made up), then replayed exactly: the counts are exact for the routing that
was drawn, the times are modelled on a named link."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from intarsia.errors import BadInput
from intarsia.moe.placement.placement import Placement
from intarsia.moe.runtime.costmodel import Link, modelled
from intarsia.moe.runtime.counters import Totals, totals
from intarsia.moe.runtime.replay import Sizes, replay_trace
from intarsia.moe.runtime.running import MODES

Ints = NDArray[np.int64]
Shares = NDArray[np.float64]


@dataclass(frozen=True)
class Simulated:
    """One line of a simulation: decode traffic per token, and the modelled seconds of a step."""

    experts: int
    devices: int
    placement: str
    mode: str
    traffic: Totals
    modelled_seconds: float
    link: str
    what: str = "simulation"


def chain(layers: int, experts: int, sharpness: float = 2.0, seed: int = 0) -> Shares:
    """[layers - 1, expert, expert] made-up shares of tokens that go from one expert to another in the next layer.

    Sinkhorn-normalised exp(sharpness * normal): every expert gets as many tokens, and each has its followers."""
    rng = np.random.default_rng(seed)
    flow = np.exp(sharpness * rng.standard_normal((layers - 1, experts, experts)))
    for _ in range(200):
        flow /= flow.sum(2, keepdims=True) * experts
        flow /= flow.sum(1, keepdims=True) * experts
    return flow


def drawn(
    flow: Shares, mates: Shares | None, k: int, requests: int, tokens: int, seed: int = 0, sticky: float = 0.0
) -> tuple[Ints, Ints]:
    """Routing drawn from shares: expert ids [token, layer, k], and the request [token] of each.

    - flow: [layers - 1, a, b] share of tokens that go from a to b.
    - mates: [layers, a, b] share that use both; a token's further experts are drawn from it (None: any).
    - sticky: chance that a token starts with the expert that its request's last token started with."""
    if k > flow.shape[1]:
        raise BadInput(f"{k} experts of {flow.shape[1]} cannot be chosen")
    rng = np.random.default_rng(seed)
    count, layers, experts = requests * tokens, len(flow) + 1, flow.shape[1]
    request = np.repeat(np.arange(requests), tokens)
    ids = np.empty((count, layers, k), dtype=np.int64)
    now = rng.choice(experts, size=count, p=_shares(flow[0].sum(1)))
    same = rng.random(count) < sticky
    for token in range(count):
        if same[token] and token % tokens:
            now[token] = now[token - 1]
    for layer in range(layers):
        if layer:
            now = _next(flow[layer - 1][now], rng)
        ids[:, layer, 0] = now
        left = np.ones((count, experts)) if mates is None else mates[layer][now] + 1e-12
        for choice in range(1, k):
            left = left.copy()
            left[np.arange(count), ids[:, layer, choice - 1]] = 0
            ids[:, layer, choice] = _next(left, rng)
    return ids, request


def _shares(weights: Shares) -> Shares:
    return weights / weights.sum()


def _next(weights: Shares, rng: np.random.Generator) -> Ints:
    """One draw from each row."""
    rising = np.cumsum(weights, axis=1)
    return (rising < rng.random(len(weights))[:, None] * rising[:, -1:]).sum(1)


def simulate(
    routing: tuple[Ints, Ints],
    placements: Mapping[str, Placement],
    sizes: Sizes,
    link: Link,
    *,
    modes: Sequence[str] = MODES,
    prompt: int = 8,
    batch: int = 16,
    row: float = 0.0,
) -> list[Simulated]:
    """Replay drawn routing under placements and modes, with counts and rows sent together where that is quicker on the
    link. prompt: tokens of each request that are its prompt; row: seconds of one (token, expert) pair."""
    sizes, lines = replace(sizes, fuse_bytes=link.fuse_bytes), []
    for name, placement in placements.items():
        for mode in modes:
            counted = replay_trace(*routing, placement, mode, sizes, prompt=prompt, batch=batch)
            time = modelled(counted.decode, placement.devices, link, row).seconds
            lines.append(
                Simulated(
                    placement.experts, placement.devices, name, mode, totals(counted.traffic), time, str(link)
                )
            )  # fmt: skip
    return lines
