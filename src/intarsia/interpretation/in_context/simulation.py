"""`interpretation.simulatability`: from an explanation, can a reader tell what the model says to a changed question?"""

from __future__ import annotations

from typing import Any

import pydantic
from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.data import TextPair
from intarsia.interpretation.wording import one_line
from intarsia.measure.quality_parts import Interval
from intarsia.models import Model
from intarsia.report import Block, Column, Figure, Finding, Series, Table

READERS = ("explained", "other's explanation", "answer only")


class SimulatabilityConfig(Config):
    choices: list[str] = Field(default=["yes", "no"], min_length=2, description="what may be answered")
    max_texts: int = Field(24, ge=1, description="pairs of a question and a changed one, drawn by the seed")
    cue: str = Field("\nAnswer:", description="stands between a question and its answer")
    lead: str = Field("\nReason:", description="stands between an answer and the explanation")
    max_new_tokens: int = Field(48, ge=1, description="tokens of an explanation")
    sure: float = Field(
        0.6, gt=0, le=1, description="probability from which the reader's guess counts as implied by the explanation"
    )


class Simulated(pydantic.BaseModel):
    """One pair: the model's answers to the question and to the changed one, its explanation of the first, and for each
    reader (see `READERS`) the guess at the second answer and its probability."""

    question: str
    changed: str
    answer: str
    changed_answer: str
    explanation: str
    guesses: dict[str, tuple[str, float]]


class Simulatability(Finding):
    """How often a reader's guesses are right.

    - precision: reader -> share right among the guesses it is sure of; None where there are none. - accuracy: over all.
    - sure: reader -> share of guesses it is sure of. - gain: accuracy with the explanation minus with the answer only.
    - generality: 1 - mean overlap in words of the changed questions that the explanations say something about."""

    pairs: list[Simulated] = Field(default_factory=list)
    precision: dict[str, Interval | None] = Field(default_factory=dict)
    accuracy: dict[str, Interval] = Field(default_factory=dict)
    sure: dict[str, Interval] = Field(default_factory=dict)
    gain: Interval = (0.0, 0.0, 0.0)
    generality: float | None = None
    always: float = 0.0

    def tables(self) -> list[Table]:
        columns = [
            Column(name="the reader knows"),
            Column(name="sure of", format=".0%"),
            Column(name="right where sure (precision)", format=".0%", better="higher"),
            Column(name="right of all", format=".0%", better="higher"),
        ]
        names = {
            "explained": "answer and explanation",
            "other's explanation": "answer, and another's explanation",
            "answer only": "answer only",
        }
        rows: list[list[Any]] = [[names[r], self.sure[r], self.precision[r], self.accuracy[r]] for r in READERS]
        note = f"Always the most frequent answer would be right in {self.always:.0%}."
        each = [Column(name=n) for n in ("changed question", "model says", "reader guesses", "explanation")]
        lines: list[list[Any]] = [
            [_short(p.changed), p.changed_answer, p.guesses["explained"][0], _short(p.explanation, 60)]
            for p in self.pairs
        ]
        return [
            Table(title="Guessing the answer to a changed question", columns=columns, rows=rows, note=note),
            Table(title="Pair by pair", columns=each, rows=lines),
        ]

    def figures(self) -> list[Figure]:
        values = [self.accuracy[r] for r in READERS]
        bars = Series(
            name="right",
            x=list(READERS),
            y=[v[0] for v in values],
            low=[v[1] for v in values],
            high=[v[2] for v in values],
        )
        return [Figure(title="What the explanation adds", kind="bar", y="guesses right", series=[bars], format=".0%")]

    def blocks(self) -> list[Block]:
        first, second = self.tables()
        return [first, *self.figures(), second]


@technique(
    "interpretation.simulatability",
    kind="look",
    family="evaluation",
    source="Chen et al. 2023 (counterfactual simulatability), sections 2-3",
    place="evaluation · faithfulness",
    example={
        "test": [TextPair("Can a fish fly?", "Can a bird fly?"), TextPair("Is ice hot?", "Is fire hot?")],
        "max_new_tokens": 8,
    },
)
def simulatability(
    model: Model, config: SimulatabilityConfig, *, simulator: Model, test: list[Any], seed: int = 0
) -> Simulatability:
    """Whether the model's explanations let a reader tell what it would say to a changed question.

    `test`: pairs of a question (prompt) and a changed one (target). The model answers both by likelihood among
    `choices` and explains its answer to the first. The `simulator`, another model, reads question, answer and
    explanation, and guesses the answer to the changed question. Precision counts the guesses it is sure of. Two floors
    stand beside it: the same reader with the answer only, and with the explanation of another question.

    A good guess may come from what the simulator knows, not from the explanation: judge by the gain over the floors.
    Raises `BadInput` for records that are not pairs or texts that do not fit the context."""
    from intarsia.interpretation.in_context.simulating import look

    return look(model, config, simulator, test, seed)


def _short(text: str, most: int = 40) -> str:
    text = one_line(text.strip())
    return text if len(text) <= most else text[: most - 1] + "…"
