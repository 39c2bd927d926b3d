"""`interpretation.attribution_patching`: all of activation patching's maps at once, from one gradient."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from intarsia.catalog import technique
from intarsia.interpretation.causal.activation_patching import IOI
from intarsia.interpretation.causal.findings import EffectMap, Effects
from intarsia.interpretation.causal.settings import ContrastConfig
from intarsia.models import Model
from intarsia.report import Block, Column, Figure, Series, Table


class AttributionPatchingConfig(ContrastConfig):
    kinds: list[Literal["resid_post", "attn_out", "mlp_out", "z"]] = Field(
        ["resid_post", "attn_out", "mlp_out", "z"], min_length=1, description="the sites; heads (z) at all positions"
    )
    direction: Literal["restore", "break"] = Field(
        "restore",
        description="restore: clean states into the corrupt run; break: the corrupt ones into the clean run",
    )
    check: int = Field(
        40, ge=0, description="cells of each map, drawn by the seed, that are truly patched to judge the approximation"
    )


class AttributionPatching(Effects):
    """Approximate effects of patching, and how well they rank the true ones.

    - agreement: site -> Spearman's rho of approximate and true effects over the sampled cells (None: not checked).
    - checked: site -> the sampled cells, (row, column, approximate, true)."""

    direction: str = "restore"
    agreement: dict[str, float | None] = Field(default_factory=dict)
    checked: dict[str, list[tuple[int, int, float, float]]] = Field(default_factory=dict)

    def picture_title(self, one: EffectMap) -> str:
        return super().picture_title(one).replace("Effect", "Approximate effect")

    def agreement_table(self) -> Table:
        """How far the approximation can be trusted, by site."""
        rows: list[list[str | int | float | None]] = []
        for site, cells in self.checked.items():
            error = sum(abs(a - t) for _, _, a, t in cells) / len(cells) if cells else None
            rows.append([site, len(cells), self.agreement[site], error])
        columns = [
            Column(name="site"),
            Column(name="cells patched", format="d"),
            Column(name="Spearman", format=".2f", better="higher", help="rank correlation with the true effects"),
            Column(name="mean error", format=".3f", better="lower", help="mean distance from the true effect"),
        ]
        return Table(title="Against true patching", columns=columns, rows=rows)

    def scatter(self) -> Figure:
        """Approximate against true effects."""
        series = [
            Series(name=site, x=[t for *_, t in cells], y=[a for _, _, a, _ in cells])
            for site, cells in self.checked.items()
            if cells
        ]
        return Figure(
            title="The approximation against true patching", kind="scatter", x="true effect", y="approximate effect",
            series=series, format=".2f",
        )  # fmt: skip

    def blocks(self) -> list[Block]:
        if not self.checked:
            return super().blocks()
        return [*self.figures(), self.scatter(), self.agreement_table(), *self.tables()]


@technique(
    "interpretation.attribution_patching",
    kind="look",
    family="mechanistic",
    source="Nanda 2023 (attribution patching); Syed et al. 2023, section 3",
    place="fine-tuning · global · mechanistic",
    example={**IOI, "check": 10},
)
def attribution_patching(model: Model, config: AttributionPatchingConfig, *, seed: int = 0) -> AttributionPatching:
    """Attribution patching: the effect of patching every site at once, approximated by a gradient.

    effect of writing state a' where there was a = (a' - a) · d metric / d a, over (metric clean - metric corrupt): two
    forwards and one backward for all layers, positions and heads. It is first order: good for small changes (heads,
    what attention or the MLP adds), poor for the stream of early layers and where attention saturates. So a sample of
    cells of each map is truly patched, and the rank correlation is part of the result."""
    from intarsia.interpretation.causal.attributing import attribute

    return attribute(model, config, seed)
