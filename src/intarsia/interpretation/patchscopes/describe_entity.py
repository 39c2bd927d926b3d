"""`interpretation.describe_entity`: who or what each layer takes a name for, in the model's own words."""

from __future__ import annotations

from typing import Any, Literal

import pydantic
from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.data.records import TextPair
from intarsia.models import Model
from intarsia.report import Cell, Column, Figure, Finding, Series, Table

DESCRIBE = (
    "Syria: Country in the Middle East, Leonardo DiCaprio: American actor, Samsung: South Korean multinational major "
    "appliance and consumer electronics corporation, x"
)
"""The target prompt of the paper: three described entities, then the placeholder x, which is i*; l* = l."""

Interval = tuple[float, float, float]


class DescribeEntityConfig(Config):
    max_entities: int = Field(20, ge=1, description="names read; more are drawn down to this many by the seed")
    target_prompt: str = Field("", description="a target prompt of your own, patched at its last token")
    depth: float = Field(0.4, gt=0, le=1, description="share of the layers read, counted from the first")
    stride: int = Field(1, ge=1, description="read every n-th of these layers")
    max_new_tokens: int = Field(20, ge=1, description="tokens of a description; the paper takes 50")
    contamination: Literal["keep", "drop", "trajectory"] = Field(
        "keep", description="what generated tokens see of the placeholder in the layers up to the patched one"
    )
    shown: int = Field(5, ge=0, description="names whose descriptions are printed layer by layer")


class EntityLayer(pydantic.BaseModel):
    """One layer: the mean ROUGE-L (F1) of its descriptions against the given ones, with its interval over names, and of
    the control: the same descriptions against those of other names."""

    layer: int
    rouge: Interval
    control: float


class DescribeEntity(Finding):
    """What the layers say the names are. `texts`: [name][layer]; `scores`: ROUGE-L of the same shape, where given."""

    target_prompt: str = ""
    names: list[str] = Field(default_factory=list)
    descriptions: list[str] = Field(default_factory=list)
    read_layers: list[int] = Field(default_factory=list)
    texts: list[list[str]] = Field(default_factory=list)
    scores: list[list[float]] = Field(default_factory=list)
    layers: list[EntityLayer] = Field(default_factory=list)
    contamination: str = "keep"
    shown: int = 5

    @property
    def best(self) -> EntityLayer | None:
        """The layer whose descriptions are nearest to the given ones."""
        return max(self.layers, key=lambda row: row.rouge[0], default=None)

    def headline(self) -> dict[str, tuple[Cell | Interval, Column]]:
        best = self.best
        return {"entity_rouge": (best.rouge, Column(name="entity ROUGE-L", format=".2f"))} if best else {}

    def tables(self) -> list[Table]:
        tables = []
        if self.layers:
            columns = [
                Column(name="layer", format="d"),
                Column(name="ROUGE-L", format=".3f", help="F1 of the description against the given one"),
                Column(name="of other names", format=".3f", help="the same text against the descriptions of others"),
            ]
            rows: list[list[Any]] = [[r.layer, r.rouge, r.control] for r in self.layers]
            tables.append(Table(title="How near the descriptions are", columns=columns, rows=rows))
        for i, name in enumerate(self.names[: self.shown]):
            columns = [Column(name="layer", format="d"), Column(name="what it is taken for")]
            rows = [[layer, " ".join(t.split())] for layer, t in zip(self.read_layers, self.texts[i], strict=True)]
            given = self.descriptions[i] if self.descriptions else ""
            tables.append(Table(title=name, columns=columns, rows=rows, note=f"Given: {given}" if given else ""))
        return tables

    def figures(self) -> list[Figure]:
        if not self.layers:
            return []
        x = [float(r.layer) for r in self.layers]
        series = [
            Series(
                name="against its own description", x=x, y=[r.rouge[0] for r in self.layers],
                low=[r.rouge[1] for r in self.layers], high=[r.rouge[2] for r in self.layers],
            ),
            Series(name="against those of other names", x=x, y=[r.control for r in self.layers]),
        ]  # fmt: skip
        title = "From which layer on a name is resolved"
        return [Figure(title=title, kind="line", x="layer", y="ROUGE-L", series=series, format=".2f")]


@technique(
    "interpretation.describe_entity",
    kind="look",
    family="patchscopes",
    source="Ghandeharioun et al. 2024 (Patchscopes), section 4.3",
    place="fine-tuning · local · natural language",
    extra="quality",
    example={
        "texts": [
            TextPair("Alexander the Great", "King of Macedon"),
            TextPair("Diana, Princess of Wales", "Member of the British royal family"),
        ],
        "target_prompt": "Syria: Country in the Middle East, Rome: Capital of Italy, x",
        "max_new_tokens": 8,
        "stride": 2,
    },
)
def describe_entity(model: Model, config: DescribeEntityConfig, *, texts: list[Any], seed: int = 0) -> DescribeEntity:
    """Entity resolution: let each early layer's state of a name describe itself behind three described entities.

    Early states stand for the last word alone ("Wales"), later ones for the whole name; late ones turn to what comes
    next, and to the placeholder. Where descriptions are given, ROUGE-L says how near a layer comes, beside the same
    texts scored against the descriptions of other names: both share the wording of descriptions.

    `texts`: records with `prompt` (the name) and `target` (its description), or plain names. Raises `BadInput` for a
    network that is no causal language model."""
    from intarsia.interpretation.patchscopes.describing import look

    return look(model, config, texts, seed)
