"""Stylometry: how somebody writes, in forty numbers: lengths, variety, marks and function words. A linear model of
them, as the supervised baseline that anybody can read.

Sources: Mosteller & Wallace 1964, "Inference and Disputed Authorship" (function words); Stamatatos 2009, "A Survey of
Modern Authorship Attribution Methods", §2 (lexical and character features)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from intarsia.detection.voices.states import Probe
from intarsia.errors import BadInput

FUNCTION_WORDS = (
    "the", "a", "of", "to", "and", "in", "that", "is", "it", "for", "with", "as", "this", "but", "not", "or", "by",
    "on", "which", "their", "we", "i", "you",
)  # fmt: skip
MARKS = (",", ".", ";", ":", "-", "(", '"', "?", "!", "'")
NAMES = (
    "words in a sentence", "their spread", "letters in a word", "their spread", "long words", "different words",
    "words said once", "capitals", "digits", *(f"'{mark}'" for mark in MARKS), *FUNCTION_WORDS,
)  # fmt: skip
WINDOW = 50  # words within which variety is told, so that a long text has no less of it
STRENGTH = 1e-2  # C of the logistic regression
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_SENTENCE = re.compile(r"[.!?]+(?:\s|$)")


def features(text: str) -> np.ndarray:
    """[feature] of a text, in the order of `NAMES`; zeros for one without words."""
    words = _WORD.findall(text)
    if not words:
        return np.zeros(len(NAMES))
    low = [word.lower() for word in words]
    sentences = [n for part in _SENTENCE.split(text) if (n := len(_WORD.findall(part)))]
    letters = np.array([len(word) for word in words])
    starts = range(0, max(1, len(low) - WINDOW + 1), WINDOW)
    variety = [len(set(low[i : i + WINDOW])) / len(low[i : i + WINDOW]) for i in starts]
    once = [sum(n == 1 for n in Counter(low[i : i + WINDOW]).values()) / len(low[i : i + WINDOW]) for i in starts]
    count, signs = Counter(low), max(1, len(text))
    return np.array([
        np.mean(sentences), np.std(sentences), letters.mean(), letters.std(), (letters > 6).mean(), np.mean(variety),
        np.mean(once), sum(c.isupper() for c in text) / signs, sum(c.isdigit() for c in text) / signs,
        *(100 * text.count(mark) / len(words) for mark in MARKS),
        *(100 * count[word] / len(words) for word in FUNCTION_WORDS),
    ])  # fmt: skip


@dataclass
class Stylometry:
    """- probe: weights of the features, in people's spreads within a domain."""

    probe: Probe

    @staticmethod
    def fit(texts: Sequence[str], machine: Sequence[bool], domains: Sequence[str]) -> Stylometry:
        """Learn from texts of people and machines; domains weigh alike, and what they differ in is left out. Raises
        `BadInput` for texts of one kind alone."""
        kinds = np.asarray(machine, bool)
        if kinds.all() or not kinds.any():
            raise BadInput("stylometry learns from texts of people and of machines; only one of the two is there")
        return Stylometry(Probe.fit(np.stack([features(t) for t in texts]), kinds, domains, strength=STRENGTH))

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """[text] higher for text that a machine wrote; to be compared within a domain."""
        return self.probe.scores(np.stack([features(t) for t in texts])) if len(texts) else np.zeros(0)

    def evidence(self, most: int = 8) -> list[tuple[str, float]]:
        """The features that tell most, with their weight for one unit of them, the largest first."""
        order = np.argsort(-np.abs(self.probe.weight), kind="stable")[:most]
        return [(NAMES[i], float(self.probe.weight[i])) for i in order]
