"""What kind of token a token is, by its looks."""

from __future__ import annotations

import re

_SMALL = """
a an the and or but if so as at by for from in into of on to with that this these those it its is are was were be been
being am do does did has have had will would can could shall should may might must not no nor than then there here i you
he she we they me him her us them my your his our their what which who whom whose when where why how
"""
SMALL = frozenset(_SMALL.split())


def kind_of(token: str) -> str:
    """One of: line break, space, special, number, punctuation, small word, word, piece of a word."""
    if "\n" in token:
        return "line break"
    bare = token.strip()
    if not bare:
        return "space"
    if re.fullmatch(r"<[^>]*>|\[[^\]]*\]", bare):
        return "special"
    if re.fullmatch(r"[\d.,]*\d[\d.,]*", bare):
        return "number"
    if not re.search(r"\w", bare):
        return "punctuation"
    if bare.casefold() in SMALL:
        return "small word"
    return "word" if token[:1].isspace() or bare[:1].isupper() else "piece of a word"
