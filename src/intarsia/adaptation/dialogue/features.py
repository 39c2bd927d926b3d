"""What the linear model sees of a turn: its embedding, those of the turns before it, fading, and who speaks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from intarsia.adaptation.dialogue.scripts import by_dialogue

if TYPE_CHECKING:
    from intarsia.data import Turn


def main_speakers(turns: Sequence[Turn], count: int) -> list[str]:
    """The most frequent speakers, at most `count`, of those with ten turns or more."""
    counted = Counter(turn.speaker for turn in turns if turn.speaker)
    return [name for name, n in counted.most_common(count) if n >= 10]


def features(
    turns: Sequence[Turn], vectors: np.ndarray, *, window: int, decay: float, speakers: Sequence[str], future: int = 0
) -> np.ndarray:
    """[turn, width * (2, or 3 with later turns) + speakers] float32.

    - vectors: [turn, width], of the turns' own texts. window, future: turns before and after that are added up, the
      next one with weight `decay`, the one after it with its square, and so on; turns that are missing in between
      count as steps."""
    n = len(vectors)
    past, coming = np.zeros_like(vectors), np.zeros_like(vectors)
    for numbers in by_dialogue(turns):
        for place, i in enumerate(numbers):
            for j in numbers[max(0, place - window) : place]:
                past[i] += decay ** min(64, max(1, turns[i].number - turns[j].number)) * vectors[j]
            for j in numbers[place + 1 : place + 1 + future]:
                coming[i] += decay ** min(64, max(1, turns[j].number - turns[i].number)) * vectors[j]
    who = np.zeros((n, len(speakers)), np.float32)
    for i, turn in enumerate(turns):
        if turn.speaker in speakers:
            who[i, list(speakers).index(turn.speaker)] = 1.0
    parts = [vectors, past, *([coming] if future else []), who]
    return np.concatenate(parts, axis=1).astype(np.float32)


def columns(width: int, speakers: int, future: int = 0) -> list[slice]:
    """The groups of columns of `features`, each measured on one scale."""
    blocks = 3 if future else 2
    out = [slice(i * width, (i + 1) * width) for i in range(blocks)]
    return [*out, slice(blocks * width, None)] if speakers else out
