"""`tokens.show`: which patches of a picture became one row, block by block, drawn over the picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pydantic
from pydantic import Field

from intarsia.catalog import technique
from intarsia.report import Block, Cell, Column, Figure, Finding, PatchMap, Series, Table
from intarsia.tokens.merge import MergeConfig

if TYPE_CHECKING:
    from intarsia.models import Model


class ShowConfig(MergeConfig):
    """How a dense model is merged before the look (a merged one keeps its own rules), and what is drawn."""

    pictures: int = Field(4, ge=0, description="Pictures that are drawn, the first ones")
    panels: int = Field(4, ge=1, description="Drawings of each picture: this many of the blocks that lost rows")
    max_pictures: int = Field(32, ge=1, description="Pictures looked at; of more, so many are drawn by the seed")
    batch_size: int = Field(16, ge=1, description="Pictures in one forward pass")
    question: str = Field("Describe the picture.", description="What a model that answers is asked meanwhile")


class MergedBlock(pydantic.BaseModel):
    """One block that lost rows, in means over the pictures.

    `before`, `after`: rows of a picture. `similarity`: mean cosine of the rows that were merged here (what the matcher
    compared: keys), `lowest`: of the least alike pair; None where rows were dropped or nothing was compared."""

    tower: str
    block: int
    before: float
    after: float
    similarity: float | None = None
    lowest: float | None = None


class MergedPicture(pydantic.BaseModel):
    """What became of one picture: patches, rows that are left of them at the end, patches in the largest group, and the
    share of patches in groups whose members do not touch (far apart: merged by what they say, not where they lie)."""

    name: str
    patches: int
    left: int
    largest: int
    apart: float


class TokenMaps(Finding):
    """Where the patches went."""

    blocks_: list[MergedBlock] = Field(default_factory=list)
    pictures: list[MergedPicture] = Field(default_factory=list)
    maps: list[PatchMap] = Field(default_factory=list)
    unread: int = 0

    def headline(self) -> dict[str, tuple[Cell | tuple[float, float, float], Column]]:
        return {"patches_left": (self.left, Column(name="patches left", format=".0%"))}

    @property
    def left(self) -> float:
        """Rows that are left of all patches, as a share."""
        return sum(p.left for p in self.pictures) / max(1, sum(p.patches for p in self.pictures))

    def tables(self) -> list[Table]:
        columns = [
            Column(name="block"),
            Column(name="rows before", format=".0f"),
            Column(name="rows after", format=".0f"),
            Column(name="similarity", format=".3f", help="mean cosine of the rows merged here"),
            Column(name="least alike", format=".3f", help="the lowest cosine of a pair merged here"),
        ]
        rows: list[list[Any]] = [
            [f"{b.tower} {b.block}".strip(), b.before, b.after, b.similarity, b.lowest] for b in self.blocks_
        ]
        seen = [
            Column(name="picture"),
            Column(name="patches", format="d"),
            Column(name="left", format="d", help="rows they are at the end"),
            Column(name="largest group", unit="patches", format="d"),
            Column(name="merged apart", format=".0%", help="share of patches whose group lies in several places"),
        ]
        each: list[list[Any]] = [[p.name, p.patches, p.left, p.largest, p.apart] for p in self.pictures]
        return [
            Table(
                title="Block by block", columns=columns, rows=rows, note=f"Means over {len(self.pictures)} pictures."
            ),
            Table(title="Picture by picture", columns=seen, rows=each),
        ]

    def figures(self) -> list[Figure]:
        known = [b for b in self.blocks_ if b.similarity is not None]
        if len(known) < 2:
            return []
        names = [f"{b.tower} {b.block}".strip() for b in known]
        series = [
            Series(name="mean of the pairs", x=names, y=[b.similarity for b in known]),
            Series(name="least alike pair", x=names, y=[b.lowest for b in known]),
        ]
        return [
            Figure(title="How alike merged rows are", kind="line", x="block", y="cosine", series=series, format=".2f")
        ]

    def blocks(self) -> list[Block]:
        return [*self.maps, *self.figures(), *self.tables()]


@technique(
    "tokens.show",
    kind="look",
    family="token merging",
    source="Shi et al. 2024 (CrossGET), figures 4 and 5; Bolya et al. 2023 (ToMe), figure 4",
    needs="vision",
    extra="vision",
    example={"images": "pictures", "keep": 0.5},
)
def show(model: Model, config: ShowConfig, *, images: list[Any], seed: int = 0) -> TokenMaps:
    """Which patches were merged into which: drawn over each picture, block by block, with how alike they were.

    Patches in one tint are one row from that block on; a patch of its own shows the picture as it is; one that was
    dropped (pruning) is struck through. In a language model that reads pictures, its own reductions follow the vision
    tower's. A dense model is merged first, by the same settings as `tokens.merge`.

    - images: records with `image`, paths, or a folder of pictures; what cannot be read is passed over and counted.

    Raises `BadInput` for a model without a vision tower, settings for a model that is merged already, and pictures of
    which none can be read."""
    from intarsia.tokens.showing import look

    return look(model, config, images, seed)
