"""What the drawings show, and every word the test bed speaks."""

from __future__ import annotations

CONCEPTS = {
    "apple": "1f34e", "banana": "1f34c", "grapes": "1f347", "watermelon": "1f349",
    "mushroom": "1f344", "pizza": "1f355", "doughnut": "1f369", "frog": "1f438", "pig": "1f437",
    "panda": "1f43c", "octopus": "1f419", "fish": "1f420", "bee": "1f41d", "turtle": "1f422", "sunflower": "1f33b",
    "cactus": "1f335", "tree": "1f332", "basketball": "1f3c0", "rocket": "1f680", "car": "1f697", "bus": "1f68c",
    "balloon": "1f388", "guitar": "1f3b8", "key": "1f511",
}  # fmt: skip
"""Word -> emoji (code points in hex). All exist in every drawing style."""

NAMES = tuple(CONCEPTS)
TRAIN_STYLES = ("noto", "noto-v1", "openmoji", "fluent-flat", "emojione", "emojione-v1")
UNSEEN_STYLE = "twemoji"
STYLES = (*TRAIN_STYLES, UNSEEN_STYLE)

PLACES = (
    "top-left", "top", "top-right", "left", "center", "right", "bottom-left", "bottom", "bottom-right",
)  # fmt: skip
"""The nine cells of a picture, row by row."""

SIDES = {"right-of": (0, 1), "left-of": (0, -1), "above": (-1, 0), "below": (1, 0)}
"""Word -> (rows down, columns to the right)."""

COUNTS = ("one", "two", "three")
