"""Copied text: which stretches of a text stand word for word in others, and where.

The automaton of all runs of words of the text is built once (Blumer et al. 1985, "The smallest automaton recognizing
the subwords of a text"); each source is then read through it. So time is linear in the text and the sources together,
memory in the text alone, and nothing is missed: no sampling, no hashes that could collide."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from intarsia.errors import BadInput
from intarsia.prompting.execute.trust import plain

LEAST = 8
"""Words in a row that are hardly ever the same by chance."""
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Copied:
    """A stretch of a text that stands in a source too: `text[start:end]` has the words of
    `sources[source][source_start:source_end]`. words: how many."""

    start: int
    end: int
    source: str
    source_start: int
    source_end: int
    words: int


def copied(text: str, sources: Mapping[str, str] | Iterable[tuple[str, str]], *, least: int = LEAST) -> list[Copied]:
    """The longest stretches of a text that stand in one of the sources, in the order of the text.

    - sources: texts by name. Of places with the same words, the first one is told.
    - least: words that a stretch has at least.

    Words are compared, in small letters; spaces and marks between them may differ. No stretch lies within another one,
    two may overlap where one goes on in another source. Raises `BadInput` for `least` below 1."""
    if least < 1:
        raise BadInput(f"least is {least}: a stretch has one word or more")
    words = _words(text)
    automaton = _Automaton([word for word, _, _ in words])
    for name, source in sources.items() if isinstance(sources, Mapping) else sources:
        automaton.read(name, source)
    out = []
    longest = automaton.longest()
    for last, (length, name, begin, end) in enumerate(longest):
        goes_on = last + 1 < len(longest) and longest[last + 1][0] > length  # and is told there
        if length >= least and not goes_on:
            out.append(Copied(words[last - length + 1][1], words[last][2], name, begin, end, length))
    return out


def copied_share(text: str, found: Iterable[Copied]) -> float:
    """The share of a text's words that were copied; 0 of a text without words."""
    words = _words(text)
    marks = sorted((one.start, one.end) for one in found)
    inside, place = 0, 0
    for _, start, end in words:
        while place < len(marks) and marks[place][1] < end:
            place += 1
        inside += place < len(marks) and marks[place][0] <= start
    return inside / len(words) if words else 0.0


def _words(text: str) -> list[tuple[str, int, int]]:
    """(word, start, end) of a text."""
    return [(found[0].casefold(), *found.span()) for found in _WORD.finditer(plain(text))]


class _Automaton:
    """All runs of words of one text, and the longest of them that sources were found to hold.

    A state stands for runs that end at the same places; `length`: of its longest, `link`: the state of the longest that
    is shorter than all of its own. `best`: (words, source, start, end) of the longest that a source has."""

    def __init__(self, words: list[str]):
        self.next: list[dict[str, int]] = [{}]
        self.link, self.length = [-1], [0]
        self.prefix: list[int] = []  # the state of the first so many words
        last = 0
        for word in words:
            last = self._more(last, word)
            self.prefix.append(last)
        self.best: list[tuple[int, str, int, int]] = [(0, "", 0, 0)] * len(self.next)

    def _more(self, last: int, word: str) -> int:
        here = self._state(self.length[last] + 1, {}, 0)
        at = last
        while at >= 0 and word not in self.next[at]:
            self.next[at][word] = here
            at = self.link[at]
        if at < 0:
            return here
        other = self.next[at][word]
        if self.length[at] + 1 != self.length[other]:
            other = self._divided(at, word, other)
        self.link[here] = other
        return here

    def _divided(self, at: int, word: str, other: int) -> int:
        """The shorter runs of a state get one of their own: they end at more places from now on."""
        made = self._state(self.length[at] + 1, dict(self.next[other]), self.link[other])
        while at >= 0 and self.next[at].get(word) == other:
            self.next[at][word] = made
            at = self.link[at]
        self.link[other] = made
        return made

    def _state(self, length: int, following: dict[str, int], link: int) -> int:
        self.next.append(following)
        self.length.append(length)
        self.link.append(link)
        return len(self.next) - 1

    def read(self, name: str, source: str) -> None:
        """Note the longest runs that a source has."""
        words = _words(source)
        state = length = 0
        for place, (word, _, end) in enumerate(words):
            while state and word not in self.next[state]:
                state = self.link[state]
                length = self.length[state]
            if word not in self.next[state]:
                continue
            state, length = self.next[state][word], length + 1
            at, have = state, length
            # Whoever has a run has all its ends: each state is filled once, so that this stays linear.
            while at and self.best[at][0] < have:
                self.best[at] = (have, name, words[place - have + 1][1], end)
                at = self.link[at]
                have = self.length[at]

    def longest(self) -> list[tuple[int, str, int, int]]:
        """For each word of the text: (words, source, start, end) of the longest run that ends with it and that a source
        has."""
        found = list(self.best)
        for state in sorted(range(1, len(self.next)), key=self.length.__getitem__):
            if not found[state][0]:
                found[state] = found[self.link[state]]
        return [found[state] for state in self.prefix]
