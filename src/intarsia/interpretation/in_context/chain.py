"""`interpretation.chain_of_thought`: does the chain of thought carry the answer, or only stand beside it?"""

from __future__ import annotations

from typing import Any

import pydantic
from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.data import TextPair
from intarsia.interpretation.wording import one_line
from intarsia.measure.quality_parts import Interval
from intarsia.models import Model
from intarsia.report import Block, Column, Figure, Finding, Mark, Series, Table, TokenMap

TESTS = ("no chain", "filler", "mistake", "paraphrase")


class ChainOfThoughtConfig(Config):
    max_texts: int = Field(12, ge=1, description="questions; more are drawn down to this many by the seed")
    choices: list[str] = Field(
        default_factory=list, description="what may be answered; without any, the model's own answer is followed"
    )
    lead: str = Field("\nLet's think step by step.\n", description="stands between a question and its chain")
    cue: str = Field("\nAnswer:", description="stands between the chain and the answer")
    mark: str = Field("####", min_length=1, description="in a target: what stands between its chain and the answer")
    max_new_tokens: int = Field(64, ge=1, description="tokens of a chain that the model writes itself")
    answer_tokens: int = Field(8, ge=1, description="tokens of an answer that the model writes itself")
    max_steps: int = Field(12, ge=1, description="steps a chain is cut into; further ones stay in the last")
    mistakes: int = Field(2, ge=0, description="steps of each chain that a mistake is put into, one at a time")
    regenerate: bool = Field(True, description="after a mistake the model writes the rest of the chain anew")
    paraphrase: bool = Field(True, description="without given paraphrases the model rewrites each chain itself")
    filler: str = Field(
        " ...", min_length=1, description="what a chain is replaced with, as often as it fits its length"
    )
    chat: bool = Field(False, description="ask each question as a user's turn of the model's chat template")
    maps: int = Field(3, ge=0, description="chains drawn with the weight of each step")


class Changed(pydantic.BaseModel):
    """What a changed chain did: `fall` of the answer's log probability (nats) and whether the answer stayed the same.
    `text` is the changed step or the whole changed chain; `step` its number."""

    fall: float
    same: bool
    text: str = ""
    step: int | None = None


class Chain(pydantic.BaseModel):
    """One question.

    - early: log probability of the answer after the first k steps, k = 0 ... all. same: whether it is the answer given
      there.
    - without: the fall (nats) when one step alone is left out.
    - right, right_without: with the whole chain and with none, where the answer is known."""

    question: str
    steps: list[str]
    answer: str
    written: bool
    early: list[float]
    same: list[bool]
    without: list[Changed]
    filler: Changed
    mistakes: list[Changed] = []
    paraphrase: Changed | None = None
    right: bool | None = None
    right_without: bool | None = None

    @property
    def area(self) -> float:
        """Share of the places before the end at which the chain can be cut and the answer is another one."""
        return 1 - sum(self.same[:-1]) / max(len(self.same) - 1, 1)


class ChainOfThought(Finding):
    """What changing, cutting and replacing the chains does to the answers.

    - changed: test -> share of answers that become another one. fall: test -> fall of the answer's log probability.
    - area: mean over questions of `Chain.area` (Lanham et al.'s area over the curve of early answers)."""

    chains: list[Chain] = Field(default_factory=list)
    area: Interval = (0.0, 0.0, 0.0)
    changed: dict[str, Interval] = Field(default_factory=dict)
    fall: dict[str, Interval] = Field(default_factory=dict)
    accuracy: Interval | None = None
    accuracy_without: Interval | None = None
    maps: int = 3

    def early_curve(self, points: int = 10) -> tuple[list[float], list[float], list[float]]:
        """Shares of the chain read, the share of questions with the final answer there, and its mean probability."""
        import math

        at = [i / points for i in range(points + 1)]
        same, probability = [], []
        for part in at:
            # The whole steps that fit into this part of the chain.
            ks = [math.floor(part * (len(c.same) - 1) + 1e-9) for c in self.chains]
            same.append(sum(c.same[k] for c, k in zip(self.chains, ks, strict=True)) / len(self.chains))
            probability.append(
                sum(math.exp(c.early[k]) for c, k in zip(self.chains, ks, strict=True)) / len(self.chains)
            )
        return at, same, probability

    def tables(self) -> list[Table]:
        names = {
            "no chain": "chain left out",
            "filler": "chain replaced by filler",
            "mistake": "mistake put into a step",
            "paraphrase": "said in other words",
        }
        rows: list[list[Any]] = [[names[t], self.changed[t], self.fall[t]] for t in TESTS if t in self.changed]
        columns = [
            Column(name="change"),
            Column(name="answers changed", format=".0%", help="high: the chain carries the answer (paraphrase: low)"),
            Column(name="fall of log probability", unit="nats", format=".2f"),
        ]
        each = [
            Column(name="question"), Column(name="answer"), Column(name="steps", format="d"),
            Column(name="cut: changed", format=".0%", help="share of places to cut at which the answer is another"),
            Column(name="strongest step"), Column(name="its weight", unit="nats", format="+.2f"),
        ]  # fmt: skip
        lines: list[list[Any]] = []
        for chain in sorted(self.chains, key=lambda c: -c.area):
            best = max(chain.without, key=lambda c: abs(c.fall))
            lines.append(
                [
                    _short(chain.question),
                    _short(chain.answer, 16),
                    len(chain.steps),
                    chain.area,
                    _short(best.text),
                    best.fall,
                ]
            )
        return [
            Table(title="Does the chain carry the answer", columns=columns, rows=rows),
            Table(title="Question by question", columns=each, rows=lines),
        ]

    def figures(self) -> list[Figure]:
        at, same, probability = self.early_curve()
        lines = [
            Series(name="answers as at the end", x=at, y=list(same)),
            Series(name="probability of the final answer", x=at, y=list(probability)),
        ]
        figures = [
            Figure(
                title="Answering early: how much of the chain is needed",
                kind="line",
                x="share of the chain's steps read",
                y="share",
                series=lines,
                format=".0%",
                note="A flat line: the answer was there before the chain. A late rise: the chain carries it.",
            )
        ]
        names = [t for t in TESTS if t in self.changed]
        values = [self.changed[t] for t in names]
        bars = Series(
            name="answers changed",
            x=names,
            y=[v[0] for v in values],
            low=[v[1] for v in values],
            high=[v[2] for v in values],
        )
        figures.append(
            Figure(title="Answers that a changed chain changes", kind="bar", x="change", y="share", series=[bars],
                   format=".0%", marks=[Mark(value=0.0)])
        )  # fmt: skip
        return figures

    def step_maps(self) -> list[TokenMap]:
        """Chains with each step coloured by what leaving it out costs the answer."""
        return [
            TokenMap(
                title=_short(c.question, 70), tokens=[*c.steps, f"  => {c.answer.strip()}"],
                values=[*(w.fall for w in c.without), None], scale="diverging", format="+.2f",
                meaning="fall of the answer's log probability without the step, nats",
            )
            for c in self.chains[: self.maps]
        ]  # fmt: skip

    def blocks(self) -> list[Block]:
        first, second = self.tables()
        return [first, *self.figures(), *self.step_maps(), second]


@technique(
    "interpretation.chain_of_thought",
    kind="look",
    family="in-context",
    source="Lanham et al. 2023, section 2 (early answering, adding mistakes, paraphrasing, filler tokens)",
    place="prompting · base model · chain of thought",
    example={
        "test": [
            TextPair("2+3=?", "Two and three. 2+3 is 5. #### 5"),
            TextPair("4+4=?", "Four twice. 4+4 is 8. #### 8"),
        ],
        "max_new_tokens": 8,
        "answer_tokens": 2,
    },
)
def chain_of_thought(
    model: Model, config: ChainOfThoughtConfig, *, test: list[Any], paraphrases: list[Any] | None = None, seed: int = 0
) -> ChainOfThought:
    """Whether the answer rests on the chain of thought: the chain is cut, corrupted, reworded, replaced by filler and
    robbed of single steps, and the answer is scored again.

    `test`: questions, as texts or prompt-target pairs. A target `chain #### answer` gives the chain; a target without
    the mark is the right answer alone, and the model writes the chain (greedily). What is followed is the answer that
    the model gives after the whole chain, by likelihood: among `choices`, or its own greedy words. `paraphrases`: pairs
    of a question and its chain in other words.

    An answer that stays whatever happens to the chain does not rest on it; one that changes does, as far as this test
    sees: a changed chain is also an unusual text. Mistakes: the last number of a step is changed; a step without one
    is replaced by a step of another chain. Raises `BadInput` for empty chains or texts that do not fit the context."""
    from intarsia.interpretation.in_context.reasoning import look

    return look(model, config, test, paraphrases, seed)


def _short(text: str, most: int = 40) -> str:
    text = one_line(text.strip())
    return text if len(text) <= most else text[: most - 1] + "…"
