"""What tuning on dialogues found on dev, by labeller."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from intarsia.report import Cell, Column, Figure, Finding, Series, Table


class DialogueFinding(Finding):
    """- dev: figures by labeller (`mix` is all of them together). weights: what each counts for.
    - counts: of training turns by label. losses: of every step of the network."""

    dev: dict[str, dict[str, float]] = Field(default_factory=dict)
    weights: dict[str, float] = Field(default_factory=dict)
    counts: dict[str, int] = Field(default_factory=dict)
    losses: list[float] = Field(default_factory=list)
    dev_turns: int = 0

    def headline(self) -> dict[str, tuple[Cell | tuple[float, float, float], Column]]:
        if not self.dev:
            return {}
        last = self.dev[next(reversed(self.dev))]
        return {
            "dev_weighted_f1": (last["weighted_f1"], Column(name="weighted F1 on dev", format=".1%", better="higher"))
        }

    def tables(self) -> list[Table]:
        columns = [
            Column(name="labeller"), Column(name="weight", format=".2f"),
            Column(name="weighted F1", format=".1%", better="higher"),
            Column(name="accuracy", format=".1%", better="higher"),
            Column(name="macro F1", format=".1%", better="higher"),
        ]  # fmt: skip
        rows: list[list[Any]] = [
            [name, self.weights.get(name), d["weighted_f1"], d["accuracy"], d["macro_f1"]]
            for name, d in self.dev.items()
        ]
        note = f"{self.dev_turns:,} turns. Weights were chosen on them: measure.quality on a test split is the judge."
        tables = [Table(title="On dev", columns=columns, rows=rows, note=note)]
        named = [Column(name="label"), Column(name="training turns", format=",d")]
        return [*tables, Table(title="Labels", columns=named, rows=[[k, v] for k, v in self.counts.items()])]

    def figures(self) -> list[Figure]:
        if not self.losses:
            return []
        size = max(1, len(self.losses) // 100)
        means = [
            sum(self.losses[i : i + size]) / len(self.losses[i : i + size]) for i in range(0, len(self.losses), size)
        ]
        steps = [float(i * size + 1) for i in range(len(means))]
        series = [Series(name="loss", x=steps, y=means)]
        return [Figure(title="Loss while tuning", kind="line", x="step", y="loss", series=series)]


def found(note: dict[str, Any]) -> DialogueFinding:
    """From what travels with the model."""
    facts = note["facts"]
    weights = note.get("mix", {}).get("weights", {})
    best = facts["dev"][next(reversed(facts["dev"]))]
    return DialogueFinding(
        title=f"{len(note['labels'])} labels of {facts['labelled']:,} turns in {facts['dialogues']:,} dialogues",
        technique="adaptation.dialogue",
        summary=f"Weighted F1 on dev is {best['weighted_f1']:.1%}, accuracy {best['accuracy']:.1%}.",
        dev=facts["dev"], weights=weights, counts=facts["labels"], dev_turns=facts["dev_turns"],
        losses=facts.get("network", {}).get("losses", []),
    )  # fmt: skip
