"""Context-coherent expert parallelism: the token moves to its expert and stays there, for every rank has every context.

One exchange a layer; with two experts or more a second, sparser one that brings partial results to the token's carrier
(the rank of its first expert). At the end of a step the new keys and values and the chosen tokens go to all ranks
(specification 7.2; Yao et al. 2024, ExFlow, who describe it for one expert a token)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from intarsia.moe.runtime.body import Step
from intarsia.moe.runtime.exchange import Rows, pack, unpack
from intarsia.moe.runtime.plan import descending
from intarsia.moe.runtime.request import Running
from intarsia.moe.runtime.vanilla import Sums, Vanilla

Note = Callable[[int, Tensor, Tensor, Tensor], None]


@dataclass
class _Tokens:
    """Tokens on this rank, in the middle of a block.

    - which: [n] numbers of the step's requests; middle: [n, 1, width].
    - experts, weights: [n, k]; serving: [n, k] the ranks that run them."""

    which: Tensor
    middle: Tensor
    experts: Tensor
    weights: Tensor
    serving: Tensor

    def rows(self, mask: Tensor) -> _Tokens:
        """Some of them."""
        return _Tokens(*(getattr(self, name)[mask] for name in self.__dataclass_fields__))

    @staticmethod
    def joined(parts: Sequence[_Tokens]) -> _Tokens:
        """All of them, by request."""
        whole = _Tokens(*(torch.cat([getattr(p, n) for p in parts]) for n in _Tokens.__dataclass_fields__))
        return whole.rows(whole.which.argsort())


class Coherent:
    """The layers' exchanges of one rank; prompts run as in `Vanilla`.

    - free_first_hop: all ranks run everything up to the first router for all tokens, and keep those that are theirs."""

    def __init__(self, vanilla: Vanilla, free_first_hop: bool = False):
        self.vanilla, self.free_first_hop = vanilla, free_first_hop
        self.body, self.plan, self.wire = vanilla.body, vanilla.plan, vanilla.wire
        self._log: list[tuple[int, Tensor, Tensor, Tensor]] = []
        self._counts: list[tuple[int, list[int]]] = []
        self._last: list[int] = []

    # ---- one step

    def run(self, step: Step, running: Sequence[Running], note: Note) -> tuple[Tensor, Tensor]:
        """One token of every request through all blocks: those that ended here [n], and their streams [n, 1, width]."""
        body, rank = self.body, self.wire.rank
        homes = torch.tensor([one.home for one in running], device=body.device)
        everywhere = self.free_first_hop
        which = torch.arange(len(running), device=body.device)
        which = which if everywhere else which[homes == rank]
        stream = step.stream[which]
        most = [int((homes == r).sum()) for r in range(self.wire.ranks)]
        self._log, self._counts = [], []
        for index in range(body.opened.blocks):
            if not everywhere:
                self._counts.append((index, most))
            middle = stream
            if len(which):
                middle, keys, values = step.attend(index, stream, which)
                if not everywhere:
                    self._log.append((index, which, keys, values))
            layer = body.layer_of[index]
            if layer is None:
                stream = body.second(index, middle) if len(which) else stream
                continue
            here = homes[which] if everywhere else torch.full_like(which, rank)
            tokens = self._route(index, layer, which, middle, here)
            mine = here == rank
            note(layer, step.requests[which[mine]], step.positions[which[mine]], tokens.experts[mine])
            if everywhere:
                carriers, guests, came = self._keep(tokens)
                everywhere = False
            else:
                carriers, guests, came = self._move(layer, tokens, most)
            most = [sum(row[r] for row in came.carried) for r in range(self.wire.ranks)]
            returned = self._return(index, layer, carriers, guests) if any(came.partial) else None
            which = carriers.which
            stream = self._finish(index, layer, carriers, returned) if len(which) else body.empty()
        self._last = most
        return which, stream

    def _route(self, index: int, layer: int, which: Tensor, middle: Tensor, here: Tensor) -> _Tokens:
        body, plan = self.body, self.plan
        if not len(which):
            none = torch.empty(0, body.k, dtype=torch.long, device=body.device)
            return _Tokens(which, middle, none, none.to(body.weights), none)
        weights, experts = descending(*body.opened.routes(index, body.normed(index, middle)))
        return _Tokens(which, middle, experts, weights, plan.serving(layer, experts, here))

    def _move(self, layer: int, tokens: _Tokens, most: Sequence[int]) -> tuple[_Tokens, _Tokens, Rows]:
        """Send tokens to the ranks of their experts: those that go on here, those that visit, what was told."""
        body, wire, rank = self.body, self.wire, self.wire.rank
        serving, carrier = tokens.serving, tokens.serving[:, 0]
        none = torch.empty(0, dtype=torch.long, device=body.device)
        to = [torch.where((serving == r).any(1))[0] if r != rank else none for r in range(wire.ranks)]
        rows = pack(
            tokens.middle[:, 0], tokens.weights, tokens.experts.int(), tokens.which.int().view(-1, 1)
        )  # fmt: skip
        carried = [int((carrier == r).sum()) for r in range(wire.ranks)]
        came = wire.dispatch(rows, to, carried, _partial(serving, wire.ranks), most, self.vanilla.payload)
        parts = [tokens.rows((serving == rank).any(1))]
        for source, part in enumerate(came.parts):
            if source == rank or not len(part):
                continue
            middle, weights, experts, which = unpack(
                part, (body.dtype, body.width), (body.weights, body.k), (torch.int32, body.k), (torch.int32, 1)
            )
            experts = experts.long()
            there = self.plan.serving(layer, experts, source)
            parts.append(_Tokens(which[:, 0].long(), middle[:, None], experts, weights, there))
        return *self._sorted(_Tokens.joined(parts)), came

    def _keep(self, tokens: _Tokens) -> tuple[_Tokens, _Tokens, Rows]:
        """As `_move` where every rank has all tokens already."""
        ranks, carrier = self.wire.ranks, tokens.serving[:, 0]
        carried = [[int((carrier == r).sum()) for r in range(ranks)]]
        came = Rows([], carried, [_partial(tokens.serving, ranks)])
        return *self._sorted(tokens.rows((tokens.serving == self.wire.rank).any(1))), came

    def _sorted(self, tokens: _Tokens) -> tuple[_Tokens, _Tokens]:
        stay = tokens.serving[:, 0] == self.wire.rank
        return tokens.rows(stay), tokens.rows(~stay)

    def _return(
        self, index: int, layer: int, carriers: _Tokens, guests: _Tokens
    ) -> list[tuple[Tensor, Tensor, Tensor, int]]:
        """Run the experts for tokens that go on elsewhere and send the results there: what came for those here, as rows
        of `carriers`, experts, outputs, and the rank."""
        body, wire, rank, ordered = self.body, self.wire, self.wire.rank, self.vanilla.ordered
        states = body.normed(index, guests.middle) if len(guests.which) else guests.middle[:, 0]
        row, expert, given = self.vanilla.run_here(
            layer, states, guests.experts, guests.weights, guests.serving == rank
        )
        columns = [given, guests.which[row].int().view(-1, 1), *([expert.int().view(-1, 1)] if ordered else [])]
        whole, carrier = pack(*columns), guests.serving[row, 0]
        parts = [whole[carrier == r] for r in range(wire.ranks)]
        here = [carriers.serving == r for r in range(wire.ranks)]
        sizes = [0 if r == rank else int(m.sum() if ordered else m.any(1).sum()) for r, m in enumerate(here)]
        kinds = [(body.dtype, body.width), (torch.int32, 1), *([(torch.int32, 1)] if ordered else [])]
        answers = []
        for r, part in enumerate(wire.give(parts, sizes, self.vanilla.payload)):
            if r != rank and len(part):
                output, which, *experts = unpack(part, *kinds)
                rows = torch.searchsorted(carriers.which, which[:, 0].long())
                answers.append((rows, experts[0][:, 0].long() if ordered else rows, output, r))
        return answers

    def _finish(
        self, index: int, layer: int, tokens: _Tokens, returned: list[tuple[Tensor, Tensor, Tensor, int]] | None
    ) -> Tensor:
        """The block's MLP half of the tokens that go on here."""
        rank = self.wire.rank

        def exchange(states: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
            sums = Sums(self.vanilla.ordered)
            own = self.vanilla.run_here(layer, states, tokens.experts, tokens.weights, tokens.serving == rank)
            sums.add(*own, rank)
            for part in returned or ():
                sums.add(*part)
            return sums.of(states)

        return self.body.second(index, tokens.middle, exchange)

    # ---- coherence

    def share(self, step: Step, which: Tensor, chosen: Sequence[int]) -> dict[int, int]:
        """After a step: new keys and values and tokens to all ranks; the tokens by request."""
        store, wire, rank = self.body.store, self.wire, self.wire.rank
        parts = [
            pack(rows.int().view(-1, 1), keys.flatten(1), values.flatten(1)) for _, rows, keys, values in self._log
        ]
        context = sum(p.numel() - 4 * len(p) for p in parts)
        made = torch.tensor(chosen, dtype=torch.int32, device=self.body.device).view(-1, 1)
        whole = torch.cat([p.flatten() for p in (*parts, pack(which.int().view(-1, 1), made))])
        width = {index: 4 + store.width(index) for index, _ in self._counts}
        sizes = [
            sum(width[index] * counts[r] for index, counts in self._counts) + 8 * self._last[r]
            for r in range(wire.ranks)
        ]
        tokens: dict[int, int] = {}
        for source, data in enumerate(wire.gather(whole, sizes, context)):
            start = 0
            for index, counts in self._counts:
                end = start + width[index] * counts[source]
                if source != rank and counts[source]:
                    part = data[start:end].view(-1, width[index])
                    rows = unpack(part, (torch.int32, 1))[0][:, 0].long()
                    store.write(index, step.slots(rows), *store.rows(index, part[:, 4:]))
                start = end
            table = data[start:].clone().view(torch.int32).view(-1, 2).tolist()
            tokens |= {int(step.requests[row]): token for row, token in table}
        return tokens

    def share_prompts(self, new: Sequence[Running], chosen: Sequence[int]) -> dict[int, int]:
        """After prompts ran on their homes: their keys and values and first tokens to all ranks."""
        store, wire, rank, device = self.body.store, self.wire, self.wire.rank, self.body.device
        mine = [one for one in new if one.home == rank]
        made = torch.tensor(chosen, dtype=torch.int32, device=device).view(torch.uint8)
        context = [store.pack(one.request.id) for one in mine]
        size = [len(one.request.prompt) * store.token_bytes for one in new]
        sizes = [
            sum(4 + n for one, n in zip(new, size, strict=True) if one.home == r) for r in range(wire.ranks)
        ]  # fmt: skip
        got = wire.gather(torch.cat([made, *context]), sizes, sum(map(len, context)))
        tokens: dict[int, int] = {}
        for source in range(wire.ranks):
            theirs = [(one, n) for one, n in zip(new, size, strict=True) if one.home == source]
            start = 4 * len(theirs)
            first = got[source][:start].clone().view(torch.int32).tolist()
            for (one, n), token in zip(theirs, first, strict=True):
                tokens[one.request.id] = token
                if source != rank:
                    store.unpack(one.request.id, got[source][start : start + n])
                start += n
        return tokens


def _partial(serving: Tensor, ranks: int) -> int:
    """Results that have to be sent on: for each token the ranks beside its carrier."""
    visited = torch.zeros(len(serving), ranks, dtype=torch.long, device=serving.device).scatter_(1, serving, 1)
    return int(visited.sum()) - len(serving)
