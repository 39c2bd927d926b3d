"""A choice, made and measured: divergence on text that is held out, and what the budget bounds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from intarsia.compression.elastic.choices import Choice
from intarsia.compression.elastic.costs import Costs
from intarsia.compression.elastic.finding import Tested
from intarsia.compression.elastic.refitting import refitted
from intarsia.compression.elastic.supernet import Supernet
from intarsia.compression.pruning.ranking import divergence
from intarsia.compression.statistics import batches
from intarsia.measure.size import count_parameters, tensor_bytes
from intarsia.measure.speed import take_turns, torch_lap

if TYPE_CHECKING:
    from intarsia.compression.elastic.timing import Timing
    from intarsia.models import Model


class Judge:
    """- windows: of calibration text, for the refit. held: of the text to judge by. ridge: of the refit; None: what is
    left stays as it is. rounds: of timing.
    - tested: all that was judged. best, and the network it is: of those that keep the budget, the least divergent."""

    def __init__(
        self, supernet: Supernet, costs: Costs, windows: Sequence[Sequence[int]], held: Sequence[Sequence[int]], *,
        ridge: float | None, rounds: int,
    ):  # fmt: skip
        self.supernet, self.costs, self.windows = supernet, costs, windows
        self.ridge, self.rounds = ridge, rounds
        self.text = batches(supernet.base, held)
        self.tokens = sum(map(len, held))
        self.tested: dict[Choice, Tested] = {}
        self.best: Tested | None = None
        self.network: Model | None = None

    def __call__(self, choice: Choice, predicted: float) -> Tested:
        """Each choice is judged once."""
        if choice in self.tested:
            return self.tested[choice]
        small = (
            self.supernet.slice(choice)
            if self.ridge is None
            else refitted(self.supernet, choice, self.windows, self.ridge)
        )
        values: dict[str, float] = {
            "params": count_parameters(small.network)[0], "bytes": tensor_bytes(small.network),
        }  # fmt: skip
        ratios = {name: values[name] / self.costs.base[name] for name in values}
        if self.costs.timing is not None:
            self._clock(small, self.costs.timing, values, ratios)
        kl = max(divergence(small, self.supernet.base, self.text), 0.0)
        broken = [bound.text for bound, _ in self.costs.budget.broken(values, ratios)]
        one = Tested(
            said=choice.said(), blocks=list(choice.blocks), neurons=list(choice.neurons), heads=choice.heads,
            width=choice.width, predicted=predicted, kl=kl, params=int(values["params"]), bytes=int(values["bytes"]),
            latency=ratios.get("latency"), energy=ratios.get("energy"), broken=broken,
        )  # fmt: skip
        self.tested[choice] = one
        if not broken and (self.best is None or kl < self.best.kl):  # (the others would only fill the memory)
            self.best, self.network = one, small
        return one

    def clocked(self) -> dict[Choice, dict[str, float | None]]:
        """Latency and energy of what was judged, over the full network's."""
        return {choice: {"latency": one.latency, "energy": one.energy} for choice, one in self.tested.items()}

    def _clock(self, small: Model, timing: Timing, values: dict[str, float], ratios: dict[str, float]) -> None:
        """Latency in turns with the model given, and energy where the budget has it."""
        pair = {"small": torch_lap(small, *timing.tokens), "base": torch_lap(self.supernet.base, *timing.tokens)}
        taken = take_turns(pair, self.rounds)
        seconds = {name: [timing.answer(lap) for lap in laps] for name, laps in taken.items()}
        values["latency"] = min(seconds["small"])
        ratios["latency"] = _ratio(seconds["small"], seconds["base"])
        if "energy" in self.costs.names:
            from intarsia.measure.energy import energy_in_turns

            joules = energy_in_turns(pair, sum(timing.tokens))
            values["energy"] = statistics.median(joules["small"])
            ratios["energy"] = _ratio(joules["small"], joules["base"])


def _ratio(own: Sequence[float], base: Sequence[float]) -> float:
    """The median over rounds."""
    return statistics.median(a / b for a, b in zip(own, base, strict=True))
