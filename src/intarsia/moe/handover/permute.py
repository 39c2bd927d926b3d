"""`moe.permute`: the experts of a checkpoint in the order of a placement."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from intarsia.catalog import Config, technique

if TYPE_CHECKING:
    from intarsia.models import Model


class PermuteConfig(Config):
    placement: Path = Field(description="the placement.json of moe.plan or moe.place")


@technique(
    "moe.permute",
    kind="change",
    family="expert placement",
    source="own; engines place experts in the order of the file",
    needs="experts, a placement",
    example={"placement": "placement.json"},
)
def permute(model: Model, config: PermuteConfig) -> Model:
    """Reorder every layer's experts, and the router's rows with them, so that they lie device by device.

    The function stays what it was, up to the order in which results are added; it is run before and after, and
    compared. Engines put experts on ranks in the order of the file (vLLM, SGLang, DeepSpeed, Megatron), so the saved
    folder is the placement, for any of them and without a setting. Copies of experts (`replicas`) cannot be in a
    checkpoint; `moe.export` has the forms that can hold them.

    Raises `BadInput` for a placement of another model, and where a router that chooses among groups of experts would
    find them mixed."""
    from intarsia.moe.handover.permuting import permuted
    from intarsia.moe.placement.placement import Placement

    out = permuted(model, Placement.open(config.placement))
    return out.with_network(out.network, technique="moe.permute", placement=config.placement.name)
