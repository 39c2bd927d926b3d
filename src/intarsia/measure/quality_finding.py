"""`Quality`: what `measure.quality` found, and how it reads."""

from __future__ import annotations

from typing import Any

import pydantic

from intarsia.measure.quality_parts import GenerationQuality, LabelQuality, TextQuality
from intarsia.report import Cell, Column, Figure, Finding, Series, Table

PERCENT = ".1%"
ACCURACY = Column(name="accuracy", format=PERCENT, better="higher", help="share of right labels, 95 % interval")
WEIGHTED = Column(
    name="weighted F1", format=PERCENT, better="higher", help="F1 averaged by label frequency, 95 % interval"
)
MACRO = Column(name="macro F1", format=PERCENT, better="higher", help="F1 averaged over labels alike, 95 % interval")
ECE = Column(name="calibration error", format=PERCENT, better="lower", help="gap between confidence and accuracy")
PERPLEXITY = Column(name="perplexity", format=".2f", better="lower", help="exp of the mean loss, 95 % interval")
EXACT = Column(name="exact match", format=PERCENT, better="higher", help="answers equal to the target, 95 % interval")
ROUGE = Column(name="ROUGE-L", format=".3f", better="higher", help="longest common subsequence, 95 % interval")

Cells = dict[str, tuple[Cell | tuple[float, float, float], Column]]


class QualityRow(pydantic.BaseModel):
    """One engine's figures, those that were measured. `engine` is empty for the network itself."""

    engine: str = ""
    label: LabelQuality | None = None
    text: TextQuality | None = None
    generation: GenerationQuality | None = None

    def cells(self) -> Cells:
        """Column key -> (value, column), the main figure first."""
        out: Cells = {}
        if self.label:
            out["weighted_f1"] = self.label.weighted_f1, WEIGHTED
            out["accuracy"] = self.label.accuracy, ACCURACY
            out["macro_f1"] = self.label.macro_f1, MACRO
            out["ece"] = self.label.ece, ECE
        if self.generation:
            out["exact_match"] = self.generation.exact_match, EXACT
            out["rouge_l"] = self.generation.rouge_l, ROUGE
        if self.text:
            out["perplexity"] = self.text.perplexity, PERPLEXITY
        return out


class Quality(Finding):
    """How good a model is. `rows[0]` is the network itself, the others its exports for other engines."""

    rows: list[QualityRow]

    def headline(self) -> Cells:
        """Weighted F1, exact match and ROUGE-L, perplexity: those that were measured, for the network itself."""
        return self.headlines()[""]

    def headlines(self) -> dict[str, Cells]:
        """The same for each engine; the network itself has the empty name."""
        kept = ("weighted_f1", "exact_match", "rouge_l", "perplexity")
        return {row.engine: {k: v for k, v in row.cells().items() if k in kept} for row in self.rows}

    def gains(self, reference: Finding) -> dict[str, dict[str, tuple[float, float, float]]]:
        """How much better this model's label answers are than another's on the same texts, with a paired interval."""
        if not isinstance(reference, Quality) or not (before := reference.rows[0].label):
            return {}
        from intarsia.measure.classification import gains

        return {row.engine: gains(row.label, before) for row in self.rows if row.label}

    def tables(self) -> list[Table]:
        """All figures by engine; then per class; then samples of what was generated."""
        first = self.rows[0]
        columns = {key: column for row in self.rows for key, (_, column) in row.cells().items()}
        body: list[list[Any]] = []
        for row in self.rows:
            cells = row.cells()
            body.append([row.engine or "this model", *(cells[key][0] if key in cells else None for key in columns)])
        if first.label:
            floor = {"weighted_f1": first.label.floor_weighted_f1, "accuracy": first.label.floor_accuracy}
            body.append([f"always '{first.label.floor_label}'", *(floor.get(key) for key in columns)])
            raw = {"weighted_f1": first.label.raw_weighted_f1, "accuracy": first.label.raw_accuracy}
            body.append(["this model, raw likelihood", *(raw.get(key) for key in columns)])
        out = [Table(title="Quality", columns=[Column(name="model"), *columns.values()], rows=body, note=self._note())]
        if first.label:
            out.append(self._classes(first.label))
        if first.generation:
            out.append(_samples(first.generation))
        return out

    def figures(self) -> list[Figure]:
        """F1 by class with intervals, and the confusion matrix as shares of the true label."""
        label = self.rows[0].label
        if not label:
            return []
        names = [c.label for c in label.classes]
        f1 = [c.f1 for c in label.classes]
        shares = [[n / sum(row) if sum(row) else None for n in row] for row in label.confusion]
        return [
            Figure(
                title="F1 by class", kind="bar", x="class", y="F1", format=PERCENT,
                series=[Series(name="F1", x=names, y=[v[0] for v in f1], low=[v[1] for v in f1],
                               high=[v[2] for v in f1])],
            ),
            Figure(
                title="Confusion", kind="heatmap", x="predicted", y="true", matrix=shares, row_names=names,
                column_names=names, texts=[[str(n) if n else "" for n in row] for row in label.confusion],
                format=".0%", note="Share of each true class; the numbers are counts.",
            ),
        ]  # fmt: skip

    def _note(self) -> str:
        parts = []
        if label := self.rows[0].label:
            parts.append(f"{label.n} labelled texts in {label.groups} groups.")
            if label.mass is not None:
                parts.append(f"{label.mass:.1%} of the model's next-token probability is on the labels' words.")
            if label.cut:
                parts.append(f"{label.cut} texts were cut to fit.")
        if text := self.rows[0].text:
            parts.append(f"Perplexity over {text.tokens:,} tokens of {text.texts} texts.")
            if text.skipped:
                parts.append(f"{text.skipped} texts were left out (a single token, or beyond the token limit).")
        if (generation := self.rows[0].generation) and generation.cut:
            parts.append(f"{generation.cut} prompts lost their beginning to fit.")
        parts.append("In brackets: 95 % bootstrap intervals over groups.")
        return " ".join(parts)

    @staticmethod
    def _classes(label: LabelQuality) -> Table:
        columns = [
            Column(name="class"),
            Column(name="F1", format=PERCENT, better="higher"),
            Column(name="precision", format=PERCENT, better="higher"),
            Column(name="recall", format=PERCENT, better="higher"),
            Column(name="texts", format=",d"),
        ]
        body = [[c.label, c.f1, c.precision, c.recall, c.support] for c in label.classes]
        return Table(title="By class", columns=columns, rows=body)  # type: ignore[arg-type]


def _samples(generation: GenerationQuality) -> Table:
    columns = [Column(name="prompt"), Column(name="wanted"), Column(name="written")]
    return Table(title="What it wrote", columns=columns, rows=[list(s) for s in generation.samples])
