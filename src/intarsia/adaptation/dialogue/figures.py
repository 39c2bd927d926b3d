"""How good scores are on dev, in a few numbers, and what the data was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from intarsia.adaptation.dialogue.scripts import by_dialogue
from intarsia.measure.classification import accuracy, macro_f1, weighted_f1

if TYPE_CHECKING:
    from intarsia.data import Turn

FIGURES = {"weighted_f1": weighted_f1, "macro_f1": macro_f1, "accuracy": accuracy}


def figure(name: str, scores: np.ndarray, labels: np.ndarray) -> float:
    """One figure of scores [turn, label] against label numbers [turn]."""
    confusion = np.zeros((scores.shape[1], scores.shape[1]))
    np.add.at(confusion, (labels, scores.argmax(1)), 1)
    return float(FIGURES[name](confusion))


def figures(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """All of them."""
    return {name: figure(name, scores, labels) for name in FIGURES}


def counted(train: Sequence[Turn], dev: Sequence[Turn], labels: Sequence[str]) -> dict[str, Any]:
    """What was learned from and chosen by."""
    counts = Counter(t.label for t in train)
    return {
        "turns": len(train), "labelled": sum(bool(t.label) for t in train), "dialogues": len(by_dialogue(train)),
        "labels": {name: counts[name] for name in labels}, "dev_turns": sum(bool(t.label) for t in dev),
    }  # fmt: skip
