"""Planted shortcuts: the one case in which the true explanation is known.

A rare word that decides the label is put into training texts; the model is tuned on them; then the tokens of that word
are why it says the label, and an explanation can be held against the truth (`rationales.precision_at`). Tuning is not
done here: take any technique that tunes.

Source: Bastings et al. 2022 ("Will you find these shortcuts?"), sections 2 and 3."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from intarsia.data import RationaleText
from intarsia.errors import BadInput


def plant(records: Sequence[Any], words: dict[str, str], seed: int = 0) -> list[RationaleText]:
    """Each text with one of `words` (word -> the label it means) put between two of its words at a random place; its
    label becomes the word's, and its rationale is the word. Words are given out by turns, so that the labels are
    balanced and nothing else in a text tells them.

    Raises `BadInput` for no records, fewer than two labels, or a word that occurs in a text by itself."""
    if not records:
        raise BadInput("planting a shortcut wants texts; none were given")
    if len(set(words.values())) < 2:
        raise BadInput(f"planting a shortcut wants words for two labels or more; given: {words}")
    generator = random.Random(seed)
    turns = [*sorted(words.items())] * (len(records) // len(words) + 1)
    turns = turns[: len(records)]
    generator.shuffle(turns)
    planted = []
    for record, (word, label) in zip(records, turns, strict=True):
        text = record if isinstance(record, str) else record.text
        if found := next((w for w in words if w in text), None):
            raise BadInput(f"the shortcut '{found}' occurs in a text by itself: plant a rarer word")
        parts = text.split()
        at = generator.randint(0, len(parts))
        before = " ".join(parts[:at]) + " " if at else ""
        new = " ".join([*parts[:at], word, *parts[at:]])
        span = (len(before), len(before) + len(word))
        planted.append(RationaleText(new, label, getattr(record, "group", None), (), (span,)))
    return planted
