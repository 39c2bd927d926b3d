"""How a technique's inputs meet a run: models by state name, data by split name, and the rest from the run itself.

The same rules serve a recipe's step and a single command of the command line."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from intarsia.catalog import Technique, fact_inputs
from intarsia.catalog import data_inputs as data_inputs
from intarsia.catalog import model_inputs as model_inputs
from intarsia.data import Dataset
from intarsia.models import Model

PICTURES = "images"
"""The name of an input that holds pictures: records with `image`, from a folder or a file that names them."""

STREAM = "stream"
"""The name of an input that holds tasks, one after the other: from a folder of them, or a file with a column `task`."""

CLIPS = "clips"
"""The name of an input that holds video clips: records with `clip`, from a folder of clips or a file of records."""

FACTS = "facts"
"""The name of an input that holds facts of a knowledge graph: given as the path of what they are read from."""

# Which split stands in when the data set has none of the input's own name, the best first.
STAND_INS = {
    "texts": ("test", "text", "train"),
    "text": ("texts", "train"),
    "calibration": ("train", "text"),
    "images": ("test", "train"),
    "dev": ("validation", "val"),
}


def default_split(name: str, splits: Collection[str]) -> str | None:
    """The split an input called `name` takes when nothing is said, or None when there is none."""
    return next((split for split in (name, *STAND_INS.get(name, ())) if split in splits), None)


def facts_for(technique: Technique, data: Dataset | None) -> dict[str, Any]:
    """Values of the technique's fact inputs that the data set has."""
    if data is None:
        return {}
    out: dict[str, Any] = {}
    for name in fact_inputs(technique):
        if "Dataset" in technique.inputs[name][0]:
            out[name] = data
        elif name in data.facts:
            out[name] = data.facts[name]
    return out


def records_hash(records: list[Any]) -> str:
    """The sha256 of one split's records."""
    return Dataset({"records": records}).sha256


def splits_line(data: Mapping[str, Any]) -> str:
    """The splits of a data set in a few words, for error messages."""
    return ", ".join(data) if data else "none"


def with_task(model: Model, data: Dataset | None) -> Model:
    """The model with the data set's own label task (prompt and verbalisers), unless it carries one already."""
    task = data.facts.get("label_task") if data is not None else None
    if not task or "label_task" in model.extras:
        return model
    return replace(model, extras={**model.extras, "label_task": task})
