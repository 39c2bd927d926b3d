"""Which language a text is in, and that nonsense is in none."""

from __future__ import annotations

import sys

import pytest

from intarsia.detection import languages
from intarsia.detection.languages import language_of
from intarsia.errors import MissingExtra

pytest.importorskip("py3langid")

TEXTS = {
    "en": "The committee met on a rainy evening, and nobody could remember who had called it together.",
    "de": "Am Abend ging der alte Lehrer noch einmal durch den Garten und dachte über seine Schüler nach.",
    "fr": "Chaque matin, la boulangère ouvrait sa petite boutique avant que le village ne se réveille.",
    "zh": "昨天下午我和朋友一起去了图书馆,我们在那里读了很多关于历史的书。",
    "es": "Los niños corrieron hacia la playa porque querían ver cómo salía el sol sobre el mar.",
}


@pytest.mark.parametrize("language", TEXTS)
def test_languages(language):
    found, probability = language_of(TEXTS[language])
    assert found == language and 0.9 < probability <= 1 and isinstance(probability, float)
    assert language_of(f" {TEXTS[language]}\n " * 300)[0] == language


@pytest.mark.parametrize(
    "text", ["", "  \n\t", "12 345,67", "3.14 = 22/7", "\U0001f600\U0001f44d\U0001f3fd", "?!...", "\u200b", "\ud800"]
)
def test_no_language(text):
    assert language_of(text) == ("", 0.0)


def test_few_words_are_uncertain_and_broken_ones_no_error():
    assert language_of("Ok")[1] < 0.5
    assert language_of("The cat sat on the mat and looked at \ud800 the dog.")[0] == "en"
    assert language_of("THE CAT SAT ON THE MAT AND LOOKED AT THE OTHER CAT.")[0] == "en"
    assert all(len(language_of(text[:n])[0]) in (0, 2) for text in TEXTS.values() for n in (1, 3, 8, 20))


def test_a_long_text_is_what_most_of_it_is():
    long = "Abstract. This is what we did last year. " + TEXTS["de"] * 200
    assert language_of(long) == language_of(long + " ") and language_of(long)[0] == "de"
    assert language_of(long)[1] > 0.9


def test_without_the_library(monkeypatch):
    languages._identifier.cache_clear()
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    with pytest.raises(MissingExtra, match="detect"):
        language_of(TEXTS["en"])
    assert language_of("42") == ("", 0.0)
