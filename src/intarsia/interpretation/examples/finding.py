"""`EditedTexts`: texts before and after an edit that was meant to change a model's answer."""

from __future__ import annotations

from typing import Any

import pydantic
from pydantic import Field

from intarsia.report import Block, Column, Finding, Table, TokenMap


class EditedText(pydantic.BaseModel):
    """One text and the best edit found.

    - before, after: the answers; probability_before, probability_after: of the answer before, in both texts.
    - words: the edited text's words; was: what stood there (None: unchanged; an empty word was deleted).
    - surprise_before, surprise_after: -log p a token of the text under the model itself, in nats; None for encoders.
    - similarity: cosine of the two texts under the given encoder, None without one.
    - tried: variants the model was asked about."""

    text: str
    edited: str
    before: str
    after: str
    probability_before: float
    probability_after: float
    flipped: bool
    words: list[str]
    was: list[str | None]
    edits: int
    surprise_before: float | None = None
    surprise_after: float | None = None
    similarity: float | None = None
    tried: int = 0


class EditedTexts(Finding):
    """What it takes to change a model's answers.

    `flip_rate` is the share of texts for which an edit within the bounds was found; the means are over those."""

    edited: list[EditedText] = Field(default_factory=list)
    max_edits: int = 0

    @property
    def flipped(self) -> list[EditedText]:
        return [e for e in self.edited if e.flipped]

    @property
    def flip_rate(self) -> float:
        return len(self.flipped) / len(self.edited)

    def mean(self, what: str) -> float | None:
        """Mean of a field over the flipped texts that have it."""
        values = [value for e in self.flipped if (value := getattr(e, what)) is not None]
        return sum(values) / len(values) if values else None

    @property
    def surprise_gain(self) -> float | None:
        """How much less fluent the edits read: mean change of surprise, nats a token."""
        gains = [e.surprise_after - e.surprise_before for e in self.flipped if e.surprise_after is not None]  # type: ignore[operator]
        return sum(gains) / len(gains) if gains else None

    def tables(self) -> list[Table]:
        tables = [
            Table(
                title="In numbers",
                columns=[
                    Column(name="texts", format="d"),
                    Column(name="flipped", format=".0%"),
                    Column(name="words changed", format=".2f", help="mean over flipped texts"),
                    Column(name="surprise gained", unit="nats a token", format="+.2f", help="0: as fluent as before"),
                    Column(name="similarity", format=".3f", help="cosine under the encoder, where one is given"),
                ],
                rows=[
                    [len(self.edited), self.flip_rate, self.mean("edits"), self.surprise_gain, self.mean("similarity")]
                ],
            )
        ]
        rows: list[list[Any]] = [
            [e.text, e.edited if e.flipped else "-", e.before, e.after, e.edits, e.probability_before,
             e.probability_after, e.surprise_after - e.surprise_before if e.surprise_after is not None else None]
            for e in sorted(self.edited, key=lambda e: (not e.flipped, e.edits))
        ]  # fmt: skip
        columns = [
            Column(name="text"),
            Column(name="edited"),
            Column(name="answer"),
            Column(name="answer after"),
            Column(name="words changed", format="d"),
            Column(name="p before", format=".2f", help="of the answer before the edit"),
            Column(name="p after", format=".2f", help="of that same answer after it"),
            Column(name="surprise gained", unit="nats a token", format="+.2f"),
        ]
        tables.append(Table(title="Text by text", columns=columns, rows=rows))
        return tables

    def maps(self) -> list[TokenMap]:
        """The edited texts with the changed words marked."""
        maps = []
        for e in self.flipped:
            maps.append(
                TokenMap(
                    title=f"{e.before} → {e.after}",
                    tokens=[word or "∅" for word in e.words],
                    values=[0.0 if was is None else 1.0 for was in e.was],
                    tips=["" if was is None else f"was: {was.strip() or '∅'}" for was in e.was],
                    maximum=1.0,
                    meaning="changed word",
                    format=".0f",
                )
            )
        return maps

    def blocks(self) -> list[Block]:
        return [self.tables()[0], *self.maps()[:12], self.tables()[1]]


def summarise(finding: EditedTexts, how: str) -> str:
    """What was found, and what it does not show."""
    count, flips = len(finding.edited), len(finding.flipped)
    if not flips:
        return (
            f"None of {count} answers could be flipped by {how} up to {finding.max_edits} words. That shows what this "
            "search found, not that no such edit exists."
        )
    edits = finding.mean("edits")
    text = f"{flips} of {count} answers flip by {how} {edits:.1f} words on average."
    if (gain := finding.surprise_gain) is not None:
        word = "more" if gain >= 0 else "less"
        text += f" The edited texts are {abs(gain):.2f} nats a token {word} surprising to the model."
    return text
