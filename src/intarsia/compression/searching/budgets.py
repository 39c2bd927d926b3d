"""What a model may cost, as a person writes it: `bytes<90MB, decode>4x, quality>0.95x`.

    budget  = bound {"," bound}
    bound   = metric ("<" | "<=" | ">" | ">=") number [unit]

`x` as the unit is relative to the model before it was compressed, `%` a hundredth of that. Every metric is bounded from
its bad side only, and once; what is not bounded may become the objective."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from intarsia.errors import BadInput, did_you_mean

_SIZES = {"b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30}
_SECONDS = {"ms": 1e-3, "s": 1.0}
_RATES = {"tok/s": 1.0, "tokens/s": 1.0}
_COUNTS = {"k": 1e3, "m": 1e6, "b": 1e9}
_JOULES = {"j": 1.0, "mj": 1e-3}


@dataclass(frozen=True)
class Metric:
    """- name, what: in a word, and in words. better: which side is good. units: name in lower case -> factor.
    - unit: what values are kept in. relative: whether `x` has a meaning. bare: whether a plain number has."""

    name: str
    what: str
    better: Literal["lower", "higher"]
    unit: str
    units: Mapping[str, float]
    relative: bool = True
    bare: bool = True


METRICS = {
    metric.name: metric
    for metric in (
        Metric("bytes", "weights and graph on disk, in the engine's own file", "lower", "B", _SIZES),
        Metric("params", "parameters, shared ones once", "lower", "", _COUNTS),
        Metric("ram", "peak memory of a process that loads and runs the model", "lower", "B", _SIZES),
        Metric("latency", "seconds of one answer: the prompt read, the new tokens written", "lower", "s", _SECONDS),
        Metric("prefill", "tokens of a prompt that are read in a second", "higher", "tok/s", _RATES),
        Metric("decode", "tokens that are written in a second", "higher", "tok/s", _RATES),
        Metric("energy", "joules a token, estimated", "lower", "J", _JOULES),
        Metric("quality", "perplexity of the base over the model's own", "higher", "x", {}),
        Metric("ppl", "perplexity a token of the base's vocabulary", "lower", "", {}),
        Metric("kl", "divergence of the next token from the base, in nats", "lower", "nats", {"nats": 1.0}, False),
    )
}
ALIASES = {"size": "bytes", "parameters": "params", "memory": "ram", "perplexity": "ppl"}
QUALITIES = ("quality", "ppl", "kl")
SPEEDS = ("latency", "prefill", "decode")
OBJECTIVES = ("quality", "bytes", "decode")  # the first that nothing bounds
_BOUND = re.compile(r"(?P<name>[^\W\d]\w*)?\s*(?P<op><=|>=|=<|=>|[<>=]+)?\s*(?P<number>[+-]?[\d.]\S*)?\s*(?P<unit>.*)")
_NUMBER = re.compile(r"(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?P<unit>.*)")


@dataclass(frozen=True)
class Bound:
    """One bound. value: in the metric's own unit, or times the base's where `relative`. text: as it was written."""

    metric: Metric
    strict: bool
    value: float
    relative: bool
    text: str

    def limit(self, base: float | None) -> float:
        """The bound in the metric's unit. base: the base model's value; wanted for relative bounds."""
        if not self.relative:
            return self.value
        if base is None:
            raise BadInput(f"{self.text}: the base has no {self.metric.name} to compare with; give an absolute bound")
        return self.value * base

    def holds(self, value: float) -> bool:
        """Whether a measured value (a ratio to the base's, for a relative bound) keeps the bound."""
        if value == self.value:
            return not self.strict
        return (value < self.value) == (self.metric.better == "lower")

    def excess(self, value: float) -> float:
        """How far a value is beyond the bound, as the logarithm of their ratio; 0 or less where it holds."""
        if value <= 0:
            return 0.0 if self.holds(value) else math.inf
        ratio = math.log(value / self.value)
        return ratio if self.metric.better == "lower" else -ratio


@dataclass(frozen=True)
class Budget:
    """- bounds: in the order they were written. text: the whole, as it was written."""

    bounds: tuple[Bound, ...]
    text: str

    @property
    def objective(self) -> str:
        """What is made as good as it gets within the bounds: the first of quality, bytes and decode that nothing
        bounds (a bound on ppl or kl is one on quality); quality where all three are."""
        taken = {"quality" if b.metric.name in QUALITIES else b.metric.name for b in self.bounds}
        return next((name for name in OBJECTIVES if name not in taken), "quality")

    def of(self, *names: str) -> list[Bound]:
        """The bounds on these metrics."""
        return [b for b in self.bounds if b.metric.name in names]

    def broken(self, values: Mapping[str, float], ratios: Mapping[str, float]) -> list[tuple[Bound, float]]:
        """The bounds that are not kept, and by how much (`Bound.excess`). What was not measured is not judged.

        - values: by metric. ratios: the same over the base's, which relative bounds are held against."""
        out = []
        for bound in self.bounds:
            value = (ratios if bound.relative else values).get(bound.metric.name)
            if value is not None and not bound.holds(value):
                out.append((bound, bound.excess(value)))
        return out

    @property
    def most_bytes(self) -> Bound | None:
        """The bound on bytes, if there is one."""
        return next(iter(self.of("bytes")), None)


def parse_budget(text: str) -> Budget:
    """A budget, from what a person wrote.

    Raises `BadInput` for unknown metrics and units, numbers that are none, metrics bounded twice or from their good
    side."""
    parts = [part.strip() for part in text.split(",")]
    if not any(parts):
        raise BadInput("the budget is empty; wanted bounds like 'bytes<90MB, decode>4x, quality>0.95x'")
    bounds: list[Bound] = []
    for part in parts:
        bound = _bound(part)
        if again := next((b for b in bounds if b.metric is bound.metric), None):
            raise BadInput(f"budget: {again.text} and {bound.text} bound the same; give one of them")
        bounds.append(bound)
    budget = Budget(tuple(bounds), ", ".join(b.text for b in bounds))
    _check_together(budget)
    return budget


def _bound(part: str) -> Bound:
    if not part:
        raise BadInput("budget: there is nothing between two commas; wanted bounds like 'bytes<90MB'")
    match = _BOUND.fullmatch(part)
    name = (match["name"] or "") if match else ""
    if match is None or not name:
        raise BadInput(f"budget: '{part}' names no metric; known: {', '.join(METRICS)}")
    metric = METRICS.get(ALIASES.get(name.lower(), name.lower()))
    if metric is None:
        hint = did_you_mean(name.lower(), [*METRICS, *ALIASES]) or f"; known: {', '.join(METRICS)}"
        raise BadInput(f"budget: no metric '{name}'{hint}")
    good = "<" if metric.better == "lower" else ">"
    if match["op"] not in ("<", "<=", ">", ">="):
        raise BadInput(f"budget: '{part}' wants one of <, <=, >, >= after {name}, like {name}{good}0.9x")
    value, relative = _value(part, name, metric, (match["number"] or "") + (match["unit"] or ""))
    if match["op"][0] != good:
        side = "above" if metric.better == "lower" else "below"
        raise BadInput(f"budget: '{part}' allows any model that is bad enough: {name} is bounded from {side}, {good}")
    return Bound(metric, len(match["op"]) == 1, value, relative, re.sub(r"\s+", "", part))


def _value(part: str, name: str, metric: Metric, said: str) -> tuple[float, bool]:
    """The number in the metric's unit, and whether it is relative to the base."""
    match = _NUMBER.fullmatch(said.strip())
    if match is None:
        raise BadInput(f"budget: '{part}' has no number after {name}")
    number, unit = float(match["number"]), match["unit"].strip().lower()
    if not (math.isfinite(number) and number > 0):
        raise BadInput(f"budget: '{part}': a number above 0 is wanted")
    if unit in ("x", "%"):
        if not metric.relative:
            raise BadInput(f"budget: '{part}': {name} of the base is 0, so it has no 'x'; give it in {metric.unit}")
        return (number if unit == "x" else number / 100), True
    if not unit:
        return number, metric.name == "quality"
    if unit not in metric.units:
        known = [*metric.units, *(["x"] if metric.relative else [])]
        hint = did_you_mean(unit, known) or f"; {name} is given in {', '.join(known)}"
        raise BadInput(f"budget: '{part}': no unit '{match['unit'].strip()}'{hint}")
    return number * metric.units[unit], False


def _check_together(budget: Budget) -> None:
    """Raise `BadInput` for bounds of which none can be kept with the other, whatever the model."""
    by_name = {b.metric.name: b for b in budget.bounds}
    quality, divergence = by_name.get("quality"), by_name.get("ppl")
    if quality and divergence and divergence.relative and quality.value * divergence.value < 1:
        return  # the one only follows from the other
    if divergence and divergence.relative and divergence.value < 0.5:
        raise BadInput(f"budget: {divergence.text}: no compression halves the perplexity; give a bound near 1x")
    if quality and quality.value > 2:
        raise BadInput(f"budget: {quality.text}: no compression doubles the quality; give a bound near 1x")
