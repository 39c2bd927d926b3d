"""`adaptation.answer`: what a model with skills answers, and which of them it used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pydantic
from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.report import Column, Figure, Finding, Table

if TYPE_CHECKING:
    from intarsia.data import Text
    from intarsia.models import Model


class AnswerConfig(Config):
    instruction: str = Field("", description="what is to be done with each text; default: that of `task`, or none")
    task: str | None = Field(None, description="use this task's block alone, whatever the text is like")
    max_new_tokens: int = Field(50, ge=1, description="longest answer, in tokens")


class Answer(pydantic.BaseModel):
    """A text, the answer, and the weight of each block."""

    text: str
    answer: str
    weights: dict[str, float]


class Answers(Finding):
    """Answers with the skills they came from."""

    answers: list[Answer] = Field(default_factory=list)

    def tables(self) -> list[Table]:
        columns = [
            Column(name="text"),
            Column(name="answer"),
            Column(name="mostly"),
            Column(name="weight", format=".0%"),
        ]
        rows: list[list[Any]] = []
        for row in self.answers:
            most = max(row.weights, key=row.weights.__getitem__) if row.weights else None
            rows.append([row.text, row.answer, most or "–", row.weights[most] if most else None])
        return [Table(title="Answers", columns=columns, rows=rows)]

    def figures(self) -> list[Figure]:
        names = list(self.answers[0].weights) if self.answers else []
        if len(names) < 2:
            return []
        texts = [row.text if len(row.text) <= 40 else f"{row.text[:39]}…" for row in self.answers]
        matrix: list[list[float | None]] = [[row.weights[name] for name in names] for row in self.answers]
        figure = Figure(
            title="Which blocks each text uses", kind="heatmap", x="block", y="text", row_names=texts,
            column_names=names, matrix=matrix, format=".2f",
        )  # fmt: skip
        return [figure]


@technique(
    "adaptation.answer",
    kind="look",
    family="continual tuning",
    source="Zhao et al. 2024, SAPT, §3.2: the weights that serve are those that were learned with",
    needs="skills",
    extra="adapt",
    example={"texts": ("The match ended in a draw.",)},
)
def answer(model: Model, config: AnswerConfig, *, texts: list[Text]) -> Answers:
    """Answer texts with a model that took on tasks, and show which task's block each answer came from.

    The prompt is written with the template that the tasks were learned with. Answers are greedy.

    Raises `BadInput` for a model without skills, a task that it does not have, or no texts."""
    from intarsia.adaptation.continual.serving import answers

    return answers(model, config, texts)
