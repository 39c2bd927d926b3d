"""Words that two texts share in the same order: shared n-grams as a score, and as evidence that a person can read.

Source: Yang et al. 2023, DNA-GPT (black box: n from 4 to 25, weights n log n)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

from intarsia.errors import BadInput

SHORTEST, LONGEST = 4, 25
_WORD = re.compile(r"\w+")
_OF_CODE = re.compile(r"[a-z0-9]+")


@dataclass(frozen=True)
class Overlap:
    """Words of a text that continuations have too.

    - start, end: where they stand in the text, in characters. words: how many they are. text: as it is written there.
    - continuations: how many have all of them in a row."""

    start: int
    end: int
    words: int
    text: str
    continuations: int


def overlaps(
    text: str, continuations: Sequence[str], shortest: int = SHORTEST, word: re.Pattern[str] = _WORD
) -> list[Overlap]:
    """The shared word n-grams of at least `shortest` words, in the order of the text.

    - word: what counts as one.

    Each is as long as it can be: none lies within another, though two may overlap. Case and punctuation do not count.
    Raises `BadInput` for a `shortest` below 1."""
    if shortest < 1:
        raise BadInput(f"shortest is {shortest}: give at least 1")
    places = [match.span() for match in word.finditer(text)]
    words = words_of(text, word)
    others = [words_of(one, word) for one in continuations]

    @cache
    def grams(n: int) -> list[set[tuple[str, ...]]]:
        return [set(_grams(other, n)) for other in others]

    def shared(start: int, end: int) -> int:
        return sum(tuple(words[start:end]) in one for one in grams(end - start))

    out: list[Overlap] = []
    end = 0
    for start in range(len(words)):
        before, end = end, max(end, start)
        while end < len(words) and shared(start, end + 1):
            end += 1
        # Where it ends with the one before, it lies within it.
        if end - start >= shortest and end > before:
            a, b = places[start][0], places[end - 1][1]
            out.append(Overlap(a, b, end - start, text[a:b], shared(start, end)))
    return out


def overlap_score(
    rest: str, continuations: Sequence[str], form: Literal["paper", "code"] = "paper", *, entries: int = 1,
    stem: Callable[[str], str] | None = None,
) -> float:  # fmt: skip
    """DNA-GPT's black box: how much of a text's second half is in a machine's continuations of the first.

    - form: `paper`: the mean over continuations y of sum_n n log n |G_n(y) and G_n(rest)| / (|y| |G_n(rest)|), n from 4
      to 25, with G_n the different word n-grams, |y| the words of y. `code`: as the authors' code means it, n from 1 to
      24: words are what is left of lower-case letters a-z and digits, n-grams count as often as they stand in both, the
      weight is 0 up to n = 3, and the sum is divided by that of the n that match + 1e-8.
    - entries: that code goes by an entry's place in a table and not by n. With two entries for every n, as in its
      notebooks, n counts as 2n - 1; with three, as in its program, as 3n - 2; weights, divisor and the limit of 3
      alike. 1: as n.
    - stem: what words of more than 3 letters become, `code` only; its own is Porter's stemmer.

    Continuations without words do not count; NaN where none is left, or the rest has fewer words than 4."""
    if form not in ("paper", "code"):
        raise BadInput(f"no form '{form}': paper or code")
    words = words_of(rest) if form == "paper" else _words_of_code(rest, stem)
    others = [words_of(one) if form == "paper" else _words_of_code(one, stem) for one in continuations]
    others = [other for other in others if other]
    if len(words) < SHORTEST or not others:
        return np.nan
    if form == "paper":
        return float(np.mean([_of_paper(words, other) for other in others]))
    return float(np.mean([_of_code(words, other, entries) for other in others]))


def words_of(text: str, word: re.Pattern[str] = _WORD) -> list[str]:
    """Its words without regard to case or punctuation."""
    # Folded word by word: folding may change a text's length.
    return [one.casefold() for one in word.findall(text)]


def _words_of_code(text: str, stem: Callable[[str], str] | None) -> list[str]:
    words = _OF_CODE.findall(text.lower())
    return [stem(word) if len(word) > 3 else word for word in words] if stem else words


def _of_paper(words: Sequence[str], other: Sequence[str]) -> float:
    total = 0.0
    for n in range(SHORTEST, LONGEST + 1):
        own = set(_grams(words, n))
        if common := own & set(_grams(other, n)):
            total += n * np.log(n) * len(common) / (len(other) * len(own))
    return total


def _of_code(words: Sequence[str], other: Sequence[str], entries: int) -> float:
    total, matched = 0.0, 0
    for n in range(1, LONGEST):
        place = entries * (n - 1) + 1
        own, theirs = Counter(_grams(words, n)), Counter(_grams(other, n))
        if place > 3 and (common := (own & theirs).total()):
            total += place * np.log(place) * common / own.total() / len(other)
            matched += place
    return total / (matched + 1e-8)


def _grams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
