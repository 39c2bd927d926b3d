"""A written answer as a label: never by chance, and never by the order in which labels are tried."""

from __future__ import annotations

import re
from collections.abc import Sequence


def read_answer(text: str, labels: Sequence[str]) -> int:
    """The number of the label that a text names: the one it is; else the label that stands in it first as a word of its
    own (of two at one place the longer); else the one at the least edit distance (of equals the first)."""
    said = text.strip().split("\n", 1)[0].strip().strip(".").casefold()
    folded = [label.casefold() for label in labels]
    if said in folded:
        return folded.index(said)
    places = [
        (found.start(), -len(label), i)
        for i, label in enumerate(folded)
        if (found := re.search(rf"(?<!\w){re.escape(label)}(?!\w)", said))
    ]
    if places:
        return min(places)[2]
    return min(range(len(labels)), key=lambda i: (edit_distance(said, folded[i]), i))


def edit_distance(left: str, right: str) -> int:
    """Levenshtein: insertions, deletions and substitutions from one text to the other."""
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(right, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]
