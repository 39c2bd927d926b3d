"""Entities that a text names."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass

from intarsia.knowledge.graph.growing import GrowingGraph

LONGEST = 10  # words and signs of a name
_WORD = re.compile(r"[\w./+#:-]*[\w+#]|\S")
_SENSE = re.compile(r"\.[nvarst]\.\d{2}$")  # of WordNet: paris.n.01


@dataclass(frozen=True)
class Mention:
    """Words of a text, and the entities that go by them: the one with most facts first."""

    words: str
    entities: list[int]


def mentions(
    graph: GrowingGraph, text: str, degrees: dict[int, int], names: dict[str, list[int]] | None = None
) -> list[Mention]:
    """What a text names, in its order; the longest name that fits is taken at each place.

    - names: the graph's `surfaces`, where they were found before."""
    names = surfaces(graph) if names is None else names
    words = list(_WORD.finditer(text))
    out, at, seen = [], 0, set()
    while at < len(words):
        for size in range(min(LONGEST, len(words) - at), 0, -1):
            phrase = " ".join(text[words[at].start() : words[at + size - 1].end()].split())
            found = names.get(_folded(phrase))
            if found and (size > 1 or _telling(phrase, found, graph)):
                ordered = sorted(found, key=lambda i: (graph.entities[i] != phrase, -degrees.get(i, 0), i))
                if ordered[0] not in seen:
                    out.append(Mention(phrase, ordered))
                    seen.add(ordered[0])
                at += size
                break
        else:
            at += 1
    return out


def surfaces(graph: GrowingGraph) -> dict[str, list[int]]:
    """The forms that entities go by: their names, as words too; a name's last part where that is no other's name; and
    the words before the colon of a description."""
    out: dict[str, list[int]] = defaultdict(list)
    own = {_folded(name) for name in graph.entities}
    for i, name in enumerate(graph.entities):
        plain = _SENSE.sub("", name)
        forms = {_folded(name), _folded(plain), _folded(plain.replace("_", " "))}
        last = re.split(r"[./#]", plain.rstrip("/>"))[-1]
        if len(last) > 2 and _folded(last) not in own:
            forms |= {_folded(last), _folded(last.replace("_", " "))}
        words, colon, _ = graph.descriptions.get(name, "").partition(":")
        if colon and len(words) < 120:
            forms |= {_folded(word) for word in words.split(",")}
        for form in forms:
            if form:
                out[form].append(i)
    return out


def _folded(text: str) -> str:
    """The words of a text and the signs between them, each by itself: names and texts must be divided alike."""
    return " ".join(_WORD.findall(text.replace("_", " ").casefold()))


def _telling(word: str, found: list[int], graph: GrowingGraph) -> bool:
    """A short word in lower case names something only where that is spelled so (`os`, but not `a` or `is`)."""
    if any(graph.entities[i] == word for i in found):
        return len(word) > 1 and word not in _COMMON
    return len(word) > 3 or word != word.lower()


_COMMON = frozenset(
    [
        "is",
        "in",
        "as",
        "or",
        "and",
        "not",
        "for",
        "if",
        "of",
        "on",
        "at",
        "to",
        "by",
        "the",
        "an",
        "be",
        "do",
        "so",
        "no",
        "it",
        "we",
        "has",
        "was",
        "are",
        "with",
        "from",
    ]
)
