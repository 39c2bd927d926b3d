"""How long a step would take: exact counts times what a link costs. Every figure from here is *modelled*.

t(step) = sum over exchanges of (alpha (G - 1) + bytes of the rank that sends most / beta)
        + sum over layers of (pairs of the rank that runs most) t_row + fixed          (specification 7.5)"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from intarsia.errors import BadInput, did_you_mean
from intarsia.moe.placement.placement import Placement
from intarsia.moe.runtime.processes import Place, Ranks
from intarsia.moe.runtime.replay import Effort, Sizes, replay_trace
from intarsia.moe.runtime.running import MODES, Mode

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Link:
    """What ranks are connected by.

    - alpha: seconds that a message to another rank takes to begin; beta: bytes a second out of a rank.
    - placeholder: a round figure to be replaced by a measurement, not one."""

    name: str
    alpha: float
    beta: float
    placeholder: bool = False

    @property
    def fuse_bytes(self) -> int:
        """Room for a pair's rows that is better sent half empty than after an exchange of counts: what the link carries
        in the time that another exchange takes to begin."""
        return int(self.alpha * self.beta)

    def __str__(self) -> str:
        kind = "placeholder figures" if self.placeholder else "measured"
        return f"{self.name} ({kind}: alpha {self.alpha * 1e6:.3g} us, beta {self.beta / 1e9:.3g} GB/s)"


LINKS = {
    link.name: link
    for link in (
        Link("nvlink", 3e-6, 250e9, placeholder=True),
        Link("hdr200", 5e-6, 25e9, placeholder=True),
        Link("10gbe", 30e-6, 1.2e9, placeholder=True),
    )
}


def link(name: str) -> Link:
    """A link by name. Raises `BadInput` for an unknown one."""
    if name not in LINKS:
        raise BadInput(f"no link '{name}'{did_you_mean(name, LINKS)}: give one of {', '.join(LINKS)}, or measure one")
    return LINKS[name]


def calibrate(ranks: Ranks, repeats: int = 15) -> Link:
    """The link between running ranks, from exchanges of 8 bytes and of 1 MiB for each pair, in turn (medians).

    Other work on the machine is in it. Raises `BadInput` for a single rank: it has no link."""
    if ranks.ranks < 2:
        raise BadInput("one rank alone has no link to measure: start two at least")
    small, large = (max(column) for column in zip(*ranks.call(_timed, repeats), strict=True))
    others, size = ranks.ranks - 1, 1 << 20
    # On a machine so busy that the large exchange took no longer, all of its time counts.
    transfer = large - small if large > 1.05 * small else large
    return Link(f"{ranks.ranks} processes here", small / others, others * size / transfer)


def _timed(place: Place, repeats: int) -> tuple[float, float]:
    import torch

    from intarsia.moe.runtime.exchange import Wire

    wire, sizes = Wire(place.rank, place.ranks, device=place.device), (8, 1 << 20)
    parts = [torch.zeros(size, dtype=torch.uint8, device=place.device) for size in sizes]
    times: list[list[float]] = [[], []]
    for _ in range(repeats + 2):
        for which, part in enumerate(parts):
            start = time.perf_counter()
            wire.exchange([part] * place.ranks, [len(part)] * place.ranks)
            if place.device != "cpu":
                torch.cuda.synchronize()
            times[which].append(time.perf_counter() - start)
    return float(np.median(times[0][2:])), float(np.median(times[1][2:]))


@dataclass(frozen=True)
class Modelled:
    """Modelled seconds of a decode step, by part."""

    latency: float
    transfer: float
    compute: float
    fixed: float

    @property
    def seconds(self) -> float:
        """All parts."""
        return self.latency + self.transfer + self.compute + self.fixed


def modelled(effort: Effort, ranks: int, link: Link, row: float = 0.0, fixed: float = 0.0) -> Modelled:
    """A decode step's modelled time. row: seconds of one (token, expert) pair; fixed: of all else in a step."""
    steps = max(1, effort.steps)
    return Modelled(
        effort.collectives / steps * link.alpha * (ranks - 1), effort.critical_bytes / steps / link.beta,
        effort.busiest_rows / steps * row, fixed,
    )  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """A mode and why. `modelled`: seconds of a step in each mode; `reason` says that they are modelled."""

    mode: Mode
    reason: str
    modelled: Mapping[str, Modelled]


def choose(
    placement: Placement,
    sizes: Sizes,
    link: Link,
    *,
    k: int,
    batch: int = 16,
    routing: tuple[Ints, Ints] | None = None,
    prompt: int = 8,
    row: float = 0.0,
) -> Choice:
    """The mode with the shortest modelled decode step; `vanilla` where another one gains less than 2 %.

    - k: experts of a token. batch: requests that are decoded together.
    - routing: (expert ids [token, layer, k], sequence [token]) to count on; None: every expert as likely as any other,
      so that what a placement gains is not seen. prompt: tokens of each sequence that are its prompt."""
    if placement.devices == 1:
        return Choice("vanilla", "one rank: nothing is exchanged", {})
    said = "the routing given"
    if routing is None:
        routing, said = _uniform(placement, k, batch, prompt + 8), "routing at random"
    sizes, times = replace(sizes, fuse_bytes=link.fuse_bytes), {}
    for mode in MODES:
        counted = replay_trace(*routing, placement, mode, sizes, prompt=prompt, batch=batch)
        times[mode] = modelled(counted.decode, placement.devices, link, row)
    best: Mode = min(MODES, key=lambda mode: times[mode].seconds)
    if times[best].seconds > 0.98 * times["vanilla"].seconds:
        best = "vanilla"
    listed = ", ".join(f"{mode} {_short(times[mode].seconds)}" for mode in MODES)
    reason = f"{best}: {_WHY[best](times)}; modelled time of a step's exchanges"
    reason += f" on {link}, {batch} requests, {said}: {listed}"
    return Choice(best, reason, times)


_WHY = {
    "vanilla": lambda t: (
        "keeping every rank's context the same would cost more than it saves"
        if t["coherent"].seconds > t["vanilla"].seconds
        else "no other mode gains 2 %"
    ),
    "home": lambda t: "requests that live near their experts send fewer rows",
    "coherent": lambda t: "fewer exchanges save more than the exchange of keys and values costs",
}


def _short(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} us"


def _uniform(placement: Placement, k: int, requests: int, tokens: int) -> tuple[Ints, Ints]:
    rng = np.random.default_rng(0)
    draws = rng.random((requests * tokens, len(placement.device_of), placement.experts))
    return np.argsort(draws, axis=2)[:, :, :k], np.repeat(np.arange(requests), tokens)
