"""Statements made of documentation, true of a passage and not, for a check of whether it holds them.

Out of each passage of Python's documentation one of its sentences is taken. What is made of it by rule and stays true:

- `same`: as it stands; `worded`: contractions, words for small numbers, without brackets; `clause`: up to its first
  comma; `joined`: with its neighbour as one sentence; `named`: with the passage's name before it.

What is made of it and is no longer true (nobody read them one by one: now and then one is true after all):

- `negated`: `not` behind its first auxiliary verb, or `does not` before its verb; `unnegated`: its `not` or `never`
  taken away; `number`: a number in it changed; `name`: a name of a program changed for another of the passage;
  `other`: a sentence of another module."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from intarsia.prompting.assistant.quoting import sentences
from intarsia.prompting.data import SourceDocument

TRUE = ("same", "worded", "clause", "joined", "named")
FALSE = ("negated", "unnegated", "number", "name", "other")
LONGEST = 1500
"""Characters of a passage."""
LEAST, MOST = 6, 40
"""Words of a sentence."""
VERB_COUNT = 5
"""Docstrings that begin with a word, and with it and an s, for it to count as a verb."""

_AUXILIARY = re.compile(r"\b(is|are|was|were|can|will|must|should|may|would|could)\b(?! not\b|n't)")
_NEGATION = re.compile(r"\b(is|are|was|were|can|will|must|should|may|would|could|does|do) not\b|\bnever\b")
_SHORTEN = {"does not": "doesn't", "do not": "don't", "is not": "isn't", "are not": "aren't", "cannot": "can't"}
_SPELL = {"2": "two", "3": "three", "4": "four", "5": "five", "10": "ten"}
_NUMBER = re.compile(r"(?<=\s)\d+(?=[\s,.]|$)(?!\.\d)|\b(?:two|three|four|five|ten)\b")
_NAME = re.compile(r"\b[A-Z][a-z0-9]+(?:[A-Z]\w*)+\b|\b[a-z]\w*(?:[._]\w+)+\b")


@dataclass(frozen=True)
class Claim:
    """A statement, how it was made, and the passage that holds it or does not. group: the module."""

    kind: str
    text: str
    passage: str
    group: str

    @property
    def true(self) -> bool:
        return self.kind in TRUE


def claims(documents: Sequence[SourceDocument], most: int, seed: int = 0) -> list[Claim]:
    """At most so many claims of each kind, drawn by the seed."""
    draws = random.Random(seed)
    passages = [
        (document.title, section.path[-1], text)
        for document in documents
        if document.metadata.get("kind") == "module"
        for section in document.sections
        if len(text := document.text[section.start : section.end].partition("\n\n")[2].strip()) <= LONGEST
        and len(_fit(text)) >= 3
    ]
    draws.shuffle(passages)
    first = Counter(text.split()[0] for _, _, text in passages)
    verbs = {w for w, count in first.items() if count >= VERB_COUNT and first[f"{w}s"] >= VERB_COUNT}
    verbs |= {f"{verb}s" for verb in verbs}
    counts: Counter[str] = Counter()
    out = []
    for number, (module, name, text) in enumerate(passages):
        found = _fit(text)
        place = draws.randrange(len(found) - 1)
        other_module, _, other = passages[(number + len(passages) // 2) % len(passages)]
        others = [] if other_module == module else _fit(other)
        for kind, claim in _made(found, place, name, text, verbs, others, draws):
            if counts[kind] < most:
                counts[kind] += 1
                out.append(Claim(kind, claim, f"{module} > {name}\n{text}", module))
    return out


def _fit(text: str) -> list[str]:
    return [one for one in sentences(text) if LEAST <= len(one.split()) <= MOST and ">>>" not in one and one[-1] == "."]


def _made(
    found: Sequence[str], place: int, name: str, text: str, verbs: set[str], others: Sequence[str], draws: random.Random
) -> Iterator[tuple[str, str]]:  # fmt: skip
    sentence, after = found[place], found[place + 1]
    yield "same", sentence
    if (worded := _worded(sentence)) != sentence:
        yield "worded", worded
    clause = sentence.partition(", ")[0]
    if clause != sentence and len(clause.split()) >= LEAST:
        yield "clause", f"{clause}."
    yield "joined", f"{sentence[:-1]}, and {_lower(after)}"
    yield "named", f"{name}: {_lower(sentence)}"
    if _NEGATION.search(sentence):
        without = _NEGATION.sub(lambda m: m[1] or "", sentence, count=1)
        yield "unnegated", " ".join(re.sub(r"\b(does|do) ", "", without).split())
    else:
        head, _, rest = sentence.partition(" ")
        if head in verbs:
            yield "negated", f"It does not {head.lower()} {rest}"
        elif _AUXILIARY.search(sentence):
            yield "negated", _AUXILIARY.sub(r"\1 not", sentence, count=1)
    if (number := _NUMBER.search(sentence)) is not None:
        values = [m for m in dict.fromkeys(_NUMBER.findall(text)) if m not in _NUMBER.findall(sentence)]
        # One that stands elsewhere in the passage, where there is one: the harder case.
        changed = draws.choice(values) if values else str(int(_digits(number[0])) + draws.randrange(1, 9))
        yield "number", sentence[: number.start()] + changed + sentence[number.end() :]
    named = list(_NAME.finditer(sentence))
    values = [n for n in dict.fromkeys(_NAME.findall(text)) if n not in sentence]
    if named and values:
        one = draws.choice(named)
        yield "name", sentence[: one.start()] + draws.choice(values) + sentence[one.end() :]
    if others:
        yield "other", draws.choice(others)


def _worded(sentence: str) -> str:
    for long, short in _SHORTEN.items():
        sentence = sentence.replace(long, short)
    sentence = re.sub(r"\s*\([^()]*\)", "", sentence)
    return re.sub(r"(?<=\s)\d+(?=\s)", lambda m: _SPELL.get(m[0], m[0]), sentence)


def _digits(number: str) -> str:
    return next((digits for digits, word in _SPELL.items() if word == number), number)


def _lower(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]
