"""`Verdicts`: what was found about documents, and how it reads."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

import pydantic

from intarsia.report import Block, Cell, Column, Finding, Table, TokenMap

Verdict = Literal[
    "machine_like", "human_like", "inconclusive", "unlike_both", "too_short", "unsupported_language", "unreadable"
]

STATEMENT = (
    "A score says how much a text resembles what machines write more than what people of the bank wrote. It does not "
    "show who wrote it, nor how, nor that anybody did wrong: people whose writing is even, formulaic or edited with a "
    "tool can score high, and a machine's text that was rewritten can score low. A person's text is flagged as often "
    "as the budget says, if it is of the bank's kind. Do not decide about a person by this alone."
)
MEANING = {
    "machine_like": "scores higher than people's texts do, within the budget",
    "human_like": "scores as people's texts do, and lower than nearly all of machines'",
    "inconclusive": "scores as both do",
    "unlike_both": "like neither: another kind of text, perhaps",
    "too_short": "too short to say anything",
    "unsupported_language": "no bank in its language",
    "unreadable": "no text that could be read",
}


class Heard(pydantic.BaseModel):
    """One voice. value: as it is; z: standard score among people's texts; weight: what it counts for."""

    name: str
    value: float
    z: float
    weight: float


class Passage(pydantic.BaseModel):
    """A window of the document. start, end: in the text as it was given, in characters. p: among people's texts of the
    same length. evidence: the n-grams that speak most for a machine."""

    start: int
    end: int
    words: int
    score: float
    p: float
    flagged: bool
    text: str = ""
    evidence: list[str] = []


class Compared(pydantic.BaseModel):
    """A reference. cosine: of the two texts' embeddings. shared: runs of four words or more that both have."""

    name: str
    generator: str = ""
    cosine: float | None = None
    shared: list[str] = []


class BankUsed(pydantic.BaseModel):
    """domain, texts: of the bank. words: of its middle text."""

    domain: str
    texts: int
    words: int


class Checked(pydantic.BaseModel):
    """One document.

    - score: standard score among the bank, with its 95 % interval over sentences. p_human: share of people's texts
      that score as high; p_machine: share of machines' that score as low. certified: whether the bank vouches for the
      budget: it is of the document's own domain, and large enough.
    - siamese: log odds against the references, where a detector has an encoder for it."""

    name: str
    verdict: Verdict
    words: int = 0
    language: str = ""
    score: tuple[float, float, float] | None = None
    p_human: float | None = None
    p_machine: float | None = None
    certified: bool = False
    bank: BankUsed | None = None
    read: bool = False
    voices: list[Heard] = []
    passages: list[Passage] = []
    flagged_share: tuple[float, float, float] | None = None
    references: list[Compared] = []
    siamese: float | None = None
    findings: list[str] = []
    warnings: list[str] = []
    watermark: None = None


class Verdicts(Finding):
    """- documents: in order. rate: the false-positive budget. predictive: base rate -> share of flagged texts that
    would be a machine's, from the rates the detector was measured at. statement: what no score can show."""

    documents: list[Checked] = pydantic.Field(default_factory=list)
    rate: float = 0.01
    detector: str = ""
    predictive: dict[str, float] = pydantic.Field(default_factory=dict)
    statement: str = STATEMENT

    def headline(self) -> dict[str, tuple[Cell | tuple[float, float, float], Column]]:
        flagged = sum(d.verdict == "machine_like" for d in self.documents)
        return {"flagged": (flagged, Column(name="documents flagged", format=",d"))}

    def tables(self) -> list[Table]:
        return [block for block in self.blocks() if isinstance(block, Table)]

    def blocks(self) -> list[Block]:
        out: list[Block] = [self._documents()]
        for document in self.documents:
            if len(self.documents) == 1 and document.voices:
                out.append(_voices(document))
            if document.passages:
                out += [_map(document), _passages(document)] if len(document.passages) > 1 else [_map(document)]
            if document.references:
                out.append(_references(document))
        return out

    def _documents(self) -> Table:
        rows: list[list[Any]] = []
        for d in self.documents:
            bank = f"{d.bank.domain}, {d.bank.texts} texts of {d.bank.words} words" if d.bank else ""
            notes = [MEANING[d.verdict], *d.warnings, *d.findings]
            rows.append([
                d.name, d.verdict, d.score, d.p_human, d.p_machine, d.flagged_share, d.words,
                bank + ("" if d.certified or not d.bank else " (not certified)"), "; ".join(notes),
            ])  # fmt: skip
        columns = [
            Column(name="document"), Column(name="verdict"),
            Column(name="score", format=".2f", help="standard score among people's texts; 95 % over sentences"),
            Column(name="p people", format=".3f", help="share of people's texts that score as high"),
            Column(name="p machines", format=".3f", help="share of machines' texts that score as low"),
            Column(name="words flagged", format=".0%"), Column(name="words", format=",d"), Column(name="judged among"),
            Column(name="remarks"),
        ]  # fmt: skip
        ppv = ", ".join(f"{value:.0%} where {base} are" for base, value in self.predictive.items())
        note = f"Budget: {self.rate:.2%} of people's texts flagged. {self.statement}"
        if ppv:
            note += f" Of flagged texts so many would be a machine's: {ppv}."
        return Table(title="Documents", columns=columns, rows=rows, note=note)


def _voices(document: Checked) -> Table:
    rows: list[list[Any]] = [[v.name, v.value, v.z, v.weight] for v in document.voices]
    columns = [
        Column(name="voice"), Column(name="value", format=".3f"),
        Column(name="among people's texts", unit="standard deviations", format="+.2f"),
        Column(name="weight", format=".2f"),
    ]  # fmt: skip
    return Table(title="Voices", columns=columns, rows=rows)


def _map(document: Checked) -> TokenMap:
    """The document's passages as one text. Windows overlap: each stretch has the mean over the windows it is in."""
    edges = sorted({edge for p in document.passages for edge in (p.start, p.end)})
    tokens, values, tips = [], [], []
    for start, end in pairwise(edges):
        over = [p for p in document.passages if p.start <= start and p.end >= end]
        if not over:
            tokens.append(" […] ")
            values.append(None)
            tips.append("not read")
            continue
        inside = over[0].text[start - over[0].start : end - over[0].start]
        score = sum(p.score for p in over) / len(over)
        tokens.append(inside)
        values.append(max(0.0, score))
        flagged = " flagged" * any(p.flagged for p in over)
        tips.append(f"score {score:.2f}, p {min(p.p for p in over):.3f}{flagged}")
    return TokenMap(
        title=f"Passages of {document.name}", tokens=tokens, values=values, tips=tips, maximum=4.0, format=".2f",
        meaning="score among people's texts of the same length, in standard deviations",
    )  # fmt: skip


def _passages(document: Checked) -> Table:
    rows: list[list[Any]] = [
        [number, p.score, p.p, "flagged" if p.flagged else "", p.text[:80] + ("…" if len(p.text) > 80 else ""),
         ", ".join(repr(gram) for gram in p.evidence)]
        for number, p in enumerate(document.passages, 1)
    ]  # fmt: skip
    rows.sort(key=lambda row: row[2])
    columns = [
        Column(name="passage"), Column(name="score", format=".2f"), Column(name="p people", format=".3f"),
        Column(name=""), Column(name="begins"), Column(name="words that speak for a machine"),
    ]  # fmt: skip
    return Table(title=f"Passages of {document.name}, the most machine-like first", columns=columns, rows=rows[:20])


def _references(document: Checked) -> Table:
    rows: list[list[Any]] = [[r.name, r.generator, r.cosine, "; ".join(r.shared[:6])] for r in document.references]
    columns = [
        Column(name="reference"), Column(name="written by"), Column(name="cosine", format=".2f"),
        Column(name="words in a row that both have"),
    ]  # fmt: skip
    said = (
        f"Siamese log odds that a machine wrote it: {document.siamese:+.2f}. " if document.siamese is not None else ""
    )
    note = said + "A reference shows what a machine writes on this topic. People who write on it share its words, too."
    return Table(title=f"References for {document.name}", columns=columns, rows=rows, note=note)
