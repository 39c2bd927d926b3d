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
    Each step removes one row where the drift for each multiply-accumulate saved is smallest; a row taken in an early
    block saves work in all later ones, and cannot be taken there again."""
    layers = shape.layers
    points = np.concatenate([np.zeros((layers, 1)), np.maximum.accumulate(drift, axis=1)], axis=1)
    at = np.concatenate([[0], np.asarray(grid, dtype=float)])
    slopes = np.maximum.accumulate(np.diff(points, axis=1) / np.diff(at), axis=1)
    removed = [0] * layers
    whole = tower_macs(shape, removed)
    while tower_macs(shape, removed) > keep * whole:
        now = tower_macs(shape, removed)
        best: tuple[float, int] | None = None
        for layer in range(0, layers, every):
            trial = [r + (i == layer) for i, r in enumerate(removed)]
            rows, fits = shape.tokens, True
            for r in trial:
                fits = fits and r <= max((rows - blocked) // 2, 0)
                rows -= r
            if not fits:
                continue
            segment = min(int(np.searchsorted(at, removed[layer], side="right")) - 1, slopes.shape[1] - 1)
            price = (slopes[layer, segment] + 1e-9) / (now - tower_macs(shape, trial))
            if best is None or price < best[0]:
                best = price, layer
        if best is None:
            break  # nothing more can go: as little as can be reached
        removed[best[1]] += 1
    return tuple(removed)
