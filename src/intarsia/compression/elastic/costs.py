"""What a choice costs beside the full network: parameters and bytes by arithmetic, time by the table, energy estimated
from time and bytes; both corrected by what networks were measured to take."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from intarsia.compression.elastic.choices import Choice
from intarsia.compression.elastic.supernet import Supernet
from intarsia.compression.searching.budgets import Budget, parse_budget
from intarsia.errors import BadInput
from intarsia.measure.scores import estimated_joules
from intarsia.measure.size import count_parameters, tensor_bytes

if TYPE_CHECKING:
    from intarsia.compression.elastic.timing import Timing

KNOWN = ("params", "bytes", "latency", "energy")


def read_budget(text: str, who: str) -> Budget:
    """Raises `BadInput` for what a search of architectures does not know."""
    budget = parse_budget(text)
    for bound in budget.bounds:
        if bound.metric.name not in KNOWN:
            raise BadInput(f"{who}: budget: {bound.text}: bounds on {', '.join(KNOWN)} are known here")
        if bound.metric.name == "energy" and not bound.relative:
            raise BadInput(f"{who}: budget: {bound.text}: energy is an estimate, good for ratios: give it as 0.8x")
    return budget


class Costs:
    """- base: what the model costs that was given. timing: where the budget asks for time or energy. scales: what the
    table's latency and energy are multiplied by, once networks were measured (`learn`)."""

    def __init__(self, supernet: Supernet, budget: Budget, timing: Timing | None):
        self.supernet, self.budget, self.timing = supernet, budget, timing
        network: Any = supernet.base.network
        self.base = {"params": float(count_parameters(network)[0]), "bytes": float(tensor_bytes(network))}
        self._each = next(network.parameters()).element_size()
        if timing is not None:
            self.base["latency"] = timing.seconds(supernet.largest)
            self.base["energy"] = estimated_joules(self.base["latency"], self.base["bytes"] * timing.tokens[1])
        self.names = [b.metric.name for b in budget.bounds]
        self.limits = {b.metric.name: b.limit(self.base.get(b.metric.name)) for b in budget.bounds}
        self.scales = {name: 1.0 for name in ("latency", "energy") if timing is not None}
        self._known: dict[Choice, dict[str, float]] = {}

    def __call__(self, choice: Choice) -> Mapping[str, float]:
        """By metric: params, bytes, and what the budget asks for."""
        if choice not in self._known:
            count = float(self.supernet.parameters(choice))
            found = {"params": count, "bytes": count * self._each}
            if self.timing is not None:
                found["latency"] = self.timing.seconds(choice)
                found["energy"] = estimated_joules(found["latency"], found["bytes"] * self.timing.tokens[1])
                found |= {name: found[name] * scale for name, scale in self.scales.items()}
            self._known[choice] = found
        return self._known[choice]

    def excess(self, choice: Choice) -> float:
        """How far beyond the budget, as the largest share of a limit; 0 or less: within it."""
        found = self(choice)
        return max(found[name] / limit - 1 for name, limit in self.limits.items())

    def learn(self, measured: Mapping[Choice, Mapping[str, float | None]]) -> None:
        """By choice, the latency and energy that networks were measured to have, over the full one's: the table is
        taken to be wrong as it was of these, in the median."""
        for name, scale in self.scales.items():
            wrong = [
                value * self.base[name] * scale / self(choice)[name]
                for choice, found in measured.items() if (value := found.get(name)) is not None
            ]  # fmt: skip
            if wrong:
                self.scales[name] = statistics.median(wrong)
        self._known.clear()
