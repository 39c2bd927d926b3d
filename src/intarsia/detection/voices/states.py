"""A linear probe of a language model's states: how a text looks from inside a model that reads it. What machines' texts
share there carries over to domains and generators that the probe was not trained on better than any score of tokens.

Source: own, of the kind of Yu et al. 2024, "Text Fluoroscopy" (middle layers tell most)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from intarsia.detection.voices.ngrams import balanced

STRENGTH = 1e-2  # C of the logistic regression


@dataclass
class Probe:
    """- weight: [width], of states as they are."""

    weight: np.ndarray

    @staticmethod
    def fit(states: np.ndarray, machine: np.ndarray, domains: Sequence[str], *, strength: float = STRENGTH) -> Probe:
        """From mean states [text, width]. In each domain they are taken less the mean of people's texts there, so that
        what domains differ in is no part of it; scores are therefore to be compared within a domain alone."""
        from sklearn.linear_model import LogisticRegression

        machine, names = np.asarray(machine, bool), np.asarray(domains)
        centered = np.zeros(states.shape)
        people = []
        for name in dict.fromkeys(domains):
            mine = names == name
            humans = mine & ~machine
            center = states[humans if humans.any() else mine].mean(0)
            centered[mine] = states[mine] - center
            people.append(centered[humans])
        scale = np.concatenate(people).std(0)
        scale = np.where(scale > 0, scale, 1.0)
        model = LogisticRegression(C=strength, max_iter=1000)
        model.fit(centered / scale, machine, sample_weight=balanced(machine, domains))
        return Probe((model.coef_[0] / scale).astype(np.float32))

    def scores(self, states: np.ndarray) -> np.ndarray:
        """[...] from states [..., width]."""
        return np.asarray(states @ self.weight, dtype=float)
