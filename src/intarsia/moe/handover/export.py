"""`moe.export`: a placement in the form of a serving engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.errors import BadInput
from intarsia.moe.placement.placement import Placement
from intarsia.report import Column, Finding, Table


class ExportConfig(Config):
    engine: Literal["sglang", "vllm", "tensorrt-llm", "csv"] = Field(description="whose form")
    to: Path = Field(description="the file to write")
    decoder_layers: int | None = Field(
        None, ge=1, description="layers of the whole network, routed or not; unset: up to the last routed one"
    )


class PlacementExport(Finding):
    """What was written, how it is used, and what to know about that engine."""

    engine: str = ""
    path: str = ""
    slots: int = 0
    experts: int = 0
    use: str = ""
    notes: list[str] = Field(default_factory=list)

    def tables(self) -> list[Table]:
        rows: list[list[Any]] = [["file", self.path], ["experts a layer", self.experts]]
        rows += [["slots a layer", self.slots], ["use", self.use]]
        rows += [["to know", note] for note in self.notes]
        return [Table(columns=[Column(name=""), Column(name="")], rows=rows)]


@technique(
    "moe.export",
    kind="look",
    family="expert placement",
    source="own; forms of SGLang, vLLM, TensorRT-LLM and YJHMITWEB/ExFlow",
    needs="placement",
    gives="PlacementExport",
    example={"subject": "placement.json", "engine": "sglang", "to": "experts.json"},
)
def export(placement: Placement, config: ExportConfig) -> PlacementExport:
    """Write a placement in the form a serving engine reads, and say what belongs to it.

    Where a device has fewer experts than the fullest one, its first expert stands there twice: engines want devices of
    one size. The permuted checkpoint (`moe.permute`) needs none of these forms.

    - PLACEMENT: a `placement.json`.

    Raises `BadInput` where the form cannot hold the placement, and when the file is there already."""
    from intarsia.moe.handover.forms import FORMS, slots

    form, path = FORMS[config.engine], config.to.expanduser()
    layers = config.decoder_layers or max(placement.layers) + 1
    if layers <= max(placement.layers):
        raise BadInput(f"decoder_layers {layers}: layer {max(placement.layers)} is a routed one, so there are more")
    if config.engine == "csv" and (placement.replicas or placement.experts % placement.devices):
        raise BadInput("the csv form has no copies and as many experts on every device; take another engine's form")
    if path.exists():
        raise BadInput(f"{path} is there already: give another name")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(form.text(placement, layers), encoding="utf-8")
    return PlacementExport(
        title=f"Placement for {config.engine}", summary=f"Written to {path}. {form.use}", technique="moe.export",
        engine=config.engine, path=str(path), slots=slots(placement).shape[1], experts=placement.experts, use=form.use,
        notes=list(form.notes),
    )  # fmt: skip
