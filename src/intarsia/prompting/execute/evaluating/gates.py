"""Gates: what a figure must keep, judged on the figure or on the end of its interval that is against it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from intarsia.errors import BadInput, OutOfBudget, did_you_mean
from intarsia.measure.quality_parts import Interval
from intarsia.prompting.execute.evaluating.finding import EvalFinding, GateResult

_FORM = re.compile(
    r"\s*(?P<name>\S.*?(?<![=<>\s]))\s*(?P<sign>>=|<=|>|<)\s*(?P<limit>[-+]?\d*\.?\d+(?:[eE][-+]?\d+)?)\s*"
)
_HOLDS = {">=": float.__ge__, "<=": float.__le__, ">": float.__gt__, "<": float.__lt__}


@dataclass(frozen=True)
class Gate:
    """`name sign limit`: wf1>=0.5, change:wf1>=-0.01."""

    name: str
    sign: str
    limit: float

    def __str__(self) -> str:
        return f"{self.name}{self.sign}{self.limit:g}"

    def judged(self, figures: Mapping[str, Interval], on: str) -> tuple[float, bool]:
        """The value that is judged, and whether it passes. on: `point`, or `lower`: the end that is against it."""
        value, low, high = figures[self.name]
        if on == "lower":
            value = low if self.sign.startswith(">") else high
        return value, bool(_HOLDS[self.sign](float(value), self.limit))


def results(
    gates: Iterable[Gate], figures: Mapping[str, Interval], changes: Mapping[str, Interval], on: str
) -> list[GateResult]:
    """Every gate judged. Raises `BadInput` for a change that the earlier result says nothing of."""
    every = {**figures, **{f"change:{name}": value for name, value in changes.items()}}
    out = []
    for gate in gates:
        if gate.name not in every:
            raise BadInput(f"gate {gate}: the earlier result holds no '{gate.name.removeprefix('change:')}'")
        value, passed = gate.judged(every, on)
        out.append(GateResult(gate=str(gate), name=gate.name, limit=gate.limit, value=value, passed=passed))
    return out


def kept(finding: EvalFinding) -> EvalFinding:
    """The finding, where it passes its gates. Raises `OutOfBudget` with it where it does not."""
    missed = [gate for gate in finding.gates if not gate.passed]
    if missed:
        told = ", ".join(f"{gate.gate} (is {gate.value:.4g})" for gate in missed)
        raise OutOfBudget(f"missed: {told}", finding)
    return finding


def gates_of(given: Iterable[str], names: Iterable[str]) -> list[Gate]:
    """Gates out of their text. Raises `BadInput` for another form, and for a figure that is not measured."""
    known, out = list(names), []
    for text in given:
        found = _FORM.fullmatch(text)
        if found is None:
            raise BadInput(f"'{text}' is no gate: give a figure and its limit, as \"wf1>=0.5\"")
        if found["name"] not in known:
            hint = did_you_mean(found["name"], known)
            raise BadInput(f"gate '{text}': '{found['name']}' is not measured{hint}; measured: {', '.join(known)}")
        out.append(Gate(found["name"], found["sign"], float(found["limit"])))
    return out
