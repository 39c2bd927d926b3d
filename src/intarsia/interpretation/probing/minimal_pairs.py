"""`interpretation.minimal_pairs`: whether a model finds the right one of two sentences likelier."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pydantic
from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.data import TextPair
from intarsia.report import Block, Cell, Column, Figure, Finding, Mark, Series, Table, TokenMap

if TYPE_CHECKING:
    from intarsia.models import Model

Interval = tuple[float, float, float]


class MinimalPairsConfig(Config):
    max_pairs: int = Field(1000, ge=1, description="pairs read; more are drawn down to this many by the seed")
    max_tokens: int = Field(128, ge=2, description="the longest sentence")
    shown: int = Field(6, ge=0, description="pairs shown in full, those the model gets most wrong first")


class ScoredPair(pydantic.BaseModel):
    """One pair: log probabilities in nats of the good and the bad sentence, and token by token."""

    good: str
    bad: str
    log_p_good: float
    log_p_bad: float
    good_tokens: list[str] = []
    bad_tokens: list[str] = []
    good_values: list[float | None] = []
    bad_values: list[float | None] = []

    @property
    def margin(self) -> float:
        """How much likelier the good sentence is, in nats; below 0 the model prefers the bad one."""
        return self.log_p_good - self.log_p_bad


class PairGroup(pydantic.BaseModel):
    """The pairs of one group (a phenomenon): accuracy with its interval over pairs, and the mean margin in nats."""

    name: str
    pairs: int
    accuracy: Interval
    margin: float


class MinimalPairs(Finding):
    """How often the good sentence of a pair is the likelier one.

    - accuracy: by whole-sentence log probability. per_token: by the mean over tokens, which does not favour the shorter
      sentence. shorter: share of pairs that always taking the sentence with fewer tokens gets right (ties half)."""

    accuracy: Interval = (0.0, 0.0, 0.0)
    per_token: Interval = (0.0, 0.0, 0.0)
    shorter: float = 0.5
    margin: float = 0.0
    pairs: int = 0
    groups: list[PairGroup] = Field(default_factory=list)
    scored: list[ScoredPair] = Field(default_factory=list)
    how: str = ""

    def headline(self) -> dict[str, tuple[Cell | tuple[float, float, float], Column]]:
        return {"minimal_pairs": (self.accuracy, Column(name="minimal pairs", format=".1%"))}

    def tables(self) -> list[Table]:
        columns = [
            Column(name="pairs of"),
            Column(name="pairs", format="d"),
            Column(name="right", format=".1%", better="higher", help="chance is 50 %"),
            Column(name="margin", unit="nats", format="+.2f", help="mean log p(good) - log p(bad)"),
        ]
        rows: list = [["all", self.pairs, self.accuracy, self.margin]]
        rows += [[g.name, g.pairs, g.accuracy, g.margin] for g in sorted(self.groups, key=lambda g: g.accuracy[0])]
        note = f"By the mean over tokens {self.per_token[0]:.1%} are right; the shorter sentence is the good one in "
        note += f"{self.shorter:.0%} of the pairs."
        tables = [Table(title="Right and wrong", columns=columns, rows=rows, note=note)]
        if self.scored:
            columns = [Column(name="good"), Column(name="bad"), Column(name="margin", unit="nats", format="+.2f")]
            worst: list = [[p.good, p.bad, p.margin] for p in self.scored]
            tables.append(Table(title="Where the model is most wrong", columns=columns, rows=worst))
        return tables

    def figures(self) -> list[Figure]:
        if len(self.groups) < 2:
            return []
        groups = sorted(self.groups, key=lambda g: g.accuracy[0])
        series = Series(
            name="right",
            x=[g.name for g in groups],
            y=[g.accuracy[0] for g in groups],
            low=[g.accuracy[1] for g in groups],
            high=[g.accuracy[2] for g in groups],
        )
        marks = [Mark(value=0.5, text="chance")]
        title = "Which kinds of pairs the model gets right"
        return [Figure(title=title, kind="bar", y="right", series=[series], format=".0%", marks=marks)]

    def blocks(self) -> list[Block]:
        maps: list[Block] = []
        for pair in self.scored[:2]:
            for name, tokens, values in (
                ("good", pair.good_tokens, pair.good_values),
                ("bad", pair.bad_tokens, pair.bad_values),
            ):
                top = max(-v for v in (*pair.good_values, *pair.bad_values) if v is not None)
                surprise = [None if v is None else -v for v in values]
                maps.append(
                    TokenMap(title=f"Where it goes wrong: the {name} one", tokens=tokens, values=surprise, maximum=top,
                             meaning="surprise in nats", format=".2f")
                )  # fmt: skip
        return [*self.figures(), *self.tables(), *maps]


@technique(
    "interpretation.minimal_pairs",
    kind="look",
    family="probing",
    source="Linzen et al. 2016; Warstadt et al. 2020 (BLiMP), section 4; masked models: Salazar et al. 2020, section 2",
    place="fine-tuning · global · probing: parameter-free",
    gives="MinimalPairs",
    example={
        "pairs": [
            TextPair("The keys are on the table.", "The keys is on the table.", "number"),
            TextPair("The cat sleeps.", "The cat sleep.", "number"),
            TextPair("She saw herself.", "She saw himself.", "reflexive"),
            TextPair("He hurt himself.", "He hurt herself.", "reflexive"),
        ]
    },
)
def minimal_pairs(model: Model, config: MinimalPairsConfig, *, pairs: list[TextPair], seed: int = 0) -> MinimalPairs:
    """Whether the model finds the right one of two sentences likelier: what it knows, without fitting anything.

    A causal model is scored by the log probability of the whole sentence (its first token is counted only where the
    tokenizer begins a text with a token of its own), a masked one by its pseudo log likelihood: each token masked in
    turn.

    `pairs`: prompt is the good sentence, target the bad one, group the kind of pair. Sentences of different length
    favour the shorter one: see the figure by the mean over tokens. Raises `BadInput` for a pair of equal
    sentences."""
    from intarsia.interpretation.probing.pairs import look

    return look(model, config, pairs, seed)
