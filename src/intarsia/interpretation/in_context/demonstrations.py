"""`interpretation.demonstrations`: which of the examples in a prompt matter for what the model answers."""

from __future__ import annotations

from typing import Any, Literal

import pydantic
from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.data import LabelledText
from intarsia.interpretation.wording import one_line
from intarsia.measure.quality_parts import Interval
from intarsia.models import Model
from intarsia.report import Block, Column, Figure, Finding, Mark, Series, Table, TokenMap

CHANGES = ("removed", "flipped", "neutral", "moved last")


class DemonstrationsConfig(Config):
    max_demonstrations: int = Field(8, ge=1, description="demonstrations in the prompt, drawn from `train` by the seed")
    max_texts: int = Field(24, ge=1, description="test texts, drawn by the seed")
    explain: Literal["predicted", "right"] = Field(
        "predicted", description="whose log probability is followed: the answer given after all demonstrations, or the "
        "right one",
    )  # fmt: skip
    separator: str = Field("\n\n", description="what stands between two demonstrations")
    neutral: str = Field(
        "N/A", min_length=1, description="the text that replaces a demonstration's own (its label stays)"
    )
    orders: int = Field(4, ge=0, description="random orders of all demonstrations that are tried")
    saliency_texts: int = Field(6, ge=0, description="test texts whose gradient x embedding is summed; 0 leaves it out")


class Demonstration(pydantic.BaseModel):
    """One demonstration.

    - effect: change -> by how much the log probability of the followed answer falls (nats, mean over the test texts,
      with its 95 % interval) when this demonstration alone is changed so. Above 0: it speaks for the answer.
    - turned: change -> share of test texts whose answer becomes another one; empty without a set of labels.
    - saliency: sum over its tokens of |gradient x embedding|, mean over texts."""

    text: str
    label: str
    flipped_to: str | None = None
    effect: dict[str, Interval] = {}
    turned: dict[str, float] = {}
    saliency: float | None = None


class Condition(pydantic.BaseModel):
    """A whole prompt: mean log probability of the followed answer, accuracy where the right labels are known, and the
    share of texts answered as with all demonstrations."""

    name: str
    log_prob: Interval
    accuracy: Interval | None = None
    same: float | None = None


class Demonstrations(Finding):
    """How much each demonstration matters, by changing it and reading again.

    - effects: [demonstration][text], nats, of removal.
    - agreement: Spearman's rho of |effect of removal| and saliency."""

    demonstrations: list[Demonstration] = Field(default_factory=list)
    conditions: list[Condition] = Field(default_factory=list)
    effects: list[list[float]] = Field(default_factory=list)
    tests: list[str] = Field(default_factory=list)
    agreement: float | None = None
    followed: str = "predicted"
    map: TokenMap | None = None

    def ranked(self) -> list[tuple[int, Demonstration]]:
        """Demonstrations with their number in the prompt, the strongest effect of removal first."""
        return sorted(enumerate(self.demonstrations, 1), key=lambda d: -abs(d[1].effect["removed"][0]))

    def tables(self) -> list[Table]:
        changes = [c for c in CHANGES if any(c in d.effect for d in self.demonstrations)]
        turns = [c for c in ("removed", "flipped") if any(c in d.turned for d in self.demonstrations)]
        salient = any(d.saliency is not None for d in self.demonstrations)
        columns = [Column(name="demonstration"), Column(name="label"), Column(name="place", format="d")]
        columns += [
            Column(name=c, unit="nats", format=".3f", help="fall of the answer's log probability") for c in changes
        ]
        columns += [Column(name=f"answers turned, {c}", format=".0%") for c in turns]
        if salient:
            columns.append(Column(name="saliency", format=".3g", help="sum of |gradient x embedding| over its tokens"))
        rows: list[list[Any]] = []
        for place, demo in self.ranked():
            row: list[Any] = [_short(demo.text), demo.label.strip(), place]
            row += [demo.effect.get(c) for c in changes] + [demo.turned.get(c) for c in turns]
            rows.append([*row, demo.saliency] if salient else row)
        note = "A change counts for the one demonstration only; above 0: as it stands it speaks for the answer."
        whole = [Column(name="prompt"), Column(name="log probability of the answer", unit="nats", format=".3f")]
        judged = any(c.accuracy for c in self.conditions)
        if judged:
            whole.append(Column(name="accuracy", format=".0%", better="higher"))
        chosen = any(c.same is not None for c in self.conditions)
        if chosen:
            whole.append(Column(name="same answer", format=".0%"))
        lines: list[list[Any]] = []
        for c in self.conditions:
            line: list[Any] = [c.name, c.log_prob, *([c.accuracy] if judged else []), *([c.same] if chosen else [])]
            lines.append(line)
        return [
            Table(title="Which demonstrations matter", columns=columns, rows=rows, note=note),
            Table(title="All of them together", columns=whole, rows=lines),
        ]

    def figures(self) -> list[Figure]:
        names = [f"{i}: {_short(d.text, 24)}" for i, d in enumerate(self.demonstrations, 1)]
        series = []
        for change in CHANGES:
            values = [d.effect.get(change) for d in self.demonstrations]
            if any(values):
                series.append(
                    Series(
                        name=change, x=names, y=[v[0] if v else None for v in values],
                        low=[v[1] if v else None for v in values], high=[v[2] if v else None for v in values],
                    )
                )  # fmt: skip
        bars = Figure(
            title="What changing one demonstration costs the answer", kind="bar", x="demonstration",
            y="fall of log probability, nats", series=series, format=".3f", marks=[Mark(value=0.0)],
        )  # fmt: skip
        grid = Figure(
            title="Which demonstration matters for which text (removal)", kind="heatmap", x="test text",
            y="fall of log probability, nats", scale="diverging", format="+.2f", matrix=self.effects, row_names=names,
            column_names=[_short(t, 16) for t in self.tests],
        )  # fmt: skip
        return [bars, grid]

    def blocks(self) -> list[Block]:
        return [*self.tables(), *self.figures(), *([self.map] if self.map else [])]


@technique(
    "interpretation.demonstrations",
    kind="look",
    family="in-context",
    source="Li et al. 2023 (contrastive demonstrations and saliency); Min et al. 2022 (label flips); "
    "Lu et al. 2022 (order)",
    place="prompting · base model · in-context learning",
    example={
        "train": [LabelledText("a joy", "good"), LabelledText("so dull", "bad"), LabelledText("superb", "good")],
        "test": [LabelledText("loved it", "good"), LabelledText("a waste", "bad")],
        "orders": 2,
    },
)
def demonstrations(
    model: Model, config: DemonstrationsConfig, *, train: list[Any], test: list[Any], seed: int = 0
) -> Demonstrations:
    """Which demonstrations in a prompt matter: each one is removed, mislabelled, emptied and moved, and the test texts
    are read again.

    The prompt is the demonstrations (`train`), then one test text (`test`). With labelled texts the answer is a label
    of the label task that travels with the model (or of one made from the labels), scored by likelihood, uncalibrated;
    with prompt-target pairs it is the target's own words. What is followed is the log probability of the answer given
    after the unchanged prompt. As a second opinion the gradient x embedding of each demonstration's tokens is summed,
    and the two rankings are compared.

    The prefix that all test texts share is run once per changed prompt; figures equal prompting again one by one.
    Raises `BadInput` for unlike records, or prompts longer than the network's context."""
    from intarsia.interpretation.in_context.ablation import look

    return look(model, config, train, test, seed)


def _short(text: str, most: int = 40) -> str:
    text = one_line(text.strip())
    return text if len(text) <= most else text[: most - 1] + "…"
