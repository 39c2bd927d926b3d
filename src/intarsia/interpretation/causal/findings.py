"""What causal techniques find: a contrast, and maps of effects over layers and positions (or heads)."""

from __future__ import annotations

from typing import Any

import pydantic
from pydantic import Field

from intarsia.interpretation.wording import one_line, visible
from intarsia.report import Block, Column, Figure, Finding, Table

MEANING = {
    "resid_post": "the stream after each block",
    "resid_pre": "the stream before each block",
    "attn_out": "what attention adds",
    "mlp_out": "what the MLP adds",
    "z": "each head",
    "mlp_act": "neurons",
}


class Contrasted(pydantic.BaseModel):
    """The two runs that were compared, and what was measured.

    `clean`, `corrupted`: the metric of each. `tokens`: of the prompt; `at`: the position whose prediction counts."""

    prompt: str
    corrupt: str = ""
    metric: str
    answer: str
    foil: str | None = None
    clean: float
    corrupted: float
    tokens: list[str] = []
    at: int = -1

    @property
    def measured(self) -> str:
        """The metric in words."""
        answer, foil = (repr(one_line(word)) if word is not None else "" for word in (self.answer, self.foil))
        return {
            "logit-difference": f"logit of {answer} - logit of {foil}",
            "log-probability": f"log probability of {answer}",
            "probability": f"probability of {answer}",
            "kl": "KL divergence from the clean prediction",
        }[self.metric]

    def table(self, corrupt: str = "corrupt") -> Table:
        """Both runs as a table."""
        return Table(
            title="The contrast",
            columns=[Column(name="run"), Column(name="text"), Column(name=self.measured, format=".3f")],
            rows=[["clean", one_line(self.prompt), self.clean], [corrupt, one_line(self.corrupt), self.corrupted]],
        )


class EffectMap(pydantic.BaseModel):
    """Effects of one kind of site: a row a layer, a column a position (or a head). 1 is the whole difference.

    - control: the mean effect of the controls, cell by cell; controls: each of them by name.
    - spread: standard deviation over noise seeds."""

    site: str
    row_names: list[str]
    column_names: list[str]
    columns_are: str = "token"
    effect: list[list[float]]
    control: list[list[float]] | None = None
    controls: dict[str, list[list[float]]] = Field(default_factory=dict)
    spread: list[list[float]] | None = None
    note: str = ""

    @property
    def beyond(self) -> list[list[float]]:
        """Effect minus control (the effect itself without controls). A control that does harm counts as nothing:
        what a wrong state breaks says nothing for the right one."""
        if self.control is None:
            return self.effect
        pairs = zip(self.effect, self.control, strict=True)
        return [[e - max(c, 0.0) for e, c in zip(a, b, strict=True)] for a, b in pairs]

    def ranked(self) -> list[tuple[int, int]]:
        """Cells (row, column), the largest effect beyond control first."""
        values = self.beyond
        cells = [(r, c) for r in range(len(values)) for c in range(len(values[r]))]
        return sorted(cells, key=lambda cell: -abs(values[cell[0]][cell[1]]))

    def figure(self, title: str) -> Figure:
        """The map as a picture, the last layer on top."""
        less = " minus that of controls" if self.control is not None else ""
        return Figure(
            title=title,
            kind="heatmap",
            x=self.columns_are,
            y="share of the difference" + less,
            format=".2f",
            scale="diverging",
            matrix=[list(row) for row in reversed(self.beyond)],
            row_names=self.row_names[::-1],
            column_names=[visible(name) for name in self.column_names],
            note=self.note,
        )


class Effects(Finding):
    """Maps of causal effects under one contrast."""

    contrast: Contrasted
    maps: list[EffectMap] = Field(default_factory=list)
    corrupt_is: str = "corrupt"

    def effect_map(self, site: str) -> EffectMap:
        """The map of one kind of site."""
        return next(m for m in self.maps if m.site == site)

    def picture_title(self, one: EffectMap) -> str:
        """The headline of a map's picture."""
        return f"Effect of {MEANING.get(one.site, one.site)}"

    def figures(self) -> list[Figure]:
        return [one.figure(self.picture_title(one)) for one in self.maps]

    def strongest(self, most: int = 12) -> Table:
        """The largest cells of all maps."""
        controls = sorted({name for one in self.maps for name in one.controls})
        spread = any(one.spread is not None for one in self.maps)
        cells: list[tuple[float, list[Any]]] = []
        for one in self.maps:
            for r, c in one.ranked()[:most]:
                value = one.beyond[r][c]
                row: list[Any] = [one.site, one.row_names[r], visible(one.column_names[c]), one.effect[r][c]]
                row += [one.controls[name][r][c] if name in one.controls else None for name in controls]
                row += [value] if controls else []
                row += [one.spread[r][c] if one.spread is not None else None] if spread else []
                cells.append((abs(value), row))
        cells.sort(key=lambda cell: -cell[0])
        words = {"prompt": "other prompt", "gaussian": "random", "mean": "mean state"}
        columns = [
            Column(name="site"),
            Column(name="layer"),
            Column(name=self.maps[0].columns_are if self.maps else "cell"),
        ]
        columns.append(Column(name="effect", format=".3f", help="share of the difference between the runs"))
        columns += [
            Column(name=words.get(name, name), format=".3f", help="the same with a control") for name in controls
        ]
        columns += [Column(name="minus controls", format=".3f")] if controls else []
        columns += [Column(name="spread", format=".3f", help="standard deviation over noise seeds")] if spread else []
        return Table(title="The strongest cells", columns=columns, rows=[row for _, row in cells[:most]])

    def tables(self) -> list[Table]:
        return [self.strongest(), self.contrast.table(self.corrupt_is)]

    def blocks(self) -> list[Block]:
        return [*self.figures(), *self.tables()]
