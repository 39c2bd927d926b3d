"""What the EQ test found: the quotient, and every item."""

from __future__ import annotations

from typing import Any

import pydantic
from pydantic import Field

from intarsia.measure.quality_parts import Interval
from intarsia.report import Cell, Column, Figure, Finding, Mark, Series, Table


class EqItem(pydantic.BaseModel):
    """One story: scores of the model and of people by option, and how far they lie apart."""

    story: str
    options: list[str]
    scores: list[float]
    human: list[float]
    distance: float


class EqFinding(Finding):
    """- distance: s, mean over items, with its 95 % interval over them. eq: the quotient. percentile: of people below.
    - similarity: Pearson's correlation of the distances with the human template, where one is given.
    - even: s of giving every feeling 2.5, which needs no reading."""

    items: list[EqItem] = Field(default_factory=list)
    distance: Interval = (0.0, 0.0, 0.0)
    eq: Interval = (0.0, 0.0, 0.0)
    percentile: float = 0.0
    similarity: float | None = None
    even: float = 0.0

    def headline(self) -> dict[str, tuple[Cell | tuple[float, float, float], Column]]:
        return {"eq": (self.eq, Column(name="EQ", format=".0f", better="higher"))}

    def tables(self) -> list[Table]:
        from intarsia.adaptation.eq.scoring import quotient

        rows: list[list[Any]] = [
            ["mean distance s", self.distance, self.even],
            ["EQ", self.eq, quotient(self.even)],
            ["percentile of people", self.percentile, None],
        ]
        if self.similarity is not None:
            rows.append(["likeness of the pattern to people's (r)", self.similarity, None])
        columns = [
            Column(name="figure"), Column(name="value", format=".2f", help="95 % interval over the items"),
            Column(name="every feeling 2.5", format=".2f"),
        ]  # fmt: skip
        note = "EQ = 100 + 15 (2.79 - s) / 0.822. Human scores are the mean of people; scores of an item sum to 10."
        return [Table(title="EQ", columns=columns, rows=rows, note=note), self._items()]

    def _items(self) -> Table:
        def said(words: list[str], scores: list[float]) -> str:
            return ", ".join(f"{word} {value:.1f}" for word, value in zip(words, scores, strict=True))

        rows: list[list[Any]] = [
            [item.story[:60] + ("…" if len(item.story) > 60 else ""), said(item.options, item.scores),
             said(item.options, item.human), item.distance]
            for item in sorted(self.items, key=lambda item: -item.distance)
        ]  # fmt: skip
        columns = [
            Column(name="story"), Column(name="model"), Column(name="people"),
            Column(name="distance", format=".2f", better="lower"),
        ]  # fmt: skip
        return Table(title="Items, the furthest first", columns=columns, rows=rows)

    def figures(self) -> list[Figure]:
        numbers = [str(i) for i in range(1, len(self.items) + 1)]
        series = [Series(name="distance", x=numbers, y=[item.distance for item in self.items])]
        return [
            Figure(
                title="Distance to people, by item", kind="bar", x="item", y="distance", series=series, format=".2f",
                marks=[Mark(value=2.79, text="people, mean")],
            )
        ]  # fmt: skip
