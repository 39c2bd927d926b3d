"""Without training: how near each method stays to the dense model, at equal counted work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from bench.tokens.bed import Bed, fidelity
from intarsia.errors import BadInput
from intarsia.measure import count_macs
from intarsia.models import Model
from intarsia.tokens import merge

METHODS: Mapping[str, Mapping[str, Any]] = {
    "default (dominance, attention)": {},
    "dominance alone": {"importance": "none"},
    "CrossGET's matching": {"matcher": "complete", "importance": "none"},
    "CrossGET's matching, attention, official ensemble": {
        "matcher": "complete",
        "ensemble": "official",
        "temperature": 1.0,
    },
    "ToMe": {"matcher": "bipartite", "importance": "none"},
    "ToMe without proportional attention": {"matcher": "bipartite", "importance": "none", "proportional": False},
    "random pairs": {"matcher": "random"},
    "pruning by attention": {"matcher": "prune"},
}
IN_DECODER: Mapping[str, Mapping[str, Any]] = {
    "in the language model, guided by the question": {},
    "in the language model, by similarity alone": {"importance": "none"},
    "in the language model, guided by the last token": {"importance": "attention"},
    "in the language model, random pairs": {"matcher": "random"},
    "dropped there by the question": {"matcher": "prune"},
    "dropped there by the last token (FastV)": {"matcher": "prune", "importance": "attention"},
}
COLUMNS = ("", "keep", "work", "fidelity", "accuracy", "difference", "of its standard errors")


def work(bed: Bed, model: Model) -> int:
    """Counted multiply-accumulates of one training batch's forward (pictures, words and all)."""
    batch = next(bed.batches(99, 8))
    with torch.no_grad():
        return count_macs(lambda: model.network(**batch)).macs


def picture_work(bed: Bed, model: Model) -> int:
    """Counted multiply-accumulates of the vision tower alone, for the same batch."""
    pixels = next(bed.batches(99, 8))["pixel_values"]
    network: Any = model.network
    tower = network.vision_model if hasattr(network, "vision_model") else network.model.vision_tower
    with torch.no_grad():
        return count_macs(lambda: tower(pixel_values=pixels)).macs


def measured(bed: Bed, keeps: tuple[float, ...], size: int | None = None) -> Iterator[dict[str, Any]]:
    """One row for the dense model, then one for each method and keep."""
    with torch.no_grad():
        dense = bed.evaluate(bed.model.network, size=size)
    whole, tower = work(bed, bed.model), picture_work(bed, bed.model)
    yield {"method": "dense", "keep": 1.0, "work": 1.0, "tower": 1.0, "fidelity": 1.0, "accuracy": dense["accuracy"]}
    contenders = [(name, {"keep": keep, **method}) for keep in keeps for name, method in METHODS.items()]
    if bed.kind == "llava":
        inside = {"keep": 1.0, "decoder_layer": 1}
        contenders += [
            (name, {**inside, "decoder_keep": keep, **method}) for keep in keeps for name, method in IN_DECODER.items()
        ]
    for name, settings in contenders:
        keep = settings.get("decoder_keep", settings["keep"])
        try:
            model = merge(bed.model, **settings)
        except BadInput:
            continue  # so little cannot be kept this way
        found = bed.evaluate(model.network, size=size)
        change = found["right"].double() - dense["right"].double()
        yield {
            "method": name,
            "keep": keep,
            "work": work(bed, model) / whole,
            "tower": picture_work(bed, model) / tower,
            "fidelity": fidelity(found, dense),
            "accuracy": found["accuracy"],
            "difference": found["accuracy"] - dense["accuracy"],
            "errors": float(change.mean() / (change.std() / len(change) ** 0.5).clamp(min=1e-9)),
        }


def shown(row: Mapping[str, Any]) -> list[str]:
    """A row of the table."""
    difference = f"{row['difference']:+.3f}" if "difference" in row else ""
    errors = f"{row['errors']:+.1f}" if "errors" in row else ""
    return [
        row["method"],
        f"{row['keep']:g}",
        f"{row['work']:.3f}",
        f"{row['fidelity']:.4f}",
        f"{row['accuracy']:.3f}",
        difference,
        errors,
    ]
