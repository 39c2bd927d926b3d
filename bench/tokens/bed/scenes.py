"""Scenes: four to six drawings over four photographs, laid out on a 3 x 3 grid, and their pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.tokens.bed.concepts import NAMES, STYLES, TRAIN_STYLES, UNSEEN_STYLE
from bench.tokens.bed.drawings import MARGIN, QUARTER, SIZES, TURNS, Drawings

SIDE = 2 * QUARTER
"""Width and height of a picture, pixels."""
PATCH = 8
CELL = SIDE // 3
SPLITS = ("train", "test", "unseen")
"""`test`: other photographs, other scenes. `unseen`: besides, drawings in a style that is never trained on."""

# How many of each kind of thing a scene holds. Repeated kinds are there to be counted.
PATTERNS = ((1, 1, 1, 1), (2, 1, 1), (2, 1, 1, 1), (3, 1), (3, 1, 1), (3, 1, 1, 1), (3, 2, 1))


@dataclass(frozen=True)
class Thing:
    """One drawing: indices into NAMES, STYLES, SIZES, TURNS and PLACES, and its upper left corner in pixels."""

    concept: int
    style: int
    size: int
    turn: int
    cell: int
    left: int
    top: int

    @property
    def name(self) -> str:
        return NAMES[self.concept]

    @property
    def pixels(self) -> int:
        """Its longer side."""
        return SIZES[self.size]


@dataclass(frozen=True)
class Scene:
    """- things: no two in one cell.
    - photos: for each quarter the photograph's index, the cut's corner (left, top), and 1 when mirrored."""

    things: tuple[Thing, ...]
    photos: tuple[tuple[int, int, int, int], ...]


def photo_split(split: str) -> str:
    """Which photographs a split's pictures are made of."""
    return "train" if split == "train" else "test"


def draw(rng: np.random.Generator, art: Drawings, split: str = "train") -> Scene:
    """A scene at random. Half of them have one thing clearly larger than the others."""
    pattern = PATTERNS[rng.integers(len(PATTERNS))]
    kinds = rng.permutation(len(NAMES))[: len(pattern)]
    concepts = np.repeat(kinds, pattern)
    cells = rng.permutation(9)[: len(concepts)]
    sizes = rng.integers(len(SIZES), size=len(concepts))
    if rng.integers(2):
        sizes = rng.integers(3, size=len(concepts))
        sizes[rng.integers(len(concepts))] = rng.integers(4, 6)
    things = []
    for concept, cell, size in zip(concepts.tolist(), cells.tolist(), sizes.tolist(), strict=True):
        style = STYLES.index(UNSEEN_STYLE) if split == "unseen" else int(rng.integers(len(TRAIN_STYLES)))
        turn = int(rng.integers(len(TURNS)))
        height, width = art.sprites[concept][style][size][turn][1].shape[:2]
        row, column = divmod(cell, 3)
        left = column * CELL + int(rng.integers(CELL - width + 1))
        top = row * CELL + int(rng.integers(CELL - height + 1))
        things.append(Thing(concept, style, size, turn, cell, left, top))
    photos = rng.integers((len(art.photographs[photo_split(split)]), MARGIN + 1, MARGIN + 1, 2), size=(4, 4))
    return Scene(tuple(things), tuple(tuple(row) for row in photos.tolist()))  # type: ignore[arg-type]


def picture(scene: Scene, art: Drawings, split: str = "train") -> NDArray[np.float32]:
    """[SIDE, SIDE, 3] in 0..255."""
    pixels = np.empty((SIDE, SIDE, 3), dtype=np.float32)
    photographs = art.photographs[photo_split(split)]
    for quarter, (index, left, top, mirrored) in enumerate(scene.photos):
        cut = photographs[index][top : top + QUARTER, left : left + QUARTER]
        row, column = divmod(quarter, 2)
        pixels[row * QUARTER : (row + 1) * QUARTER, column * QUARTER : (column + 1) * QUARTER] = (
            cut[:, ::-1] if mirrored else cut
        )
    for thing in scene.things:
        colour, opacity = art.sprites[thing.concept][thing.style][thing.size][thing.turn]
        height, width = opacity.shape[:2]
        under = pixels[thing.top : thing.top + height, thing.left : thing.left + width]
        under *= 1 - opacity
        under += colour
    return pixels


def patch_concepts(scene: Scene, art: Drawings, least: float = 0.25) -> NDArray[np.int64]:
    """[patches]: 1 + the concept that covers at least this share of a patch, 0 where none does."""
    count = SIDE // PATCH
    best = np.full((count, count), least, dtype=np.float32)
    found = np.zeros((count, count), dtype=np.int64)
    for thing in scene.things:
        opacity = art.sprites[thing.concept][thing.style][thing.size][thing.turn][1][..., 0]
        whole = np.zeros((SIDE, SIDE), dtype=np.float32)
        whole[thing.top : thing.top + opacity.shape[0], thing.left : thing.left + opacity.shape[1]] = opacity
        share = whole.reshape(count, PATCH, count, PATCH).mean(axis=(1, 3))
        wins = share >= best
        found[wins] = thing.concept + 1
        best[wins] = share[wins]
    return found.reshape(-1)


def cell_concepts(scene: Scene) -> NDArray[np.int64]:
    """[9]: 1 + the concept in each cell, 0 in an empty one."""
    found = np.zeros(9, dtype=np.int64)
    for thing in scene.things:
        found[thing.cell] = thing.concept + 1
    return found


def normalised(pictures: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """[n, 3, SIDE, SIDE], as the networks take them: (value / 255 - 0.5) / 0.25."""
    return np.ascontiguousarray((np.stack(pictures).transpose(0, 3, 1, 2) / 255 - 0.5) / 0.25, dtype=np.float32)
