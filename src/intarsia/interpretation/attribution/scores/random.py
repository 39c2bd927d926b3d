"""Scores drawn at random: the floor that every method has to beat."""

from __future__ import annotations

import torch

from intarsia.interpretation.attribution.registry import Scored
from intarsia.interpretation.attribution.settings import AttributionConfig
from intarsia.interpretation.attribution.units import pieces, spread
from intarsia.interpretation.explained import Explained


def scores(explained: Explained, settings: AttributionConfig, seed: int) -> Scored:
    """A standard normal number for each piece."""
    groups = pieces(explained, settings.unit)
    drawn = torch.randn(len(groups), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Scored(spread(explained, groups, drawn))
