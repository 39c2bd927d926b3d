"""`interpretation.attributes`: which attributes of a subject can be read from its states, without training."""

from __future__ import annotations

from typing import Any, Literal

import pydantic
from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.data.records import LabelledText
from intarsia.models import Model
from intarsia.report import Block, Cell, Column, Figure, Finding, Mark, Series, Table

Contamination = Literal["keep", "drop", "trajectory"]
Interval = tuple[float, float, float]

EXAMPLE = [
    LabelledText("They flew to France in the spring", "Paris", "France"),
    LabelledText("The history of Italy is long", "Rome", "Italy"),
    LabelledText("He was born in Japan and lived there", "Tokyo", "Japan"),
    LabelledText("The king of Spain came to visit", "Madrid", "Spain"),
]


class AttributesConfig(Config):
    target_prompt: str = Field(
        "The capital city of x", description="for records: the question, ending with the placeholder x"
    )
    folder: str = Field("", description="folder with the published relations (tasks.tsv, attributes.tsv)")
    relations: list[str] = Field(
        default_factory=list, description="published relations; left out, the twelve of the paper's main table"
    )
    subjects: int = Field(20, ge=1, description="subjects of a relation, drawn from those the model knows")
    asked: int = Field(100, ge=1, description="subjects of a relation that the model is asked about at most")
    known_by: Literal["any", "target"] = Field(
        "any",
        description="a subject is known when the model names the attribute after any of the relation's wordings, or "
        "after the target prompt alone (the paper)",
    )
    ask_tokens: int = Field(20, ge=1, description="tokens generated to find what is known")
    only_known: bool = Field(True, description="leave out subjects whose attribute the model does not name when asked")
    mentions: int = Field(1, ge=1, description="sentences of a subject that are patched")
    probe_mentions: int = Field(5, ge=1, description="sentences of a subject that the probe is trained on")
    grid: int = Field(5, ge=0, description="source layers and target layers; 0 is all of them")
    max_new_tokens: int = Field(10, ge=1, description="tokens generated after a patch; the paper takes 20")
    random_vectors: int = Field(8, ge=1, description="random vectors of the control, a relation")
    contamination: Contamination = Field(
        "keep", description="what generated tokens see of the placeholder in the layers up to the patched one"
    )


class RelationResult(pydantic.BaseModel):
    """One relation. Shares of rows (sentences), with 95 % intervals over subjects.

    - known: subjects whose attribute the model names when asked; asked: how many were asked; used: how many patched.
    - mean_cell: hits over all cells. chosen: in the one cell that is best on the other half of the subjects.
    - any_target: the paper's score: for a source layer, a hit in at least one target layer; mean over source layers.
      any_cell: a hit in at least one cell. Both with the same score of random vectors and of other subjects' states.
    - probe: mean over source layers; probe_chosen: in the layer that is best on the other half; chance: naming the most
      common attribute. None where subjects are too few to hold some out.
    - cells: share of hits [source layer][target layer]; probe_layers: by source layer.
    - classes: how many different attributes the rows have."""

    name: str
    target_prompt: str
    known: int
    asked: int
    used: int
    rows: int = 0
    classes: int = 0
    mean_cell: Interval | None = None
    chosen: Interval | None = None
    random_chosen: Interval | None = None
    any_target: Interval | None = None
    random_any_target: Interval | None = None
    other_any_target: Interval | None = None
    any_cell: Interval | None = None
    random_any_cell: Interval | None = None
    other_any_cell: Interval | None = None
    probe: Interval | None = None
    probe_chosen: Interval | None = None
    chance: Interval | None = None
    by_layer: list[float] = Field(default_factory=list)
    random_by_layer: list[float] = Field(default_factory=list)
    probe_by_layer: list[float] = Field(default_factory=list)
    cells: list[list[float]] = Field(default_factory=list)


class Attributes(Finding):
    """What can be read of the subjects' attributes, relation by relation."""

    relations: list[RelationResult] = Field(default_factory=list)
    source_layers: list[int] = Field(default_factory=list)
    target_layers: list[int] = Field(default_factory=list)
    contamination: str = "keep"

    @property
    def scored(self) -> list[RelationResult]:
        """The relations of which at least one subject is known."""
        return [r for r in self.relations if r.chosen is not None]

    def headline(self) -> dict[str, tuple[Cell | Interval, Column]]:
        if not self.scored:
            return {}
        value = sum(r.chosen[0] for r in self.scored if r.chosen) / len(self.scored)
        return {"attributes_chosen_cell": (value, Column(name="attributes read", format=".1%", better="higher"))}

    def tables(self) -> list[Table]:
        share = ".0%"
        columns = [
            Column(name="relation"),
            Column(name="known", format="d", help="subjects whose attribute the model names when asked"),
            Column(name="asked", format="d"),
            Column(name="one cell", format=share, help="the cell that is best on the other half of the subjects"),
            Column(name="random there", format=share, help="random vectors in the same cell"),
            Column(name="probe", format=share, help="logistic regression, best layer of the other half"),
            Column(name="chance", format=share, help="the most common attribute"),
            Column(name="any target", format=share, help="a hit in some target layer; mean over source layers"),
            Column(name="random", format=share, help="the same for random vectors of the same norm"),
            Column(name="other subject", format=share, help="the same for states of other subjects"),
        ]
        rows = [
            [r.name, r.known, r.asked, r.chosen, r.random_chosen, r.probe_chosen, r.chance, r.any_target,
             r.random_any_target, r.other_any_target]
            for r in self.relations
        ]  # fmt: skip
        note = (
            f"Any target: {len(self.target_layers)} tries for each source layer, for the controls as well. "
            "'One cell' is the score to believe; a probe needs other subjects with the same attribute to learn from."
        )
        return [Table(title="Attributes that can be read", columns=columns, rows=rows, note=note)]

    def figures(self) -> list[Figure]:
        figures = []
        for r in self.scored:
            x = [float(layer) for layer in self.source_layers]
            series = [
                Series(name="patchscope, any target", x=x, y=list(r.by_layer)),
                Series(name="random vector, any target", x=x, y=list(r.random_by_layer)),
            ]
            if r.probe_by_layer:
                series.append(Series(name="probe", x=x, y=list(r.probe_by_layer)))
            marks = [Mark(value=r.chance[0], text="most common attribute")] if r.chance else []
            figures.append(
                Figure(title=f"{r.name}: by the layer read", kind="line", x="source layer", y="share of rows",
                       series=series, format=".0%", marks=marks)
            )  # fmt: skip
            figures.append(
                Figure(
                    title=f"{r.name}: every cell", kind="heatmap", x="patched after layer", y="share of hits",
                    format=".0%", matrix=[list(row) for row in reversed(r.cells)],
                    row_names=[f"layer {layer}" for layer in reversed(self.source_layers)],
                    column_names=[str(layer) for layer in self.target_layers],
                )
            )  # fmt: skip
        return figures

    def blocks(self) -> list[Block]:
        return [*self.tables(), *self.figures()]


@technique(
    "interpretation.attributes",
    kind="look",
    family="patchscopes",
    source="Ghandeharioun et al. 2024 (Patchscopes), section 4.2; controls: random vectors, dev cell (ours)",
    extra="quality",
    place="fine-tuning · global · probing",
    example={"texts": EXAMPLE, "target_prompt": "The capital city of x", "grid": 2, "max_new_tokens": 4},
)
def attributes(model: Model, config: AttributesConfig, *, texts: list[Any] | None = None, seed: int = 0) -> Attributes:
    """Attribute extraction: is a subject's attribute (a country's capital) in its state, and who can read it out?

    The state of a subject's last token in some sentence replaces the placeholder of a question ("The capital city of
    x"); the model goes on, and a hit is a continuation that holds the attribute. No training: it is compared with a
    logistic regression per layer whose test subjects are held out, with the most common attribute, and with random
    vectors and other subjects' states under the same number of tries. The one cell is chosen on the other half of the
    subjects.

    `texts`: records with `text` (a sentence), `label` (the attribute) and `group` (the subject), for one relation; left
    out, the published relations of `folder`. Subjects the model does not know are left out, and counted."""
    from intarsia.interpretation.patchscopes.attribute_run import look

    return look(model, config, texts, seed)
