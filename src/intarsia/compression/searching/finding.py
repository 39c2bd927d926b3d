"""`FitFinding`: all that was tried to make a model fit its budget, what each point cost, and which one was taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pydantic
from pydantic import Field

from intarsia.report import Cell, Column, Figure, Finding, Mark, Series, Table

STAGES = {"predicted": "predicted", "first": "a first look", "second": "a second look", "verified": "in its engine"}


class Point(pydantic.BaseModel):
    """One composition.

    - stage: how far it came: `predicted`, `first` and `second` (drafts on more and more text), `verified` (built,
      exported, timed). predicted: KL in nats a token that was expected when it was first looked at. harm: the same, as
      that stage knows it. engine: that runs it; made_for: by the plan.
    - values, ratios: of what was measured in the engine; before that bytes and params by arithmetic. ratios: over the
      base's. agreement: share of tokens with the engine's and the network's same first choice. same: the same, of the
      model and the base.
    - broken: the bounds it does not keep, as they were written. front: whether no other verified point is as good in
      every figure that counts and better in one. taken: whether it is the one."""

    name: str
    stage: str = "predicted"
    made_for: str = ""
    engine: str = ""
    bits: float = 0.0
    cuts: list[tuple[str, float]] = []
    recovered: bool = False
    predicted: float = 0.0
    harm: float = 0.0
    values: dict[str, float] = {}
    ratios: dict[str, float] = {}
    agreement: float | None = None
    same: float | None = None
    broken: list[str] = []
    front: bool = False
    taken: bool = False
    notes: list[str] = []


class FitFinding(Finding):
    """- budget, objective: what was asked for. points: all that were tried, the verified first. taken: the name of the
    one that was taken, empty where none keeps the budget; why, in words. said: what arithmetic told before.
    - base: the model's own figures. refused: engines and families that could not be tried, with the reason.
    - folder: where the search is kept. minutes: of CPU, of this run alone."""

    volatile: ClassVar[frozenset[str]] = frozenset({"points", "base", "folder", "minutes", "summary", "taken", "why"})

    budget: str = ""
    objective: str = ""
    points: list[Point] = Field(default_factory=list)
    base: dict[str, float] = Field(default_factory=dict)
    taken: str = ""
    why: str = ""
    said: list[str] = Field(default_factory=list)
    refused: dict[str, str] = Field(default_factory=dict)
    tokens: dict[str, int] = Field(default_factory=dict)
    bounds: dict[str, float] = Field(default_factory=dict)
    folder: str = ""
    minutes: float = 0.0

    def point(self) -> Point | None:
        """The one that was taken."""
        return next((point for point in self.points if point.taken), None)

    def headline(self) -> dict[str, tuple[Cell | tuple[float, float, float], Column]]:
        if (point := self.point()) is None:
            return {}
        return {
            "bytes": (point.values["bytes"], Column(name="bytes on disk", format="bytes", better="lower")),
            "quality": (point.values["quality"], Column(name="quality", format=".3f", better="higher")),
        }

    def tables(self) -> list[Table]:
        verified = [point for point in self.points if point.stage == "verified"]
        others = [point for point in self.points if point.stage != "verified"]
        found = [self._verified(verified)] if verified else []
        return [*found, *([self._looked_at(others)] if others else []), *([self._refused()] if self.refused else [])]

    def _verified(self, points: Sequence[Point]) -> Table:
        more = [n for n in ("latency", "ram", "energy") if any(n in p.values for p in points) and n in self.bounds]
        columns = [
            Column(name="composition"), Column(name="engine"),
            Column(name="on disk", format="bytes", better="lower"),
            Column(name="quality", format=".3f", better="higher", help="perplexity of the base over its own"),
            Column(name="KL", unit="nats", format=".3f", better="lower"),
            Column(name="decode", unit="tok/s", format=",.1f", better="higher"),
            Column(name="decode/base", format=".2f", better="higher", help="median of the rounds' ratios"),
            Column(name="prefill", unit="tok/s", format=",.0f", better="higher"),
            Column(name="prefill/base", format=".2f", better="higher", help="median of the rounds' ratios"),
            Column(name="same as torch", format=".1%", better="higher", help="first choices of engine and network"),
            *(Column(name=name, format="bytes" if name == "ram" else ".3g", better="lower") for name in more),
            Column(name=""),
        ]  # fmt: skip
        rows: list[list[Any]] = []
        if self.base:
            base = self.base
            rows.append(
                ["the model as it is", "torch", base.get("bytes"), 1.0, 0.0, base.get("decode"), 1.0,
                 base.get("prefill"), 1.0, None, *(None for _ in more), ""]
            )  # fmt: skip
        for p in points:
            rows.append(
                [p.name, p.engine, p.values.get("bytes"), p.values.get("quality"), p.values.get("kl"),
                 p.values.get("decode"), p.ratios.get("decode"), p.values.get("prefill"), p.ratios.get("prefill"),
                 p.agreement, *(p.values.get(name) for name in more), _word(p)]
            )  # fmt: skip
        note = (
            f"Quality and KL in the engine, on {self.tokens.get('judged', 0):,} tokens; speeds of base and engines in "
            f"turns. Bits are of the body; the vocabulary has 8 where nothing else is said."
        )
        return Table(title="What was built and run", columns=columns, rows=rows, note=note)

    def _looked_at(self, points: Sequence[Point]) -> Table:
        columns = [
            Column(name="composition"), Column(name="bytes by arithmetic", format="bytes", better="lower"),
            Column(name="predicted KL", unit="nats", format=".3f", better="lower", help="by all that was known before"),
            Column(name="measured", unit="nats", format=".3f", better="lower", help="KL, and what a vocabulary costs"),
            Column(name="how far it came"),
        ]  # fmt: skip
        rows: list[list[Any]] = [
            [p.name, p.values.get("bytes"), p.predicted, p.harm if p.stage != "predicted" else None, STAGES[p.stage]]
            for p in points
        ]
        note = (
            f"Drafts on {self.tokens.get('first', 0):,}, then {self.tokens.get('second', 0):,} tokens; the better half "
            "goes on."
        )
        return Table(title="What was looked at", columns=columns, rows=rows, note=note)

    def _refused(self) -> Table:
        rows: list[list[Any]] = [[name, why] for name, why in self.refused.items()]
        return Table(title="What could not be tried", columns=[Column(name="what"), Column(name="why")], rows=rows)

    def figures(self) -> list[Figure]:
        shown = [p for p in self.points if p.values.get("bytes") and (p.stage == "verified" or p.harm > 0)]
        if not shown:
            return []

        def series(name: str, some: Sequence[Point]) -> list[Series]:
            ordered = sorted(some, key=lambda p: p.values["bytes"])
            if not ordered:
                return []
            x, y = [p.values["bytes"] / 1e6 for p in ordered], [_quality(p) for p in ordered]
            return [Series(name=name, x=x, y=list(y), labels=[p.name for p in ordered])]

        groups = [
            *series("on the front", [p for p in shown if p.front]),
            *series("run in its engine", [p for p in shown if p.stage == "verified" and not p.front]),
            *series("drafts", [p for p in shown if p.stage in ("first", "second")]),
        ]
        marks = []
        if "bytes" in self.bounds:
            marks.append(Mark(axis="x", value=self.bounds["bytes"] / 1e6, text="bytes allowed"))
        if "quality" in self.bounds:
            marks.append(Mark(axis="y", value=self.bounds["quality"], text="quality asked for"))
        return [
            Figure(
                title="What bytes buy", kind="scatter", x="MB on disk", y="quality", series=groups, marks=marks,
                format=".3f", note="Quality of drafts is exp(-KL), on less text.",
            )
        ] if groups else []  # fmt: skip


def _quality(point: Point) -> float:
    import math

    return point.values.get("quality", math.exp(-point.harm))


def _word(point: Point) -> str:
    if point.taken:
        return "taken"
    if point.broken:
        return "breaks " + ", ".join(point.broken)
    return "on the front" if point.front else ""
