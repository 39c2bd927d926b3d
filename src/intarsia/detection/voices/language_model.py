"""What a small local language model says of a text, from one reading of its first tokens: log-likelihood, ranks,
entropy and their like, and the mean of its states. 128 tokens tell as much as all, at a fraction of the cost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from intarsia.detection.statistics import SCORES, Kept, TokenStatistics, states_width
from intarsia.detection.voices.cuts import word_ends

NAMES = ("loglik", "logrank", "lrr", "neg_entropy", "neg_var", "top1", "top10", "curvature")
TOKENS = 128


def features(of: TokenStatistics) -> np.ndarray:
    """[feature]; NaN where no token was predicted."""
    return np.array([SCORES[name](of) if len(of) else np.nan for name in NAMES])


def in_views(
    kept: Kept, texts: Sequence[str], views: Sequence[int], tokens: int | None = TOKENS
) -> tuple[np.ndarray, np.ndarray]:
    """Features [text, view, feature] and mean states [text, view, 4 width] of the texts' first words."""
    found = kept(texts, tokens)
    out = np.full((len(texts), len(views), len(NAMES)), np.nan)
    states = np.full((len(texts), len(views), states_width(kept.model)), np.nan, dtype=np.float32)
    for row, (text, one) in enumerate(zip(texts, found, strict=True)):
        ends = word_ends(text, max(views, default=0))
        known: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        for column, words in enumerate(views):
            count = min(words, len(ends))
            if count and count not in known:
                part = one.between(0, ends[count - 1])
                known[count] = features(part), part.state()
            if count:
                out[row, column], states[row, column] = known[count]
    return out, states
