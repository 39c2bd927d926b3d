"""A model that carries what was exported of it."""

from __future__ import annotations

import shutil
import weakref
from pathlib import Path
from typing import Any

from intarsia.compression import ExportConfig
from intarsia.models import Model

NAME = "compression.export"


def exported(model: Model, config: ExportConfig, engine: str, folder: Path, facts: dict[str, Any]) -> Model:
    """The model with `exports[engine]`, the folder `folder / engine`.

    `folder` is removed with the network; saving the model copies what is in it."""
    changed = model.with_network(model.network, technique=NAME, config=config.model_dump(mode="json"))
    changed.exports[engine] = folder / engine
    changed.extras[NAME] = {"engine": engine, **facts}
    weakref.finalize(changed.network, shutil.rmtree, folder, ignore_errors=True)
    return changed
