"""What layers were given before the blocks below were changed, and what they are given now: moments of both at once.

Some tokens may be held out, to try a fit on: the last of each batch, which stand together."""

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

    @classmethod
    def of(cls, width: int, like: Tensor) -> Crossed:
        """Of no tokens yet."""
        zeros = like.new_zeros(width, width, dtype=torch.float32)
        return cls(zeros, zeros.clone(), 0)

    def mean(self) -> Crossed:
        """Sums as means."""
        return Crossed(self.moment / max(self.count, 1), self.cross / max(self.count, 1), self.count)

    def joined(self, other: Crossed) -> Crossed:
        """Means over the tokens of both."""
        total = max(self.count + other.count, 1)
        mine, its = self.count / total, other.count / total
        return Crossed(
            mine * self.moment + its * other.moment, mine * self.cross + its * other.cross, self.count + other.count
        )  # fmt: skip


@torch.no_grad()
def crossed(
    before: Walk, now: Walk, layers: Sequence[tuple[Linear, Linear]], held: float = 0.0
) -> dict[str, tuple[Crossed, Crossed]]:
    """Moments by the layer's name, of tokens to fit on and of those held out; of layers that read one tensor the same
    objects. Both walks stand at one block.

    - layers: each of the block, in the network as it was and as it is. Left out are those that did not read the same
      tokens in both. held: share of tokens that is held out."""
    found: dict[str, tuple[Crossed, Crossed]] = {}
    uneven: set[str] = set()
    for was, given in zip(before.given([old for old, _ in layers]), now.given([new for _, new in layers]), strict=True):
        added: set[int] = set()
        shared: dict[tuple[int, int], tuple[Crossed, Crossed]] = {}
        for old, new in layers:
            if old.name not in was or new.name not in given:
                continue
            x, z = was[old.name], given[new.name]
            if x.shape != z.shape:
                uneven.add(new.name)
                continue
            if new.name not in found:
                width = z.shape[-1]
                found[new.name] = shared.get((id(x), id(z))) or (Crossed.of(width, z), Crossed.of(width, z))
            shared[id(x), id(z)] = sums = found[new.name]
            if id(sums) not in added:
                added.add(id(sums))
                fitted = len(x) - int(held * len(x))
                sums[0].add(x[:fitted], z[:fitted])
                sums[1].add(x[fitted:], z[fitted:])
    made = {id(sums): (sums[0].mean(), sums[1].mean()) for sums in found.values() if sums[0].count}
    return {name: made[id(sums)] for name, sums in found.items() if id(sums) in made and name not in uneven}
