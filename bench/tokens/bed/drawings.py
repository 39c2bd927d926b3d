"""Drawings and photographs as arrays, read once: every emoji at a few sizes and turns, every photograph a little larger
than the quarter of a picture it fills."""

from __future__ import annotations

import functools
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.tokens.bed.concepts import CONCEPTS, NAMES, STYLES

SIZES = (12, 14, 16, 18, 20, 22)
"""Longer side of a drawing, pixels."""
TURNS = (-12, 0, 12)
"""Degrees."""
QUARTER = 36
MARGIN = 4
"""A photograph is QUARTER + MARGIN pixels wide, so that its cut can move."""


@dataclass(frozen=True)
class Drawings:
    """- sprites[concept][style][size][turn]: (colour times opacity [h, w, 3] in 0..255, opacity [h, w, 1] in 0..1).
    - photographs: split -> uint8 [n, QUARTER + MARGIN, QUARTER + MARGIN, 3]."""

    sprites: list[list[list[list[tuple[NDArray[np.float32], NDArray[np.float32]]]]]]
    photographs: dict[str, NDArray[np.uint8]]


def available() -> Path | None:
    """The data set's folder, or None when it is not there."""
    from intarsia.data import shared_data
    from intarsia.errors import IntarsiaError

    try:
        return Path(shared_data("vision_language"))
    except IntarsiaError:
        return None


@functools.cache
def drawings(photographs: int | None = None) -> Drawings:
    """All of them; at most so many photographs of each split. Raises `BadInput` when the data set is missing."""
    from intarsia.data import shared_data

    folder = Path(shared_data("vision_language"))
    with zipfile.ZipFile(folder / "emoji" / "images.zip") as pack:
        sprites = [[_sprites(pack.read(f"{style}/{CONCEPTS[name]}.png")) for style in STYLES] for name in NAMES]
    with zipfile.ZipFile(folder / "cifar10_subset" / "images.zip") as pack:
        names = sorted(name for name in pack.namelist() if name.endswith(".jpg"))
        photos = {}
        for split in ("train", "test"):
            chosen = [name for name in names if name.startswith(f"{split}/")]
            # Evenly over the classes, which lie one after the other.
            step = max(1, len(chosen) // photographs) if photographs else 1
            photos[split] = np.stack([_photograph(pack.read(name)) for name in chosen[::step]])
    return Drawings(sprites, photos)


def _photograph(data: bytes) -> NDArray[np.uint8]:
    side = QUARTER + MARGIN
    picture = Image.open(io.BytesIO(data)).convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(picture, dtype=np.uint8)


def _sprites(data: bytes) -> list[list[tuple[NDArray[np.float32], NDArray[np.float32]]]]:
    picture = Image.open(io.BytesIO(data)).convert("RGBA")
    return [[_sprite(picture, size, turn) for turn in TURNS] for size in SIZES]


def _sprite(picture: Image.Image, size: int, turn: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    # Opacity first: a resampled transparent pixel must not bleed its colour into the edge.
    values = np.asarray(picture, dtype=np.float32)
    opacity = values[..., 3:] / 255
    layers = [Image.fromarray(layer) for layer in (*np.moveaxis(values[..., :3] * opacity, 2, 0), opacity[..., 0])]
    layers = [layer.rotate(turn, Image.Resampling.BICUBIC, expand=True) for layer in layers]
    box = layers[3].point(lambda value: value * 255).convert("L").point(lambda value: 255 * (value > 25)).getbbox()
    layers = [layer.crop(box) for layer in layers]
    scale = size / max(layers[0].size)
    shape = tuple(max(1, round(side * scale)) for side in layers[0].size)
    done = np.stack([np.asarray(layer.resize(shape, Image.Resampling.BOX)) for layer in layers], axis=2)
    opacity = np.clip(done[..., 3:], 0, 1)
    # Bicubic turning overshoots at edges.
    return np.clip(done[..., :3], 0, 255 * opacity), opacity
