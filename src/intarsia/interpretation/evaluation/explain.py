"""`interpretation.explain`: the scores of a text's tokens, and beside them how far to trust them."""

from __future__ import annotations

from typing import Any

import pydantic
from pydantic import Field

from intarsia.catalog import technique
from intarsia.interpretation.evaluation.settings import ScaleConfig
from intarsia.models import Model
from intarsia.report import Block, Cell, Column, Finding, Table, TokenMap

Interval = tuple[float, float, float]


class ExplainConfig(ScaleConfig):
    """Settings of `interpretation.explain`."""

    prompt: str | None = Field(None, description="one text to explain, in place of `texts`")
    method: str = Field("leave_one_out", description="the attribution method")
    settings: dict[str, str] = Field({}, description="settings of the method (steps=20)")
    seeds: int = Field(3, ge=1, description="seeds between which the scores are compared (1: not at all)")
    beam: int = Field(0, ge=0, description="width of the search for the best and the worst order (0: none)")
    pictures: int = Field(6, ge=0, description="texts drawn with a colour a token")


class ExplainedText(pydantic.BaseModel):
    """One text: its tokens, their scores for `choice`, and what the model does without the top ones.

    - probability: of the choice. comprehensiveness, sufficiency: AOPC, and the same for random orders. normalised:
      between the worst and the best order, where they were looked for. stability: between seeds; None where the scores
      do not vary. label: the record's own label, if it has one."""

    tokens: list[str]
    scores: list[float]
    choice: str
    probability: float
    label: str = ""
    comprehensiveness: float
    comprehensiveness_random: float
    sufficiency: float
    sufficiency_random: float
    normalised: float | None = None
    stability: float | None = None


class Explanation(Finding):
    """Scores of tokens with their faithfulness, text by text and on average."""

    method: str = ""
    texts: list[ExplainedText] = Field(default_factory=list)
    comprehensiveness: Interval = (0, 0, 0)
    comprehensiveness_gain: Interval = (0, 0, 0)
    sufficiency: Interval = (0, 0, 0)
    sufficiency_gain: Interval = (0, 0, 0)
    stability: float | None = None

    @property
    def scores(self) -> list[list[float]]:
        """For each text, one score a token."""
        return [text.scores for text in self.texts]

    def headline(self) -> dict[str, tuple[Cell | Interval, Column]]:
        return {
            "explain_comprehensiveness": (self.comprehensiveness, Column(name="comprehensiveness", format=".3f")),
            "explain_sufficiency": (self.sufficiency, Column(name="sufficiency", format=".3f")),
        }

    def tables(self) -> list[Table]:
        normalised = any(t.normalised is not None for t in self.texts)
        columns = [
            Column(name="text"),
            Column(name="says"),
            Column(name="probability", format=".2f"),
            Column(name="top tokens"),
            Column(name="comp.", format=".3f", better="higher", help="comprehensiveness, AOPC"),
            Column(name="random", format=".3f"),
            Column(name="suff.", format=".3f", better="lower", help="sufficiency, AOPC"),
            Column(name="random ", format=".3f"),
            Column(name="seeds agree", format=".2f", help="Spearman's rho"),
            *([Column(name="normalised", format=".2f")] if normalised else []),
        ]
        rows: list[list[Any]] = []
        for t in self.texts:
            best = sorted(range(len(t.tokens)), key=lambda i, s=t.scores: -s[i])[:3]
            text = "".join(t.tokens).strip()
            rows.append([
                text if len(text) <= 40 else text[:39] + "…", t.choice.strip(), t.probability,
                " · ".join(t.tokens[i].strip() or "␣" for i in best), t.comprehensiveness, t.comprehensiveness_random,
                t.sufficiency, t.sufficiency_random, t.stability, *([t.normalised] if normalised else []),
            ])  # fmt: skip
        return [Table(title="Each text", columns=columns, rows=rows)]

    def maps(self) -> list[TokenMap]:
        """A coloured text each; the colour is the score, relative to the largest of the text."""
        count = self.provenance.get("settings", {}).get("pictures", len(self.texts))
        return [
            TokenMap(
                title=f"Why '{t.choice.strip()}' ({t.probability:.0%})",
                tokens=t.tokens, values=list(t.scores), scale="diverging", format="+.3f",
                meaning=f"score of {self.method}: above 0 speaks for the choice, below against it",
                note=f"Without the top tokens the probability falls by {t.comprehensiveness:.3f} on average, "
                f"without random ones by {t.comprehensiveness_random:.3f}.",
            )
            for t in self.texts[:count]
        ]  # fmt: skip

    def blocks(self) -> list[Block]:
        return [*self.maps(), *self.tables()]


@technique(
    "interpretation.explain",
    kind="look",
    family="evaluation",
    source="DeYoung et al. 2020 (ERASER), section 4.2, around any attribution method",
    place="fine-tuning · local · feature attribution",
    example={"prompt": "This film is terrible and I love it.", "method": "leave_one_out"},
)
def explain(model: Model, config: ExplainConfig, *, texts: list[Any] | None = None, seed: int = 0) -> Explanation:
    """Which tokens made the model say what it says, and whether that is so: scores with their own test beside them.

    One attribution method, one text or many; for each the drop of the probability without the top tokens and with them
    alone, the same for random tokens, and how well the scores agree between seeds. `interpretation.compare` says which
    method to take, `interpretation.faithfulness` tests one by all measures.

    `texts`: strings or records with `.text`. Raises `BadInput` for an unknown method, or neither prompt nor texts."""
    from intarsia.interpretation.evaluation.explain_run import look

    return look(model, config, texts, seed)
