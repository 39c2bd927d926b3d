"""What a model says of pictures, as one text: without repeats, without half a sentence, without the words of labels."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_VOWELS = "aeiou"
# Words of a label that carry none of its meaning.
_SMALL = frozenset(
    (
        "a", "an", "the", "and", "or", "but", "not", "no", "nor", "of", "to", "in", "on", "at", "by", "for", "from",
        "with", "without", "as", "is", "are", "be", "it", "its", "this", "that", "very", "more", "most", "less",
        "least", "other", "none", "all", "any", "some",
    )
)  # fmt: skip
# What a word is an inflection of: (ending, what stands for it, letters that must be left).
_ROOTS = (
    ("iness", "y", 2), ("ness", "", 3), ("fully", "", 3), ("ful", "", 3), ("ily", "y", 2), ("ly", "", 4),
    ("ied", "y", 2), ("ies", "y", 2), ("ed", "", 3), ("ed", "e", 3), ("ing", "", 3), ("ing", "e", 3),
    ("ement", "e", 4), ("ment", "", 4), ("ation", "ate", 4), ("s", "", 3),
)  # fmt: skip
_PLAIN = ("", "s", "ed", "ing", "er", "est", "ly", "ness", "ful", "fully", "ous", "ously", "ment", "edly", "ingly")
_AFTER_E = ("ed", "ing", "er", "est", "y", "ily", "ion", "ions", "edly", "ingly", "ement")
_AFTER_Y = ("ies", "ied", "ier", "iest", "ily", "iness")
_DOUBLED = ("ed", "ing", "er", "est", "y", "en", "ens", "ened", "ening")


def inflections(word: str) -> frozenset[str]:
    """A word with its plain English inflections and derivations, in lower case: `sadness`, `sad`, `sadly`, `sadder`.

    Made by rule, so that some are no words; they do no harm. Irregular forms are not known."""
    word = word.casefold()
    roots = {word}
    if word.isascii():
        for ending, instead, left in _ROOTS:
            if word.endswith(ending) and len(word) - len(ending) >= left:
                root = word.removesuffix(ending) + instead
                if ending in ("ed", "ing") and not instead and _doubles(root):
                    continue  # `scared` is no form of `scar`, which would be `scarred`
                roots.add(root)
                if not instead and len(root) > 3 and root[-1] == root[-2]:
                    roots.add(root[:-1])  # `madd(er)`, `begg(ed)`
    return frozenset(form for root in roots for form in _forms(root))


def _forms(root: str) -> Iterable[str]:
    if len(root) < 3 or not root.isascii() or not root.isalpha():
        yield root
        return
    yield from (root + ending for ending in _PLAIN)
    if root[-1] in "sxz" or root[-2:] in ("ch", "sh"):
        yield root + "es"
    if root[-1] == "e":
        yield root + "d"
        yield from (root[:-1] + ending for ending in _AFTER_E)
    if root[-1] == "y" and root[-2] not in _VOWELS:
        yield from (root[:-1] + ending for ending in _AFTER_Y)
    if _closed(root):
        yield from (root + root[-1] + ending for ending in _DOUBLED)
    if root.endswith("er") and len(root) > 4:
        yield from (root[:-2] + ending for ending in ("ry", "rily"))  # anger, angry


def _closed(root: str) -> bool:
    """Whether it ends in a consonant, a vowel and a consonant that may be doubled."""
    return root[-1] not in _VOWELS + "wxy" and root[-2] in _VOWELS and root[-3] not in _VOWELS


def _doubles(root: str) -> bool:
    """Whether its last consonant is sure to be doubled before `ed`: closed, and one syllable."""
    return _closed(root) and len(re.findall(f"[{_VOWELS}]+", root)) == 1


def words_of(labels: Iterable[str]) -> frozenset[str]:
    """Every form of the words of labels, but small ones (`not`, `the`) and single letters."""
    found = {word for label in labels for word in re.findall(r"[^\W_]+", label.casefold())}
    return frozenset(form for word in found if len(word) > 1 and word not in _SMALL for form in inflections(word))


def without(text: str, words: frozenset[str]) -> tuple[str, int]:
    """The text without these words, and how many that were; what stood around them is mended.

    - words: in lower case. Those in scripts that put no blanks between words are removed wherever they occur."""
    count = 0

    def gone(found: re.Match[str]) -> str:
        nonlocal count
        if found[0].casefold() not in words:
            return found[0]
        count += 1
        return "\0"

    text = re.sub(r"[^\W_]+", gone, text)
    for word in words:
        if not word.isascii() and word in text:
            count += text.count(word)
            text = text.replace(word, "\0")
    if not count:
        return text, 0
    text = re.sub(r"\0(?:[-'’]\0)*(?:['’]s\b)?-?", "\0", text)
    text = re.sub(r"-\0", "\0", text)
    text = re.sub(r"\b([Aa])n?\s+(?:\0\s*)+([^\W_])", _article, text)
    text = re.sub(r"(^|[.!?])(?:\s*\0[\s\0]*[,.;:!?]+)+", r"\1", text)  # what a sentence began with, or all of it
    text = re.sub(r"\s*\0", "", text)
    text = re.sub(r"\s+([,.;:!?])", r"\1", text)
    return " ".join(text.split()), count


def _article(found: re.Match[str]) -> str:
    n = "n" if found[2].casefold() in _VOWELS else ""
    return f"{found[1]}{n} {found[2]}"


def joined(captions: Sequence[str]) -> str:
    """Captions of frames one after the other as sentences; one that an earlier one says already is left out."""
    kept: list[str] = []
    plain: list[str] = []
    for caption in captions:
        caption = " ".join(caption.split()).rstrip(".;,: ")
        bare = " ".join(re.findall(r"\w+", caption.casefold()))
        if bare and not any(f" {bare} " in f" {earlier} " for earlier in plain):
            kept.append(caption)
            plain.append(bare)
    return "".join(f"{caption}{'' if caption[-1] in '!?' else '.'} " for caption in kept).strip()


def whole(text: str, broken_off: bool) -> str:
    """In one line; without its last sentence where that was broken off and another one stands before it."""
    text = " ".join(text.split())
    if broken_off and (ends := [m.end() for m in re.finditer(r"[.!?。！？][\"'”’)]*(?=\s|$)", text)]):
        return text[: ends[-1]]
    return text
