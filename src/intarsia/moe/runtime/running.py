"""`Runtime`: one rank's part in running requests over all ranks. Every rank makes the same calls in the same order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from intarsia.errors import BadInput
from intarsia.moe.runtime.body import Body
from intarsia.moe.runtime.coherent import Coherent
from intarsia.moe.runtime.counters import Traffic
from intarsia.moe.runtime.exchange import Wire, pack
from intarsia.moe.runtime.homes import nearest, spread
from intarsia.moe.runtime.plan import Plan
from intarsia.moe.runtime.request import Request, Running, Token, choose
from intarsia.moe.runtime.routed import Routed
from intarsia.moe.runtime.shard import Shard
from intarsia.moe.runtime.vanilla import Vanilla

Mode = Literal["vanilla", "home", "coherent"]
MODES: tuple[Mode, ...] = ("vanilla", "home", "coherent")


class Runtime:
    """One rank.

    - mode: `vanilla`: a token's state stays with its request and visits experts. `home`: the same, each request living
      where most of its prompt's experts are. `coherent`: the token moves, every rank holds every request's context.
    - deterministic: logits have the same bits in every mode and placement and on any number of ranks.
    - free_first_hop: coherent only: every rank runs the first attention for all tokens, so none moves before it. (All
      ranks have to compute alike for that: processes on one kind of machine do.)
    - seed: of draws. record: keep every token's experts and the schedule. keep_logits: keep the logits (on this rank).

    Raises `BadInput` for a network that cannot be run so."""

    def __init__(
        self,
        shard: Shard,
        wire: Wire | None = None,
        *,
        mode: Mode = "vanilla",
        deterministic: bool = False,
        free_first_hop: bool = False,
        seed: int = 0,
        record: bool = False,
        keep_logits: bool = False,
    ):
        _check_mode(mode, free_first_hop)
        self.wire = wire or Wire()
        if shard.placement.devices != self.wire.ranks:
            raise BadInput(f"the placement is on {shard.placement.devices} devices, there are {self.wire.ranks} ranks")
        self.seed, self.record, self.keep_logits = seed, record, keep_logits
        self.body = Body(shard, deterministic)
        self.plan = Plan(shard.placement, self.body.device)
        self.vanilla = Vanilla(self.body, self.plan, self.wire)
        self.active: list[Running] = []
        self.use(mode, free_first_hop)

    def use(self, mode: Mode, free_first_hop: bool = False) -> None:
        """Go on in another mode, with all counts, notes and kept logits begun anew; no request may be active."""
        _check_mode(mode, free_first_hop)
        if self.active:
            raise BadInput(f"{len(self.active)} requests are running: the mode is changed between requests")
        self.mode: Mode = mode
        self.coherent = Coherent(self.vanilla, free_first_hop) if mode == "coherent" else None
        self.wire.traffic = Traffic()
        self.logits: dict[tuple[int, int], Tensor] = {}
        self.routed = Routed(self.body.k) if self.record else None

    # ---- what every rank calls

    @torch.no_grad()
    def admit(self, requests: Sequence[Request]) -> list[Token]:
        """Run the prompts of new requests and make the first token of each."""
        self._check(requests)
        if not requests:
            return []
        wire, rank = self.wire, self.wire.rank
        wire.phase = "prefill"
        owners = spread(self._load(), [r.home for r in requests])
        new = [Running(request, owner) for request, owner in zip(requests, owners, strict=True)]
        for one in new:
            if one.home == rank or self.coherent is not None:
                self.body.store.extend(one.request.id, len(one.request.prompt))
        mine = [one for one in new if one.home == rank]
        prompts = self.body.prompts(mine)
        counts = {one.request.id: np.zeros(wire.ranks, dtype=np.int64) for one in mine}

        def note(layer: int, experts: Tensor) -> None:
            self._note(layer, prompts.requests, prompts.positions, experts)
            if self.mode == "home":
                self._count(counts, layer, prompts.requests, experts)

        most = [sum(len(o.request.prompt) for o in new if o.home == r) for r in range(wire.ranks)]
        wire.traffic.prompt_tokens += sum(most)
        self._schedule("prefill", new)
        stream = self.vanilla.run(prompts.stream, prompts.attend, most, note)
        chosen = self._choose(stream[prompts.ends] if mine else stream, mine)
        if self.coherent is not None:
            tokens = self.coherent.share_prompts(new, chosen)
        else:
            tokens = self._share(new, mine, chosen, counts)
        self.active += new
        return self._take(new, tokens)

    @torch.no_grad()
    def step(self) -> list[Token]:
        """Make the next token of every active request."""
        wire, rank = self.wire, self.wire.rank
        if not self.active:
            return []
        wire.phase = "decode"
        wire.traffic.new_tokens += len(self.active)
        self._schedule("decode", self.active)
        ours = self.active if self.coherent is not None else [one for one in self.active if one.home == rank]
        for one in ours:
            self.body.store.extend(one.request.id, 1)
        step = self.body.step(ours)
        if self.coherent is not None:
            rows, stream = self.coherent.run(step, self.active, self._note)
            tokens = self.coherent.share(step, rows, self._choose(stream, [self.active[r] for r in rows.tolist()]))
        else:
            every = torch.arange(len(ours), device=self.body.device)
            stream = self.vanilla.run(
                step.stream,
                lambda index, rows: step.attend(index, rows, every)[0],
                self._load(),
                lambda layer, experts: self._note(layer, step.requests, step.positions, experts),
            )
            tokens = self._share(self.active, ours, self._choose(stream, ours))
        return self._take(self.active, tokens)

    def cancel(self, request: int) -> None:
        """Forget an active request."""
        self.active = [one for one in self.active if one.request.id != request]
        self.body.store.drop(request)

    def run(self, requests: Sequence[Request]) -> dict[int, list[int]]:
        """All requests from prompt to last token: their new tokens."""
        made: dict[int, list[int]] = {request.id: [] for request in requests}
        tokens = self.admit(requests)
        while tokens:
            for token in tokens:
                made.setdefault(token.request, []).append(token.token)
            tokens = self.step()
        return made

    @property
    def traffic(self) -> Traffic:
        """What this rank sent so far."""
        return self.wire.traffic

    def report(self) -> dict[str, Any]:
        """Memory and traffic of this rank."""
        memory = self.body.shard.memory()
        return {
            "rank": self.wire.rank, "held_experts": [layer.held for layer in self.body.shard.layers],
            "expert_bytes": memory.experts, "replicated_bytes": memory.replicated, "resident_bytes": memory.resident,
            "cache_bytes": self.body.store.bytes, "traffic": self.traffic.to_dict(),
        }  # fmt: skip

    # ---- the parts

    def _check(self, requests: Sequence[Request]) -> None:
        known = {one.request.id for one in self.active}
        for request in requests:
            if request.id in known:
                raise BadInput(f"there is a request {request.id} already: give every request an id of its own")
            known.add(request.id)
            request.check(self.body.vocabulary, self.body.positions, self.wire.ranks)

    def _load(self) -> list[int]:
        return [sum(one.home == rank for one in self.active) for rank in range(self.wire.ranks)]

    def _choose(self, stream: Tensor, running: list[Running]) -> list[int]:
        if not running:
            return []
        logits = self.body.head(stream)
        if self.keep_logits:
            for row, one in enumerate(running):
                self.logits[one.request.id, len(one.made)] = logits[row].cpu()
        return choose(logits, running, self.seed)

    def _share(
        self, every: list[Running], mine: list[Running], chosen: list[int], counts: dict[int, Any] | None = None
    ) -> dict[int, int]:
        """Tell all ranks the new tokens; in home mode, after a prompt, find homes and move there."""
        wire = self.wire
        ids = torch.tensor([one.request.id for one in mine], dtype=torch.int32, device=self.body.device).view(-1, 1)
        columns = [ids, torch.tensor(chosen, dtype=torch.int32, device=self.body.device).view(-1, 1)]
        homing = self.mode == "home" and counts is not None
        if homing:
            rows = np.stack([counts[one.request.id] for one in mine]) if mine else np.zeros((0, wire.ranks))
            columns.append(torch.tensor(rows, dtype=torch.int32, device=self.body.device))
        width = 8 + (4 * wire.ranks if homing else 0)
        sizes = [width * sum(one.home == r for one in every) for r in range(wire.ranks)]
        got = wire.gather(pack(*columns).flatten(), sizes, 0)
        table = torch.cat([g.clone().view(torch.int32) for g in got]).view(-1, width // 4).tolist()
        if homing:
            by_id = {row[0]: row[2:] for row in table}
            asked = {o.request.id: o.home for o in every if o.request.home is not None}
            self._settle(every, nearest({o.request.id: by_id[o.request.id] for o in every}, self._load(), asked))
        return {row[0]: row[1] for row in table}

    def _settle(self, running: list[Running], homes: dict[int, int]) -> None:
        """Move keys and values of prompts to the requests' homes."""
        store, wire, rank = self.body.store, self.wire, self.wire.rank
        if all(homes[one.request.id] == one.home for one in running):
            return
        empty = torch.empty(0, dtype=torch.uint8, device=self.body.device)
        parts: list[list[Tensor]] = [[] for _ in range(wire.ranks)]
        sizes = [0] * wire.ranks
        leaving = [one for one in running if homes[one.request.id] != one.home]
        for one in leaving:
            to = homes[one.request.id]
            if one.home == rank:
                parts[to].append(store.pack(one.request.id))
            elif to == rank:
                sizes[one.home] += len(one.request.prompt) * store.token_bytes
        got = wire.move([torch.cat(p) if p else empty for p in parts], sizes)
        taken = [0] * wire.ranks
        for one in leaving:
            source, to, size = one.home, homes[one.request.id], len(one.request.prompt) * store.token_bytes
            if source == rank:
                store.drop(one.request.id)
            elif to == rank:
                store.extend(one.request.id, len(one.request.prompt))
                store.unpack(one.request.id, got[source][taken[source] : taken[source] + size])
                taken[source] += size
            one.home = to

    def _count(self, counts: dict[int, Any], layer: int, requests: Tensor, experts: Tensor) -> None:
        """Add the ranks that a prompt's tokens visit, one for each token and rank."""
        serving = self.plan.serving(layer, experts, self.wire.rank)
        visited = torch.zeros(len(serving), self.wire.ranks, dtype=torch.long, device=serving.device)
        visited.scatter_(1, serving, 1)
        for request, count in counts.items():
            count += visited[requests == request].sum(0).cpu().numpy()

    def _take(self, running: list[Running], tokens: dict[int, int]) -> list[Token]:
        made = [one.take(tokens[one.request.id]) for one in running]
        for token in made:
            if token.last:
                self.cancel(token.request)
        return made

    def _note(self, layer: int, requests: Tensor, positions: Tensor, experts: Tensor) -> None:
        if self.routed is not None:
            self.routed.note(layer, requests, positions, experts)

    def _schedule(self, phase: Any, running: list[Running]) -> None:
        if self.routed is not None:
            self.routed.schedule(phase, running, self._load())


def _check_mode(mode: str, free_first_hop: bool) -> None:
    if mode not in MODES:
        raise BadInput(f"no mode '{mode}': give one of {', '.join(MODES)}")
    if free_first_hop and mode != "coherent":
        raise BadInput("the free first hop belongs to the coherent mode")
