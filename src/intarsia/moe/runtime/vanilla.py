"""Vanilla expert parallelism: a token's state stays with its request; copies of it visit the experts and come back.

Two exchanges a layer (specification 7.1). With requests on well-chosen homes (7.4) it is the same code and less to
send."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from intarsia.moe.runtime.body import Body
from intarsia.moe.runtime.exchange import Wire, pack, unpack
from intarsia.moe.runtime.plan import Plan, descending

Attend = Callable[[int, Tensor], Tensor]
Note = Callable[[int, Tensor], None]
"""Told the routed layer and the experts [n, k] of this rank's rows."""


class Sums:
    """Adds up what the ranks made of a rank's rows.

    - ordered: False: a rank's experts are summed there, and those sums in the order of the ranks. True: each expert's
      output comes by itself, and they are added by expert (for three experts or more a + b + c has an order)."""

    def __init__(self, ordered: bool):
        self.ordered = ordered
        self._rows: list[Tensor] = []
        self._keys: list[Tensor] = []
        self._given: list[Tensor] = []

    def add(self, rows: Tensor, experts: Tensor, given: Tensor, rank: int) -> None:
        """Outputs [p, width] for rows [p]: of experts [p] (ordered), or of a rank, one for a row."""
        self._rows.append(rows)
        self._keys.append(experts if self.ordered else torch.full_like(rows, rank))
        self._given.append(given)

    def of(self, like: Tensor) -> Tensor:
        """[n, width] the sums."""
        total = torch.zeros_like(like)
        keys = torch.cat(self._keys)
        rows, given = torch.cat(self._rows), torch.cat(self._given)
        for key in keys.unique().tolist():  # a row has one output at most for each
            here = keys == key
            total.index_add_(0, rows[here], given[here])
        return total


class Vanilla:
    """The layers' exchanges of one rank."""

    def __init__(self, body: Body, plan: Plan, wire: Wire):
        self.body, self.plan, self.wire = body, plan, wire
        self.ordered = body.deterministic and body.k > 2
        self.payload = body.width * body.dtype.itemsize

    def run(self, stream: Tensor, attend: Attend, most: Sequence[int], note: Note) -> Tensor:
        """The stream [n, 1, width] after all blocks.

        - most: how many rows each rank has."""
        body = self.body
        for index in range(body.opened.blocks):
            layer = body.layer_of[index]
            if not len(stream):
                if layer is not None:
                    self._nothing(layer, most)
                continue
            middle = attend(index, stream)
            if layer is None:
                stream = body.second(index, middle)
                continue

            def exchange(states: Tensor, chosen: Tensor, weights: Tensor, layer: int = layer) -> Tensor:
                weights, chosen = descending(weights, chosen)
                note(layer, chosen)
                return self.visit(layer, states, chosen, weights, most)

            stream = body.second(index, middle, exchange)
        return stream

    def _nothing(self, layer: int, most: Sequence[int]) -> None:
        body, device = self.body, self.body.device
        none = torch.empty(0, body.k, dtype=torch.long, device=device)
        self.visit(layer, body.empty()[:, 0], none, none.to(body.weights), most)

    def visit(self, layer: int, states: Tensor, experts: Tensor, weights: Tensor, most: Sequence[int]) -> Tensor:
        """What the experts, wherever they are, make of this rank's states [n, width]."""
        plan, wire, rank = self.plan, self.wire, self.wire.rank
        serving = plan.serving(layer, experts, rank)
        to = [_rows_of(serving == r if r != rank else None, experts.device) for r in range(wire.ranks)]
        rows = pack(states, weights, experts.int())
        got = wire.dispatch(rows, to, [0] * wire.ranks, 0, most, self.payload)
        back = [self._answer(layer, part, source) for source, part in enumerate(got.parts)]
        sizes = [self._outputs(serving[index], r) for r, index in enumerate(to)]
        answers = wire.give(back, sizes, self.payload) if wire.ranks > 1 else back
        sums = Sums(self.ordered)
        for r, index in enumerate(to):
            if r == rank:
                sums.add(*self.run_here(layer, states, experts, weights, serving == rank), rank)
                continue
            (given,) = unpack(answers[r], (states.dtype, states.shape[1]))
            if self.ordered:
                row, column = torch.where(serving[index] == r)
                order = torch.argsort(row * self._many + experts[index][row, column])
                sums.add(index[row[order]], experts[index][row, column][order], given, r)
            else:
                sums.add(index, index, given, r)
        return sums.of(states)

    @property
    def _many(self) -> int:
        return self.plan.first.shape[1] + 1

    def run_here(
        self, layer: int, states: Tensor, experts: Tensor, weights: Tensor, wanted: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Rows, experts and outputs of what this rank's experts make: one for a pair, or summed to one for a row."""
        row, expert, given = self.body.shard.layers[layer].pairs(states, experts, weights, wanted)
        if self.ordered:
            order = torch.argsort(row * self._many + expert)
            return row[order], expert[order], given[order]
        rows = torch.where(wanted.any(1))[0]
        total = torch.zeros_like(states).index_add_(0, row, given)
        return rows, rows, total[rows]

    def _answer(self, layer: int, part: Tensor, source: int) -> Tensor:
        body = self.body
        states, weights, experts = unpack(part, (body.dtype, body.width), (body.weights, body.k), (torch.int32, body.k))
        if source == self.wire.rank or not len(part):
            return part[:0, : self.payload]
        experts = experts.long()
        wanted = self.plan.serving(layer, experts, source) == self.wire.rank
        return pack(self.run_here(layer, states, experts, weights, wanted)[2])

    def _outputs(self, serving: Tensor, rank: int) -> int:
        """How many outputs come back for rows that went to a rank."""
        return int((serving == rank).sum()) if self.ordered else len(serving)


def _rows_of(mask: Tensor | None, device: torch.device) -> Tensor:
    """Rows [n] where any of [n, k] is set."""
    if mask is None:
        return torch.empty(0, dtype=torch.long, device=device)
    return torch.where(mask.any(1))[0]
