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


def data_folder() -> Path:
    """The data set's folder. Raises `BadInput` when it is not there."""
    from intarsia.data import shared_data
    from intarsia.errors import BadInput

    folder = shared_data("vision_language")
    if folder is None:
        raise BadInput("the data set 'vision_language' is not there: set INTARSIA_DATA to the folder that holds it")
    return folder


MOST: int | None = None
"""At most so many photographs of each split, evenly over the classes; None: all. For tests."""


@functools.cache
def drawings() -> Drawings:
    """All of them, read once. Raises `BadInput` when the data set is missing."""
    folder = data_folder()
    with zipfile.ZipFile(folder / "emoji" / "images.zip") as pack:
        sprites = [[_sprites(pack.read(f"{style}/{CONCEPTS[name]}.png")) for style in STYLES] for name in NAMES]
    with zipfile.ZipFile(folder / "cifar10_subset" / "images.zip") as pack:
        names = sorted(name for name in pack.namelist() if name.endswith(".jpg"))
        photos = {}
        for split in ("train", "test"):
            chosen = [name for name in names if name.startswith(f"{split}/")]
            # Evenly over the classes, which lie one after the other.
            step = max(1, len(chosen) // MOST) if MOST else 1
            photos[split] = np.stack([_photograph(pack.read(name)) for name in chosen[::step]])
    return Drawings(sprites, photos)


def _photograph(data: bytes) -> NDArray[np.uint8]:
    side = QUARTER + MARGIN
    picture = Image.open(io.BytesIO(data)).convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(picture, dtype=np.uint8)


def _sprites(data: bytes) -> list[list[tuple[NDArray[np.float32], NDArray[np.float32]]]]:
    values = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"), dtype=np.float32)
    # Opacity first: a resampled transparent pixel must not bleed its colour into the edge.
    opacity = values[..., 3:] / 255
    layers = [Image.fromarray(layer) for layer in (*np.moveaxis(values[..., :3] * opacity, 2, 0), opacity[..., 0])]
    turned = [_turned(layers, turn) for turn in TURNS]
    return [[_sized(layers, size) for layers in turned] for size in SIZES]


def _turned(layers: list[Image.Image], turn: int) -> list[Image.Image]:
    """Turned, and cut to what can be seen."""
    layers = [layer.rotate(turn, Image.Resampling.BICUBIC, expand=True) for layer in layers]
    box = layers[3].point(lambda value: value * 255).convert("L").point(lambda value: 255 * (value > 25)).getbbox()
    return [layer.crop(box) for layer in layers]


def _sized(layers: list[Image.Image], size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    scale = size / max(layers[0].size)
    width, height = (max(1, round(side * scale)) for side in layers[0].size)
    done = np.stack([np.asarray(layer.resize((width, height), Image.Resampling.BOX)) for layer in layers], axis=2)
    opacity = np.clip(done[..., 3:], 0, 1)
    # Bicubic turning overshoots at edges.
    return np.clip(done[..., :3], 0, 255 * opacity), opacity
