"""`interpretation.explain_neuron`: what a neuron fires on, in words, and whether the words predict it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pydantic
from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.report import Block, Cell, Column, Figure, Finding, Mark, Series, Table, TokenMap

if TYPE_CHECKING:
    from intarsia.models import Model

Interval = tuple[float, float, float]


class ExplainNeuronConfig(Config):
    neuron: str = Field(description="the neuron, as layer:number (7:42)")
    explanation: str | None = Field(None, description="words of your own to be scored; none is written then")
    examples: int = Field(5, ge=1, description="top texts that the explainer is shown")
    held_out: int = Field(10, ge=2, description="texts that the explanation is scored on: half top ones, half random")
    context: int = Field(8, ge=1, description="tokens of a text before and after its strongest one")
    max_new_tokens: int = Field(20, ge=1, description="the longest explanation")
    max_texts: int = Field(500, ge=3, description="texts read; more are drawn down to this many by the seed")
    max_tokens: int = Field(128, ge=2, description="tokens of a text that are read")
    batch_size: int = Field(16, ge=1, description="texts in one forward pass")


class Simulated(pydantic.BaseModel):
    """A held-out stretch: the neuron's activations, and those the explanation predicts (0 to 9). top: from a text that
    excites the neuron much, rather than a random one."""

    tokens: list[str]
    values: list[float]
    simulated: list[float]
    top: bool


class Control(pydantic.BaseModel):
    """Another explanation, which has nothing to do with the neuron, and its score."""

    explanation: str
    score: float


class ExplainNeuron(Finding):
    """An explanation and how well it predicts.

    - score: Pearson correlation of simulated and real activations over the tokens of the held-out stretches, with its
      95 % interval over stretches. top_score, random_score: over the two halves alone (None: does not vary).
    - controls: what unrelated explanations get from the same simulator."""

    neuron: str = ""
    explanation: str = ""
    written_by: str = ""
    score: Interval = (0.0, 0.0, 0.0)
    top_score: float | None = None
    random_score: float | None = None
    controls: list[Control] = Field(default_factory=list)
    shown: list[str] = Field(default_factory=list)
    held_out: list[Simulated] = Field(default_factory=list)

    @property
    def control(self) -> float:
        """Mean score of the unrelated explanations."""
        return sum(c.score for c in self.controls) / len(self.controls)

    def headline(self) -> dict[str, tuple[Cell | tuple[float, float, float], Column]]:
        return {"simulation_score": (self.score, Column(name="simulation score", format=".2f"))}

    def tables(self) -> list[Table]:
        columns = [
            Column(name="explanation"),
            Column(name="score", format=".2f", better="higher", help="correlation of simulated and real activations"),
            Column(name="top texts", format=".2f"),
            Column(name="random texts", format=".2f"),
        ]
        rows: list = [[self.explanation, self.score, self.top_score, self.random_score]]
        rows += [[f"{c.explanation} (control)", c.score, None, None] for c in self.controls]
        shown = Table(title="What the explainer was shown", columns=[Column(name="text")],
                      rows=[[s] for s in self.shown])  # fmt: skip
        return [Table(title="How well the words predict the neuron", columns=columns, rows=rows), shown]

    def figures(self) -> list[Figure]:
        names = ["the explanation", *(f"'{c.explanation}'" for c in self.controls)]
        scores = Series(name="score", x=names, y=[self.score[0], *(c.score for c in self.controls)])
        marks = [Mark(value=0.0, text="no relation")]
        title = "Score against unrelated explanations"
        return [Figure(title=title, kind="bar", y="correlation", series=[scores], format=".2f", marks=marks)]

    def maps(self) -> list[TokenMap]:
        """The first held-out stretches, as they are and as the explanation has them."""
        out = []
        edge = max((abs(v) for s in self.held_out for v in s.values), default=0.0) or None
        for number, s in enumerate(self.held_out[:3], 1):
            kind = "a top text" if s.top else "a random text"
            out.append(TokenMap(title=f"Held out {number}, {kind}: the neuron", tokens=s.tokens, values=list(s.values),
                                scale="diverging", maximum=edge, meaning="activation", format=".2f"))  # fmt: skip
            out.append(TokenMap(title=f"Held out {number}, {kind}: the explanation", tokens=s.tokens, maximum=9,
                                values=list(s.simulated), meaning="simulated activation", format=".1f"))  # fmt: skip
        return out

    def blocks(self) -> list[Block]:
        return [self.tables()[0], *self.figures(), *self.maps(), *self.tables()[1:]]


@technique(
    "interpretation.explain_neuron",
    kind="look",
    family="neurons",
    source="Bills et al. 2023, Language models can explain neurons in language models (explain, simulate all at "
    "once, score)",
    place="fine-tuning · global · neuron activation",
    gives="ExplainNeuron",
    example={
        "texts": ["a cat sat", "two dogs ran", "no rain fell", "my car broke"],
        "neuron": "2:7",
        "examples": 1,
        "held_out": 2,
        "context": 3,
    },
)
def explain_neuron(
    model: Model, config: ExplainNeuronConfig, *, texts: list[Any], explainer: Model | None = None, seed: int = 0
) -> ExplainNeuron:
    """Say in words what a neuron fires on, and measure whether the words predict it on texts not shown.

    A language model is shown the neuron's top texts with the tokens it fires on in brackets, and completes what they
    have in common. Then it simulates: given the words alone it rates each token of held-out texts from 0 to 9 (the
    expected digit, all tokens in one pass), and the score is the correlation with the real activations. Unrelated
    explanations are scored beside it: what they get, the simulator owes to its habits.

    `texts`: strings or records. `explainer`: the model that explains and simulates, by default the model itself.
    Small explainers are weak: with one of 135 million parameters expect words that name the shown tokens and a score
    near the controls'; the score is of the pair of words and simulator, and a low one may be the simulator's fault.
    You can score words of your own (`explanation`). Raises `BadInput` for a neuron that does not exist or an
    explainer that cannot write."""
    from intarsia.interpretation.neurons.explaining import look

    return look(model, config, texts, explainer, seed)
