"""`interpretation.hallucination`: which signals tell that an answer is wrong."""

from __future__ import annotations

from typing import Any, Literal

import pydantic
from pydantic import Field

from intarsia.catalog import technique
from intarsia.data import TextPair
from intarsia.interpretation.uncertainty.asking import UncertaintyConfig
from intarsia.interpretation.uncertainty.names import SIGNALS
from intarsia.interpretation.wording import one_line
from intarsia.measure.quality_parts import Interval
from intarsia.models import Model
from intarsia.report import Block, Column, Figure, Finding, Mark, Series, Table


class HallucinationConfig(UncertaintyConfig):
    max_texts: int = Field(200, ge=2, description="questions; more are drawn down to this many by the seed")
    match: Literal["contains", "begins", "equals"] = Field(
        "contains", description="when an answer is right: its plain words contain, begin with or equal the reference's"
    )
    alternatives: str = Field("|", min_length=1, description="what stands between several right answers in a target")
    probe: bool = Field(True, description="fit a truth probe on the states at the answers' last tokens")
    probe_layer: int | None = Field(None, description="the layer whose probe is ranked; unset: two thirds up")
    probe_layers: int = Field(8, ge=1, description="layers whose probe is drawn as a curve")
    folds: int = Field(5, ge=2, description="parts of the cross-validation of the probe")
    strength: float = Field(
        0.01, gt=0, description="C of the probe's logistic regression; small is strongly regularised"
    )
    draws: int = Field(500, ge=1, description="bootstrap draws behind the intervals")


class Rated(pydantic.BaseModel):
    """One signal.

    - auroc: of telling wrong answers (0.5: chance; None where all answers are of one kind).
    - aurc: area under the risk-coverage curve `risk`, the share wrong among the k surest.
    - ece: expected calibration error of a signal that is a probability."""

    name: str
    auroc: Interval | None = None
    aurc: Interval
    ece: float | None = None
    risk: list[float] = []


class Judged(pydantic.BaseModel):
    """One question, answered."""

    prompt: str
    target: str
    answer: str
    right: bool
    signals: dict[str, float]


class Hallucination(Finding):
    """How well each signal tells wrong answers from right ones.

    - error_rate: share of wrong answers: the risk of answering everything, and of ordering at random.
    - best_aurc: of an oracle that puts all right answers first. - probe_curve: layer -> AUROC of the truth probe."""

    answers: list[Judged] = Field(default_factory=list)
    rated: list[Rated] = Field(default_factory=list)
    error_rate: Interval = (0.0, 0.0, 0.0)
    best_aurc: float = 0.0
    probe_curve: dict[int, float] = Field(default_factory=dict)
    probe_layer: int | None = None
    judge: str = ""

    def tables(self) -> list[Table]:
        columns = [
            Column(name="signal"),
            Column(name="AUROC of error", format=".3f", better="higher", help="0.5 is chance"),
            Column(name="AURC", format=".3f", better="lower", help="mean risk over all coverages"),
            Column(name="ECE", format=".3f", better="lower", help="for signals that are probabilities"),
        ]
        rows: list[list[Any]] = [[SIGNALS[r.name].title, r.auroc, r.aurc, r.ece] for r in self.rated]
        note = (
            f"{len(self.answers)} questions, {self.error_rate[0]:.0%} answered wrongly: AURC is "
            f"{self.error_rate[0]:.3f} in a random order and {self.best_aurc:.3f} at best. "
            "Brackets and ± are 95 % intervals over questions."
        )
        unsure = [r for r in self.rated if r.name in ("semantic_entropy", "p_true")]
        each = [Column(name="question"), Column(name="answer"), Column(name="right answer"), Column(name="right")]
        names = list(dict.fromkeys([self.rated[0].name, *(r.name for r in unsure)]))
        each += [Column(name=SIGNALS[n].title, unit=SIGNALS[n].unit, format=SIGNALS[n].format) for n in names]
        first = self.rated[0].name
        order = sorted(self.answers, key=lambda a: SIGNALS[first].unsure * a.signals[first])
        trusted = [a for a in order if not a.right][:8]
        lines: list[list[Any]] = [
            [_short(a.prompt), _short(a.answer, 24), _short(a.target, 24), "yes" if a.right else "no",
             *(a.signals.get(n) for n in names)]
            for a in trusted
        ]  # fmt: skip
        return [
            Table(title="Which signals tell that an answer is wrong", columns=columns, rows=rows, note=note),
            Table(title=f"Wrong answers that it is surest of ({SIGNALS[first].title})", columns=each, rows=lines),
        ]

    def figures(self) -> list[Figure]:
        known = [(SIGNALS[r.name].title, r.auroc) for r in self.rated if r.auroc is not None]
        bars = Series(
            name="AUROC", x=[name for name, _ in known], y=[v[0] for _, v in known], low=[v[1] for _, v in known],
            high=[v[2] for _, v in known],
        )  # fmt: skip
        n = len(self.answers)
        x = [(k + 1) / n for k in range(n)]
        lines = [Series(name=SIGNALS[r.name].title, x=x, y=list(r.risk)) for r in self.rated[:4]]
        figures = (
            [
                Figure(
                    title="Telling wrong answers",
                    kind="bar",
                    x="signal",
                    y="AUROC of error",
                    series=[bars],
                    format=".2f",
                    marks=[Mark(value=0.5, text="chance")],
                ),
            ]
            if known
            else []
        )
        figures += [
            Figure(
                title="Answering only what it is sure of",
                kind="line",
                x="share of questions answered, the surest first",
                y="share of them wrong",
                series=lines,
                format=".0%",
                marks=[Mark(value=self.error_rate[0], text="all answered")],
            ),
        ]
        if self.probe_curve:
            curve = Series(
                name="truth probe", x=[float(layer) for layer in self.probe_curve], y=list(self.probe_curve.values())
            )
            figures.append(
                Figure(title="Where a probe reads that an answer is wrong", kind="line", x="layer", y="AUROC of error",
                       series=[curve], format=".2f", marks=[Mark(value=0.5, text="chance")],
                       note=f"Cross-validated. The table has layer {self.probe_layer}, fixed beforehand: the best of "
                       "several layers would look better than it is.")
            )  # fmt: skip
        return figures

    def blocks(self) -> list[Block]:
        first, second = self.tables()
        return [first, *self.figures(), second]


@technique(
    "interpretation.hallucination",
    kind="look",
    family="uncertainty",
    source="Farquhar et al. 2024 (AUROC of error); Geifman & El-Yaniv 2017 (risk-coverage); Chuang et al. 2023 (layer "
    "contrast); Azaria & Mitchell 2023 (truth probe)",
    place="prompting · assistant model · hallucination",
    extra="quality",
    example={
        "test": [
            TextPair("The capital of France is", "Paris"),
            TextPair("The capital of Italy is", "Rome"),
            TextPair("The capital of Chile is", "Santiago"),
        ],
        "samples": 4,
        "max_new_tokens": 6,
    },
)
def hallucination(
    model: Model,
    config: HallucinationConfig,
    *,
    test: list[Any],
    encoder: Model | None = None,
    nli: Model | None = None,
    seed: int = 0,
) -> Hallucination:
    """Which signals tell that the model's answer is wrong, measured on questions whose answers are known.

    `test`: prompt-target pairs. Each prompt is answered greedily and judged against its target by plain words (a target
    may hold several right answers). Every signal of `interpretation.uncertainty` is rated, and two from inside: the
    layer contrast (how much the last layer prefers the answer's tokens to an earlier one) and a truth probe (logistic
    regression on the state at the answer's last token, cross-validated). Rated by: AUROC of error, area under the
    risk-coverage curve, and the calibration error of those that are probabilities, with 95 % bootstrap intervals.

    The ratings hold for these questions and this way of asking. The probe alone has seen right and wrong answers of
    the same kind, so it has an advantage that the others lack. Raises `BadInput` for records that are not pairs."""
    from intarsia.interpretation.uncertainty.rating import look

    return look(model, config, test, encoder, nli, seed)


def _short(text: str, most: int = 36) -> str:
    text = one_line(text.strip())
    return text if len(text) <= most else text[: most - 1] + "…"
