"""Which language a text is in."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from intarsia.errors import MissingExtra

PART, PARTS = 600, 3
"""Characters of the text's beginning, middle and end that are looked at: more does not make the answer better."""

_NO_LANGUAGE = "zxx"  # ISO 639-2: no linguistic content


def language_of(text: str) -> tuple[str, float]:
    """(ISO 639-1 code, probability) of the language of a text; ("", 0.0) where there is none in it to be told.

    By py3langid: naive Bayes over n-grams of bytes (Lui and Baldwin 2012, "langid.py"), whose scores are normalised
    over all languages with a code of two letters. The first call loads its model, which takes a second or more. A few
    words give a low probability. Raises `MissingExtra` without py3langid."""
    if not any(map(str.isalpha, text)):
        return "", 0.0
    # A lone half of a surrogate pair is no character of any language.
    said = _excerpt(text).encode("utf-8", "ignore").decode()
    identifier = _identifier()
    language, probability = identifier.classify(said)
    # Without a single known n-gram all languages are as likely, and the first is named.
    if language == _NO_LANGUAGE or probability < 2.5 / len(identifier.nb_classes):
        return "", 0.0
    return language, float(probability)


def _excerpt(text: str) -> str:
    text = text.strip()
    if len(text) <= PART * PARTS:
        return text
    step = (len(text) - PART) / (PARTS - 1)
    return " ".join(text[round(i * step) : round(i * step) + PART] for i in range(PARTS))


@lru_cache(1)
def _identifier() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        raise MissingExtra("telling the language of a text", "detect") from None
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    # Cantonese, Nigerian Pidgin and the like then count for the languages that have a code: Chinese, English.
    identifier.set_languages([code for code in identifier.labels if len(code) == 2 or code == _NO_LANGUAGE])
    return identifier
