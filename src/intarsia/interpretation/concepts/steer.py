"""`interpretation.steer`: write a concept into the stream, dose by dose, and see what the model then says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pydantic
from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.interpretation.concepts.concept import NEGATIVE, POSITIVE, At, Method
from intarsia.report import Block, Cell, Column, Figure, Finding, Mark, Series, Table

if TYPE_CHECKING:
    from intarsia.models import Model

Interval = tuple[float, float, float]


class SteerConfig(Config):
    concept: str | None = Field(
        None, description="folder of a concept that was saved, in place of positive and negative"
    )
    layer: int | None = Field(
        None, description="where the direction is added (default: where it tells the texts apart best)"
    )
    strengths: list[float] = Field(
        [-2.0, -1.0, 0.0, 1.0, 2.0],
        description="how much is added, in gaps: 1 takes an average negative text to the positive ones",
    )
    method: Method = Field("mean", description="how the direction is learnt, without `concept`")
    at: At = Field("mean", description="the state it is learnt from, without `concept`: last, mean or marked")
    max_new_tokens: int = Field(24, ge=1, description="tokens written after each prompt")
    draws: int = Field(2, ge=1, description="random directions of equal length that the concept is compared with")
    samples: int = Field(2, ge=0, description="prompts whose continuations are shown")
    max_texts: int = Field(16, ge=1, description="prompts; more are drawn down to this many by the seed")
    max_tokens: int = Field(96, ge=2, description="tokens of a prompt or an example that are read")
    batch_size: int = Field(32, ge=1, description="continuations written at once")


class Dose(pydantic.BaseModel):
    """What one strength of one direction does, means over prompts.

    - score: of the continuation as the unsteered model reads it; -1 like the negative texts, +1 like the positive ones.
    - perplexity: of the continuation under the unsteered model (None: nothing was written). repeated: share of its
      tokens that occurred before."""

    strength: float
    random: bool
    score: Interval
    perplexity: float | None
    repeated: float


class Said(pydantic.BaseModel):
    """A continuation under the concept's direction."""

    prompt: str
    strength: float
    text: str


class Steer(Finding):
    """Dose and response. `random` doses are means over random directions of equal length."""

    layer: int = 0
    doses: list[Dose] = Field(default_factory=list)
    said: list[Said] = Field(default_factory=list)
    prompts: int = 0
    length: float = 0.0
    norm: float = 0.0
    draws: int = 2

    def dose(self, strength: float, random: bool = False) -> Dose:
        """The dose of one strength."""
        return next(d for d in self.doses if d.strength == strength and d.random == random)

    @property
    def effect(self) -> float:
        """Concept score at the highest strength minus that at the lowest."""
        own = sorted((d for d in self.doses if not d.random), key=lambda d: d.strength)
        return own[-1].score[0] - own[0].score[0]

    @property
    def random_effect(self) -> float:
        """The same for random directions."""
        other = sorted((d for d in self.doses if d.random), key=lambda d: d.strength)
        return other[-1].score[0] - other[0].score[0]

    def headline(self) -> dict[str, tuple[Cell | tuple[float, float, float], Column]]:
        return {"steering_effect": (self.effect, Column(name="steering effect", format="+.2f"))}

    def tables(self) -> list[Table]:
        columns = [
            Column(name="direction"),
            Column(name="strength", format="g"),
            Column(name="concept score", format="+.2f", help="-1 like the negative texts, +1 like the positive ones"),
            Column(name="perplexity", format=",.1f", better="lower", help="under the unsteered model"),
            Column(name="repeated tokens", format=".0%"),
        ]
        rows: list = [
            ["random" if d.random else "concept", d.strength, d.score, d.perplexity, d.repeated]
            for d in sorted(self.doses, key=lambda d: (d.random, d.strength))
        ]
        tables = [Table(title="Dose and response", columns=columns, rows=rows)]
        if self.said:
            columns = [Column(name="prompt"), Column(name="strength", format="g"), Column(name="what it writes")]
            rows = [[s.prompt, s.strength, s.text] for s in self.said]
            tables.append(Table(title="In its words", columns=columns, rows=rows))
        return tables

    def figures(self) -> list[Figure]:
        strengths = sorted({d.strength for d in self.doses})
        own, other = ([self.dose(s, random) for s in strengths] for random in (False, True))
        scores = [
            Series(name=name, x=strengths, y=[d.score[0] for d in doses], low=[d.score[1] for d in doses],
                   high=[d.score[2] for d in doses])
            for name, doses in (("the concept", own), ("random directions", other))
        ]  # fmt: skip
        fluency = [
            Series(name=name, x=strengths, y=[d.perplexity for d in doses])
            for name, doses in (("the concept", own), ("random directions", other))
        ]
        marks = [Mark(value=1.0, text="like the positive texts"), Mark(value=-1.0, text="like the negative texts")]
        return [
            Figure(title="What is written, by dose", kind="line", x="strength", y="concept score", series=scores,
                   format="+.2f", marks=marks),
            Figure(title="What it costs in fluency", kind="line", x="strength", y="perplexity", series=fluency,
                   format=",.1f", log_y=True),
        ]  # fmt: skip

    def blocks(self) -> list[Block]:
        return [*self.figures(), *self.tables()]


@technique(
    "interpretation.steer",
    kind="look",
    family="concepts",
    source="activation addition: Turner et al. 2023; Rimsky et al. 2024 (contrastive activation addition), section 3",
    place="prompting · base model · representation engineering",
    extra="quality",
    gives="Steer",
    example={
        "positive": POSITIVE,
        "negative": NEGATIVE,
        "texts": ["I watched the film and", "My trip was"],
        "max_new_tokens": 8,
        "strengths": [-1.0, 0.0, 1.0],
    },
)
def steer(
    model: Model,
    config: SteerConfig,
    *,
    texts: list[Any],
    positive: list[Any] | None = None,
    negative: list[Any] | None = None,
    seed: int = 0,
) -> Steer:
    """Add a concept's direction to the stream at several strengths, and measure what the model then writes.

    The direction is added at every token of a layer, while the prompt is read and while text is written (greedily).
    What was written is judged by the unsteered model: how it scores on the concept, how fluent it is, and how much it
    repeats itself (a loop has a low perplexity). Random directions of equal length show what any push of that size
    does.

    `texts`: prompts. `positive`, `negative`: texts to learn the direction from; or give `concept`, the folder that
    `interpretation.concept` saved. The score comes from the same kind of states that the direction was learnt from:
    read the texts too. Raises `BadInput` for a concept of another model, or a layer that does not exist."""
    from intarsia.interpretation.concepts.steering import look

    return look(model, config, texts, positive, negative, seed)
