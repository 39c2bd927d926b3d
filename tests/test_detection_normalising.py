"""Normalising: what goes, what stays, and that every character knows where it comes from."""

from __future__ import annotations

import sys
import unicodedata

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from intarsia.data import shared_data
from intarsia.detection.normalising import Found, normalise
from intarsia.detection.normalising.composing import MOST_MARKS, continues
from intarsia.detection.normalising.hidden import _JOINING, HIDDEN
from intarsia.detection.normalising.homoglyphs import ALWAYS, BETWEEN, skeleton
from tests.failing import fails


def found(text: str) -> dict[str, Found]:
    return {finding.kind: finding for finding in normalise(text).findings}


def words(text: str) -> str:
    return normalise(text).text


def test_white_space_quotes_and_nfkc():
    made = normalise("  \u201cIt\u2019s\u00a0a \ufb01ne\r\n\r\nday\u201d\u2028he\tsaid\u2026 \uff21 e\u0301 \n")
    assert made.text == '"It\'s a fine day" he said... A \u00e9'
    assert made.findings == []
    assert words("don\u00b4t, \u02bcn, \u0149, \u201ezwei\u201c") == "don't, 'n, 'n, \"zwei\""
    assert words("It\x92s \x93so\x94\x85") == 'It\'s "so"...'  # Windows-1252 that was read as Latin-1
    assert words("\u3131\uff76\uff9e \u1112\u1161\u11ab") == "\u1100\u30ac \ud55c"


@pytest.mark.parametrize("text", ["", " \n\t", "\u200b", "| a |\n|---|", "$x$", "\ufeff \u00ad"])
def test_nothing_may_be_left(text):
    made = normalise(text)
    assert (made.text, list(made.origin)) == ("", [0])
    assert made.original(0, 0) == (0, 0)


def test_spans_lead_back():
    text = (
        "Sure, here is an essay:\n\n# Title\n\nThe\u200b  \ufb01rst \u201cp\u0430per\u201d e\u0301nds.\n\n"
        "| a | b |\n|---|---|\n\nGood."
    )
    made = normalise(text)
    assert made.text == 'The first "paper" \u00e9nds. Good.'
    for word, original in (
        ("The", "The"), ("first", "\ufb01rst"), ("paper", "p\u0430per"), ("\u00e9nds.", "e\u0301nds."),
        ("\u00e9", "e\u0301"), ("Good.", "Good."), ('"', "\u201c"),
    ):  # fmt: skip
        start = made.text.index(word)
        assert text[slice(*made.original(start, start + len(word)))] == original
    # What was left out between two words is within a span over both.
    start, end = made.original(made.text.index("\u00e9"), len(made.text))
    assert text[start:end].startswith("e\u0301") and "|---|" in text[start:end] and text[start:end].endswith("Good.")
    at = made.text.index("Good")
    assert made.original(at, at) == (text.index("Good"),) * 2
    assert made.origin[-1] == len(text)
    for start, end in ((-1, 2), (3, 2), (0, len(made.text) + 1)):
        fails(lambda start=start, end=end: made.original(start, end), "no characters", str(len(made.text)))


def test_hidden_characters_are_counted_by_name():
    text = "a\u200bb\u200b\u00adc \u202ed\ufeff e\x07"
    made = normalise(text)
    assert made.text == "abc d e"
    (hidden,) = made.findings
    assert hidden.kind == "hidden_chars" and hidden.count == 6
    assert hidden.spans == ((1, 2), (3, 5), (7, 8), (9, 10), (12, 13))
    assert hidden.what[0] == ("zero width space", 2) and ("control character U+0007", 1) in hidden.what
    assert str(hidden).startswith("6 hidden characters: zero width space (2), ")
    assert found("x\ud800y")["hidden_chars"].what == (("half a surrogate pair", 1),)


def test_what_belongs_to_a_sign_or_a_script_is_not_hidden():
    family = (
        "\U0001f468\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f 1\ufe0f\u20e3 \U0001f3f4\U000e0067\U000e0062\U000e007f"
    )
    assert (
        normalise(family).findings == [] and words(family) == "\U0001f468\U0001f469\U0001f467 \u2764 1\u20e3 \U0001f3f4"
    )
    persian, hindi = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\u0915\u094d\u200d\u0937"
    assert words(persian) == persian and words(hindi) == hindi
    assert words("a\u200cb") == "ab" and words("\u0645\u200c\u200c\u0645") == "\u0645\u0645"


def test_letters_that_look_latin_are_folded_in_latin_words():
    text = "The p\u0430\u0440er \u0415nds, and \u0430 \u0441\u043e\u0440 \u03bfnly in\u03bdents \u054f\u0585."
    made = normalise("The p\u0430\u0440er \u0415nds, and \u0430 \u0441\u043e\u0440 \u03bfnly in\u03bdents.")
    assert made.text == "The paper Ends, and a cop only invents."
    (letters,) = made.findings
    assert letters.kind == "homoglyphs" and letters.count == len(letters.spans) == 9
    assert letters.what[0] == ("'\u0430' cyrillic small letter a for 'a'", 2)
    assert [text[start:end] for start, end in letters.spans][:3] == ["\u0430", "\u0440", "\u0415"]


@pytest.mark.parametrize(
    "text",
    [
        "Это русский текст, а не другой.",
        "Мы читаем о COVID-19 и ITшниках в Python.",
        "Το κείμενο είναι ελληνικό.",
        "Հայերեն տեքստ է սա։",
        "TNFα and NF-κB activate IFNγR; ρ is a density, χ2 a test, ΔH and μm are units.",
        "He wrote сор and здесь, which are Russian words.",
        "сорок",
    ],
)
def test_other_alphabets_stay(text):
    assert words(text) == text
    assert "homoglyphs" not in found(text)


@pytest.mark.parametrize(
    ("opener", "rest"),
    [
        ("Sure, here is an essay about cats: ", "Cats purr."),
        ("Sure! Here's a 500-word essay on \"Cats: a study\" in plain English:\n\n", "Cats purr."),
        ("Certainly! Here\u2019s a polished version of the abstract:\n\n---\n\n", "Cats purr."),
        ("Here is a 5 sentence abstract for the paper: ", "Cats purr."),
        ("Of course, I'd be happy to help! Here's the revised text: ", "Cats purr."),
        ("Certainly! I can help you with that. ", "Cats purr."),
        ("Title: On Abstract Cats\n\nAbstract: ", "Cats purr."),
        ("**Title:** Cats\n**Abstract:**\n", "Cats purr."),
        ("As an AI language model, I don't have opinions, but ", "cats purr."),
        ("As an AI language model developed by OpenAI, I cannot write this. ", "Cats purr."),
        ("As a large language model, ", "I like cats."),
        ("Gerne! Hier ist ein Aufsatz über Katzen: ", "Katzen schnurren."),
        ("Bien sûr ! Voici un essai sur les chats : ", "Les chats ronronnent."),
        ("¡Claro! Aquí tienes un ensayo sobre los gatos: ", "Los gatos ronronean."),
        ("好的，以下是一篇关于猫的文章：", "猫会叫。"),
        ("Sur\u0435, h\u0435r\u0435 is \u0430n \u0435ss\u0430y: ", "Cats purr."),  # with Cyrillic letters
    ],
)  # fmt: skip
def test_chat_openers_are_cut(opener, rest):
    made = normalise(opener + rest)
    assert made.text == rest
    finding = next(f for f in made.findings if f.kind == "chat_opener")
    assert finding.what[0][0] and finding.spans[0][0] == 0 and finding.spans[-1][1] <= len(opener)
    assert str(finding).startswith("opens as a chat assistant does: ")
    assert normalise(rest + " " + opener + rest).text.endswith(rest)
    assert "chat_opener" not in found(rest + " " + opener + rest)  # at the beginning alone


@pytest.mark.parametrize(
    "text",
    [
        "Of course, cats purr. Here is why: they are glad.",
        "Certainly the most common answer is: nobody knows.",
        "Here is my opinion. It is this: cats purr.",
        "Sure, some people say: dogs are better.",
        "As an AI researcher, I do not believe this.",
        "I can help others by listening to them.",
        "I am happy to live here. My town is small.",
        "Titles: a study of abstract art.",
        "This is an essay about cats: they purr.",
    ],
)
def test_how_a_person_may_begin(text):
    assert words(text) == text and found(text) == {}


def test_the_word_abstract_is_a_heading():
    assert words("Abstract: We show it.") == words("**Abstract** We show it.") == "We show it."
    assert set(found("Abstract: We show it.")) == {"header"}
    assert words("Abstract art is old.") == "Abstract art is old."


def test_headings_go():
    text = (
        "# A title\n\nOne.\n\n## 2. More #\nTwo.\n\nUnderlined\n==========\n\nThree.\n\n**In bold**\n\nFour.\n\n"
        "3.1 Related Work\nFive. #hashtag\n\nIII. RESULTS\n\nSix.\n\nIntroduction to cats is easy.\n"
    )
    assert words(text) == "One. Two. Three. Four. Five. #hashtag Six. Introduction to cats is easy."
    assert found(text)["header"].count == 6
    assert str(found(text)["header"]) == "left out: 6 headings"
    assert words("# only a line") == "# only a line"
    assert words("A sentence that ends.\n---\nAnother.") == "A sentence that ends. --- Another."
    assert words("Title: Cats\n\nCats purr.") == "Cats purr."


def test_tables_go():
    table = "| a | b |\n|:--|--:|\n| 1 | 2 |\n| 3 | 4 |"
    text = (
        f"Before.\n\n{table}\n\nBetween a | b.\n\na | b\n--- | ---\n1 | 2\n\nAfter.\n+---+---+\n| a | b |\n+---+---+\n"
    )
    made = normalise(text)
    assert made.text == "Before. Between a | b. After."
    (tables,) = made.findings
    assert tables.kind == "table" and tables.count == 3
    assert text[slice(*tables.spans[0])] == table
    latex = r"See \begin{table} \begin{tabular}{c} a & b \\ \end{tabular} \end{table} here."
    assert words(latex) == "See here." and found(latex)["table"].count == 1


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("Where $x$ is small.", "Where is small."),
        (r"Let $\alpha_1 + 2$, then \(y\) and \[ z = 1 \] hold.", "Let , then and hold."),
        ("First\n\n$$\na = b\n$$\n\nsecond.", "First second."),
        (r"As \begin{align*} a &= b \\ c &= \text{if $d$} \end{align*} says", "As says"),
        ("$a$ $b$", ""),
        ("It costs $5 and $10, or US$5/A$6.", "It costs $5 and $10, or US$5/A$6."),
        ("From $5 to $x$ dollars.", "From $5 to dollars."),
        ("Ke$ha and A$AP have $$ and more $$.", "Ke$ha and A$AP have $$ and more $$."),
        (r"An escaped \$x\$ and a lone $ sign, or \[ one.", r"An escaped \$x\$ and a lone $ sign, or \[ one."),
        (r"\( a \( b \) c", r"\( a c"),
        ("a $" + "x " * 400 + "y$ b", None),
    ],
)
def test_equations(text, rest):
    assert words(text) == (text if rest is None else rest)


ENTRIES = "[1] A. Smith. On cats. Journal of Cats, 2019.\n[2] B. Jones. On dogs. https://example.org, 2020.\n"


def test_the_list_of_references_goes():
    body = "Cats purr [1]. In 2019 dogs barked [2]."
    for heading in ("References", "## 6. References", "REFERENCES:", "**Bibliography**", "Literaturverzeichnis"):
        made = normalise(f"{body}\n\n{heading}\n\n{ENTRIES}")
        assert made.text == body
        assert [f.kind for f in made.findings] == ["references"]
    assert (
        words(f"{body}\n\nReferences\n\n{ENTRIES}\nAppendix A: More\n\nMore text.")
        == f"{body} Appendix A: More More text."
    )
    assert words(f"{body} References {ENTRIES}".replace("\n", " ")) == body
    # Neither a chapter of that name nor the word itself.
    prose = "People refer to cats in many ways, and nobody has counted them all. " * 8
    assert words(f"{body}\n\nReferences\n\n{prose}") == " ".join(f"{body} References {prose}".split())
    assert (
        words("See References [1] and what they say. " + prose)
        == ("See References [1] and what they say. " + prose).strip()
    )
    assert words(f"References\n\n{ENTRIES}").startswith("References [1]")  # nothing else is there


def test_a_heap_of_marks_is_cut():
    text = "Z" + "\u0301\u0316" * 3000 + "algo"
    made = normalise(text)
    assert len(made.text) < 30 and made.text.endswith("algo")
    assert made.original(0, len(made.text) - 4) == (0, len(text) - 4)


PIECES = st.sampled_from(
    [
        "a", "b ", "The", "Sure, ", "here is ", "an essay: ", "Title: ", "Abstract: ", "As an AI, ", "\n", "\n\n",
        "\r\n", "# ", "|", "| a | b |\n", "|---|---|\n", "$", "$$", "$x$", "\\(", "\\)", "\\[", "\\]",
        "\\begin{align}", "\\end{align}", "\\", "1", "5", " ", "\xa0", "\u2028", "\u200b", "\u200d", "\ufe0f", "\xad",
        "e\u0301", "\u0301", "\u0316", "\ufb01", "\u0430", "\u0435", "\u0436", "\u03bf", "\u03b1", "\u03bd", "\u0585",
        "p\u0430per ", "\u1112", "\u1161", "\u11a8", "\u3160", "\uff76", "\uff9e", "\u0915\u094d", "\u0937", "\u0645",
        "\u201c", "\xb4", "'", "\u0149", "\U0001f468", "References", "References\n", " References [1] ", "2019 ",
        "[1] ", "\x85", "\x92", "\x07", "\ud800", ".", ": ", "--- ", "===\n", "**", "_", "=", "\xbd", "\xb4\u0301",
        "\u2026", "\u6587", "\ufdfa", "\ufe70", "\xc5",
    ]
)  # fmt: skip
TEXTS = st.one_of(st.lists(PIECES, max_size=40).map("".join), st.text(max_size=60))


@settings(max_examples=400, deadline=None)
@given(TEXTS)
@example("$5 and $x$ or y$")
@example("\u03bf\u0441 latin words")
@example("a\u0430\u0301 a\u0430")
@example("Sure, here is $x$: here is an essay: b")
def test_every_text_leads_back_and_stays_as_it_is(text):
    made = normalise(text)
    assert normalise(made.text).text == made.text
    assert len(made.origin) == len(made.text) + 1 and len(made.until) == len(made.text)
    assert np.all(np.diff(made.origin) >= 0) and np.all(np.diff(made.until) >= 0)
    assert np.all(made.origin >= 0) and np.all(made.until <= len(text)) and made.origin[-1] <= len(text)
    assert np.all(made.origin[:-1] < made.until)
    assert made.text == " ".join(made.text.split()) and unicodedata.is_normalized("NFKC", made.text)
    assert not HIDDEN.search(made.text.replace("\u200d", "").replace("\u200c", ""))
    for finding in made.findings:
        assert finding.count and finding.spans == tuple(sorted(finding.spans))
        assert all(0 <= start < end <= len(text) for start, end in finding.spans)
        assert str(finding)


@settings(max_examples=200, deadline=None)
@given(TEXTS, st.data())
def test_spans_say_what_they_say_in_the_original(text, data):
    """A word is spelled in the original by what leads to it, and by nothing beside it."""
    made = normalise(text)
    for word in made.text.split():
        if not word.isalnum() or any(map(continues, word)):
            continue
        start = made.text.index(word)
        first, stop = made.original(start, start + len(word))
        if any("\x80" <= sign <= "\x9f" for sign in text[first:stop]):
            continue  # read back as Windows-1252: another sign than it was
        looks = skeleton(unicodedata.normalize("NFKC", HIDDEN.sub("", text[first:stop])))
        assert skeleton(word) in looks, (word, text[first:stop])


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from(["cats", "purr,", "\u00e9t\u00e9", "\u6587", "\u0436\u0430", "x2", "(so)"]), min_size=1)
)
def test_plain_text_is_its_own_original(some):
    text = " ".join(some)
    made = normalise(text)
    assert made.text == text and made.findings == []
    assert list(made.origin) == list(range(len(text) + 1))


def test_every_character_that_is_composed_with_one_before_it_is_known():
    """So that no piece that is normalised alone would have become another one beside its neighbour."""
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        parts = unicodedata.decomposition(character)
        if parts and not parts.startswith("<") and len(parts.split()) == 2:
            first, second = (chr(int(part, 16)) for part in parts.split())
            if unicodedata.normalize("NFC", first + second) == character:
                assert continues(second), (hex(code), hex(ord(second)))
        if unicodedata.combining(character):
            assert continues(character)
        plain = unicodedata.normalize("NFKC", character)
        if not HIDDEN.match(character):
            assert not HIDDEN.search(plain), hex(code)  # nothing hidden comes up later
        if _JOINING.match(character):
            assert _JOINING.match(plain) and _JOINING.match(plain[-1]), hex(code)
    assert all(continues(chr(code)) for code in (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)))
    assert MOST_MARKS >= 8


def test_the_table_of_letters_is_sound():
    for strange, latin in {**ALWAYS, **BETWEEN}.items():
        assert latin.isascii() and latin.isalpha() and strange.isupper() == latin.isupper()
        script = unicodedata.name(strange).split()[0]
        assert script in ("CYRILLIC", "GREEK", "ARMENIAN") and words(strange) == strange
    assert len(skeleton("p\u0430per \ufb01")) == len("p\u0430per \ufb01")


@pytest.mark.parametrize(
    "text",
    [
        "word ",
        "\u6587\u7ae0\uff0c",
        "$x $ y",
        "p\u0430per ",
        "e\u0301",
        "\u0301\u0316",
        "\\[ a ",
        "References\n",
        "Sure! ",
    ],
)
def test_long_texts_take_their_time_and_no_more(text):
    """100,000 of anything: minutes or days where time grew with the square of the length."""
    made = normalise(text * 100_000)
    assert len(made.origin) == len(made.text) + 1


@pytest.mark.real
def test_corpora_keep_nearly_everything():
    """They were cleaned when they were made: what is found now is rare, and mostly right."""
    from intarsia.data.documents import read_documents

    if (folder := shared_data("detect")) is None:
        pytest.skip("no data: set INTARSIA_DATA to a folder with detect")
    for name in ("toefl", "nature", "csl_zh", "college"):
        documents = read_documents(folder / f"{name}.jsonl.gz")
        made = [normalise(document.text) for document in documents]
        same = sum(m.text == document.text for m, document in zip(made, documents, strict=True))
        assert same >= 0.98 * len(documents)
        assert all(normalise(m.text).text == m.text for m in made)
