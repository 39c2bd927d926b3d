"""Copied text: every longest stretch, and nothing else."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intarsia.errors import BadInput
from intarsia.prompting.execute import copied
from intarsia.prompting.execute.copying import copied_share


def words(text):
    return [(m[0].casefold(), *m.span()) for m in re.finditer(r"\w+", text)]


def naive(text, sources, least):
    """All runs that a source has, without those inside another; the first place of each."""
    own, runs = words(text), {}
    for i in range(len(own)):
        for j in range(i + least, len(own) + 1):
            run = [word for word, _, _ in own[i:j]]
            for name, source in sources.items():
                theirs = words(source)
                at = next(
                    (k for k in range(len(theirs)) if [w for w, _, _ in theirs[k : k + j - i]] == run), None
                )  # fmt: skip
                if at is not None:
                    runs[i, j] = (name, theirs[at][1], theirs[at + j - i - 1][2])
                    break
    alone = [r for r in runs if not any(o != r and o[0] <= r[0] and r[1] <= o[1] for o in runs)]
    return [(own[i][1], own[j - 1][2], *runs[i, j], j - i) for i, j in sorted(alone)]


texts = st.lists(st.sampled_from(["a", "B", "b", "c.", "(a)", "é"]), max_size=14).map(" ".join)


@settings(max_examples=150, deadline=None)
@given(texts, st.lists(texts, max_size=3), st.integers(1, 4))
def test_equals_the_naive_search(text, sources, least):
    named = {str(i): source for i, source in enumerate(sources)}
    found = copied(text, named, least=least)
    told = [(c.start, c.end, c.source, c.source_start, c.source_end, c.words) for c in found]
    assert [t[:2] + t[5:] for t in told] == [t[:2] + t[5:] for t in naive(text, named, least)]
    for one in found:
        source = named[one.source][one.source_start : one.source_end]
        assert [w for w, _, _ in words(text[one.start : one.end])] == [w for w, _, _ in words(source)]


@settings(max_examples=80, deadline=None)
@given(texts, texts)
def test_of_one_source_the_first_place_is_told(text, source):
    told = [
        (c.start, c.end, c.source, c.source_start, c.source_end, c.words) for c in copied(text, {"s": source}, least=2)
    ]
    assert told == naive(text, {"s": source}, 2)


def test_a_copy_within_own_words():
    source = "Warranty. The warranty of a kettle is two years from the day it was bought, with the bill."
    text = "I think that the warranty of a KETTLE -- is two years from the day it was sold."
    (one,) = copied(text, {"kettle.md": source})
    assert text[one.start : one.end] == "the warranty of a KETTLE -- is two years from the day it was"
    assert source[one.source_start : one.source_end] == "The warranty of a kettle is two years from the day it was"
    assert one.words == 13 and copied_share(text, [one]) == 13 / 17
    assert copied(text, {"kettle.md": source}, least=14) == [] and copied_share("", []) == 0
    with pytest.raises(BadInput, match="one word or more"):
        copied(text, {}, least=0)


def test_long_texts_take_linear_work():
    """States and steps grow with the words, also of texts that repeat themselves."""
    from intarsia.prompting.execute.copying import _Automaton

    for text in (["a"] * 4000, ["a", "b"] * 2000, [str(i * i % 17) for i in range(4000)]):
        made = _Automaton(text)
        assert len(made.next) <= 2 * len(text) + 1
        made.read("s", " ".join(text))
        assert [length for length, *_ in made.longest()] == list(range(1, len(text) + 1))
