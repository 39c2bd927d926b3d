"""What layers were given before the blocks below were changed, and what they are given now: moments of both at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from intarsia.compression.linears import Linear
    from intarsia.compression.walking import Walk


@dataclass
class Crossed:
    """- moment: [in, in] float32, E[z z^T] of what is given now. cross: [in, in] float32, E[x z^T], x being what was
    given before. count: tokens."""

    moment: Tensor
    cross: Tensor
    count: int

    def add(self, before: Tensor, now: Tensor) -> None:
        fine = torch.isfinite(before).all(-1) & torch.isfinite(now).all(-1)
        before, now = before[fine].float(), now[fine].float()
        self.moment.addmm_(now.T, now)
        self.cross.addmm_(before.T, now)
        self.count += len(now)


@torch.no_grad()
def crossed(before: Walk, now: Walk, layers: Sequence[tuple[Linear, Linear]]) -> dict[str, Crossed]:
    """Moments by the layer's name; of layers that read one tensor the same object. Both walks stand at one block.

    - layers: each of the block, in the network as it was and as it is. Left out are those that did not read the same
      tokens in both."""
    found: dict[str, Crossed] = {}
    uneven: set[str] = set()
    for was, given in zip(before.given([old for old, _ in layers]), now.given([new for _, new in layers]), strict=True):
        added: set[int] = set()
        shared: dict[tuple[int, int], Crossed] = {}
        for old, new in layers:
            if old.name not in was or new.name not in given:
                continue
            x, z = was[old.name], given[new.name]
            if x.shape != z.shape:
                uneven.add(new.name)
                continue
            if new.name not in found:
                width = z.shape[-1]
                zeros = z.new_zeros(width, width, dtype=torch.float32)
                found[new.name] = shared.get((id(x), id(z))) or Crossed(zeros, zeros.clone(), 0)
            shared[id(x), id(z)] = sums = found[new.name]
            if id(sums) not in added:
                added.add(id(sums))
                sums.add(x, z)
    made = {id(s): Crossed(s.moment / s.count, s.cross / s.count, s.count) for s in found.values() if s.count}
    return {name: made[id(s)] for name, s in found.items() if id(s) in made and name not in uneven}
