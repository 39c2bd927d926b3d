"""The pieces of a text that are taken away together: its tokens, words or sentences."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from intarsia.interpretation.attribution.settings import Unit

if TYPE_CHECKING:
    from intarsia.interpretation.explained import Explained

_ENDS = re.compile(r"[.!?…。！？]+[\"'”’)\]]*\s*$")


def pieces(explained: Explained, unit: Unit) -> list[list[int]]:
    """The pieces of the text in order, each as indices of its features."""
    if unit == "token":
        return [[i] for i in range(len(explained.features))]
    if unit == "word":
        return [list(word) for word in explained.words]
    sentences: list[list[int]] = [[]]
    for word in explained.words:
        sentences[-1] += word
        if _ENDS.search("".join(explained.tokens[i] for i in word)):
            sentences.append([])
    return [sentence for sentence in sentences if sentence]


def masks(explained: Explained, groups: list[list[int]], present: Tensor) -> Tensor:
    """[n, feature] bool from [n, piece] bool: True where a token stays."""
    keep = torch.ones(len(present), len(explained.features), dtype=torch.bool)
    for column, group in enumerate(groups):
        keep[:, group] = present[:, column : column + 1]
    return keep


def spread(explained: Explained, groups: list[list[int]], scores: Tensor) -> Tensor:
    """[feature] float64 from [piece]: a piece's score in equal parts on its tokens, so that sums stay what they are."""
    values = torch.zeros(len(explained.features), dtype=torch.float64)
    for group, score in zip(groups, scores.double().cpu(), strict=True):
        values[group] = score / len(group)
    return values
