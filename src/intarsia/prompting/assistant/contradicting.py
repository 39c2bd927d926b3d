"""Whether an answer turns round what its passages say: `is` into `is not`, one number, name or opposite into another.

By words: each sentence of the answer is held against the sentences of the passages that are nearest to it, and is
turned round where none of them agrees with it. Two sentences agree where the same of their common words are negated
(the first words behind `not`, `no`, `never`, ...; the scope that Chapman et al. 2001, "A Simple Algorithm for
Identifying Negated Findings", give a negation), where no word of one has its opposite in the other, and where no number
or name of a program stands in the place of another one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Literal

from intarsia.prompting.assistant.quoting import sentences
from intarsia.prompting.assistant.wording import stem, written_out
from intarsia.prompting.data.store.words import COMMON

SCOPE = 3
"""Telling words behind a negation that it negates, up to the end of the clause."""
ALIKE, NEAR, TWO = 0.5, 0.75, 0.15
"""The share of a sentence's telling words that the nearest one must have, for the two to be compared at all; what
others must have of the nearest one's share, to count as near too; and what two in a row must have more than one, for
the sentence to be made of both."""

_WORD = re.compile(r"\d+(?:\.\d+)*|[^\W\d_]\w*(?:\.\w+)*|_\w+|[,;:.()]")
_NOT = frozenset(("not", "no", "never", "without", "neither", "nor", "nothing"))
_NOT_SO = frozenset(("only", "necessarily", "just", "longer"))  # not only: no negation of what comes behind it
_NAME = re.compile(r"\b\w+(?:[._]\w+)+\b|\b\w+(?=\()|\b[A-Z][a-z0-9]+(?:[A-Z]\w*)+\b|\b[A-Z][A-Z0-9_]+\b")
_NUMBERS = {
    word: str(number)
    for number, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve".split()  # noqa: SIM905
    )
    if number > 1  # `one` is more often a pronoun
}
_OPPOSITES = (
    "true/false first/last before/after above/below left/right minimum/maximum min/max smallest/largest "
    "shortest/longest lowest/highest least/most less/more less/greater fewer/more increase/decrease "
    "ascending/descending add/remove open/closed read/write encode/decode enable/disable always/never "
    "same/different upper/lower even/odd positive/negative required/optional success/failure succeed/fail "
    "include/exclude allow/forbid accept/reject new/old public/private absolute/relative local/remote input/output "
    "source/destination parent/child row/column if/unless hot/cold early/late begin/end start/stop day/night "
    "import/export compress/decompress lock/unlock pack/unpack"
)
_PREFIXES = ("un", "in", "im", "non", "dis", "ir")
Kind = Literal["negation", "opposite", "number", "name"]


@dataclass(frozen=True)
class Contradiction:
    """- kind: what is turned round. said: the sentence of the answer; word: the word in it, as far as it can be told.
    nearest: the sentence of the passages that is nearest to it."""

    kind: Kind
    word: str
    said: str
    nearest: str


@dataclass(frozen=True)
class _Sentence:
    """stems: of telling words; plain: of those that stand outside of negations; words: of all. negated: the scopes of
    its negations, each of stems. numbers, names: with the words before and behind them."""

    text: str
    stems: frozenset[str]
    plain: frozenset[str]
    negated: tuple[tuple[str, ...], ...]
    words: frozenset[str]
    numbers: Mapping[str, tuple[str, str]]
    names: Mapping[str, tuple[str, str]]

    @property
    def all_negated(self) -> set[str]:
        return {word for scope in self.negated for word in scope}


def contradiction(answer: str, passages: Sequence[str], question: str = "") -> Contradiction | None:
    """The first sentence of an answer that turns round what the passages say; None where none does, or where nothing in
    them is like it.

    - question: its numbers and names may be told again anywhere."""
    texts = [list(sentences(passage)) for passage in passages]
    single = [_read(one) for passage in texts for one in passage]
    double = [_read(" ".join(two)) for passage in texts for two in pairwise(passage)]
    asked = _read(question)
    for said in map(_read, sentences(answer)):
        near = _nearest(said, single, double)
        found = [_turned(said, one, asked) for one in near]
        if found and all(found):
            kind, word = found[0]  # type: ignore[misc]
            return Contradiction(kind, word, said.text, near[0].text)
    return None


def _nearest(said: _Sentence, single: Sequence[_Sentence], double: Sequence[_Sentence]) -> list[_Sentence]:
    """What a sentence is held against, the nearest first; nothing where nothing is like it."""

    def shares(known: Sequence[_Sentence]) -> list[float]:
        return [len(said.stems & one.stems) / max(len(said.stems), 1) for one in known]

    share, both = shares(single), shares(double)
    if max(both, default=0.0) >= max(share, default=0.0) + TWO:
        single, share = double, both
    best = max(share, default=0.0)
    if best < ALIKE:
        return []
    order = sorted(range(len(single)), key=lambda i: -share[i])
    return [single[i] for i in order if share[i] >= NEAR * best]


def _turned(said: _Sentence, known: _Sentence, asked: _Sentence) -> tuple[Kind, str] | None:
    for one, other in ((said, known), (known, said)):
        for scope in one.negated:
            # What the passage also says without a negation is no contrary of it: `relative to it, not to the folder`.
            common = [w for w in scope if w in other.stems and not (one is known and w in one.plain)]
            if common and not other.all_negated.intersection(scope):
                return "negation", common[0]
    for word in said.words:
        if (found := _opposites(word) & known.words) and word not in known.words and not found & said.words:
            return "opposite", word
    for kind, mine, theirs, given in (
        ("number", said.numbers, known.numbers, asked.numbers),
        ("name", said.names, known.names, asked.names),
    ):
        for word, (before, behind) in mine.items():
            if word in theirs or word in given:
                continue
            # It stands in the place of another one: what is next to it is the same.
            places = [place for other, place in theirs.items() if other not in mine]
            if any((before and before == b) or (behind and behind == e) for b, e in places):
                return kind, word  # type: ignore[return-value]
    return None


@cache
def _read(text: str) -> _Sentence:
    found = _WORD.findall(written_out(text))
    folded = [word.casefold() for word in found]
    names = {_last(name.casefold()) for name in _NAME.findall(text)}
    telling = {i: stem(_last(word)) for i, word in enumerate(folded) if _tells(word)}
    scopes = list(_scopes(folded, telling))
    inside = {i for scope in scopes for i in scope}
    return _Sentence(
        text, frozenset(telling.values()), frozenset(word for i, word in telling.items() if i not in inside),
        tuple(tuple(telling[i] for i in scope) for scope in scopes),
        frozenset(stem(word) for word in folded if word[0].isalpha()),
        _placed(folded, lambda word: _NUMBERS.get(word, word if word[0].isdigit() else None)),
        _placed(folded, lambda word: _last(word) if _last(word) in names else None),
    )  # fmt: skip


def _placed(words: Sequence[str], of: Callable[[str], str | None]) -> dict[str, tuple[str, str]]:
    """What `of` makes of words, with the words before and behind."""
    bare = [word for word in words if word[0] not in ",;:.()"]
    around = ["", *bare, ""]
    return {
        value: (around[i], around[i + 2]) for i, word in enumerate(bare) if (value := of(word)) is not None
    }  # fmt: skip


def _scopes(words: Sequence[str], telling: Mapping[int, str]) -> Iterator[list[int]]:
    """The places of the telling words that each negation negates."""
    for i, word in enumerate(words):
        if word not in _NOT or (i + 1 < len(words) and words[i + 1] in _NOT_SO):
            continue
        scope: list[int] = []
        for j in range(i + 1, len(words)):
            if len(scope) == SCOPE or (scope and words[j] in ",;:.()") or words[j] in _NOT:
                break
            if j in telling:
                scope.append(j)
        if scope:
            yield scope


def _tells(word: str) -> bool:
    return word[0].isalpha() and word not in COMMON and word not in _NOT


def _last(name: str) -> str:
    return name.rpartition(".")[2]


@cache
def _pairs() -> dict[str, frozenset[str]]:
    out: dict[str, set[str]] = {}
    for pair in _OPPOSITES.split():
        one, other = (stem(word) for word in pair.split("/"))
        out.setdefault(one, set()).add(other)
        out.setdefault(other, set()).add(one)
    return {word: frozenset(others) for word, others in out.items()}


def _opposites(word: str) -> frozenset[str]:
    """Stems that say the opposite: those of the list, and the word with or without a negating prefix."""
    found = set(_pairs().get(word, ()))
    if len(word) > 3:
        found.update(prefix + word for prefix in _PREFIXES)
        found.update(word.removeprefix(p) for p in _PREFIXES if word.startswith(p) and len(word) - len(p) > 3)
    return frozenset(found)
