"""`interpretation.tuning_effect`: what tuning changed in how a model speaks: how many tokens, which, and where."""

from __future__ import annotations

from typing import Any, Literal

import pydantic
from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.interpretation.wording import one_line
from intarsia.measure.quality_parts import Interval
from intarsia.models import Model
from intarsia.report import Block, Column, Figure, Finding, Mark, Series, Table, TokenMap

Shift = Literal["unshifted", "marginal", "shifted"]
SHIFTS: tuple[Shift, ...] = ("unshifted", "marginal", "shifted")


class TuningEffectConfig(Config):
    max_texts: int = Field(24, ge=1, description="prompts; more are drawn down to this many by the seed")
    max_tokens: int = Field(64, ge=2, description="tokens of a prompt that are read; the rest is cut off")
    new_tokens: int = Field(
        32, ge=0, description="tokens of the tuned model's answer to each prompt that are compared; 0 compares the "
        "prompts' own positions",
    )  # fmt: skip
    chat: bool = Field(False, description="ask each prompt as a user's turn of the tuned model's chat template")
    marginal: int = Field(3, ge=2, description="the lowest rank in the base model that counts as a marginal shift")
    layers: int = Field(8, ge=0, description="layers at which the two models are joined; 0 leaves it out")
    batch_size: int = Field(8, ge=1, description="texts in one forward pass")
    maps: int = Field(3, ge=0, description="answers drawn with their shifted tokens")
    examples: int = Field(12, ge=0, description="rows in the table of tokens that shift")


class KindShift(pydantic.BaseModel):
    """A kind of token: how often the tuned model says it, and how often the base model would not have said it first."""

    kind: str
    count: int
    marginal: float
    shifted: float
    kl: float


class TokenShift(pydantic.BaseModel):
    """A token that the tuned model puts first where the base model does not, and what that says instead."""

    token: str
    count: int
    instead: str
    rank: float


class Joined(pydantic.BaseModel):
    """One model's blocks up to `layer` (its own included) below the other's blocks above.

    tuned_above, tuned_below: where the two models' top tokens differ, the share of positions at which the joined model
    says what the tuned one says, when the tuned model's blocks are above the layer, or below it."""

    layer: int
    tuned_above: float
    tuned_below: float


class TuningEffect(Finding):
    """How a tuned model's tokens stand with the model it was tuned from (Lin et al. 2023).

    - shares: of positions by shift: the tuned model's top token is also the base model's (unshifted), among its first
      few (marginal), or further down (shifted). - kl: mean KL(base || tuned) in nats; kl_by: by shift.
    - by_position: (positions from, to, share shifted or marginal) along the answers."""

    shares: dict[str, Interval] = Field(default_factory=dict)
    kl: Interval = (0.0, 0.0, 0.0)
    kl_by: dict[str, float] = Field(default_factory=dict)
    positions: int = 0
    texts: int = 0
    by_position: list[tuple[int, int, float]] = Field(default_factory=list)
    kinds: list[KindShift] = Field(default_factory=list)
    tokens: list[TokenShift] = Field(default_factory=list)
    joined: list[Joined] = Field(default_factory=list)
    token_maps: list[TokenMap] = Field(default_factory=list)
    base: str = ""
    tuned: str = ""
    answers: bool = True
    marginal: int = 3

    def tables(self) -> list[Table]:
        means = {
            "unshifted": f"also first in {self.base}",
            "marginal": f"second to {self.marginal}{'rd' if self.marginal == 3 else 'th'} in {self.base}",
            "shifted": f"further down in {self.base}",
        }
        rows: list[list[Any]] = [[s, means[s], self.shares[s], self.kl_by.get(s)] for s in SHIFTS]
        first = Table(
            title="The tuned model's tokens", rows=rows,
            columns=[Column(name=""), Column(name="the token is"), Column(name="share", format=".1%"),
                     Column(name="mean KL there", unit="nats", format=".3f")],
        )  # fmt: skip
        kinds = Table(
            title="Which kinds of tokens shift",
            columns=[Column(name="kind"), Column(name="positions", format=",d"), Column(name="shifted", format=".1%"),
                     Column(name="marginal", format=".1%"), Column(name="KL", unit="nats", format=".3f")],
            rows=[[k.kind, k.count, k.shifted, k.marginal, k.kl] for k in self.kinds],
        )  # fmt: skip
        tokens = Table(
            title="Tokens that shift most often",
            columns=[Column(name="says"), Column(name="times", format=",d"), Column(name="instead of"),
                     Column(name="its rank before", format=",.0f", help="median rank in the base model")],
            rows=[[_shown(t.token), t.count, _shown(t.instead), t.rank] for t in self.tokens],
        )  # fmt: skip
        return [first, kinds, *([tokens] if self.tokens else [])]

    def figures(self) -> list[Figure]:
        figures = []
        if self.by_position:
            names = [f"{a}-{b}" if b > a else str(a) for a, b, _ in self.by_position]
            bars = Series(name="not first in the base model", x=names, y=[share for _, _, share in self.by_position])
            figures.append(
                Figure(
                    title="Where in an answer tokens shift",
                    kind="bar",
                    x="token of the answer",
                    y="share of positions",
                    series=[bars],
                    format=".0%",
                )
            )
        if self.joined:
            x = [float(j.layer) for j in self.joined]
            lines = [
                Series(name="base below, tuned above", x=x, y=[j.tuned_above for j in self.joined]),
                Series(name="tuned below, base above", x=x, y=[j.tuned_below for j in self.joined]),
            ]
            figures.append(
                Figure(
                    title="Which half carries what was tuned",
                    kind="line",
                    x="last layer of the lower part",
                    y="says what the tuned model says",
                    series=lines,
                    format=".0%",
                    marks=[Mark(value=0.5)],
                    note="At the positions where the two models' top tokens differ. Where 'tuned below' is high and "
                    "'tuned above' low, the layers up to there carry the change.",
                )
            )
        return figures

    def blocks(self) -> list[Block]:
        first, *more = self.tables()
        return [first, *self.token_maps, *self.figures(), *more]


@technique(
    "interpretation.tuning_effect",
    kind="look",
    family="model comparison",
    source="Lin et al. 2023 (URIAL), section 2 (token distribution shift); Prakash et al. 2024 (cross-model patching)",
    place="prompting · assistant model · role of fine-tuning",
    example={"texts": ["How do I boil an egg?", "Name a colour."], "new_tokens": 8},
)
def tuning_effect(
    model: Model, config: TuningEffectConfig, *, against: Model, texts: list[Any], seed: int = 0
) -> TuningEffect:
    """What tuning changed in how a model speaks: at how many tokens, of which kinds, and in which layers.

    `model` is the tuned one, `against` what it was tuned from. The tuned model answers each prompt greedily; at every
    token of the answer the base model reads the same context, and the token's rank there says whether it was unshifted
    (first), marginal (among the first few) or shifted. Then the two networks are joined at a layer, in both orders, and
    it is counted whose words the joined network says where they differ.

    Complements `interpretation.diff`, which compares given texts position by position, layers and weights. Joining
    needs two networks of one depth and width. Raises `BadInput` when the tokenizers differ or a model is no decoder."""
    from intarsia.interpretation.model_diff.shift import look

    return look(against, model, config, texts, seed)


def _shown(token: str) -> str:
    return one_line(token).replace(" ", "␣")
