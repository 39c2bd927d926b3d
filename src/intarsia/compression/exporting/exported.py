"""A model that is about to be exported, and one that carries what was exported of it."""

from __future__ import annotations

import json
import shutil
import warnings
import weakref
from pathlib import Path
from typing import Any

from intarsia.compression import ExportConfig, dequantize
from intarsia.compression.factorization.modules import has_factors
from intarsia.compression.quantization.hf import shapes_of
from intarsia.compression.quantization.modules import has_codes
from intarsia.errors import BadInput, Note
from intarsia.models import Model
from intarsia.models.runtime.asking import FACTS

NAME = "compression.export"


def without_factors(model: Model) -> Model:
    """The model with its factors multiplied out, for no engine here knows factored layers; with a warning.

    Raises `BadInput` where blocks differ in neurons, which no engine's config says."""
    if shapes_of(model.network):
        raise BadInput("export: the blocks of this network differ in neurons; engines want one number for all of them")
    if not has_factors(model.network):
        return model
    lost = ", and what they made good is rounded away" if has_codes(model.network) else ""
    warnings.warn(f"export: the engine knows dense layers only: factors are multiplied out{lost}", Note, stacklevel=4)
    return dequantize(model)


def describe(model: Model, folder: Path) -> None:
    """Write what an engine's own files do not say."""
    end = model.network.generation_config.eos_token_id
    facts = {
        "context_length": model.context_length,
        "vocabulary": model.config.get_text_config().vocab_size,
        "end": [] if end is None else [end] if isinstance(end, int) else list(end),
    }
    (folder / FACTS).write_text(json.dumps(facts), encoding="utf-8")


def exported(model: Model, config: ExportConfig, engine: str, folder: Path, facts: dict[str, Any]) -> Model:
    """The model with `exports[engine]`, the folder `folder / engine`.

    `folder` is removed with the network; saving the model copies what is in it."""
    changed = model.with_network(model.network, technique=NAME, config=config.model_dump(mode="json"))
    changed.exports[engine] = folder / engine
    changed.extras[NAME] = {"engine": engine, **facts}
    weakref.finalize(changed.network, shutil.rmtree, folder, ignore_errors=True)
    return changed
