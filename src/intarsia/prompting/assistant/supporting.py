"""Whether what an answer cites holds what it says.

By words, so that it is the same for every model and costs nothing: an answer that names a number or a thing which none
of its passages has is not supported, whatever else it shares with them. It cannot tell `is` from `is not`; a judge
model can (`intarsia eval --metric judge`)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from intarsia.prompting.data.store.words import telling

_STEM = re.compile(r"(?:ations?|ing|ed|es|s|e|ly)$")
_WORD = re.compile(r"\w+")
_NUMBER = re.compile(r"\d+(?:\.\d+)*")
_CALLED = re.compile(r"\b\w+(?:[._]\w+)+\b|\b\w+(?=\()")  # names of programs: a.b, a_b, a(


def support(answer: str, passages: Sequence[str], question: str = "") -> float:
    """The share of an answer's telling words that the passages have, 0 to 1; words of the question are known anyway.

    0 where it holds a number or a program's name that neither passages nor question have, or says nothing."""
    known = {_stem(word) for text in (*passages, question) for word in telling(text)}
    given = " ".join((*passages, question))
    numbers, names = set(_NUMBER.findall(given)), set(_WORD.findall(given.casefold()))
    if not set(_NUMBER.findall(answer)) <= numbers:
        return 0.0
    for told in _CALLED.findall(answer):
        if told.casefold().rpartition(".")[2] not in names:
            return 0.0
    asked = {_stem(word) for word in telling(question)}
    said = [stem for word in telling(answer) if (stem := _stem(word)) not in asked]
    if not said:
        return 0.0  # the question over again
    return sum(stem in known for stem in said) / len(said)


def _stem(word: str) -> str:
    cut = _STEM.sub("", word)
    return cut if len(cut) > 2 else word
