"""Measure: what a model costs and how good it is."""

from __future__ import annotations

from typing import Any

from intarsia.measure.cost import Cost, CostConfig, EngineCost, cost
from intarsia.measure.provenance import provenance
from intarsia.measure.quality import Quality, QualityConfig, quality

_LATER = {"compare_speed": "intarsia.measure.speed", "SpeedComparison": "intarsia.measure.speed"} | {
    "Counted": "intarsia.measure.counting",
    "count_macs": "intarsia.measure.counting",
    "LabelScores": "intarsia.measure.likelihood",
    "LabelTask": "intarsia.measure.labels",
    "perplexity": "intarsia.measure.windows",
    "score": "intarsia.measure.likelihood",
    "few_shot": "intarsia.measure.shots",
    "score_shots": "intarsia.measure.shots",
}

__all__ = [
    "Cost",
    "CostConfig",
    "Counted",
    "EngineCost",
    "LabelScores",
    "LabelTask",
    "Quality",
    "QualityConfig",
    "SpeedComparison",
    "compare_speed",
    "cost",
    "count_macs",
    "few_shot",
    "perplexity",
    "provenance",
    "quality",
    "score",
    "score_shots",
]


def __getattr__(name: str) -> Any:
    # These need torch, which the catalog must not wait for.
    if name in _LATER:
        import importlib

        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module 'intarsia.measure' has no attribute '{name}'")
