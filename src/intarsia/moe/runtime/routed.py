"""`Routed`: what was run - every token's experts, and which requests took part in each step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from intarsia.moe.runtime.counters import Phase
from intarsia.moe.runtime.request import Running

Experts = NDArray[np.int64]


@dataclass(frozen=True)
class Event:
    """One call of the runtime.

    - requests: those that took part; homes: where each was when it began; tokens: how many tokens of each ran.
    - positions: of the first of these. asked: whether the request said its home.
    - load: how many requests each rank had already (before a prompt)."""

    phase: Phase
    requests: tuple[int, ...]
    homes: tuple[int, ...]
    tokens: tuple[int, ...]
    positions: tuple[int, ...]
    asked: tuple[bool, ...]
    load: tuple[int, ...]


class Routed:
    """One rank's notes."""

    def __init__(self, k: int):
        self.k = k
        self.events: list[Event] = []
        self._notes: list[tuple[int, Any, Any, Any]] = []

    def note(self, layer: int, requests: Tensor, positions: Tensor, experts: Tensor) -> None:
        """Experts [n, k] that tokens were sent to in a routed layer."""
        if len(requests):
            self._notes.append((layer, requests.cpu().numpy(), positions.cpu().numpy(), experts.cpu().numpy()))

    def schedule(self, phase: Phase, running: Sequence[Running], load: Sequence[int]) -> None:
        """Note a call."""
        self.events.append(
            Event(
                phase,
                tuple(one.request.id for one in running),
                tuple(one.home for one in running),
                tuple(len(one.request.prompt) if phase == "prefill" else 1 for one in running),
                tuple(0 if phase == "prefill" else one.position for one in running),
                tuple(one.request.home is not None for one in running),
                tuple(load),
            )
        )

    @staticmethod
    def merged(ranks: Iterable[Routed], layers: int) -> dict[int, Experts]:
        """All ranks' notes: request -> experts [token, layer, k]; -1 where a token did not run."""
        notes = [note for rank in ranks for note in rank._notes]
        k = notes[0][3].shape[1] if notes else 1
        longest: dict[int, int] = {}
        for _, requests, positions, _ in notes:
            for request in np.unique(requests):
                longest[int(request)] = max(longest.get(int(request), 0), int(positions[requests == request].max()) + 1)
        table = {request: np.full((n, layers, k), -1, dtype=np.int64) for request, n in longest.items()}
        for layer, requests, positions, experts in notes:
            for request in np.unique(requests):
                here = requests == request
                table[int(request)][positions[here], layer] = experts[here]
        return table
