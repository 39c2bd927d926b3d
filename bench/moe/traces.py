"""The traces that are measured: of the trained networks, and drawn from chains of known affinity."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from intarsia.moe.routing import Counts, Trace

MODELS = {"mixtral": "mixtral-8x16e-top2", "olmoe": "olmoe-8x32e-top1"}


def given(folder: Path, model: str, checkpoint: str, *corpora: str) -> Trace:
    """A trace of the data set."""
    return Trace.open([folder / "traces" / f"{MODELS[model]}.{checkpoint}.{corpus}.npz" for corpus in corpora])


def drawn(
    layers: int, experts: int, tokens: int, sharp: float = 2.0, seed: int = 0, test: int = 20_000
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """([token, layer] to plan from, the same to judge by) of a Markov chain over experts that uses all alike.

    Step by step P(next | expert) is exp(sharp * normal), made doubly stochastic: `sharp` 0 is no affinity."""
    rng = np.random.default_rng(seed)
    steps = []
    for _ in range(layers - 1):
        table = np.exp(sharp * rng.normal(size=(experts, experts)))
        for _ in range(200):
            table /= table.sum(1, keepdims=True)
            table /= table.sum(0, keepdims=True)
        steps.append((table / table.sum(1, keepdims=True)).cumsum(1))
    return _walk(steps, experts, tokens, rng), _walk(steps, experts, test, rng)


def hidden(
    layers: int, experts: int, tokens: int, shares: dict[int, float], seed: int = 0, test: int = 20_000
) -> tuple[NDArray[np.int64], NDArray[np.int64], dict[int, NDArray[np.int64]]]:
    """(to plan from, to judge by, devices -> [layer, expert] the hidden placement) of a chain in which, for each number
    of devices, there is a placement that the given share of steps leaves. Experts are shuffled in every layer.

    shares: devices -> share; each number of devices divides the next greater one, and the experts."""
    rng = np.random.default_rng(seed)
    names = np.stack([rng.permutation(experts) for _ in range(layers)])
    inside = np.zeros((experts, experts))
    left, before = 1.0, np.zeros((experts, experts), bool)
    for devices in sorted(shares, reverse=True):
        device = np.arange(experts) * devices // experts
        ring = (device[:, None] == device[None]) & ~before
        inside += ring * (left - shares[devices]) / ring.sum(1, keepdims=True)
        left, before = shares[devices], before | ring
    inside += ~before * left / np.maximum((~before).sum(1, keepdims=True), 1)
    steps = []
    for here, there in itertools.pairwise(names):
        table = np.empty_like(inside)
        table[np.ix_(here, there)] = inside
        steps.append(table.cumsum(1))
    placed = {}
    for devices in shares:
        rows = np.empty((layers, experts), np.int64)
        np.put_along_axis(rows, names, np.tile(np.arange(experts) * devices // experts, (layers, 1)), 1)
        placed[devices] = rows
    return _walk(steps, experts, tokens, rng), _walk(steps, experts, test, rng), placed


def _walk(steps: list[NDArray[np.float64]], experts: int, tokens: int, rng: np.random.Generator) -> NDArray[np.int64]:
    ids = np.empty((tokens, len(steps) + 1), np.int64)
    ids[:, 0] = rng.integers(experts, size=tokens)
    for layer, step in enumerate(steps):
        draw = rng.random(tokens)
        ids[:, layer + 1] = np.minimum((draw[:, None] > step[ids[:, layer]]).sum(1), experts - 1)
    return ids


def flow_of(ids: NDArray[np.int64], experts: int) -> NDArray[np.float64]:
    """[layer - 1, expert, expert] shares of steps."""
    counts = Counts.empty(ids.shape[1], experts, 1)
    counts.add(ids[:, :, None])
    return counts.flow()
