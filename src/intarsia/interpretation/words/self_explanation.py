"""`interpretation.self_explanation`: ask the model why it said so, and test the answer."""

from __future__ import annotations

from typing import Any, Literal

import pydantic
from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.models import Model
from intarsia.report import Cell, Column, Finding, Table

Interval = tuple[float, float, float]


class SelfExplanationConfig(Config):
    """Settings of `interpretation.self_explanation`."""

    question: str | None = Field(
        None, description="what is asked about each text; by default the prompt of the model's own label task"
    )
    labels: list[str] = Field([], description="the answers to the question; by default those of the label task")
    when: Literal["after", "before"] = Field(
        "after", description="the model explains after its answer, or before it (the answer then follows the reason)"
    )
    ask: str = Field("Why? Name the words that decide.", min_length=1, description="how the reason is asked for")
    max_new_tokens: int = Field(40, ge=1, description="tokens of a reason")
    inserts: int = Field(8, ge=0, description="words put into each text, one at a time, to see if the answer flips")
    method: str = Field("leave_one_out", description="attribution method whose top words a reason should mention")
    top: int = Field(3, ge=1, description="how many of its top words")
    max_texts: int = Field(12, ge=1, description="texts asked about; more are drawn down to this many by the seed")


class Said(pydantic.BaseModel):
    """One text: its answer and reason, and what became of them.

    - reason: what the model wrote. rebuilt: its answer to the reason alone, in place of the text.
    - named, named_by_chance: share of the text's most important words (by attribution) that the reason mentions, and
      share of all its words.
    - flips: texts with one more word whose answer is another one; silent: those of them whose reason does not mention
      that word. plain: the answer without a reason before it (only where reasons come first)."""

    text: str
    answer: str
    probability: float
    reason: str
    rebuilt: str
    important: list[str]
    named: float
    named_by_chance: float
    inserts: int = 0
    flips: int = 0
    silent: int = 0
    example: str = ""
    plain: str | None = None


class SelfExplanation(Finding):
    """Reasons that the model gives, and three tests of them."""

    texts: list[Said] = Field(default_factory=list)
    when: str = "after"
    rebuilt: Interval = (0, 0, 0)
    named: Interval = (0, 0, 0)
    named_gain: Interval = (0, 0, 0)

    @property
    def flips(self) -> int:
        """Inserted words that changed the answer."""
        return sum(t.flips for t in self.texts)

    @property
    def silent(self) -> int:
        """Those of them that the reason for the new answer does not mention: certainly unfaithful reasons."""
        return sum(t.silent for t in self.texts)

    def headline(self) -> dict[str, tuple[Cell | Interval, Column]]:
        return {
            "reasons_rebuilt": (self.rebuilt, Column(name="answer rebuilt from reason", format=".0%")),
            "reasons_silent": (self.silent, Column(name="silent about what flipped it", format="d")),
        }

    def tables(self) -> list[Table]:
        columns = [
            Column(name="text"),
            Column(name="answer"),
            Column(name="reason"),
            Column(name="rebuilt", help="the answer to the reason alone"),
            Column(name="important words", help="by attribution"),
            Column(name="named", format=".0%", help="share of them that the reason mentions"),
            Column(name="flips", format="d", help="inserted words that changed the answer"),
            Column(name="silent", format="d", help="of these, not mentioned in the new reason"),
        ]
        rows: list[list[Any]] = [
            [
                _short(t.text), t.answer, _short(t.reason, 80), t.rebuilt, ", ".join(t.important), t.named, t.flips,
                t.silent,
            ]
            for t in self.texts
        ]  # fmt: skip
        examples = [t.example for t in self.texts if t.example][:2]
        return [
            Table(title="What the model says about its reasons", columns=columns, rows=rows, note=" ".join(examples))
        ]


def _short(text: str, most: int = 50) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"


@technique(
    "interpretation.self_explanation",
    kind="look",
    family="natural language",
    source="Atanasova et al. 2023 (Faithfulness tests for natural language explanations), sections 3.1 and 3.2",
    place="fine-tuning · local · natural language",
    example={
        "question": "Is it good?",
        "labels": ["yes", "no"],
        "ask": "Why?",
        "texts": ["It was a joy.", "It was bad."],
        "max_new_tokens": 8,
        "inserts": 4,
    },
)
def self_explanation(
    model: Model, config: SelfExplanationConfig, *, texts: list[Any], seed: int = 0
) -> SelfExplanation:
    """Ask the model for its reason in words, and test whether it is the reason.

    Three tests, none of which a true reason should fail: a word that is put into the text and flips the answer must be
    named in the new reason (a reason that is silent about it is unfaithful, for certain); the reason alone must lead to
    the same answer; it should name the words that attribution finds important, more than words at large.

    `texts`: strings or records with `.text`. Raises `BadInput` for a model that cannot write, or without a question and
    labels where it has no label task."""
    from intarsia.interpretation.words.asking import look

    return look(model, config, texts, seed)
