"""Words and runs of two and three words: what a text is made of. A linear model of hashed counts, so that no vocabulary
has to be kept; a millisecond a document.

Punctuation marks are words, too, and so is each sign of a script without blanks. Counts are damped, 1 + log count,
weighed by their rarity and brought to length one, so that a long text weighs as much as a short one. The rarity is kept
beside the weights, one number for each place of the hash.

In domains that were not trained on, runs of words do better than the character n-grams that are common for this
(docs/benchmarks.md). Source: tf-idf and logistic regression: the supervised baseline of Koike et al. 2024; hashing:
Weinberger et al. 2009."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from intarsia.detection.voices.cuts import CJK
from intarsia.errors import BadInput, MissingExtra

if TYPE_CHECKING:
    from scipy import sparse

PLACES = 2**18
LONGEST = 3  # words in a run
STRENGTH = 10.0  # C of the logistic regression
AT_ONCE = 2048  # texts counted at once


@dataclass
class NGrams:
    """- rarity: [place] inverse document frequency. weight: [place]. bias: log odds of a text without any n-gram."""

    rarity: np.ndarray
    weight: np.ndarray
    bias: float

    @staticmethod
    def fit(texts: Sequence[str], machine: np.ndarray, domains: Sequence[str], *, strength: float = STRENGTH) -> NGrams:
        """Learn to tell the machine's texts [text] from people's.

        In every domain both weigh the same, and every domain weighs the same: what is learned is the difference that
        domains share. A domain with texts of one kind alone counts as well. Raises `BadInput` for one kind alone."""
        return NGrams.of_counts(counts(texts), machine, domains, strength=strength)

    @staticmethod
    def of_counts(
        found: sparse.csr_matrix, machine: np.ndarray, domains: Sequence[str], *, strength: float = STRENGTH
    ) -> NGrams:
        """As `fit`, from counts [text, place] that were made already."""
        from sklearn.linear_model import LogisticRegression

        machine = np.asarray(machine, dtype=bool)
        if machine.all() or not machine.any():
            raise BadInput("a detector learns from texts of people and of machines; only one of the two is there")
        occurs = np.asarray((found > 0).sum(0)).ravel()
        rarity = (np.log((1 + found.shape[0]) / (1 + occurs)) + 1).astype(np.float32)
        weights = balanced(machine, domains)
        # The dual solver: a few thousand texts against a quarter of a million places.
        model = LogisticRegression(C=strength, solver="liblinear", dual=True, max_iter=2000, tol=1e-3)
        model.fit(_scaled(found, rarity), machine, sample_weight=weights)
        return NGrams(rarity, model.coef_[0].astype(np.float32), float(model.intercept_[0]))

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """[text] log odds."""
        return self.of(counts(texts))

    def of(self, found: sparse.csr_matrix) -> np.ndarray:
        """[text] log odds, from counts [text, place]."""
        return np.asarray(_scaled(found, self.rarity) @ self.weight).ravel().astype(float) + self.bias

    def evidence(self, text: str, most: int = 8) -> list[tuple[str, float]]:
        """The n-grams that speak most for a machine, with what each adds to the text's log odds, the largest first."""
        analyze = _vectoriser().build_analyzer()
        grams = list(dict.fromkeys(analyze(text)))
        if not grams:
            return []
        row = counts([text])
        length = float(np.sqrt((row.multiply(row)).multiply(self.rarity[None] ** 2).sum())) or 1.0
        places = _hasher().transform([[gram] for gram in grams]).tocsr().indices
        count = np.asarray(row[0, places].todense()).ravel()
        adds = count * self.rarity[places] * self.weight[places] / length
        order = np.argsort(-adds, kind="stable")[:most]
        return [(grams[i], float(adds[i])) for i in order if adds[i] > 0]


def balanced(machine: np.ndarray, domains: Sequence[str]) -> np.ndarray:
    """[text] weights under which domains weigh alike, and in each people and machines; their mean is one."""
    names = np.asarray(domains)
    weights = np.zeros(len(machine))
    for name in dict.fromkeys(domains):
        for kind in (False, True):
            mine = (names == name) & (machine == kind)
            if mine.any():
                weights[mine] = 1 / mine.sum()
    return weights * len(machine) / weights.sum()


def counts(texts: Sequence[str]) -> sparse.csr_matrix:
    """[text, place] float32: 1 + log of how often the n-grams of each place occur."""
    return damped(raw_counts(texts))


def damped(found: sparse.csr_matrix) -> sparse.csr_matrix:
    """1 + log of counts, in place."""
    found.data = 1 + np.log(found.data)
    return found


def raw_counts(texts: Sequence[str]) -> sparse.csr_matrix:
    """[text, place] float32: how often the n-grams of each place occur."""
    from scipy import sparse

    parts = [_vectoriser().transform(texts[start : start + AT_ONCE]) for start in range(0, len(texts), AT_ONCE)]
    return sparse.vstack(parts, format="csr") if parts else sparse.csr_matrix((0, PLACES), dtype=np.float32)


def _scaled(found: sparse.csr_matrix, rarity: np.ndarray) -> sparse.csr_matrix:
    from sklearn.preprocessing import normalize

    scaled = found.copy()
    scaled.data = scaled.data * rarity[scaled.indices]
    return normalize(scaled, copy=False)


@lru_cache(1)
def _vectoriser() -> Any:
    try:
        from sklearn.feature_extraction.text import HashingVectorizer
    except ImportError:
        raise MissingExtra("detection", "detect") from None
    return HashingVectorizer(
        analyzer="word", token_pattern=rf"[{CJK}]|[^\W{CJK}]+|[^\w\s]", ngram_range=(1, LONGEST), n_features=PLACES,
        alternate_sign=False, norm=None, lowercase=False, dtype=np.float32,
    )  # fmt: skip


@lru_cache(1)
def _hasher() -> Any:
    from sklearn.feature_extraction import FeatureHasher

    return FeatureHasher(PLACES, input_type="string", alternate_sign=False, dtype=np.float32)
