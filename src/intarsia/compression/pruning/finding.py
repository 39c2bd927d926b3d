"""`BlocksFinding`: what each block is worth, and what removing some did."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from intarsia.report import Column, Figure, Finding, Series, Table


class Ranked(BaseModel):
    """One block of the network as it was. influence: mean of 1 - cos of the stream below and above it. divergence: KL
    of the next token when it is left out, in nats; None where that was not measured."""

    block: int
    influence: float
    divergence: float | None = None


class BlocksFinding(Finding):
    """Blocks, ranked and removed.

    - ranking: of all blocks, in the network's order. removed: numbers of those that went, in the order of removal;
      divergences: KL of the next token after each removal, where it was measured; divergence: after all of them.
      tokens: of the text."""

    ranking: list[Ranked] = Field(default_factory=list)
    removed: list[int] = Field(default_factory=list)
    divergences: list[float] = Field(default_factory=list)
    divergence: float | None = None
    tokens: int = 0
    rank: str = ""

    def headline(self) -> dict[str, Any]:
        if self.divergence is None:
            return {}
        return {"KL": (self.divergence, Column(name="KL", unit="nats", format=".3f", better="lower"))}

    def tables(self) -> list[Table]:
        return [self._ranked(), *([self._steps()] if self.divergences else [])]

    def _ranked(self) -> Table:
        measured = any(one.divergence is not None for one in self.ranking)
        columns = [
            Column(name="block"),
            Column(name="divergence", unit="nats", format=".3f", help="KL of the next token without the block"),
            Column(name="influence", format=".3f", help="mean of 1 - cos of the stream below and above the block"),
            Column(name="removed"),
        ]
        key = (lambda r: r.divergence) if measured else (lambda r: r.influence)
        rows: list[list[Any]] = [
            [r.block, r.divergence, r.influence, "yes" if r.block in self.removed else "no"]
            for r in sorted(self.ranking, key=key)
        ]
        if not measured:
            columns, rows = [columns[0], *columns[2:]], [[row[0], *row[2:]] for row in rows]
        note = f"{self.tokens:,} tokens of text; the least needed block first."
        return Table(title="What each block is worth", columns=columns, rows=rows, note=note)

    def _steps(self) -> Table:
        columns = [Column(name="removed"), Column(name="block"), Column(name="KL", unit="nats", format=".3f")]
        rows: list[list[Any]] = [
            [n, block, value]
            for n, (block, value) in enumerate(zip(self.removed, self.divergences, strict=True), start=1)
        ]
        return Table(title="One after the other", columns=columns, rows=rows)

    def figures(self) -> list[Figure]:
        if not any(one.divergence is not None for one in self.ranking):
            return []
        series = Series(
            name="blocks",
            x=[one.influence for one in self.ranking],
            y=[one.divergence for one in self.ranking],
            labels=[str(one.block) for one in self.ranking],
        )
        figure = Figure(
            title="What a block seems to do, and what is missing without it", kind="scatter", x="influence",
            y="divergence in nats", series=[series], format=".3f", log_x=True, log_y=True,
        )  # fmt: skip
        return [figure]
