"""The given tiny CLIP of 256 drawings on a flat ground: mean cosine to the dense embeddings at published schedules.

Flat grounds make half of the merges free for any method; the test bed (bench/tokens/bed) is the harder set. These rows
are there because others have measured them."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import intarsia as ia
from intarsia.data import shared_data
from intarsia.measure import count_macs
from intarsia.models import Model
from intarsia.tokens import merge

SCHEDULES = {
    "9 in each block": (9, 9, 9, 9, 9, 9),
    "16, 14, 10, 6, 4, 2": (16, 14, 10, 6, 4, 2),
    "26, 14, 8, 4, 2, 0": (26, 14, 8, 4, 2, 0),
    "32, 14, 6, 3, 2, 0": (32, 14, 6, 3, 2, 0),
}
METHODS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "dominance alone": {"importance": "none"},
    "CrossGET's matching": {"matcher": "complete", "importance": "none"},
    "ToMe": {"matcher": "bipartite", "importance": "none"},
    "random pairs": {"matcher": "random"},
    "pruning": {"matcher": "prune"},
}
COLUMNS = ("removed rows", "work", *METHODS)


def pictures(folder: Path, style: str = "noto") -> Tensor:
    """[256, 3, 64, 64] the drawings on light grey, as the model was trained to see them."""
    from PIL import Image

    names = (folder / "emoji_clip_256" / "concepts.txt").read_text("utf-8").split()
    out = []
    with zipfile.ZipFile(folder / "emoji" / "images.zip") as held:
        for name in names:
            drawing = Image.open(io.BytesIO(held.read(f"{style}/{name}.png"))).convert("RGBA")
            rgba = np.asarray(drawing, dtype=np.float32) / 255
            alpha = rgba[..., 3:]
            out.append((rgba[..., :3] * alpha + 0.95 * (1 - alpha) - 0.5) / 0.25)
    return torch.from_numpy(np.stack(out)).permute(0, 3, 1, 2).contiguous()


def run() -> tuple[dict[str, float], list[list[str]]]:
    """Figures and rows; nothing without the data."""
    folder = shared_data("vision_language")
    if folder is None:
        return {}, []
    model = ia.load(str(folder / "emoji_clip_256"))
    values = pictures(folder)

    def embedded(one: Model) -> Tensor:
        with torch.no_grad():
            return one.network.get_image_features(pixel_values=values).pooler_output

    def work(one: Model) -> int:
        return count_macs(lambda: one.network.get_image_features(pixel_values=values[:4])).macs

    dense, whole = embedded(model), work(model)
    rows, figures = [], {}
    for name, removed in SCHEDULES.items():
        near, share = {}, 0.0
        for method, settings in METHODS.items():
            one = merge(model, removed=removed, **settings)
            near[method] = float(torch.nn.functional.cosine_similarity(embedded(one), dense).mean())
            share = work(one) / whole
        rows.append([name, f"{share:.2f}", *(f"{near[m]:.4f}" for m in METHODS)])
        if removed[0] == 26:
            figures = {"fidelity_third_macs_default": near["default"], "fidelity_third_macs_tome": near["ToMe"]}
    return figures, rows
