"""Letters of other alphabets that look like Latin ones: a person sees "paper", and a model reads something else.

The table holds those that cannot be told apart in usual type, among them what programs that hide machine text put in.
A text in Cyrillic, Greek or Armenian is left as it is, and so are Greek letters in science (TNFα, NF-κB)."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator

from intarsia.detection.normalising.composing import continues
from intarsia.detection.normalising.found import Found
from intarsia.detection.normalising.mapped import Mapped


def _pairs(strange: str, latin: str) -> dict[str, str]:
    return dict(zip(strange, latin, strict=True))


ALWAYS = {
    # Cyrillic, by code: a c d e h i j l o p q s v w x y
    **_pairs("\u0430\u0441\u0501\u0435\u04bb\u0456\u0458\u04cf\u043e\u0440\u051b\u0455\u0475\u051d\u0445\u0443",
             "acdehijlopqsvwxy"),
    # A B C E G H I J K M O P Q S T W X Y
    **_pairs("\u0410\u0412\u0421\u0415\u050c\u041d\u0406\u0408\u041a\u041c\u041e\u0420\u051a\u0405\u0422\u051c\u0425"
             "\u04ae", "ABCEGHIJKMOPQSTWXY"),
    # Greek
    **_pairs("\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7\u03bf",
             "ABEZHIKMNOPTYXo"),
    # Armenian
    **_pairs("\u0585\u0578\u057d\u0570\u0581\u0566", "onuhgq"),
}  # fmt: skip
BETWEEN = _pairs("\u03b1\u03b3\u03b9\u03ba\u03bd\u03c1\u03c5\u03c7", "ayikvpux")
"""Greek letters that science uses for themselves: folded only between small Latin letters."""

_LATIN_FOR = {**ALWAYS, **BETWEEN}
_SKELETON = str.maketrans(_LATIN_FOR)
_STRANGE = re.compile(f"[{''.join(_LATIN_FOR)}]")
_WORD = re.compile(r"[^\W\d_]+")
_LATIN = re.compile("[A-Za-z\u00aa\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff]")
_SCRIPTS = {
    "Cyrillic": re.compile("[\u0400-\u052f\u1c80-\u1c8f\u2de0-\u2dff\ua640-\ua69f]"),
    "Greek": re.compile("[\u0370-\u03ff\u1f00-\u1fff]"),
    "Armenian": re.compile("[\u0530-\u058f]"),
}


def skeleton(text: str) -> str:
    """As it looks: with the Latin letter for each that looks like one, whatever it stands in. As long as the text."""
    return text if text.isascii() else text.translate(_SKELETON)


def folded(text: Mapped) -> tuple[Mapped, list[Found]]:
    """With Latin letters for those that only look like them, and the finding that names these.

    - In a word with Latin letters, those of another script are folded when all of this script in the word can be.
    - A word without any Latin letter is folded when the text has no other letters of its script than such as look
      Latin, and more Latin letters than of these.

    A letter with an accent over it stays."""
    if text.text.isascii() or not _STRANGE.search(text.text):
        return text, []
    characters, places = list(text.text), []
    # Letters that were folded make others foldable; a few times around, as there are a few scripts.
    while more := list(_in_latin_words("".join(characters))) or list(_in_words_alone("".join(characters))):
        for place in more:
            characters[place] = _LATIN_FOR[characters[place]]
        places += more
    places.sort()
    if not places:
        return text, []
    names = Counter(
        f"'{text.text[p]}' {unicodedata.name(text.text[p]).lower()} for '{_LATIN_FOR[text.text[p]]}'" for p in places
    )
    spans = tuple(text.span(place, place + 1) for place in places)
    return text.respelled("".join(characters)), [Found("homoglyphs", spans, tuple(names.most_common()))]


def _in_latin_words(text: str) -> Iterator[int]:
    """The places of letters to fold in words that have Latin letters, too."""
    looks = skeleton(text)
    for word in _WORD.finditer(text):
        if word[0].isascii() or not _LATIN.search(word[0]) or not _STRANGE.search(word[0]):
            continue
        for script in _SCRIPTS.values():
            places = [word.start() + found.start() for found in script.finditer(word[0])]
            if places and all(_foldable(text, looks, place) for place in places):
                yield from places


def _in_words_alone(text: str) -> Iterator[int]:
    """The places of letters to fold in words that have no Latin letter."""
    latin = len(_LATIN.findall(text))
    for script in _SCRIPTS.values():
        places = [found.start() for found in script.finditer(text)]
        letters = [place for place in places if text[place].isalpha()]
        if 0 < len(letters) < latin and all(text[p] in ALWAYS and not _accented(text, p) for p in letters):
            yield from letters


def _foldable(text: str, looks: str, place: int) -> bool:
    if _accented(text, place):
        return False
    if text[place] in ALWAYS:
        return True
    # Judged by the looks, so that it makes no difference which of several is folded first.
    around = looks[place - 1 : place] + looks[place + 1 : place + 2]
    return text[place] in BETWEEN and len(around) == 2 and all("a" <= letter <= "z" for letter in around)


def _accented(text: str, place: int) -> bool:
    """Whether a mark follows. A Latin letter would be composed with it, a letter that is not normal has none to be."""
    return place + 1 < len(text) and continues(text[place + 1])
