"""What a placement costs on tokens that it has not seen: counted token by token, with no assumption.

A row is one hidden vector that goes from one device to another; a token sends one row to a device however many of its
experts are there. Three ways of running are counted. `vanilla`: a token lives at its request's home, goes out to its
experts and comes back, every layer. `home`: the same, each request's home chosen after its prompt as the device that
holds most of what the prompt used. `coherent`: a token stays where the expert of its greatest weight (its carrier) is,
and only the other experts' results come back to that device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from intarsia.moe.placement.homes import assign
from intarsia.moe.placement.placement import Placement
from intarsia.moe.placement.serving import Serving
from intarsia.moe.routing import Trace

Whole = NDArray[np.int64]


@dataclass(frozen=True)
class Traffic:
    """Means over tokens. Rows are a token's in one layer, both ways together.

    - crossing: share of steps between layers after which the carrier is elsewhere; nodes: is on another node.
    - coherent, vanilla, home: rows of each way of running (coherent: of the steps between layers).
    - load: of the fullest device over the mean, in the mean over layers; worst: in the worst layer."""

    crossing: float
    nodes: float
    coherent: float
    vanilla: float
    home: float
    load: float
    worst: float
    tokens: int


def traffic(trace: Trace, placement: Placement, prompt: float = 0.5) -> Traffic:
    """Of a placement on a trace.

    prompt: the share of a sequence by which `home` chooses; rows are counted on the rest of it, for all ways alike."""
    devices, layers = placement.devices, len(placement.device_of)
    serving = Serving(placement)
    node = np.array([placement.node_of(d) for d in range(devices)])
    homes = _Homes(trace, placement, prompt)
    moved = over = steps = 0
    rows = dict.fromkeys(("coherent", "vanilla", "home"), 0)
    counted = tokens = 0
    load = np.zeros((layers, devices), np.int64)
    for ids, late, plain, chosen in homes.pieces():
        here = _followed(serving, ids, plain)
        carrier = here[:, :, 0]
        used = _used(here, devices)
        load += np.stack([np.bincount(here[:, layer].ravel(), minlength=devices) for layer in range(layers)])
        moved += int((carrier[:, 1:] != carrier[:, :-1]).sum())
        over += int((node[carrier[:, 1:]] != node[carrier[:, :-1]]).sum())
        steps += carrier[:, 1:].size
        tokens += len(ids)
        # A device in use that is not where the token is costs a row there; all but the carrier send one back.
        u, c = used[late], carrier[late]
        count = u.sum(2)
        away = count[:, 1:] - np.take_along_axis(u[:, 1:], c[:, :-1, None], 2)[:, :, 0]
        rows["coherent"] += int(away.sum() + (count[:, 1:] - 1).sum())
        for name, home in (("vanilla", plain[late]), ("home", chosen[late])):
            if placement.replicas:
                u = _used(serving.through(ids[late], home), devices)
                count = u.sum(2)
            mine = np.take_along_axis(u, np.broadcast_to(home[:, None, None], (*u.shape[:2], 1)), 2)[:, :, 0]
            rows[name] += 2 * int((count - mine).sum())
        counted += len(u)
    if not tokens:
        raise ValueError("no tokens to count")
    uneven = load.max(1) / np.maximum(load.mean(1), 1e-300)
    per = max(1, counted)
    return Traffic(
        moved / max(1, steps), over / max(1, steps), rows["coherent"] / (per * max(1, layers - 1)),
        rows["vanilla"] / (per * layers), rows["home"] / (per * layers), float(uneven.mean()), float(uneven.max()),
        tokens,
    )  # fmt: skip


def _followed(serving: Serving, ids: Whole, start: Whole) -> Whole:
    """[token, layer, choice] devices used by tokens that go on to their carrier's. `start`: [token] the first."""
    here, at = np.empty(ids.shape, np.int64), start
    for layer in range(ids.shape[1]):
        here[:, layer] = serving.at(layer, ids[:, layer], at)
        at = here[:, layer, 0]
    return here


def _used(here: Whole, devices: int) -> NDArray[np.int8]:
    """[token, layer, device] 1 where a token has an expert."""
    out = np.zeros((*here.shape[:2], devices), np.int8)
    np.put_along_axis(out, here, 1, 2)
    return out


class _Homes:
    """Requests, and where they live: in turn, or where most of their prompt's experts are."""

    def __init__(self, trace: Trace, placement: Placement, prompt: float):
        self.trace, self.placement, self.prompt = trace, placement, prompt

    def pieces(self):
        """(ids [token, layer, choice], late [token] whether it counts, plain home [token], chosen home [token])."""
        seen = 0
        for ids, seq in zip(self.trace.pieces(), self.trace.pieces("seq"), strict=True):
            ids = ids.astype(np.int64)
            # A part may hold a sequence that the next piece goes on with: it counts as another request then.
            _, number = np.unique(seq, return_inverse=True)
            requests = int(number.max()) + 1
            length = np.bincount(number)
            order = np.argsort(number, kind="stable")
            place = np.empty(len(seq), np.int64)
            place[order] = np.arange(len(seq)) - np.repeat(np.cumsum(length) - length, length)
            late = place >= np.floor(length * self.prompt)[number]
            plain = (np.arange(requests) + seen) % self.placement.devices
            homes = _chosen(ids[~late], number[~late], requests, self.placement)
            seen += requests
            yield ids, late, plain[number], homes[number]


def _chosen(ids: Whole, request: Whole, requests: int, placement: Placement) -> Whole:
    """[request] the home of each, for at most 512 of them at a time. `ids`: [token, layer, choice]; `request`:
    [token]."""
    here = placement.device_of[np.arange(ids.shape[1])[None, :, None], ids]
    rows = np.zeros((requests, placement.devices))
    np.add.at(rows, (request, slice(None)), _used(here, placement.devices).sum(1))
    nobody = np.zeros(placement.devices, np.int64)
    return np.concatenate([assign(rows[start : start + 512], nobody) for start in range(0, requests, 512)])
