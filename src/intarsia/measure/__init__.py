"""Measure: what a model costs and how good it is."""

from __future__ import annotations

from intarsia.lazy import lazily
from intarsia.measure.cost import Cost, CostConfig, EngineCost, cost
from intarsia.measure.provenance import provenance
from intarsia.measure.quality import Quality, QualityConfig, quality

# These need torch, which the catalog must not wait for.
_HOMES = {
    "Counted": "counting",
    "LabelScores": "likelihood",
    "LabelTask": "labels",
    "SpeedComparison": "speed",
    "compare_speed": "speed",
    "count_macs": "counting",
    "few_shot": "shots",
    "perplexity": "windows",
    "score": "likelihood",
    "score_shots": "shots",
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

__getattr__ = lazily(__name__, _HOMES)
