"""Where merging hurts least: measured block by block on a model's own pictures, then spent where it buys most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from intarsia.data import ImageText
from intarsia.models import Model
from intarsia.models.pixels import pixels
from intarsia.models.seeing import embed_pictures
from intarsia.progress import track
from intarsia.sites.recomposing import dense, installed
from intarsia.tokens.macs import TowerShape, tower_macs
from intarsia.tokens.merge import MergeConfig
from intarsia.tokens.merging import Merging
from intarsia.tokens.towers import Towers

SHARES = (0.125, 0.25, 0.45)
"""Of a block's rows that are tried; at most half can go."""
PICTURES = 64


def measured_removal(
    model: Model, config: MergeConfig, towers: Towers, shape: TowerShape, images: list[ImageText]
) -> tuple[int, ...]:
    """Rows to remove in each block, by what removing rows there alone does to the pictures' embeddings.

    At most `PICTURES` of the pictures are used, evenly spread. Raises `BadInput` when none can be read."""
    from intarsia.tokens.planning import merged

    step = max(1, len(images) // PICTURES)
    values = pixels(model, images[::step][:PICTURES])
    trial = merged(model, config.model_copy(update={"keep": 0.9, "schedule": "constant", "text_keep": 1.0}))
    rule = installed(trial.network)[towers.vision.name].rule
    assert isinstance(rule, Merging)
    plan = rule.plan
    pad = (0,) * (len(plan.removed) - shape.layers)
    with torch.no_grad():
        with dense():
            whole = embed_pictures(trial, values)
        grid = [max(1, round(share * shape.tokens)) for share in SHARES]
        drift = np.zeros((shape.layers, len(grid)))
        for layer in track(range(shape.layers), "measuring blocks"):
            for column, count in enumerate(grid):
                removed = tuple(count if i == layer else 0 for i in range(shape.layers))
                rule.plan = replace(plan, removed=removed + pad)
                near = torch.nn.functional.cosine_similarity(embed_pictures(trial, values), whole)
                drift[layer, column] = float((1 - near).mean())
    return spend(shape, config.keep, grid, drift, every=config.every, blocked=2 if config.cross else 1)


def spend(
    shape: TowerShape,
    keep: float,
    grid: Sequence[int],
    drift: np.ndarray,
    *,
    every: int = 1,
    blocked: int = 1,
) -> tuple[int, ...]:
    """Rows to remove in each block so that `keep` of the tower's work is left and the drift is least, row by row.

    - grid: numbers of rows that were tried in each block, ascending.
    - drift: [block, tried] what the embedding moved.

    Between what was tried the drift is taken as linear, and convex: a row more never costs less than the one before.
    Each step takes one row more in the block where that adds the least drift for each multiply-accumulate saved (an
    early row saves work in all later blocks; where it leaves too few rows to a later block, that one gives some up)."""
    points = np.concatenate([np.zeros((shape.layers, 1)), np.maximum.accumulate(drift, axis=1)], axis=1)
    at = np.concatenate([[0.0], np.asarray(grid, dtype=float)])
    slopes = np.maximum.accumulate(np.diff(points, axis=1) / np.diff(at), axis=1)

    def price(removed: Sequence[int]) -> float:
        # rows beyond the last that was tried cost as the last ones did
        widths = np.clip(np.asarray(removed, dtype=float)[:, None] - at[:-1], 0, np.append(np.diff(at)[:-1], np.inf))
        return float((widths * slopes).sum()) + 1e-9 * sum(removed)

    def possible(removed: Sequence[int]) -> tuple[int, ...]:
        rows, out = shape.tokens, []
        for wanted in removed:
            out.append(min(wanted, max((rows - blocked) // 2, 0)))
            rows -= out[-1]
        return tuple(out)

    removed: tuple[int, ...] = (0,) * shape.layers
    goal, work, cost = keep * tower_macs(shape, removed), tower_macs(shape, removed), 0.0
    while work > goal:
        best: tuple[float, tuple[int, ...]] | None = None
        for layer in range(0, shape.layers, every):
            trial = possible([r + (i == layer) for i, r in enumerate(removed)])
            saved = work - tower_macs(shape, trial)
            if saved > 0 and (best is None or (price(trial) - cost) / saved < best[0]):
                best = (price(trial) - cost) / saved, trial
        if best is None:
            break  # nothing more can go
        removed = best[1]
        work, cost = tower_macs(shape, removed), price(removed)
    return removed
