"""Placements to compare with: what engines do by themselves, chance, load packing, and one greedy pass."""

from __future__ import annotations

import numpy as np

from intarsia.moe.placement.arrays import Devices
from intarsia.moe.placement.descent import Descent
from intarsia.moe.placement.placement import contiguous
from intarsia.moe.placement.problem import Array, Problem, of_experts


def round_robin(layers: int, experts: int, devices: int) -> Devices:
    """[layer, expert] expert e on device e modulo the number of devices."""
    return np.tile(np.arange(experts) % devices, (layers, 1))


def shuffled(layers: int, experts: int, devices: int, seed: int) -> Devices:
    """[layer, expert] chance, equally many on each device."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(row) for row in contiguous(layers, experts, devices)])


def packed(load: Array, devices: int) -> Devices:
    """[layer, expert] by load alone: the heaviest expert first, each to the lightest device that has room.

    The packing step of DeepSeek's EPLB (`rebalance_experts` without replicas). `load`: [L, E]."""
    layers, experts = load.shape
    most = -(-experts // devices)
    full = experts - (most - 1) * devices  # devices that hold one more than the others
    out = np.empty((layers, experts), np.int64)
    for layer, weights in enumerate(load):
        held, weight = np.zeros(devices, np.int64), np.zeros(devices)
        for expert in np.argsort(-weights, kind="stable"):
            has_room = (held < most - 1) | ((held == most - 1) & ((held == most).sum() < full))
            device = int(np.flatnonzero(has_room)[weight[has_room].argmin()])
            out[layer, expert] = device
            held[device] += 1
            weight[device] += weights[expert]
    return out


def greedy(problem: Problem) -> Devices:
    """[layer, expert] contiguous in the first layer, each next one the best given the one before."""
    padded = problem.padded()
    rows = contiguous(padded.layers, padded.experts, padded.devices)
    if problem.empty:  # the filling stands where a device is not full
        rows[0, : problem.experts] = contiguous(1, problem.experts, problem.devices)[0]
        held = np.bincount(rows[0, : problem.experts], minlength=problem.devices)
        rows[0, problem.experts :] = np.repeat(np.arange(problem.devices), problem.slots - held)
    return of_experts(Descent(padded, problem.experts).greedy(rows, 0), problem.experts)


def baselines(problem: Problem, seed: int = 0) -> dict[str, Devices]:
    """All of them by name."""
    size = problem.layers, problem.experts, problem.devices
    out = {"contiguous": contiguous(*size), "round-robin": round_robin(*size), "random": shuffled(*size, seed)}
    if problem.load is not None:
        out["load packing"] = packed(problem.load, problem.devices)
    return out | {"greedy": greedy(problem)}
