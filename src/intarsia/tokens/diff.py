"""`tokens.diff`: what working on fewer tokens changed, picture by picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pydantic
from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.report import Block, Cell, Column, Figure, Finding, PatchMap, Series, Table

if TYPE_CHECKING:
    from intarsia.models import Model


class DiffConfig(Config):
    """What is compared, and how much of it is shown."""

    worst: int = Field(4, ge=0, description="Pictures drawn: those that suffered most")
    listed: int = Field(20, ge=1, description="Pictures or questions in the table, those that moved most first")
    panels: int = Field(3, ge=1, description="Drawings of each picture: this many of the blocks that lost rows")
    max_pictures: int = Field(256, ge=1, description="Pictures used; of more, so many are drawn by the seed")
    batch_size: int = Field(16, ge=1, description="Pictures in one forward pass")
    new_tokens: int = Field(8, ge=1, description="Tokens of an answer, in models that write")
    template: str = Field("", description="Prompt with {question} and <image>; none: the model's chat template")


class Moved(pydantic.BaseModel):
    """One picture (one question): before is `against`, after is the model looked at.

    - fidelity: cosine of its embeddings; kl: nats from the distribution before to that after.
    - before, after: the first choice in words; changed: whether they differ in more than
      spelling; wanted: what is right, where that is known.
    - rank_before, rank_after: of the right text."""

    name: str
    question: str = ""
    fidelity: float | None = None
    kl: float | None = None
    before: str = ""
    after: str = ""
    changed: bool = False
    wanted: str = ""
    rank_before: int | None = None
    rank_after: int | None = None


class TokenDiff(Finding):
    """What changed between two states of one model; `moved` holds every row, the most moved first."""

    moved: list[Moved] = Field(default_factory=list)
    maps: list[PatchMap] = Field(default_factory=list)
    kind: str = "dual"
    pictures: int = 0
    fidelity: tuple[float, float, float] | None = None
    agreement: tuple[float, float, float] | None = None
    kl: float | None = None
    gained: int | None = None
    lost: int | None = None
    right_before: float | None = None
    right_after: float | None = None
    unread: int = 0
    listed: int = 20

    def headline(self) -> dict[str, tuple[Cell | tuple[float, float, float], Column]]:
        out: dict[str, Any] = {}
        if self.fidelity is not None:
            out["fidelity"] = (self.fidelity, Column(name="fidelity", format=".4f", better="higher"))
        if self.agreement is not None:
            out["agreement"] = (self.agreement, Column(name="agrees", format=".1%", better="higher"))
        return out

    def tables(self) -> list[Table]:
        asks = self.kind == "answer"
        columns = [
            ("picture", Column(name="picture"), [m.name for m in self.moved]),
            ("question", Column(name="question"), [m.question or None for m in self.moved]),
            ("cosine", Column(name="cosine", format=".4f", better="higher"), [m.fidelity for m in self.moved]),
            ("KL", Column(name="KL", unit="nats", format=".2g", better="lower"), [m.kl for m in self.moved]),
            ("before", Column(name="before"), [m.before or None for m in self.moved]),
            ("after", Column(name="after"), [m.after or None for m in self.moved]),
            ("wanted", Column(name="right"), [m.wanted or None for m in self.moved]),
            ("rank", Column(name="rank before", format="d"), [m.rank_before for m in self.moved]),
            ("rank", Column(name="rank after", format="d"), [m.rank_after for m in self.moved]),
        ]
        kept = [(column, cells[: self.listed]) for _, column, cells in columns if any(c is not None for c in cells)]
        rows: list[list[Any]] = [list(row) for row in zip(*(cells for _, cells in kept), strict=True)]
        note = f"The {min(self.listed, len(self.moved))} of {len(self.moved)} that moved most."
        every = [
            ["mean cosine of the embeddings", self.fidelity],
            ["mean KL, nats", self.kl],
            ["same first choice", self.agreement],
            ["right before", self.right_before],
            ["right after", self.right_after],
            ["right only before", self.lost],
            ["right only after", self.gained],
        ]
        totals = Table(
            title="In all",
            columns=[Column(name="what"), Column(name="value", format=".4g")],
            rows=[row for row in every if row[1] is not None],
            note=f"{self.pictures} pictures; intervals are 95 %."
            + (f" Pictures that could not be read: {self.unread}." if self.unread else ""),
        )
        title = "Questions that moved most" if asks else "Pictures that moved most"
        return [totals, Table(title=title, columns=[column for column, _ in kept], rows=rows, note=note)]

    def figures(self) -> list[Figure]:
        values = sorted((m.fidelity for m in self.moved if m.fidelity is not None), reverse=True)
        name, y, format_ = "cosine", "cosine to before", ".3f"
        if not values:
            values = sorted(m.kl for m in self.moved if m.kl is not None)
            name, y, format_ = "KL", "nats", ".2g"
        if len(values) < 3:
            return []
        series = Series(name=name, x=[100 * (i + 1) / len(values) for i in range(len(values))], y=list(values))
        title = "From the least moved to the most"
        return [Figure(title=title, kind="line", x="% of all", y=y, series=[series], format=format_)]

    def blocks(self) -> list[Block]:
        first, *rest = self.tables()
        return [first, *self.maps, *rest, *self.figures()]


@technique(
    "tokens.diff",
    kind="look",
    family="token merging",
    source="Shi et al. 2024 (CrossGET), §4: what merging costs, here picture by picture",
    needs="vision",
    extra="vision",
    example={"images": "pictures"},
)
def diff(
    model: Model,
    config: DiffConfig,
    *,
    against: Model,
    images: list[Any],
    texts: list[Any] | None = None,
    seed: int = 0,
) -> TokenDiff:
    """What merging changed for each picture: which embeddings moved, which answers and ranks changed, and where.

    `model` is the one on fewer tokens (merged, or merged and trained), `against` the dense one; any two states of a
    model can be compared. The pictures that suffered most are drawn with their merged patches.

    - images, texts: as in `tokens.compare`.

    Raises `BadInput` for models that do different things, and pictures of which none can be read."""
    from intarsia.tokens.differing import look

    return look(model, config, against, images, texts, seed)
