"""`verify`: does a network split over ranks give what the network alone gives?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from intarsia.moe.placement.placement import Placement
from intarsia.moe.runtime.engine import Engine
from intarsia.moe.runtime.replay import replay
from intarsia.moe.runtime.routed import Experts, Routed
from intarsia.moe.runtime.running import MODES, Mode
from intarsia.sites import read

if TYPE_CHECKING:
    from intarsia.models import Model

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-4}
"""How far logits may be apart (specification 7.6 c); for smaller types nothing is asked."""


@dataclass(frozen=True)
class Verified:
    """One mode against the network in one process, on the same prompts; compared as long as the contexts are equal.

    - experts: (token, layer) pairs whose chosen experts were compared; other_experts: those where they differ. (The
      network is asked for its experts on the whole text at once; in small types that alone can turn a near tie.)
    - tokens: greedy tokens compared; other_tokens: requests that took another way at some point.
    - gap: largest difference of a logit; tolerance: what is allowed (None: anything).
    - same_bits: logits equal to the bit to those of one rank in the deterministic mode; None: not asked for.
    - counters_agree: the ranks' counters are those of a replay of their routing."""

    mode: Mode
    ranks: int
    dtype: str
    experts: int
    other_experts: int
    tokens: int
    other_tokens: int
    gap: float
    tolerance: float | None
    same_bits: bool | None
    counters_agree: bool

    @property
    def passed(self) -> bool:
        """Whether everything is as it should be. Where logits are as close as allowed, experts and tokens may differ
        only in a type that rounds more than float64 does."""
        close = self.tolerance is None or self.gap <= self.tolerance
        exact = self.dtype != "float64" or not (self.other_experts or self.other_tokens)
        return close and exact and self.same_bits is not False and self.counters_agree


def verify(
    model: Model | str | Path,
    placement: Placement,
    prompts: Sequence[str | Sequence[int]],
    *,
    modes: Sequence[Mode] = MODES,
    new_tokens: int = 64,
    dtype: Any = None,
    deterministic: bool = False,
    free_first_hop: bool = False,
) -> list[Verified]:
    """Run prompts greedily in every mode asked for, and in the network alone; compare (specification 7.6 a-d).

    - model: a folder, or a `Model` in memory. dtype: as for `Engine.start`; float64 shows most.
    - deterministic: ask for equal bits as well."""
    plain = _plain(model, dtype)
    bits = None
    with Engine.start(
        model, placement, mode=modes[0], deterministic=deterministic, dtype=dtype, record=True, keep_logits=True
    ) as engine:
        ids = [engine.token_ids(prompt) for prompt in prompts]
        alone = [_greedy(plain.network, list(prompt), new_tokens) for prompt in ids]
        routes = [_routes(plain, [*prompt, *tokens[:-1]]) for prompt, (tokens, _) in zip(ids, alone, strict=True)]
        if deterministic:
            single = Placement(np.zeros_like(placement.device_of), 1)
            with Engine.start(model, single, deterministic=True, dtype=dtype, keep_logits=True) as one:
                bits = _run(one, ids, new_tokens).logits
        found = []
        for mode in modes:
            engine.use(mode, free_first_hop and mode == "coherent")
            run = _run(engine, ids, new_tokens)
            again = replay(run.notes[0].events, run.named, placement, mode, run.sizes)
            agree = [t.to_dict() for t in again] == [t.to_dict() for t in run.traffic]
            found.append(_compared(mode, placement.devices, plain.network.dtype, run, alone, routes, bits, agree))
    return found


@dataclass(frozen=True)
class _Run:
    """What ranks made of prompts: logits and experts by the prompts' numbers, `named` by the requests'."""

    logits: dict[tuple[int, int], Any]
    experts: list[Experts]
    named: dict[int, Experts]
    tokens: list[tuple[int, ...]]
    notes: list[Routed]
    traffic: list[Any]
    sizes: Any


def _run(engine: Engine, ids: Sequence[tuple[int, ...]], new_tokens: int) -> _Run:
    streams = engine.submit_all(ids, new_tokens, stop=())
    tokens = [stream.result().tokens for stream in streams]
    kept = engine.kept()
    number = {stream.request.id: place for place, stream in enumerate(streams)}
    logits = {(number[r], s): row for rank in kept for (r, s), row in rank.logits.items()}
    notes = [rank.routed for rank in kept if rank.routed is not None]
    named = Routed.merged(notes, len(engine.placement.device_of)) if notes else {}
    experts = [named[stream.request.id] for stream in streams] if notes else []
    return _Run(logits, experts, named, tokens, notes, [rank.traffic for rank in kept], kept[0].sizes)


def _plain(model: Any, dtype: Any) -> Model:
    from intarsia.models import load

    if isinstance(model, (str, Path)):
        model = load(model, dtype=dtype)
    if model.network.dtype == torch.float64 and hasattr(model.network, "set_experts_implementation"):
        model = model.copy()
        model.network.set_experts_implementation("eager")  # the grouped product knows no float64
    return model


@torch.no_grad()
def _greedy(network: Any, ids: list[int], new_tokens: int) -> tuple[list[int], list[Any]]:
    """The network's own next tokens, with its own cache, and their logits."""
    tokens, logits, cache = [], [], None
    given = torch.tensor([ids], device=network.device)
    for _ in range(new_tokens):
        output = network(input_ids=given, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        row = output.logits[0, -1]
        logits.append((row.float() if row.dtype.itemsize < 4 else row).cpu().numpy())
        tokens.append(int(row.argmax()))
        given = torch.tensor([tokens[-1:]], device=network.device)
    return tokens, logits


def _routes(model: Model, ids: list[int]) -> Experts:
    """[token, layer, k] the experts that the network's routers choose, each token's in order of number."""
    acts = read(model, [ids], at="layers.*.router_experts")
    return np.stack([np.sort(acts[site][0].cpu().numpy()) for site in acts.sites], axis=1)


def _compared(
    mode: Mode, ranks: int, dtype: torch.dtype, run: _Run, alone: Any, routes: Any, bits: Any, agree: bool
) -> Verified:
    gap, compared, parted, pairs, others = 0.0, 0, 0, 0, 0
    for place, (tokens, logits) in enumerate(alone):
        made = run.tokens[place]
        same = next((i for i, (a, b) in enumerate(zip(tokens, made, strict=True)) if a != b), len(tokens))
        parted += same < len(tokens)
        compared += same
        # The first token that differs still came from equal contexts; those after it did not.
        for step in range(min(same + 1, len(tokens))):
            gap = max(gap, float(np.abs(run.logits[place, step] - logits[step]).max()))
        ours, theirs = np.sort(run.experts[place]), routes[place]
        known = len(theirs) - (len(tokens) - 1) + min(same, len(tokens) - 1)
        different = (ours[:known] != theirs[:known]).any(2)
        pairs += different.size
        others += int(different.sum())
    equal = None
    if bits is not None:
        equal = bits.keys() == run.logits.keys() and all(np.array_equal(bits[key], run.logits[key]) for key in bits)
    name = str(dtype).removeprefix("torch.")
    return Verified(
        mode, ranks, name, pairs, others, compared, parted, gap, TOLERANCE.get(dtype), equal, agree
    )  # fmt: skip
