"""Whether what an answer cites holds what it says.

By words, so that it is the same for every model and costs nothing: an answer that names a number or a thing which none
of its passages has is not supported, whatever else it shares with them, nor is one that turns round what they say
(`contradicting`). What takes more than words to tell, a judge model can (`intarsia eval --metric judge`)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from intarsia.prompting.assistant.contradicting import contradiction
from intarsia.prompting.assistant.wording import stem, written_out
from intarsia.prompting.data.store.words import telling

_WORD = re.compile(r"\w+")
_NUMBER = re.compile(r"\d+(?:\.\d+)*")
_CALLED = re.compile(r"\b\w+(?:[._]\w+)+\b|\b\w+(?=\()")  # names of programs: a.b, a_b, a(


def support(answer: str, passages: Sequence[str], question: str = "") -> float:
    """How far passages hold an answer, 0 to 1: the share of its telling words that they have; words of the question are
    known anyway.

    0 where it holds a number or a program's name that neither passages nor question have, where it turns round what
    they say, and where it says nothing."""
    return 0.0 if contradiction(answer, passages, question) is not None else words_held(answer, passages, question)


def words_held(answer: str, passages: Sequence[str], question: str = "") -> float:
    """`support` by single words alone, whatever stands between them."""
    known = {stem(word) for text in (*passages, question) for word in telling(written_out(text))}
    given = " ".join((*passages, question))
    numbers, names = set(_NUMBER.findall(given)), set(_WORD.findall(given.casefold()))
    if not set(_NUMBER.findall(answer)) <= numbers:
        return 0.0
    for told in _CALLED.findall(answer):
        if told.casefold().rpartition(".")[2] not in names:
            return 0.0
    asked = {stem(word) for word in telling(question)}
    said = [one for word in telling(written_out(answer)) if (one := stem(word)) not in asked]
    if not said:
        return 0.0  # the question over again
    return sum(one in known for one in said) / len(said)
