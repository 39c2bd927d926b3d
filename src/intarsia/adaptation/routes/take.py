"""`adaptation.take`: a rung of a ladder that was climbed, as a model that labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from intarsia.adaptation.routes.technique import RungName
from intarsia.catalog import Config, technique

if TYPE_CHECKING:
    from intarsia.models import Model

NAME = "adaptation.take"


class TakeConfig(Config):
    """Which rung, and where it lies."""

    keep: Path = Field(description="the folder that adaptation.plan kept its rungs in (it says so)")
    rung: RungName | None = Field(None, description="the rung to take; default: the one that plan recommended")


@technique(
    NAME,
    kind="change",
    family="routes",
    source="own",
    extra="adapt",
    labels="intarsia.adaptation.routes.taking:label",
)
def take(model: Model, config: TakeConfig) -> Model:
    """Make a model of a rung that `adaptation.plan` has climbed, without learning it again.

    Rungs that train weights give a plain network with other weights; what stands beside a network (demonstrations,
    neighbours, soft prompts, adapters, a student) travels in the folder, and the network stays as it was.
    `measure.quality` labels with the result in the rung's own way.

    Raises `BadInput` for a folder without a ladder, a rung that is not finished there, or another model than it was
    climbed with."""
    from intarsia.adaptation.routes.taking import take as taken

    return taken(model, config.keep, config.rung)
