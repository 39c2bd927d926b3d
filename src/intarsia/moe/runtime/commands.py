"""What the parent of an engine has its ranks do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from intarsia.moe.placement.placement import Placement
from intarsia.moe.runtime.counters import Traffic
from intarsia.moe.runtime.exchange import Wire
from intarsia.moe.runtime.processes import Place
from intarsia.moe.runtime.replay import Sizes
from intarsia.moe.runtime.request import Request, Token
from intarsia.moe.runtime.routed import Routed
from intarsia.moe.runtime.running import Mode, Runtime
from intarsia.moe.runtime.shard import Shard


@dataclass(frozen=True)
class Kept:
    """What one rank kept: logits [vocabulary] by (request, step) and routing notes (where asked for), its traffic, and
    what a replay of the notes needs to know."""

    logits: dict[tuple[int, int], Any]
    routed: Routed | None
    traffic: Traffic
    sizes: Sizes


def start(
    place: Place, folder: str, placement: Placement, dtype: Any, settings: dict[str, Any], wire: dict[str, Any]
) -> dict[str, Any]:
    """Load what this rank holds; what all need to know of the network."""
    shard = Shard.load(folder, placement, place.rank, dtype)
    shard.network.to(place.device)
    runtime = Runtime(shard, Wire(place.rank, place.ranks, device=place.device, **wire), **settings)
    place.state["runtime"] = runtime
    return {
        "k": runtime.body.k, "sizes": Sizes.of(runtime), "vocabulary": runtime.body.vocabulary,
        "positions": runtime.body.positions, "router_sha256": runtime.body.router_sha256(),
    }  # fmt: skip


def _runtime(place: Place) -> Runtime:
    return place.state["runtime"]


def use(place: Place, mode: Mode, free_first_hop: bool = False, fuse_bytes: int | None = None) -> None:
    """Change the mode."""
    runtime = _runtime(place)
    runtime.use(mode, free_first_hop)
    if fuse_bytes is not None:
        runtime.wire.fuse_bytes = fuse_bytes


def admit(place: Place, requests: list[Request]) -> tuple[list[Token], int]:
    """New requests: their first tokens, and how many are active."""
    return _runtime(place).admit(requests), len(_runtime(place).active)


def step(place: Place) -> tuple[list[Token], int]:
    """A step: the new tokens, and how many requests are active."""
    return _runtime(place).step(), len(_runtime(place).active)


def cancel(place: Place, requests: list[int]) -> int:
    """Forget requests; how many are active."""
    for request in requests:
        _runtime(place).cancel(request)
    return len(_runtime(place).active)


def report(place: Place) -> dict[str, Any]:
    """Memory and traffic."""
    return _runtime(place).report()


def kept(place: Place) -> Kept:
    """What was kept since `use`."""
    runtime = _runtime(place)
    rows = {key: row.float() if row.dtype.itemsize < 4 else row for key, row in runtime.logits.items()}
    logits = {key: row.numpy() for key, row in rows.items()}
    return Kept(logits, runtime.routed, runtime.traffic, Sizes.of(runtime))
