"""How much a text's values hang on which of its sentences were written: the bootstrap over sentences."""

from __future__ import annotations

import re

import numpy as np

from intarsia.detection.detector import SPOKEN, VOICES, Detector
from intarsia.detection.statistics import TokenStatistics
from intarsia.detection.voices import language_model
from intarsia.detection.voices.ngrams import damped, raw_counts

DRAWS = 200
_SENTENCE = re.compile(r"\S.*?(?:[.!?][\"')\]]*(?=\s|$)|$)", re.S)


def sentences(text: str) -> list[tuple[int, int]]:
    """Where sentences stand (start, end), in order; what ends without a stop is one, too."""
    return [found.span() for found in _SENTENCE.finditer(text)]


def resampled(
    detector: Detector, text: str, found: TokenStatistics | None, draws: int = DRAWS, seed: int = 0,
    paired: float = np.nan,
) -> np.ndarray:  # fmt: skip
    """[draw, voice] values of texts made of as many sentences, drawn with replacement; the language model's voices are
    NaN where it did not read. What the encoder says of the text beside its references stays as it is (`paired`).

    Efron & Tibshirani 1993, ch. 13; what sentences owe to the ones before them is left as it was."""
    from scipy import sparse

    spans = sentences(text)
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(len(spans), np.full(len(spans), 1 / len(spans)), size=draws)
    total = (sparse.csr_matrix(drawn.astype(np.float32)) @ raw_counts([text[a:b] for a, b in spans])).tocsr()
    out = np.full((draws, len(VOICES)), np.nan)
    out[:, : len(SPOKEN)] = detector.spoken(damped(total))
    if found is not None and len(found):
        starts = np.array([a for a, _ in spans])
        of = np.clip(np.searchsorted(starts, found.spans[:, 0], side="right") - 1, 0, None)
        tokens, scores = np.arange(len(found)), np.full((draws, len(language_model.NAMES)), np.nan)
        for draw in range(draws):
            some = np.repeat(tokens, drawn[draw][of])
            if len(some):
                scores[draw] = language_model.features(found.part(some))
        # The state is a mean over all tokens: of a sentence alone there is none, so it stays as it is.
        states = np.broadcast_to(found.state(), (draws, len(found.states[0])))
        out[:, len(SPOKEN) : -1] = detector.heard(scores, states)
    out[:, -1] = paired
    return out
