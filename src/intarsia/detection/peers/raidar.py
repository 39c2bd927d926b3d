"""RAIDAR: a language model that is asked to rewrite a text changes a person's more than a machine's.

Source: Mao et al. 2024, RAIDAR: a text against its rewritings, by shared word n-grams and string ratios. The
prompts are ours. What is made here are features: a classifier is trained on them, so that it is no method by itself."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from intarsia.detection.writing.seeds import mixed_seed
from intarsia.errors import BadInput
from intarsia.progress import listening, track

if TYPE_CHECKING:
    from intarsia.detection.writing.writer import Writer

PROMPTS = {
    "rewrite": "Rewrite the following text in your own words.",
    "polish": "Polish the language of the following text.",
    "correct": "Correct the grammar and spelling of the following text; change nothing that is right.",
    "fluent": "Make the following text easier to read, with as few changes as you can.",
    "shorten": "Say the following more briefly, and leave out nothing that matters.",
    "formal": "Put the following text into the style of an academic paper.",
    "improve": "Improve the following text as you would have written it.",
}
"""How the writer is asked to rewrite, by name."""

ASKED = "{prompt} Answer with the text alone.\n\n{text}"
LONGEST = 4  # words of an n-gram
MEASURES = (*(f"shared_{n}" for n in range(1, LONGEST + 1)), "ratio", "word_ratio")
TOKENS_A_WORD = 2


def feature_names() -> list[str]:
    """What the columns of `rewriting_features` are: `prompt.measure`."""
    return [f"{prompt}.{measure}" for prompt in PROMPTS for measure in MEASURES]


def rewriting_features(texts: Sequence[str], writer: Writer, seed: int = 0) -> np.ndarray:
    """What rewriting leaves of texts, [text, feature], seven prompts times six measures (`feature_names`).

    Each is from 0 to 1, 1 where nothing was changed: different word n-grams (n from 1 to 4) that text and rewriting
    share, of those of the text; the ratio of characters that match (Ratcliff and Obershelp); and the same of their
    different words in order of the alphabet, the shared ones apart, which does not mind a new order. Case does not
    count. NaN for texts without words. Raises `BadInput` for no texts."""
    if not texts:
        raise BadInput("there are no texts to rewrite")
    out = np.full((len(texts), len(PROMPTS) * len(MEASURES)), np.nan)
    for row, text in enumerate(track(texts, "rewriting texts")):
        if not text.split():
            continue
        asked = [ASKED.replace("{prompt}", prompt).replace("{text}", text) for prompt in PROMPTS.values()]
        with listening(None):
            made = writer.write(
                asked, most_tokens=TOKENS_A_WORD * len(text.split()) + 32, seed=mixed_seed(seed, "rewrite", text)
            )
        out[row] = np.concatenate([left_of(text, one) for one in made])
    return out


def left_of(text: str, rewritten: str) -> np.ndarray:
    """The measures of one rewriting, [measure]."""
    a, b = text.lower().split(), rewritten.lower().split()
    shares = [_shared(a, b, n) for n in range(1, LONGEST + 1)]
    return np.array([*shares, _ratio(" ".join(a), " ".join(b)), word_ratio(a, b)])


def word_ratio(a: Sequence[str], b: Sequence[str]) -> float:
    """The best ratio among: the words that two texts share, these with the other words of the one, and of the other
    (the token set ratio of fuzzy matching)."""
    both = " ".join(sorted(set(a) & set(b)))
    first, second = (" ".join([both, *sorted(set(x) - set(y))]).strip() for x, y in ((a, b), (b, a)))
    pairs = [(first, second), *([(both, first), (both, second)] if both else [])]
    return max(_ratio(*pair) for pair in pairs)


def _shared(a: Sequence[str], b: Sequence[str], n: int) -> float:
    own, other = ({tuple(x[i : i + n]) for i in range(len(x) - n + 1)} for x in (a, b))
    return len(own & other) / len(own) if own else float(list(a) == list(b))


def _ratio(a: str, b: str) -> float:
    # Without autojunk: it would take every letter of a longer text for noise.
    return difflib.SequenceMatcher(None, a, b, autojunk=False).ratio()
