"""Leave one out, and occlusion: what the choice loses when a piece of the text is not there."""

from __future__ import annotations

import torch

from intarsia.interpretation.attribution.perturbation import LeaveOneOutConfig, OcclusionConfig
from intarsia.interpretation.attribution.registry import Scored
from intarsia.interpretation.attribution.units import masks, pieces, spread
from intarsia.interpretation.explained import Explained


def leave_one_out(explained: Explained, settings: LeaveOneOutConfig, seed: int = 0) -> Scored:
    """log p(whole) - log p(without the piece), for each piece."""
    groups = pieces(explained, settings.unit)
    without = ~torch.eye(len(groups), dtype=torch.bool)
    whole, rest = explained.value(), explained.value(masks(explained, groups, without))
    return Scored(spread(explained, groups, whole - rest))


def occlusion(explained: Explained, settings: OcclusionConfig, seed: int = 0) -> Scored:
    """Each piece's mean, over the windows that cover it, of what is lost without the window, per piece of it."""
    groups = pieces(explained, settings.unit)
    window = min(settings.window, len(groups))
    starts = list(range(0, len(groups) - window + 1, settings.stride))
    if starts[-1] != len(groups) - window:
        starts.append(len(groups) - window)  # the last pieces are covered, too
    covered = torch.zeros(len(starts), len(groups), dtype=torch.bool)
    for row, start in enumerate(starts):
        covered[row, start : start + window] = True
    lost = explained.value() - explained.value(masks(explained, groups, ~covered))
    mean = (covered.double() * lost[:, None]).sum(0) / covered.sum(0) / window
    return Scored(spread(explained, groups, mean))
