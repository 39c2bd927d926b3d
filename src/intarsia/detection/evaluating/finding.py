"""What an evaluation found."""

from __future__ import annotations

from typing import Any

import pydantic
from pydantic import Field

from intarsia.detection.evaluating.protocol import Measured
from intarsia.measure.quality_parts import Interval
from intarsia.report import Cell, Column, Figure, Finding, Mark, Series, Table


class GroupFlagged(pydantic.BaseModel):
    """People of one group of writers, at the one threshold."""

    detector: str
    domain: str
    group: str
    texts: int
    rate: Interval


class Evaluated(Finding):
    """- rows: by detector, domain and kind of machine's text. groups: people flagged, by group. rate: the budget."""

    rows: list[Measured] = Field(default_factory=list)
    groups: list[GroupFlagged] = Field(default_factory=list)
    rate: float = 0.01

    def headline(self) -> dict[str, tuple[Cell | tuple[float, float, float], Column]]:
        whole = [row for row in self.rows if row.kind == "all"]
        mean = sum(row.auroc[0] for row in whole) / max(1, len(whole))
        return {"auroc": (mean, Column(name="mean AUROC", format=".3f", better="higher"))}

    def tables(self) -> list[Table]:
        rows: list[list[Any]] = [
            [r.detector, r.domain, r.kind, r.auroc, r.found, r.false, r.machine, r.people, r.bank] for r in self.rows
        ]
        columns = [
            Column(name="detector"), Column(name="domain"), Column(name="machine's texts"),
            Column(name="AUROC", format=".3f", better="higher", help="95 % over topics"),
            Column(name="found", format=".0%", better="higher", help=f"flagged at a budget of {self.rate:.1%}"),
            Column(name="people flagged", format=".1%", better="lower", help="exact 95 % interval"),
            Column(name="machine", format=",d"), Column(name="people", format=",d"), Column(name="bank", format=",d"),
        ]  # fmt: skip
        note = f"Budget {self.rate:.1%}; thresholds come from the bank of people's texts alone."
        out = [Table(title="Detectors", columns=columns, rows=rows, note=note)]
        if self.groups:
            out.append(Table(
                title="People flagged, by group of writers",
                columns=[Column(name="detector"), Column(name="domain"), Column(name="group"),
                         Column(name="texts", format=",d"), Column(name="flagged", format=".1%", better="lower")],
                rows=[[g.detector, g.domain, g.group, g.texts, g.rate] for g in self.groups],
            ))  # fmt: skip
        return out

    def figures(self) -> list[Figure]:
        whole = [row for row in self.rows if row.kind == "all"]
        domains = list(dict.fromkeys(row.domain for row in whole))
        series = []
        for name in dict.fromkeys(row.detector for row in whole):
            mine = {row.domain: row.auroc for row in whole if row.detector == name}
            series.append(Series(
                name=name, x=domains, y=[mine[d][0] if d in mine else None for d in domains],
                low=[mine[d][1] if d in mine else None for d in domains],
                high=[mine[d][2] if d in mine else None for d in domains],
            ))  # fmt: skip
        marks = [Mark(value=0.5, text="chance")]
        return [Figure(title="AUROC by domain", kind="bar", x="domain", y="AUROC", series=series, marks=marks)]
