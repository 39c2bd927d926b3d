"""`Attribution`: what a method found on some texts, as coloured texts and tables."""

from __future__ import annotations

import pydantic
from pydantic import Field

from intarsia.interpretation.wording import one_line
from intarsia.report import Block, Cell, Column, Finding, Table, TokenMap

TOP = 12


class Piece(pydantic.BaseModel):
    """A token, word or sentence as it stands in the text, and its score."""

    text: str
    score: float


class AttributedText(pydantic.BaseModel):
    """One text, explained.

    - explained: the label, class or words whose probability is explained. label: the record's own label, if any.
    - log_prob: its log probability on the whole text, in nats.
    - total, gap: what the scores should add up to, and |sum - total| / |total|; None where nothing is promised.
    - facts: more figures, by name."""

    text: str
    explained: str
    log_prob: float
    probability: float
    pieces: list[Piece]
    label: str | None = None
    total: float | None = None
    gap: float | None = None
    facts: dict[str, float] = Field(default_factory=dict)

    def ranked(self) -> list[Piece]:
        """Its pieces, the one that speaks most for the choice first."""
        return sorted(self.pieces, key=lambda piece: -piece.score)


class Attribution(Finding):
    """Which pieces of each text speak for (positive) or against (negative) what the model says.

    - method, unit: how, and what is scored. signed: whether scores have a direction at all.
    - scores are changes of log probability in nats where the method promises a sum, else in the method's own scale."""

    method: str = ""
    unit: str = "word"
    signed: bool = True
    texts: list[AttributedText] = Field(default_factory=list)

    def headline(self) -> dict[str, tuple[Cell | tuple[float, float, float], Column]]:
        gaps = [text.gap for text in self.texts if text.gap is not None]
        if not gaps:
            return {}
        return {"completeness_error": (max(gaps), Column(name="completeness error", format=".1%", better="lower"))}

    def token_maps(self) -> list[TokenMap]:
        """Each text with its pieces coloured: for and against in the two directions of a diverging scale."""
        maps = []
        for i, text in enumerate(self.texts, 1):
            tips = [f"{one_line(piece.text)}: {piece.score:+.3g}" for piece in text.pieces]
            says = f"explained: '{one_line(text.explained)}', probability {text.probability:.3g}"
            meaning = "for (+) or against (-)" if self.signed else "how much it matters"
            maps.append(
                TokenMap(
                    title=f"Text {i}, {says}",
                    tokens=[piece.text for piece in text.pieces],
                    values=[piece.score for piece in text.pieces],
                    tips=tips,
                    scale="diverging" if self.signed else "sequential",
                    meaning=meaning,
                    format="+.3g" if self.signed else ".3g",
                )
            )
        return maps

    def tables(self) -> list[Table]:
        return [self._by_text(), self._top_words()]

    def _by_text(self) -> Table:
        columns = [
            Column(name="text", format="d"),
            Column(name="explained"),
            Column(name="probability", format=".3g"),
            Column(name="most for" if self.signed else "most"),
            Column(name="score", format="+.3g" if self.signed else ".3g"),
        ]
        if self.signed:
            columns += [Column(name="most against"), Column(name="its score", format="+.3g")]
        promises = any(text.gap is not None for text in self.texts)
        if promises:
            columns.append(Column(name="should add up to", unit="nats", format="+.3g"))
            columns.append(Column(name="off by", format=".2%", better="lower", help="|sum - total| / |total|"))
        names = sorted({name for text in self.texts for name in text.facts})
        columns += [Column(name=name, format=".3g") for name in names]
        rows: list[list[Cell | tuple[float, float, float]]] = []
        for i, text in enumerate(self.texts, 1):
            ranked = text.ranked()
            first, last = ranked[0], ranked[-1]
            row: list[Cell | tuple[float, float, float]] = [i, one_line(text.explained), text.probability]
            row += [one_line(first.text).strip(), first.score]
            if self.signed:
                row += [one_line(last.text).strip(), last.score] if last.score < 0 else [None, None]
            if promises:
                row += [text.total, text.gap]
            rows.append([*row, *(text.facts.get(name) for name in names)])
        return Table(title="Text by text", columns=columns, rows=rows)

    def _top_words(self) -> Table:
        found: dict[tuple[str, str], list[float]] = {}
        for text in self.texts:
            for piece in text.pieces:
                if word := one_line(piece.text).strip().strip(".,;:!?\"'()").lower():
                    found.setdefault((text.explained, word), []).append(piece.score)
        rows: list[list[Cell | tuple[float, float, float]]] = []
        for choice in dict.fromkeys(text.explained for text in self.texts):
            mine = [(word, scores) for (c, word), scores in found.items() if c == choice]
            mine.sort(key=lambda item: -sum(item[1]) / len(item[1]))
            rows += [[one_line(choice), word, sum(s) / len(s), len(s)] for word, s in mine[:TOP]]
        columns = [
            Column(name="explained"),
            Column(name=self.unit),
            Column(name="mean score", format="+.3g" if self.signed else ".3g"),
            Column(name="times", format="d"),
        ]
        return Table(title=f"Which {self.unit}s speak for what, over all texts", columns=columns, rows=rows)

    def blocks(self) -> list[Block]:
        return [*self.token_maps(), *self.tables()]
