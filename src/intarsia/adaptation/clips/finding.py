"""`DescribedFinding`: what was seen of which clips; `Descriptions`: what `adaptation.describe` gives and saves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from intarsia.report import Column, Finding, Table

if TYPE_CHECKING:
    from intarsia.data.descriptions import Description

SHOWN = 12


class Seen(BaseModel):
    """One clip that was described: the seconds of the frames it was told from, and what was told."""

    clip: str
    seconds: float
    scenes: int
    times: list[float]
    text: str
    removed: int = 0
    trouble: str = ""


class DescribedFinding(Finding):
    """How it went.

    - clips: those described. left_out: clip -> why it has no description. cached: how many had been described before.
    - prompt: what the model was asked; empty where it was asked nothing. words: of labels, that were taken out.
    - silent: clips with sound, which nobody listened to."""

    volatile = frozenset({"cached"})
    clips: list[Seen] = Field(default_factory=list)
    left_out: dict[str, str] = Field(default_factory=dict)
    cached: int = 0
    silent: int = 0
    prompt: str = ""
    labels: list[str] = Field(default_factory=list)

    @property
    def removed(self) -> int:
        """Words of labels that were taken out of the descriptions."""
        return sum(clip.removed for clip in self.clips)

    def tables(self) -> list[Table]:
        lengths = sorted(len(clip.text.split()) for clip in self.clips)
        rows: list[list[Any]] = [
            ["clips described", len(self.clips), "described before, and not again" if self.cached else ""],
            ["frames looked at", sum(len(clip.times) for clip in self.clips), "at the middles of scenes"],
            ["scenes", sum(clip.scenes for clip in self.clips), ""],
            ["words, median", lengths[len(lengths) // 2] if lengths else 0, ""],
            ["words of labels removed", self.removed, ", ".join(self.labels) or "no labels were given"],
            ["clips left out", len(self.left_out), ""],
            ["clips with sound", self.silent, "sound is left alone"],
        ]
        if self.cached:
            rows[0][2] = f"{self.cached} of them earlier, from the cache"
        columns = [Column(name="figure"), Column(name="value", format=",d"), Column(name="meaning")]
        tables = [Table(title="Clips in words", columns=columns, rows=rows)]
        columns = [
            Column(name="clip"), Column(name="length", unit="s", format=".1f"), Column(name="scenes", format="d"),
            Column(name="frames", format="d"), Column(name="what is to be seen"),
        ]  # fmt: skip
        rows = [[c.clip, c.seconds, c.scenes, len(c.times), c.text] for c in self.clips[:SHOWN]]
        more = len(self.clips) - len(rows)
        tables.append(
            Table(title="Descriptions", columns=columns, rows=rows, note=f"And {more:,} more." if more > 0 else "")
        )
        if bad := [*self.left_out.items(), *((c.clip, c.trouble) for c in self.clips if c.trouble)]:
            columns = [Column(name="clip"), Column(name="trouble")]
            note = f"And {len(bad) - SHOWN:,} more." if len(bad) > SHOWN else ""
            tables.append(Table(title="Trouble", columns=columns, rows=[list(b) for b in bad[:SHOWN]], note=note))
        return tables


@dataclass
class Descriptions:
    """A description for each clip, in the order given; of a clip that could not be read, one without text.

    - records: one a clip (or stretch of one). finding: how it went."""

    records: list[Description]
    finding: DescribedFinding

    def __iter__(self) -> Iterator[Description]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def __str__(self) -> str:
        return str(self.finding)

    def save(self, out: str | Path, *, force: bool = False) -> Path:
        """Write a line of JSON for each (`intarsia.data.descriptions.write_descriptions`)."""
        from intarsia.data.descriptions import write_descriptions

        return write_descriptions(out, self.records, force=force)
