"""`interpretation.compare`: which attribution method to use for this model and these texts."""

from __future__ import annotations

from typing import Any, ClassVar

import pydantic
from pydantic import Field

from intarsia.catalog import technique
from intarsia.interpretation.evaluation.settings import ScaleConfig
from intarsia.models import Model
from intarsia.report import Block, Cell, Column, Figure, Finding, Mark, Series, Table

Interval = tuple[float, float, float]
SENSIBLE = [
    "leave_one_out",
    "occlusion",
    "gradient",
    "gradient_x_input",
    "integrated_gradients",
    "smooth_grad",
    "lime",
    "kernel_shap",
    "lrp",
    "attention_rollout",
]


class CompareConfig(ScaleConfig):
    """Settings of `interpretation.compare`."""

    methods: list[str] = Field(SENSIBLE, min_length=1, description="the attribution methods that are compared")
    settings: dict[str, str] = Field({}, description="settings of a method by its name (lime.samples=64)")
    max_tokens: int = Field(24, ge=2, description="tokens of a text that are explained; the rest is cut off")


class Rank(pydantic.BaseModel):
    """One method: means over the texts with 95 % intervals.

    - quality: what is ranked: normalised AOPC (comprehensiveness and 1 - sufficiency, averaged), or with `beam` 0
      comprehensiveness - sufficiency. gain: quality less that of random orders, paired over the texts.
    - behind: quality less that of the best method, paired; None for the best itself.
    - forwards, backwards: texts run through the network for one explanation."""

    method: str
    quality: Interval
    gain: Interval
    behind: Interval | None = None
    comprehensiveness: Interval
    sufficiency: Interval
    forwards: float
    backwards: float

    @property
    def above(self) -> bool:
        """Whether it is better than random orders beyond doubt."""
        return self.gain[1] > 0

    @property
    def cost(self) -> float:
        """Forwards, each backward counted as two more."""
        return self.forwards + 2 * self.backwards


class Comparison(Finding):
    """Methods from the most to the least faithful, and the one to use. `seconds`: for one explanation, by method."""

    volatile: ClassVar[frozenset[str]] = frozenset({"seconds"})

    ranks: list[Rank] = Field(default_factory=list)
    floor: Interval = (0, 0, 0)
    normalised: bool = True
    recommended: str | None = None
    texts: int = 0
    seconds: dict[str, float] = Field(default_factory=dict)

    def rank(self, method: str) -> Rank:
        """The row of a method."""
        return next(r for r in self.ranks if r.method == method)

    @property
    def above(self) -> list[str]:
        """Methods that are better than random orders beyond doubt."""
        return [r.method for r in self.ranks if r.above]

    def headline(self) -> dict[str, tuple[Cell | Interval, Column]]:
        out: dict[str, tuple[Cell | Interval, Column]] = {
            "methods_above_random": (len(self.above), Column(name="methods above random", format="d"))
        }
        if self.recommended:
            out["recommended_method"] = (self.recommended, Column(name="explains best"))
        return out

    def tables(self) -> list[Table]:
        what = "0: the worst order of tokens, 1: the best" if self.normalised else "comprehensiveness - sufficiency"
        columns = [
            Column(name="method"),
            Column(name="quality", format=".3f", better="higher", help=what),
            Column(name="over random", format=".3f", help="paired over the texts"),
            Column(name="above random"),
            Column(name="comprehensiveness", format=".3f", better="higher"),
            Column(name="sufficiency", format=".3f", better="lower"),
            Column(name="forwards", format=",.0f", help="texts run for one explanation"),
            Column(name="backwards", format=",.0f"),
            Column(name="seconds", format=".2f"),
        ]
        rows: list[list[Any]] = [
            [
                r.method + (" *" if r.method == self.recommended else ""), r.quality, r.gain,
                "yes" if r.above else "no", r.comprehensiveness, r.sufficiency, r.forwards, r.backwards,
                self.seconds.get(r.method),
            ]
            for r in self.ranks
        ]  # fmt: skip
        rows.append(["random", self.floor, None, None, None, None, 0, 0, None])
        return [Table(title="Methods by faithfulness", columns=columns, rows=rows, note="* recommended")]

    def figures(self) -> list[Figure]:
        x = [r.method for r in self.ranks]
        values = [[r.quality[i] for r in self.ranks] for i in range(3)]
        series = Series(name="quality", x=x, y=list(values[0]), low=list(values[1]), high=list(values[2]))
        return [
            Figure(
                title="How faithful each method is", kind="bar", x="method", format=".2f", series=[series],
                y="normalised AOPC" if self.normalised else "comprehensiveness - sufficiency",
                marks=[Mark(axis="y", value=self.floor[0], text="random")],
                note="Lines: 95 % intervals over the texts. They overlap more than the paired differences do.",
            )
        ]  # fmt: skip

    def blocks(self) -> list[Block]:
        return [*self.figures(), *self.tables()]


@technique(
    "interpretation.compare",
    kind="look",
    family="evaluation",
    source="DeYoung et al. 2020 (ERASER), section 4.2; Edin et al. 2024 (normalised AOPC), section 5",
    place="evaluation · faithfulness",
    example={
        "methods": ["leave_one_out", "gradient_x_input", "integrated_gradients"],
        "texts": ["This film is terrible.", "The food was cold.", "We all had a wonderful day.", "I want it back."],
        "max_tokens": 10,
        "beam": 1,
    },
)
def compare(model: Model, config: CompareConfig, *, texts: list[Any], seed: int = 0) -> Comparison:
    """Rank attribution methods by how faithful they are to this model on these texts, and recommend one.

    Each method scores every text; what happens to the model's choice when the top tokens go (comprehensiveness) or stay
    alone (sufficiency) is averaged and set between the best and the worst order that a beam search finds. Random orders
    are the floor. Recommended is the cheapest of the methods that are above the floor and as good as the best: not
    beaten beyond doubt, and with nine tenths of its gain.

    `texts`: strings or records with `.text`. Raises `BadInput` for an unknown method or setting."""
    from intarsia.interpretation.evaluation.compare_run import look

    return look(model, config, texts, seed)
