"""Chunks: every character in one, none too long, offsets exact, cut where a reader would."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intarsia.errors import BadInput
from intarsia.prompting.data import Section, SourceDocument, count_about, split
from intarsia.prompting.data.splitting import about
from tests.tiny import tokenizer

WORDS = st.text(st.sampled_from("ab .\n漢。é́\u0301\u200d🏽👩👨한ก\t\u2028\x00-#_1"), max_size=300)
TEXTS = st.one_of(st.text(max_size=300), WORDS)
SIZES = st.integers(8, 40)


def document(text, sections=()):
    return SourceDocument(text, "x", sections=tuple(sections))


def sections_of(text, cuts):
    places = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    return [
        Section(tuple("h" * (1 + (i + j) % 3) for j in range(i % 3)), a, b, str(i))
        for i, (a, b) in enumerate(pairwise(places))
    ]


def check(text, chunks, overlap):
    covered = [False] * len(text)
    for before, chunk in zip([None, *chunks], chunks, strict=False):
        assert chunk.text == text[chunk.start : chunk.end] == chunk.text.strip() and chunk.text
        for i in range(chunk.start, chunk.end):
            covered[i] = True
        if before is not None:
            assert before.start < chunk.start and before.end < chunk.end
            shared = text[chunk.start : before.end] if chunk.start < before.end else ""
            assert count_about(shared) <= overlap
    assert all(seen or char.isspace() for seen, char in zip(covered, text, strict=True))


@settings(max_examples=150, deadline=None)
@given(TEXTS, SIZES, st.integers(0, 12), st.lists(st.integers(0, 300), max_size=4))
def test_any_text_by_the_estimate(text, size, overlap, cuts):
    overlap = min(overlap, size // 2 - 1)
    chunks = split(document(text, sections_of(text, cuts)), size, overlap)
    check(text, chunks, overlap)
    assert all(chunk.tokens == count_about(chunk.text) <= size for chunk in chunks)


@settings(max_examples=60, deadline=None)
@given(TEXTS, SIZES)
def test_any_text_by_a_tokenizer_of_bytes(text, size):
    """Where a character may be four tokens, and none may be cut."""
    text = text.encode("utf-8", "replace").decode()
    bytewise = tokenizer()
    chunks = split(document(text), size, 0, tokenizer=bytewise)
    check(text, chunks, 0)
    for chunk in chunks:
        count = len(bytewise(chunk.text, add_special_tokens=False)["input_ids"])
        assert count == chunk.tokens and (count <= size or len(chunk.text) == 1)


@settings(max_examples=40, deadline=None)
@given(TEXTS, SIZES)
def test_a_tokenizer_that_makes_more_of_a_part(text, size):
    """One that counts the first word of what it is given as many tokens: a part has more than it had in the whole."""

    def spans(part):
        found = about(part)
        return [*[(s, s + 1) for s, _ in found[:1] for _ in range(3)], *found[1:]]

    chunks = split(document(text), size, 0, tokenizer=spans)
    check(text, chunks, 0)
    assert all(len(spans(chunk.text)) <= size or len(about(chunk.text)) == 1 for chunk in chunks)


def texts(chunks):
    return [chunk.text for chunk in chunks]


def test_paragraphs_before_sentences_before_words():
    text = "One two three four. Five six.\n\nSeven eight nine. Ten eleven twelve thirteen."
    assert texts(split(document(text), 12, 0)) == [
        "One two three four. Five six.", "Seven eight nine. Ten eleven twelve thirteen.",
    ]  # fmt: skip
    assert texts(split(document(text), 8, 0)) == [
        "One two three four. Five six.", "Seven eight nine.", "Ten eleven twelve thirteen.",
    ]  # fmt: skip
    assert texts(split(document("a b c d e f g h i j k l"), 8, 0)) == ["a b c d e f g h", "i j k l"]
    long = "x" * 100
    assert "".join(texts(split(document(long), 8, 0))) == long
    assert texts(split(document("一二三四。五六七八九十。" * 2), 8, 0))[0] == "一二三四。"


def test_overlap_is_of_whole_words_or_sentences():
    text = "Alpha beta gamma delta. Epsilon zeta eta theta. Iota kappa lambda mu."
    assert texts(split(document(text), 12, 5)) == [
        "Alpha beta gamma delta. Epsilon zeta eta theta.", "Epsilon zeta eta theta. Iota kappa lambda mu.",
    ]  # fmt: skip
    words = " ".join("abcdefghijklmnopqrstuvwx")
    assert texts(split(document(words), 10, 3)) == [
        "a b c d e f g h i j", "h i j k l m n o p q", "o p q r s t u v w x",
    ]  # fmt: skip


def test_no_chunk_reaches_over_a_heading():
    text = "# A\n\nOne.\n\n## B\n\nTwo.\n\n## C\n\n### D\n\nThree.\n"
    from intarsia.data.documents.headings import markdown_headings
    from intarsia.prompting.data.whole import sections_of as made

    chunks = split(document(text, made(markdown_headings(text), len(text))), 100, 0)
    assert [(chunk.text, chunk.path, chunk.anchor) for chunk in chunks] == [
        ("# A\n\nOne.", ("A",), "a"), ("## B\n\nTwo.", ("A", "B"), "b"),
        ("## C\n\n### D\n\nThree.", ("A", "C", "D"), "d"),
    ]  # fmt: skip
    assert chunks[2].with_headings("Book") == "Book > A > C > D\n## C\n\n### D\n\nThree."
    assert chunks[0].with_headings("A").startswith("A\n")


def test_accents_stay_on_their_letters_where_they_can():
    text = "e\u0301" * 60
    assert all(not chunk.text.startswith("\u0301") for chunk in split(document(text), 9, 0))


def test_a_long_text_is_cut_in_linear_time():
    """The number of looks at a token, not the clock: each is looked at a few times, however long the text."""
    looked = []

    class Spans(list):
        def __getitem__(self, i):
            looked.append(i)
            return super().__getitem__(i)

    for length in (2_000, 20_000):
        looked.clear()
        split(document("word " * length), 100, 20, tokenizer=lambda text: Spans(about(text)))
        assert len(looked) < 12 * length


def test_sizes_that_make_no_sense():
    for given_, said in (
        ({"size": 7}, "size: 7"),
        ({"size": 20, "overlap": 10}, "overlap: 10"),
        ({"overlap": -1}, "-1"),
    ):
        with pytest.raises(BadInput, match=said):
            split(document("x"), **given_)
    with pytest.raises(BadInput, match="is no tokenizer"):
        split(document("x"), tokenizer=3)
    slow = tokenizer()
    slow.__class__ = type("Slow", (slow.__class__,), {"is_fast": False})
    with pytest.raises(BadInput, match="tells no offsets"):
        split(document("x"), tokenizer=slow)
    assert split(document(" \n\t "), 8, 0) == [] and split(document(""), 8, 0) == []
