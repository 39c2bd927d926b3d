"""How many bits a probe needs to send the labels to somebody who has the states: the online code.

Labels are sent in portions; each portion is coded with a probe fitted on all portions before. A representation from
which a label is easy to learn gives a short code: it counts how well, and from how little, a probe learns.

Source: Voita & Titov 2020, "Information-Theoretic Probing with Minimum Description Length", section 2.3.2."""

from __future__ import annotations

import itertools

import numpy as np

from intarsia.interpretation.probing import classifier

PORTIONS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0)


def boundaries(n: int, classes: int) -> list[int]:
    """Ends of the portions of n records: the paper's shares, without those that hold fewer records than classes or than
    four."""
    least = max(classes, 4)
    ends = sorted({round(share * n) for share in PORTIONS})
    return [end for end in ends if end >= least and end < n] + [n]


def order(groups: np.ndarray, seed: int) -> np.ndarray:
    """Record numbers in a random order that keeps groups together."""
    names = np.unique(groups)
    rank = np.random.default_rng(seed).permutation(len(names))
    return np.argsort(rank[np.searchsorted(names, groups)], kind="stable")


def code_length(
    x: np.ndarray, y: np.ndarray, groups: np.ndarray, classes: int, *, strength: float = 0.0, seed: int = 0
) -> float:
    """Bits of the online code of y [n] given x [n, width].

    The first portion costs log2(classes) a label. A portion's probe, fitted on the t labels before it, is mixed with
    the uniform distribution by the weight classes / (t + classes), so that a class it has not seen has a price."""
    arranged = order(groups, seed)
    x, y, groups = x[arranged], y[arranged], groups[arranged]
    ends = boundaries(len(y), classes)
    bits = ends[0] * np.log2(classes)
    for start, end in itertools.pairwise(ends):
        probe = classifier.fit(x[:start], y[:start], groups[:start], classes, strength=strength, seed=seed)
        p = np.exp(probe.log_probabilities(x[start:end])[np.arange(end - start), y[start:end]])
        bits += -np.log2(mixed(p, start, classes)).sum()
    return float(bits)


def mixed(p: np.ndarray, seen: int, classes: int) -> np.ndarray:
    """Probabilities drawn to the uniform distribution by the weight classes / (seen + classes)."""
    return (seen * p + 1) / (seen + classes)


def uniform_length(n: int, classes: int) -> float:
    """Bits of n labels without any model."""
    return float(n * np.log2(classes))
