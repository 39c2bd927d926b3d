"""`interpretation.uncertainty`: how sure a model is of what it says, by every usual signal."""

from __future__ import annotations

from typing import Any

import pydantic
from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.interpretation.uncertainty.names import SIGNALS
from intarsia.interpretation.wording import one_line
from intarsia.models import Model
from intarsia.report import Block, Column, Figure, Finding, Series, Table, TokenMap


class UncertaintyConfig(Config):
    max_texts: int = Field(40, ge=1, description="prompts; more are drawn down to this many by the seed")
    template: str = Field("{text}", pattern=r"(?s).*\{text\}.*", description="what is asked; {text} is the prompt")
    chat: bool = Field(False, description="ask each prompt as a user's turn of the model's chat template")
    max_new_tokens: int = Field(16, ge=1, description="tokens of an answer at most")
    first_line: bool = Field(True, description="an answer ends with its line")
    samples: int = Field(8, ge=2, description="answers drawn for each prompt")
    temperature: float = Field(1.0, gt=0, description="of the drawn answers")
    top_p: float = Field(1.0, gt=0, le=1, description="answers are drawn from the likeliest tokens with this mass")
    least_cosine: float = Field(0.8, ge=0, le=1, description="from here on the encoder calls two answers the same")
    truth: str = Field(
        "{question}\nProposed answer: {answer}\n(A) True\n(B) False\nThe proposed answer is (",
        description="how P(True) is asked, with {question} and {answer}; scored by the letters A and B",
    )


class Meaning(pydantic.BaseModel):
    """Drawn answers that mean the same: the first of them, and their share of all drawn."""

    text: str
    share: float


class Said(pydantic.BaseModel):
    """A prompt, its greedy answer, what was drawn, and the signals by name (see `SIGNALS`).

    tokens, entropies: the answer's tokens and the entropy of the distribution each was taken from, nats."""

    prompt: str
    answer: str
    tokens: list[str]
    entropies: list[float]
    signals: dict[str, float]
    meanings: list[Meaning]


class Uncertainty(Finding):
    """How sure the model is of its answer to each prompt. `judge` says when drawn answers count as the same."""

    said: list[Said] = Field(default_factory=list)
    judge: str = ""
    samples: int = 0

    def ranked(self) -> list[Said]:
        """The least sure answer first, by semantic entropy and then by token entropy."""
        return sorted(self.said, key=lambda s: (-s.signals["semantic_entropy"], -s.signals["entropy"]))

    def tables(self) -> list[Table]:
        names = [name for name in SIGNALS if any(name in s.signals for s in self.said)]
        shown = ["semantic_entropy", "consistency", "p_true", "entropy"]
        order = [*shown, *(name for name in names if name not in shown)]
        columns = [Column(name="prompt"), Column(name="answer")]
        columns += [Column(name=SIGNALS[n].title, unit=SIGNALS[n].unit, format=SIGNALS[n].format) for n in order]
        rows: list[list[Any]] = [
            [_short(s.prompt), _short(s.answer, 24), *(s.signals.get(n) for n in order)] for s in self.ranked()
        ]
        drawn: list[list[Any]] = [
            [_short(s.prompt), ", ".join(f"{_short(m.text, 20) or '(nothing)'} {m.share:.0%}" for m in s.meanings[:4])]
            for s in self.ranked()
        ]
        return [
            Table(title="The least sure first", columns=columns, rows=rows),
            Table(
                title=f"What {self.samples} drawn answers mean",
                columns=[Column(name="prompt"), Column(name="meanings")],
                rows=drawn,
                note=f"Answers count as the same when {self.judge}.",
            ),
        ]

    def figures(self) -> list[Figure]:
        points = Series(
            name="prompts", x=[s.signals["entropy"] for s in self.said],
            y=[s.signals["semantic_entropy"] for s in self.said], labels=[_short(s.prompt, 28) for s in self.said],
        )  # fmt: skip
        return [
            Figure(
                title="Unsure of the word, or of the meaning?", kind="scatter", x="token entropy of the answer, nats",
                y="semantic entropy, nats", series=[points], format=".2f",
                note="Right and low: many wordings of one meaning. High: different meanings.",
            )
        ]  # fmt: skip

    def maps(self, most: int = 4) -> list[TokenMap]:
        """The least sure answers, each token coloured by the entropy it was taken from."""
        top = max((e for s in self.said for e in s.entropies), default=None)
        return [
            TokenMap(
                title=_short(s.prompt, 70), tokens=s.tokens, values=list(s.entropies), maximum=top, format=".2f",
                meaning="entropy of the next token, nats",
            )
            for s in self.ranked()[:most]
        ]  # fmt: skip

    def blocks(self) -> list[Block]:
        first, second = self.tables()
        return [first, second, *self.maps(), *self.figures()]


@technique(
    "interpretation.uncertainty",
    kind="look",
    family="uncertainty",
    source="Kuhn et al. 2023 and Farquhar et al. 2024 (semantic entropy); Kadavath et al. 2022 (P(True)); "
    "Wang et al. 2023 (self-consistency); Duan et al. 2023 (SAR)",
    place="prompting · assistant model · uncertainty",
    example={"texts": ["The capital of France is", "My favourite colour is"], "samples": 4, "max_new_tokens": 6},
)
def uncertainty(
    model: Model,
    config: UncertaintyConfig,
    *,
    texts: list[Any],
    encoder: Model | None = None,
    nli: Model | None = None,
    seed: int = 0,
) -> Uncertainty:
    """How sure the model is of its answer to each prompt: from its probabilities, from what it says of its own answer,
    and from how much drawn answers differ in meaning.

    Of the greedy answer: token entropy (mean, highest), log probability, length-normalised probability, token SAR, and
    P(True), what the model gives the letter of "True" when it is shown the answer. Of `samples` drawn answers:
    predictive entropy, self-consistency (share that means the same as the greedy answer), semantic entropy (clusters of
    meaning, by probability and by counts) and SAR. Two answers mean the same when each entails the other by a model of
    entailment (`nli`), else when a sentence encoder (`encoder`, such as `minilm`) finds them close, else when their
    plain words are the same; the finding says which.

    Sure is not right: `interpretation.hallucination` measures how well each signal tells wrong answers on questions
    whose answers are known. Raises `BadInput` for a model that does not predict the next token, or prompts that do not
    fit its context."""
    from intarsia.interpretation.uncertainty.answering import look

    return look(model, config, texts, encoder, nli, seed)


def _short(text: str, most: int = 40) -> str:
    text = one_line(text.strip())
    return text if len(text) <= most else text[: most - 1] + "…"
