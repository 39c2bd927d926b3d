"""`interpretation.compare_lenses`: which lens reads this model best, layer by layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pydantic
from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.models import Model
from intarsia.report import Block, Cell, Column, Figure, Finding, Series, Table

Compared = Literal["logit", "affine", "tuned", "identity", "sink", "ensemble"]


class CompareLensesConfig(Config):
    methods: tuple[Compared, ...] = Field(
        ("logit", "affine", "identity", "sink", "ensemble"),
        description="lenses to compare; affine maps are fitted on train unless given, tuned ones must be given",
    )
    maps: tuple[Path, ...] = Field((), description="folders of fitted maps (interpretation.fit_lens) to use")
    max_train: int = Field(150, ge=2, description="texts of train read; more are drawn down to this many by the seed")
    max_texts: int = Field(50, ge=1, description="texts of test read; more are drawn down to this many by the seed")
    max_tokens: int = Field(64, ge=2, description="tokens of a text that are read; the rest is cut off")
    positions: int = Field(500, ge=1, description="positions compared, drawn from all but the first of each text")
    batch_size: int = Field(8, ge=1, description="texts in one forward pass")
    penalty: float = Field(0.01, ge=0, description="ridge penalty of the affine lens, a share of the mean variance")


class MethodCurve(pydantic.BaseModel):
    """One lens over all layers. Shares and nats are means over positions; `(mean, low, high)` are means over layers
    with 95 % intervals from a bootstrap over texts. `gain` is the paired difference of mean precision@1 to the first
    method compared."""

    method: str
    agreement: list[float]
    agreement_low: list[float]
    agreement_high: list[float]
    surprisal: list[float]
    kl: list[float]
    rank: list[float]
    mean_agreement: tuple[float, float, float]
    mean_surprisal: tuple[float, float, float]
    mean_kl: tuple[float, float, float]
    mean_rank: float
    gain: tuple[float, float, float] | None = None

    def mid(self) -> float:
        """Precision@1 averaged over the middle third of the layers."""
        count = len(self.agreement)
        middle = self.agreement[count // 3 : count - count // 3]
        return sum(middle) / len(middle)


class LensComparison(Finding):
    """Several lenses on the same positions of the same texts."""

    layers: list[int] = Field(default_factory=list)
    methods: list[MethodCurve] = Field(default_factory=list)
    texts: int = 0
    positions: int = 0
    train_texts: int = 0

    def __getitem__(self, method: str) -> MethodCurve:
        return next(m for m in self.methods if m.method == method)

    def headline(self) -> dict[str, tuple[Cell | tuple[float, float, float], Column]]:
        best = max(self.methods, key=lambda m: m.mean_agreement[0])
        return {"best_lens_mean_agreement": (best.mean_agreement, Column(name="best lens agreement", format=".1%"))}

    def tables(self) -> list[Table]:
        columns = [
            Column(name="lens"),
            Column(name="precision@1", format=".3f", better="higher", help="top token is the network's own"),
            Column(name="middle third", format=".3f", better="higher", help="precision@1 over the middle third"),
            Column(name="surprisal", unit="nats", format=".2f", better="lower", help="of its top token"),
            Column(name="KL", unit="nats", format=".2f", better="lower"),
            Column(name="rank", format=",.1f", better="lower", help="of the network's own prediction; 1 is best"),
            Column(name="gain", format=".3f", help=f"precision@1 against {self.methods[0].method}, paired"),
        ]
        rows: list[list[Any]] = [
            [m.method, m.mean_agreement, m.mid(), m.mean_surprisal, m.mean_kl, m.mean_rank, m.gain]
            for m in sorted(self.methods, key=lambda m: -m.mean_agreement[0])
        ]
        note = "Means over layers and positions, with 95 % intervals from a bootstrap over texts."
        deep = [Column(name="layer", format="d")] + [Column(name=m.method, format=".2f") for m in self.methods]
        lines: list[list[Any]] = [
            [layer, *(m.agreement[i] for m in self.methods)] for i, layer in enumerate(self.layers)
        ]
        return [
            Table(title="The lenses, averaged over layers", columns=columns, rows=rows, note=note),
            Table(title="Precision@1, layer by layer", columns=deep, rows=lines),
        ]

    def figures(self) -> list[Figure]:
        x = [float(layer) for layer in self.layers]
        right = [
            Series(name=m.method, x=x, y=list(m.agreement), low=m.agreement_low, high=m.agreement_high)
            if len(self.methods) <= 3  # more bands hide each other
            else Series(name=m.method, x=x, y=list(m.agreement))
            for m in self.methods
        ]
        surprise = [Series(name=m.method, x=x, y=list(m.surprisal)) for m in self.methods]
        far = [Series(name=m.method, x=x, y=list(m.kl)) for m in self.methods]
        title = "How early each lens finds the final prediction"
        return [
            Figure(title=title, kind="line", x="layer", y="precision@1", series=right, format=".0%"),
            Figure(
                title="How surprising the lens's top token is to the network",
                kind="line", x="layer", y="surprisal in nats", series=surprise, format=".2f",
            ),
            Figure(
                title="How far each lens is from the final prediction",
                kind="line", x="layer", y="KL in nats", series=far, format=".2f",
            ),
        ]  # fmt: skip

    def blocks(self) -> list[Block]:
        figures, (means, layers) = self.figures(), self.tables()
        return [figures[0], means, *figures[1:], layers]


@technique(
    "interpretation.compare_lenses",
    kind="look",
    family="lenses",
    source="Ghandeharioun et al. 2024 (Patchscopes), section 4.1",
    place="prompting · base model · representation engineering",
    example={
        "train": [
            "The Eiffel Tower is in the city of Paris.",
            "Water boils at one hundred degrees.",
            "She opened the window and looked out.",
            "A good dictionary has many words in it.",
        ],
        "test": ["The river runs through the old town.", "He put the letter back on the table."],
        "positions": 20,
    },
)
def compare_lenses(
    model: Model, config: CompareLensesConfig, *, test: list[Any], train: list[Any] | None = None, seed: int = 0
) -> LensComparison:
    """Which lens reads this model best: precision@1, surprisal, KL and rank of each, layer by layer.

    Every lens reads the same states, at positions drawn by the seed, and is compared with the network's own
    distribution there. Precision@1: share of positions where the lens's top token is the network's own. Surprisal: of
    the lens's top token under the network's own distribution. The intervals and the paired gains come from a bootstrap
    over texts (records of one group are drawn together).

    `test`: the texts compared on; `train`: the texts that affine maps are fitted on, where `methods` names affine or
    ensemble and `maps` holds none. A text that is in both, or whose group is, is left out of train, with a note. Raises
    `BadInput` where the model is no causal language model and a prompt lens is asked for."""
    from intarsia.interpretation.lenses.comparing import compare

    return compare(model, config, test, train, seed)
