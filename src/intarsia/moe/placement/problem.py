"""`Problem`: what a placement has to be good at, as arrays; and how good one is.

minimise  sum_l sum_ab flow[l, a, b] * distance[g_l(a), g_{l+1}(b)]
          - together * sum_l sum_{a<b on one device} mates[l, a, b]
          + balance * sum_l max_device load[l, device]
over g_l with as many experts of every layer on every device (where the number does not divide, one more or less).

Cost only couples consecutive layers, and a token does not care what a device is called: what has to be chosen is a
partition of the experts a layer, and how the blocks of one meet those of the next."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from intarsia.errors import BadInput
from intarsia.moe.placement.arrays import Devices

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Problem:
    """L routed layers of E experts on `devices`.

    - flow: [L - 1, E, E] share of tokens that go from a to b in the next layer; each sums to 1.
    - nodes: devices stand in so many equal groups; `far`: what a step to another node costs, to another device of the
      same node 1.
    - mates: [L, E, E] share of tokens that use both, symmetric; load: [L, E] share of the layer's work.
    - together, balance: what these weigh beside a step that leaves its device."""

    flow: Array
    devices: int
    nodes: int = 1
    far: float = 1.0
    mates: Array | None = None
    load: Array | None = None
    together: float = 0.0
    balance: float = 0.0
    experts: int = field(init=False)

    def __post_init__(self) -> None:
        layers, experts = len(self.flow) + 1, self.flow.shape[-1]
        object.__setattr__(self, "experts", experts)
        if self.devices > experts:
            raise BadInput(
                f"{self.devices} devices for layers of {experts} experts: some would hold none; "
                f"take at most {experts} devices"
            )
        if self.devices % self.nodes:
            raise BadInput(f"{self.devices} devices cannot stand on {self.nodes} equal nodes")
        if self.together and (self.mates is None or self.mates.shape != (layers, experts, experts)):
            raise ValueError("together wants mates [L, E, E]")
        if self.balance and (self.load is None or self.load.shape != (layers, experts)):
            raise ValueError("balance wants load [L, E]")

    @property
    def layers(self) -> int:
        """Routed layers."""
        return len(self.flow) + 1

    @property
    def slots(self) -> int:
        """Experts of a layer that a device holds at most."""
        return -(-self.experts // self.devices)

    @property
    def empty(self) -> int:
        """Slots of a layer that hold no expert; a device has at most one."""
        return self.slots * self.devices - self.experts

    @property
    def plain(self) -> bool:
        """Whether only the steps between devices count, each the same: then device names are free."""
        return not self.together and not self.balance and (self.nodes == 1 or self.far == 1.0)

    @property
    def distance(self) -> Array:
        """[device, device] cost of a step."""
        node = np.arange(self.devices) * self.nodes // self.devices
        out = np.where(node[:, None] == node[None], 1.0, self.far)
        np.fill_diagonal(out, 0.0)
        return out

    def padded(self) -> Problem:
        """The same with experts that nobody uses in the empty slots, so that every device holds equally many."""
        if not self.empty:
            return self
        more = self.empty
        square = ((0, 0), (0, more), (0, more))
        return replace(
            self,
            flow=np.pad(self.flow, square),
            mates=None if self.mates is None else np.pad(self.mates, square),
            load=None if self.load is None else np.pad(self.load, ((0, 0), (0, more))),
        )


def crossing(flow: Array, device_of: Devices) -> float:
    """Share of (token, step) that change device, in the mean over steps. `device_of`: [L, E]; maps of nodes give the
    share that changes node."""
    return float(np.mean(crossings(flow, device_of))) if len(flow) else 0.0


def crossings(flow: Array, device_of: Devices) -> Array:
    """[L - 1] the same, step by step."""
    apart = device_of[:-1, :, None] != device_of[1:, None, :]
    return (flow * apart).sum((1, 2))


def cost(problem: Problem, device_of: Devices) -> float:
    """The objective, as written above; a naive formula that every solver is tested against."""
    d = problem.distance
    total = float(sum((w * d[a][:, b]).sum() for w, a, b in zip(problem.flow, device_of, device_of[1:], strict=False)))
    return total + float(sum(layer_cost(problem, i, row) for i, row in enumerate(device_of)))


def layer_cost(problem: Problem, layer: int, row: NDArray[np.int64]) -> float:
    """What a layer's own partition costs: load less what is used together. `row`: [E] devices."""
    total = 0.0
    if problem.together and problem.mates is not None:
        total -= problem.together * float((problem.mates[layer] * (row[:, None] == row[None])).sum()) / 2
    if problem.balance and problem.load is not None:
        total += problem.balance * float(np.bincount(row, problem.load[layer], problem.devices).max())
    return total


def imbalance(load: Array, device_of: Devices, devices: int) -> Array:
    """[L] load of the fullest device over the mean of all. `load`: [L, E] shares or counts."""
    tables = np.stack([np.bincount(row, weight, devices) for row, weight in zip(device_of, load, strict=True)])
    return tables.max(1) / np.maximum(tables.mean(1), 1e-300)


def tidy(device_of: Devices, devices: int) -> Devices:
    """The same placement with devices renamed in the order the first layer meets them: one name for one thing."""
    order: list[int] = list(dict.fromkeys(device_of[0].tolist()))
    order += [d for d in range(devices) if d not in order]
    name = np.empty(devices, np.int64)
    name[order] = np.arange(devices)
    return name[device_of]


def check(problem: Problem, device_of: Devices) -> None:
    """Raise `ValueError` unless every device holds as many experts of every layer as it has to."""
    low, high = problem.experts // problem.devices, problem.slots
    for row in device_of:
        held = np.bincount(row, minlength=problem.devices)
        if held.min() < low or held.max() > high:
            raise ValueError(f"devices hold {held.tolist()} experts, each should {low} to {high}")


def of_experts(device_of: Devices, experts: int) -> Devices:
    """Without the columns of a padded problem's empty slots."""
    return device_of[:, :experts]
