"""`interpretation.faithfulness`: is what an attribution method says true of this model, on these texts?"""

from __future__ import annotations

from typing import Any, ClassVar

import pydantic
from pydantic import Field

from intarsia.catalog import technique
from intarsia.interpretation.evaluation.settings import ScaleConfig
from intarsia.models import Model
from intarsia.report import Block, Cell, Column, Figure, Finding, Series, Table

Interval = tuple[float, float, float]


class FaithfulnessConfig(ScaleConfig):
    """Settings of `interpretation.faithfulness`."""

    method: str = Field("leave_one_out", description="the attribution method that is judged")
    settings: dict[str, str] = Field({}, description="settings of the method (steps=20)")
    draws: int = Field(12, ge=2, description="random sets for sensitivity-n, and thinned texts for the soft measures")
    points: int = Field(20, ge=2, description="points of the deletion and the insertion curve")
    simulator_tokens: int = Field(3, ge=1, description="tokens of a text that the simulator reads")
    seeds: int = Field(3, ge=1, description="seeds between which the scores are compared (1: not at all)")
    noise: float = Field(
        0.02, ge=0, description="how far embeddings move for max-sensitivity, as a share of their length"
    )
    noise_draws: int = Field(2, ge=0, description="moved copies of the embeddings (0: no max-sensitivity)")


class Score(pydantic.BaseModel):
    """One figure: its mean over the texts, the same for random scores, and the difference, each with a 95 % interval.

    `gain` is a paired difference (method - random); None where chance has no such figure."""

    name: str
    title: str
    better: str
    help: str
    format: str = ".3f"
    value: Interval | None
    floor: Interval | None = None
    gain: Interval | None = None

    @property
    def above(self) -> bool | None:
        """Whether it is better than chance beyond doubt (the interval of the gain lies on the good side of 0)."""
        if self.gain is None:
            return None
        return self.gain[1] > 0 if self.better == "higher" else self.gain[2] < 0


class Faithfulness(Finding):
    """Figures of faithfulness of one method, and the mean drop of f at each share of tokens.

    `dropped`, `kept`: comprehensiveness and sufficiency by share, of the method and of random orders."""

    volatile: ClassVar[frozenset[str]] = frozenset({"seconds"})

    method: str = ""
    scores: list[Score] = Field(default_factory=list)
    fractions: list[float] = Field(default_factory=list)
    dropped: list[float] = Field(default_factory=list)
    dropped_random: list[float] = Field(default_factory=list)
    kept: list[float] = Field(default_factory=list)
    kept_random: list[float] = Field(default_factory=list)
    texts: int = 0
    forwards: float = 0
    backwards: float = 0
    seconds: float = 0

    def score(self, name: str) -> Score:
        """The figure called `name`."""
        return next(s for s in self.scores if s.name == name)

    def headline(self) -> dict[str, tuple[Cell | Interval, Column]]:
        out: dict[str, tuple[Cell | Interval, Column]] = {}
        for name in ("comprehensiveness", "sufficiency"):
            row = self.score(name)
            out[f"{self.method}_{name}"] = (row.value, Column(name=f"{self.method} {name}", format=".3f"))
        return out

    def tables(self) -> list[Table]:
        columns = [
            Column(name="measure"),
            Column(name=self.method, help="mean over the texts, with its 95 % interval"),
            Column(name="random", help="the same for random scores"),
            Column(name="difference", help="paired over the texts; good is on the side that 'good' names"),
            Column(name="good"),
            Column(name="better than chance"),
            Column(name="what it says"),
        ]
        rows: list[list[Any]] = []
        for s in self.scores:
            verdict = {None: "-", True: "yes", False: "no"}[s.above]
            good = "high" if s.better == "higher" else "low"
            cells = [_shown(v, s.format, sign) for v, sign in ((s.value, ""), (s.floor, ""), (s.gain, "+"))]
            rows.append([s.title, *cells, good, verdict, s.help])
        return [Table(title=f"How faithful {self.method} is", columns=columns, rows=rows)]

    def figures(self) -> list[Figure]:
        x = list(self.fractions)
        return [
            Figure(
                title="What is lost without the top tokens, and with them alone",
                kind="line", x="share of tokens", y="drop of the probability of the choice", format=".2f",
                series=[
                    Series(name=f"without {self.method}'s top tokens (high is good)", x=x, y=list(self.dropped)),
                    Series(name="without as many random tokens", x=x, y=list(self.dropped_random)),
                    Series(name=f"only {self.method}'s top tokens (low is good)", x=x, y=list(self.kept)),
                    Series(name="only as many random tokens", x=x, y=list(self.kept_random)),
                ],
            )
        ]  # fmt: skip

    def blocks(self) -> list[Block]:
        return [*self.figures(), *self.tables()]


def _shown(value: Interval | None, form: str, sign: str) -> str:
    """`0.31 (0.20 to 0.42)`; a measure has its own format, so a column of figures cannot have one."""
    if value is None:
        return "-"
    middle, low, high = (format(v, sign + form) for v in value)
    return middle if low == middle == high else f"{middle} ({low} to {high})"


@technique(
    "interpretation.faithfulness",
    kind="look",
    family="evaluation",
    source="DeYoung et al. 2020 (ERASER), section 4.2; Edin et al. 2024 (normalised AOPC), section 5; others",
    place="evaluation · faithfulness",
    example={
        "method": "leave_one_out",
        "texts": ["This film is terrible and I love it.", "The food was cold, and late."],
        "beam": 1,
        "floors": 2,
        "max_tokens": 12,
        "noise_draws": 1,
    },
)
def faithfulness(model: Model, config: FaithfulnessConfig, *, texts: list[Any], seed: int = 0) -> Faithfulness:
    """How true an attribution method's scores are of what the model does, by all measures, beside random scores.

    Removed tokens make texts that the model never saw; so no single figure settles it. Look at the difference from
    random first, then whether the soft measures (which remove no token) agree.

    `texts`: strings or records with `.text`. Raises `BadInput` for an unknown method or a model without a choice."""
    from intarsia.interpretation.evaluation.faithfulness_run import look

    return look(model, config, texts, seed)
