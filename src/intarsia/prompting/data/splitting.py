"""Documents into chunks of so many tokens at most, cut where a reader would cut.

A cut goes, if one is near enough, before a heading, else between paragraphs, else between sentences, lines or words;
inside of a word only where there is nothing else, and never inside of a character. Time is linear in the text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from intarsia.errors import BadInput
from intarsia.prompting.data.documents import Chunk, SourceDocument

SIZE, OVERLAP = 192, 24
LEAST = 8
"""Tokens that a chunk must have room for: one character may take several."""

Span = tuple[int, int]
Spans = Callable[[str], Sequence[Span]]
"""From a text to the stretches of characters its tokens stand for, in order."""

HEADING, PARAGRAPH, SENTENCE, LINE, WORD, PIECE, MARK, NEVER = 6, 5, 4, 3, 2, 1, 0, -1
"""How good a cut is. MARK: before a sign that joins the one before it (an accent, a skin tone): only if it must be."""

_WIDE = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"
_ABOUT = re.compile(rf"[{_WIDE}]|[^\W{_WIDE}]{{1,7}}|[^\w\s]")
_SPACE = re.compile(r"\s+")
_WORDY = re.compile(r"\w")  # what a line under a heading (===, ---) has not
_BLANK = re.compile(r"\n[^\S\n]*\n")
_ENDS = ".!?…:;。！？；"
_WIDE_ENDS = "。！？；"  # after which no space is written
_CLOSING = "\"'”’)]»」』"


def about(text: str) -> list[Span]:
    """Tokens where no tokenizer is at hand: pieces of words of up to seven letters, single signs, single characters of
    Chinese, Japanese and Korean. Of English prose, within a fifth of what a model's tokenizer makes."""
    return [found.span() for found in _ABOUT.finditer(text)]


def count_about(text: str) -> int:
    """How many tokens `about` sees."""
    return sum(1 for _ in _ABOUT.finditer(text))


def spans_of(tokenizer: Any) -> Spans:
    """The tokens of a Hugging Face tokenizer as stretches of characters; of None, `about`; a function is itself that.

    Raises `BadInput` for a tokenizer without offsets (those written in Python)."""
    if tokenizer is None:
        return about
    if not hasattr(tokenizer, "is_fast"):
        if callable(tokenizer):
            return tokenizer
        raise BadInput(f"a {type(tokenizer).__name__} is no tokenizer: give a Hugging Face tokenizer, or None")
    if not tokenizer.is_fast:
        raise BadInput(f"{type(tokenizer).__name__} tells no offsets: give a fast tokenizer, or None for an estimate")

    def spans(text: str) -> list[Span]:
        given = tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, truncation=False, padding=False, verbose=False,
            return_attention_mask=False,
        )  # fmt: skip
        return given["offset_mapping"]

    return spans


def split(document: SourceDocument, size: int = SIZE, overlap: int = OVERLAP, *, tokenizer: Any = None) -> list[Chunk]:
    """The chunks of a document, in order. Each of its characters is in one of them, but for white space between them.

    - size: tokens of a chunk at most (a character that takes more by itself is a chunk by itself). overlap: tokens at
      most that a chunk has in common with the one before it, in whole words; chunks of two sections have none.
    - tokenizer: a fast Hugging Face tokenizer; a function from a text to the spans of its tokens; None: `about`.

    Chunks never reach over a heading, but one without text of its own goes with what comes after it. Raises
    `BadInput` for sizes that make no sense."""
    if size < LEAST:
        raise BadInput(f"size: {size} tokens are too few for a chunk, give {LEAST} or more")
    if not 0 <= overlap < size // 2:
        raise BadInput(f"overlap: {overlap} tokens of {size}: give fewer than half of size, and not fewer than 0")
    spans = spans_of(tokenizer)
    text, out = document.text, []
    for begun, ended in _stretches(document):
        start, end = _stripped(text, begun, ended)
        stretch = text[start:end]
        for s, e, n in _cut(stretch, spans(stretch), size, overlap):
            whole = e - s == len(stretch)  # counted as it stands
            fitting = [(0, e - s, n)] if whole else _fitting(stretch[s:e], n, size, spans)
            for first, last, tokens in fitting:
                begin, stop = start + s + first, start + s + last
                section = document.section_at(stop - 1)
                out.append(Chunk(text[begin:stop], begin, stop, section.path, section.anchor, tokens))
    return out


def _stretches(document: SourceDocument) -> Iterator[Span]:
    """Stretches between headings; one that is a heading alone goes with what comes after it."""
    text, begin = document.text, 0
    sections = document.sections
    for i, section in enumerate(sections):
        nested = i + 1 < len(sections) and len(sections[i + 1].path) > len(section.path)
        alone = not _WORDY.search(text[section.start : section.end].strip().partition("\n")[2])
        if nested and alone and section.path:
            continue
        if text[begin : section.end].strip():
            yield begin, section.end
        begin = section.end
    if text[begin:].strip():
        yield begin, len(text)


def _cut(text: str, spans: Sequence[Span], size: int, overlap: int) -> Iterator[tuple[int, int, int]]:
    """(start, end, tokens) of the chunks of a stretch without headings."""
    ranks = _ranks(text, spans)
    first, begin, total = 0, 0, len(spans)
    while True:
        if total - first <= size:
            end, stop = total, len(text)
        else:
            # The latest of the best cuts in the last half: `overlap` is less than that, so there is always progress.
            low, high = first + max(size // 2, overlap + 1), first + size
            end = max(range(high, low - 1, -1), key=lambda i: ranks[i])
            if ranks[end] <= NEVER:
                end = _whole(ranks, first, low, high)
            stop = spans[end][0] if end < total else len(text)
        s, e = _stripped(text, begin, stop)
        if e > s:
            yield s, e, end - first
        if end >= total:
            return
        back = [i for i in range(max(first + 1, end - overlap), end) if ranks[i] >= WORD]
        first = max(back, key=lambda i: (ranks[i], -i)) if back else end
        begin = spans[first][0]


def _whole(ranks: Sequence[int], first: int, low: int, high: int) -> int:
    """Where all of the last half is one character: the last cut before it, or the first one after it."""
    before = next((i for i in range(low - 1, first, -1) if ranks[i] > NEVER), None)
    if before is not None:
        return before
    return next((i for i in range(high + 1, len(ranks)) if ranks[i] > NEVER), len(ranks) - 1)


def _ranks(text: str, spans: Sequence[Span]) -> list[int]:
    """How good a cut before each token is, and at last after all of them: [token + 1]."""
    out = [NEVER] * (len(spans) + 1)
    out[len(spans)] = HEADING
    gaps = _SPACE.finditer(text)
    gap = next(gaps, None)
    reached = 0
    for i, (start, end) in enumerate(spans):
        while gap is not None and gap.end() < start:
            gap = next(gaps, None)
        if i and start >= reached and start > spans[i - 1][0]:
            # A token may begin with the white space before it, so a gap counts that begins or ends here.
            near = gap if gap is not None and gap.start() <= start <= gap.end() else None
            out[i] = _between(text, near.start(), near.end()) if near else _touching(text, start)
        reached = max(reached, end)
    return out


def _between(text: str, start: int, end: int) -> int:
    """How good a cut in white space is."""
    if _BLANK.search(text, start, end):
        return PARAGRAPH
    at = start - 1
    while at > 0 and start - at < 4 and text[at] in _CLOSING:
        at -= 1
    if at >= 0 and text[at] in _ENDS:
        return SENTENCE
    return LINE if text.find("\n", start, end) >= 0 else WORD


def _touching(text: str, at: int) -> int:
    """How good a cut between two signs that touch is."""
    if text[at - 1] in _WIDE_ENDS and text[at] not in _CLOSING:
        return SENTENCE
    joins = unicodedata.category(text[at]) in ("Mn", "Me", "Mc", "Cf") or text[at - 1] == "\u200d"
    if joins or "\U0001f3fb" <= text[at] <= "\U0001f3ff":
        return MARK
    return PIECE


def _stripped(text: str, start: int, end: int) -> Span:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def _fitting(text: str, tokens: int, size: int, spans: Spans) -> Iterator[tuple[int, int, int]]:
    """(start, end, tokens) of parts that have `size` tokens at most each by itself: a tokenizer may make more of a part
    than it made of it within the whole."""
    if spans is about:
        yield 0, len(text), tokens
        return
    own = spans(text)
    if len(own) <= size:
        yield 0, len(text), len(own)
        return
    ranks = _ranks(text, own)
    middle = len(own) // 2
    cuts = sorted(
        (i for i in range(1, len(own)) if ranks[i] > NEVER and 0 < own[i][0] < len(text)),
        key=lambda i: -ranks[i] + abs(i - middle) / len(own) * 4,
    )
    at = own[cuts[0]][0] if cuts else 0
    if not text[:at].strip() or not text[at:].strip():
        yield 0, len(text), len(own)  # one character
        return
    for start, end in ((0, at), (at, len(text))):
        s, e = _stripped(text, start, end)
        for first, last, count in _fitting(text[s:e], 0, size, spans):
            yield s + first, s + last, count
