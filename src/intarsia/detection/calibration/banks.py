"""Banks of people's texts: what the voices say of texts that are known to be people's, in one domain, in views of
several lengths. A text is judged among them; of the bank's texts nothing but these numbers is kept.

Source: full conformal prediction, Vovk et al. 2005, §2.2: the text that is judged takes part in the standardisation, as
every text of the bank does, so that none of them is special. A voice's mean and spread may go with the text's length
(normalised scores: Papadopoulos et al. 2008)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from intarsia.detection.calibration.conformal import p_values
from intarsia.detection.combining import evidence, joined

FEWEST = 20  # texts under which no spread can be told
SAME = 0.05  # spread of log length under which texts count as equally long
FALL = (-1.0, 0.0)  # a voice's spread goes with length to a power in this range: a mean over tokens has -1/2


@dataclass
class Bank:
    """- domain: of its texts. language: ISO 639-1. voices: their names.
    - values: view -> [text, voice]. lengths: [text] in words."""

    domain: str
    voices: tuple[str, ...]
    values: dict[int, np.ndarray]
    lengths: np.ndarray
    language: str = "en"

    @property
    def texts(self) -> int:
        return len(self.lengths)

    def words(self, view: int) -> np.ndarray:
        """[text] words that a view shows."""
        return np.minimum(self.lengths, view)

    def judge(self, values: np.ndarray, words: np.ndarray, view: int, weights: np.ndarray) -> Judged:
        """Texts [text, voice] with their words [text] in a view, among the bank's; weights [text, sum, voice]."""
        return judge(self.values[view], self.words(view), values, words, weights)

    def some(self, rows: np.ndarray) -> Bank:
        """Of some of its texts, [text] whether each is among them."""
        values = {view: values[rows] for view, values in self.values.items()}
        return Bank(self.domain, self.voices, values, self.lengths[rows], self.language)

    def put(self, voice: str, said: np.ndarray) -> None:
        """What a voice says of each text [text], in every view alike."""
        for values in self.values.values():
            values[:, self.voices.index(voice)] = said

    def heard(self, voice: str) -> Bank:
        """Of the texts of which a voice says something."""
        at = self.voices.index(voice)
        return self.some(~np.any([np.isnan(values[:, at]) for values in self.values.values()], axis=0))

    @staticmethod
    def of(
        domain: str, voices: Sequence[str], values: np.ndarray, lengths: np.ndarray, views: Sequence[int],
        language: str = "en",
    ) -> Bank:  # fmt: skip
        """From [text, view, voice]."""
        return Bank(
            domain, tuple(voices), {v: values[:, i] for i, v in enumerate(views)}, np.asarray(lengths), language
        )


@dataclass
class Judged:
    """- score: [text] weighted sums of evidence, joined and standardised by those of the bank. p: [text] share of
    people that score as high. z: [text, voice] standard scores of each voice alone. counts: [text, voice] what a
    voice's evidence counts for here: the slope of the score."""

    score: np.ndarray
    p: np.ndarray
    z: np.ndarray
    counts: np.ndarray


def judge(
    bank: np.ndarray, bank_words: np.ndarray, values: np.ndarray, words: np.ndarray, weights: np.ndarray
) -> Judged:
    """Each text [text, voice] among the bank's [n, voice]. Voices of weight 0, and those that say nothing of the bank
    (NaN), are not heard.

    Scores are standardised by the bank alone, so that they do not depend on its size. For the p-value, means and
    spreads are those of the bank with this text added, and it is the text's rank among them all: only so is no text
    special, and the promise exact.

    - weights: [sum, voice], or [text, sum, voice]."""
    weights = np.broadcast_to(weights, (len(values), *weights.shape[-2:]))
    weights = np.where(np.isnan(bank).any(0), 0.0, weights)
    mean, spread = trends(bank, bank_words)
    z, people = (values - mean(words)) / spread(words), (bank - mean(bank_words)) / spread(bank_words)
    out = Judged(np.zeros(len(values)), np.ones(len(values)), z, np.zeros(values.shape))
    for i, (value, length) in enumerate(zip(values, words, strict=True)):
        heard = weights[i].any(0)
        mine = weights[i][weights[i].any(1)][:, heard].T  # [voice, sum]
        if not mine.size:
            continue
        theirs = evidence(people[:, heard]) @ mine
        level, scale = theirs.mean(0), np.maximum(theirs.std(0), 1e-12)
        sums = (evidence(z[i, heard]) @ mine - level) / scale
        every = joined((theirs - level) / scale)
        width = max(float(every.std()), 1e-12)
        out.score[i] = (joined(sums) - every.mean()) / width
        out.counts[i, heard] = mine @ (np.exp(sums - joined(sums)) / scale) / width
        everybody = np.concatenate([bank[:, heard], value[None, heard]])
        told = evidence(standardised(everybody, np.append(bank_words, length))) @ mine
        told = (told - told.mean(0)) / np.maximum(told.std(0), 1e-12)
        # Rounding must not part what is equal: a text that is in the bank has to tie with itself.
        ranked = np.round(joined(told), 9)
        out.p[i] = p_values(ranked[-1:], ranked[:-1])[0]
    return out


def standardised(values: np.ndarray, words: np.ndarray) -> np.ndarray:
    """[text, voice] standard scores among all of them, given their length."""
    mean, spread = trends(values, words)
    return (values - mean(words)) / spread(words)


def trends(values: np.ndarray, words: np.ndarray):
    """Mean and spread of each voice as functions of length, words [text] -> [text, voice]: a line over log length and a
    power of it. Constants where the texts are equally long."""
    length = np.log(np.maximum(words, 1)).astype(float)
    center, scale = float(length.mean()), float(length.std())
    level = values.mean(0)
    slope = np.zeros(values.shape[1])
    if scale >= SAME:
        at = (length - center) / scale
        slope = at @ values / len(at) / scale
    rest = values - level - np.outer(length - center, slope)
    fall = np.zeros(values.shape[1])
    if scale >= SAME:
        sizes = np.log(np.abs(rest) + 1e-9 + 1e-3 * np.abs(rest).mean(0))
        fall = np.clip(at @ sizes / len(at) / scale, *FALL)
    plain = rest / np.exp(np.outer(length - center, fall))
    spread = plain.std(0)
    spread = np.where(spread > 0, spread, 1.0)

    def mean_at(some: np.ndarray) -> np.ndarray:
        return level + np.outer(np.log(np.maximum(some, 1)) - center, slope)

    def spread_at(some: np.ndarray) -> np.ndarray:
        return spread * np.exp(np.outer(np.log(np.maximum(some, 1)) - center, fall))

    return mean_at, spread_at
