"""`Finding`: what every technique that looks at something returns, and the few things a report can draw.

A technique builds a typed Finding and says how it reads as tables and figures; nobody formats by hand. Everything here
is plain data, so that a saved Finding draws the same page later without the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, Literal

import pydantic

from intarsia.errors import BadInput

Cell = str | int | float | bool | None


class Column(pydantic.BaseModel):
    """A table's column. `unit` stands in the header; `format` is a Python format spec for numbers (`.3f`, `,d`, `.1%`,
    or `bytes` for a size in bytes); `better` says which direction is good and lets reports mark changes."""

    name: str
    unit: str = ""
    format: str = ""
    better: Literal["higher", "lower", ""] = ""
    help: str = ""


class Table(pydantic.BaseModel):
    """Rows under columns. A numeric cell may be a `(value, low, high)` triple: a value with its interval.

    - changes: for each row, column number -> a measured change against the first row, with its interval, where one is
      known better than from the two values (a paired comparison)."""

    title: str = ""
    columns: list[Column]
    rows: list[list[Cell | tuple[float, float, float]]]
    note: str = ""
    changes: list[dict[int, tuple[float, float, float]]] = []


class Series(pydantic.BaseModel):
    """One line, bar group or scatter of a figure. `low`/`high` are intervals; x may be numbers or category names."""

    name: str
    x: list[float] | list[str]
    y: list[float | None]
    low: list[float | None] | None = None
    high: list[float | None] | None = None
    labels: list[str] | None = None  # a name for each point, shown beside it (scatter) and in its tip


class Mark(pydantic.BaseModel):
    """A reference line across a figure at `value` on one axis, with a word on what it is ("chance", "as trained")."""

    axis: Literal["x", "y"] = "y"
    value: float | str
    text: str = ""


class Figure(pydantic.BaseModel):
    """A chart as data: lines, bars or scatter over `series`, or a `heatmap` over `matrix` (rows x columns).

    `format` is a Python format spec for the values (as in `Column`). A heatmap may carry `texts`, a short word for each
    cell (a lens's top token), and may say by `scale` that its values diverge from zero."""

    title: str
    kind: Literal["line", "bar", "scatter", "heatmap"]
    x: str = ""
    y: str = ""
    series: list[Series] = []
    matrix: list[list[float | None]] | None = None
    row_names: list[str] = []
    column_names: list[str] = []
    texts: list[list[str]] | None = None
    scale: Literal["sequential", "diverging"] = "sequential"
    format: str = ""
    log_x: bool = False
    log_y: bool = False
    marks: list[Mark] = []
    note: str = ""


class TokenMap(pydantic.BaseModel):
    """A text as tokens, each with a value that colours it and a tip that explains it. `meaning` says what the value is
    ("KL in nats") and `format` how it is written; `maximum` is the value of the full colour (default: the largest)."""

    title: str = ""
    tokens: list[str]
    values: list[float | None]
    tips: list[str] = []
    scale: Literal["sequential", "diverging"] = "sequential"
    maximum: float | None = None
    meaning: str = ""
    format: str = ""
    note: str = ""


class PatchPanel(pydantic.BaseModel):
    """One drawing of a `PatchMap`: `groups` names, patch by patch in reading order, the group each one is part of (any
    number; -1: left out), and `name` says when ("after layer 4: 30 of 64 rows")."""

    name: str = ""
    groups: list[int]


class PatchMap(pydantic.BaseModel):
    """A picture cut into `rows` x `columns` patches, drawn once a panel with the patches that are one group in one
    tint and outline. A group of one patch shows the picture as it is; a patch that was left out is struck through.

    - picture: a data URI (`intarsia.report.data_uri`), so that the page needs no other file; empty: patches only."""

    title: str = ""
    picture: str = ""
    rows: int
    columns: int
    panels: list[PatchPanel]
    note: str = ""


class Bar(pydantic.BaseModel):
    """One step of a timeline, `depth` steps deep inside others.

    - start: seconds from any common moment; seconds: how long it took, None: it did not end.
    - note: a few words that stand beside it (how it failed); details: (title, text) pairs the page opens to."""

    name: str
    kind: str = ""
    depth: int = 0
    start: float
    seconds: float | None = None
    failed: bool = False
    note: str = ""
    details: list[tuple[str, str]] = []


class Timeline(pydantic.BaseModel):
    """What was done when, one line a step, in the order given."""

    title: str = ""
    bars: list[Bar]
    note: str = ""


Block = Table | Figure | TokenMap | PatchMap | Timeline


class Finding(pydantic.BaseModel):
    """A typed result. Subclasses add fields and say how they read.

    - title, summary: a headline, and one or two sentences a person understands at a glance.
    - provenance: versions, seed, data hash, settings: what is needed to get it again.
    - volatile: names of the fields that depend on the clock or the machine (seconds, tokens/s, memory, energy): two
      runs of the same recipe agree on all others."""

    model_config = pydantic.ConfigDict(arbitrary_types_allowed=False)
    volatile: ClassVar[frozenset[str]] = frozenset()
    registry: ClassVar[dict[str, type[Finding]]] = {}

    title: str = ""
    summary: str = ""
    technique: str = ""
    provenance: dict[str, Any] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        Finding.registry[cls.__name__] = cls

    def headline(self) -> dict[str, tuple[Cell | tuple[float, float, float], Column]]:
        """The few figures that stand in a run's headline table, one row a model: column key -> (value, column)."""
        return {}

    def headlines(self) -> dict[str, dict[str, tuple[Cell | tuple[float, float, float], Column]]]:
        """Headline rows, for a finding that measures more than the network: suffix of the row's name -> figures.

        The network itself has the empty suffix; an export for another engine has the engine's name."""
        return {"": self.headline()}

    def gains(self, reference: Finding) -> dict[str, dict[str, tuple[float, float, float]]]:
        """Paired changes against the same finding about another model: row suffix -> column key -> (change, low, high).

        For figures whose own intervals are much wider than that of their difference. Empty when not comparable."""
        return {}

    def tables(self) -> list[Table]:
        """Its tables, the most important first."""
        return []

    def figures(self) -> list[Figure]:
        """Its charts, the most important first."""
        return []

    def blocks(self) -> list[Block]:
        """Everything a page shows, in reading order. Override to interleave tables, figures and token maps."""
        return [*self.figures(), *self.tables()]

    def table(self) -> Table:
        """The main table."""
        return self.tables()[0]

    def figure(self) -> Figure:
        """The main figure."""
        return self.figures()[0]

    def to_json(self) -> str:
        """All of it as one JSON object, with the type's name under `type`."""
        return json.dumps({"type": type(self).__name__, **self.model_dump(mode="json")}, ensure_ascii=False, indent=1)

    @staticmethod
    def from_json(text: str) -> Finding:
        """The inverse of `to_json`. The subclass must have been imported (the catalog's `load()` imports all)."""
        data = json.loads(text)
        name = data.pop("type", "")
        if name not in Finding.registry:
            raise BadInput(f"unknown kind of finding '{name}': is the technique '{data.get('technique')}' installed?")
        return Finding.registry[name].model_validate(data)

    def write(self, path: Path) -> None:
        """Write `to_json` to a file."""
        path.write_text(self.to_json(), encoding="utf-8")

    def __str__(self) -> str:
        from intarsia.report import to_text

        return to_text(self)
