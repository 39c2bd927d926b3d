"""Plausibility: do the tokens that an explanation puts first agree with those that people marked?

Agreement with people says whether an explanation convinces, not whether it is true of the model: a model that is right
for a wrong reason has a faithful explanation that no person would give.

Source: DeYoung et al. 2020 (ERASER), section 4.1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Span = tuple[int, int]


def token_mask(text: str, tokens: Sequence[str], spans: Sequence[Span]) -> np.ndarray:
    """[token] bool: whether a token shares a visible character with one of the spans (start, end) of the text.

    Tokens are taken one after the other where they stand in the text."""
    inside = np.zeros(len(text), dtype=bool)
    for start, end in spans:
        inside[start:end] = True
    marked = np.zeros(len(tokens), dtype=bool)
    at = 0
    for i, token in enumerate(tokens):
        at = max(text.find(token, at), 0)
        visible = np.array([not c.isspace() for c in token], dtype=bool)
        marked[i] = bool((inside[at : at + len(token)] & visible).any())
        at += len(token)
    return marked


def top(scores: np.ndarray, count: int) -> np.ndarray:
    """[token] bool: the `count` highest scores; equal ones in the order of the text."""
    chosen = np.zeros(len(scores), dtype=bool)
    chosen[np.argsort(-np.asarray(scores, np.float64), kind="stable")[:count]] = True
    return chosen


def token_f1(chosen: np.ndarray, human: np.ndarray) -> float:
    """F1 of chosen tokens against marked tokens: 2 |both| / (|chosen| + |marked|); 1 when both are empty."""
    size = int(chosen.sum() + human.sum())
    return 2 * int((chosen & human).sum()) / size if size else 1.0


def runs(mask: np.ndarray) -> list[Span]:
    """Contiguous stretches of True as (start, end)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(int), [0]])))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def iou_f1(chosen: np.ndarray, human: np.ndarray, threshold: float = 0.5) -> float:
    """F1 over spans: a stretch of tokens counts as found when its intersection over union with one of the other side
    is above `threshold`. Precision over chosen stretches, recall over marked ones; 1 when both are empty.

    Source: DeYoung et al. 2020 (ERASER), section 4.1."""
    ours, theirs = runs(chosen), runs(human)
    if not ours or not theirs:
        return float(not ours and not theirs)

    def overlap(a: Span, b: Span) -> float:
        both = max(0, min(a[1], b[1]) - max(a[0], b[0]))
        return both / (a[1] - a[0] + b[1] - b[0] - both)

    precision = sum(max(overlap(a, b) for b in theirs) > threshold for a in ours) / len(ours)
    recall = sum(max(overlap(a, b) for a in ours) > threshold for b in theirs) / len(theirs)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def average_precision(scores: np.ndarray, human: np.ndarray) -> float:
    """Mean over the marked tokens of the precision among the tokens ranked no lower; its mean over texts is MAP.

    Ties keep the order of the text. NaN when nothing is marked."""
    if not human.any():
        return float("nan")
    ranked = human[np.argsort(-np.asarray(scores, np.float64), kind="stable")]
    precision = np.cumsum(ranked) / np.arange(1, len(ranked) + 1)
    return float(precision[ranked].mean())


def auprc(scores: np.ndarray, human: np.ndarray) -> float:
    """Area under the precision-recall curve by the trapezoid rule over distinct scores, starting at recall 0 with the
    first precision. NaN when nothing is marked. Chance is the share of marked tokens."""
    if not human.any():
        return float("nan")
    scores = np.asarray(scores, np.float64)
    sequence = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.append(np.diff(scores[sequence]) != 0, True))  # the last of each group of equal scores
    hits = np.cumsum(human[sequence])[last]
    precision, recall = hits / (last + 1), hits / human.sum()
    return float(np.trapezoid(np.append(precision[0], precision), np.append(0.0, recall)))


def precision_at(scores: np.ndarray, human: np.ndarray, count: int | None = None) -> float:
    """Share of the `count` highest scores that are marked (default: as many as are marked)."""
    count = int(human.sum()) if count is None else count
    return float(human[top(scores, count)].mean()) if count else float("nan")
