"""What whole lines of a text are and no wording: headings, tables, the list of references.

A text of one line has none of these: what was normalised once keeps all its words."""

from __future__ import annotations

import re
from collections.abc import Iterator

from intarsia.detection.normalising.found import Found, Kind
from intarsia.detection.normalising.homoglyphs import skeleton
from intarsia.detection.normalising.mapped import Mapped
from intarsia.detection.normalising.references import list_in_lines

_NUMBER = r"(?:(?:\d{1,2}(?:\.\d{1,2})*|[IVX]{1,5}|[A-H])[.)]?\s+)?"
_SECTIONS = (
    "abstract|summary|introduction|background|motivation|related work|literature review|theory|preliminaries|methods?|"
    "methodology|materials and methods|method and materials|approach|data|experiments?|experimental setup|evaluation|"
    "results?|results and discussion|findings|analysis|discussion|limitations|ethics statement|conclusions?|"
    "discussion and conclusions?|conclusions? and future work|future work|acknowledge?ments?|keywords|"
    "zusammenfassung|einleitung|methoden?|ergebnisse|diskussion|fazit|schluss|danksagung|résumé|méthodes?|résultats|"
    "remerciements|resumen|introducción|métodos?|metodología|resultados|discusión|conclusi[oó]n(?:es)?|摘要|引言|结论"
)
_HEADER = re.compile(
    r"#{1,6}\s+\S.{0,198}"  # Markdown
    r"|(\*\*|__)[^*_]{1,80}[^*_.!?]\1:?"  # a line in bold type
    rf"|(?i:{_NUMBER}(?:{_SECTIONS})\s*:?)"
)
_TITLE = re.compile(r"(?i)[#*\s]*title[*\s]*:[*\s]*\S.{0,200}")
_ABSTRACT = re.compile(r"(?i)#*\s*\**abstract\**\s*[:.].*|\*\*abstract\*\*.*|#+\s*abstract")
_UNDERLINE = re.compile("={3,}|-{3,}")
_ROW = re.compile(r"\|.*\||\+[-=+:]{3,}\+")
_RULE = re.compile(r"\|?\s*:?-{2,}:?\s*(?:\|\s*:?-{2,}:?\s*)+\|?|\|\s*:?-{2,}:?\s*\|")


def without_lines(text: Mapped) -> tuple[Mapped, list[Found]]:
    """Without the lines that are no wording. `text` has `\\n` for its ends of lines and no white space around it."""
    if "\n" not in text.text:
        return text, []
    lines = skeleton(text.text).split("\n")
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)
    lines = [line.strip() for line in lines]
    last, after = len(lines), list[tuple[int, int, Kind]]()
    if (references := list_in_lines(lines)) is not None:
        last, stop = references
        after = [(last, stop, "references"), *_parts(lines, stop, len(lines))]
    left_out = [*_parts(lines, _opening(lines), last), *after]
    edits, spans = [], dict[Kind, list[tuple[int, int]]]()
    for first, stop, kind in left_out:
        begin, end = starts[first], starts[stop] - 1
        edits.append((begin, end, ""))
        spans.setdefault(kind, []).append(text.span(begin, end))
    order: tuple[Kind, ...] = ("references", "table", "header")
    return text.edited(edits), [Found(kind, tuple(spans[kind])) for kind in order if kind in spans]


def _opening(lines: list[str]) -> int:
    """How many lines at the beginning are a title and the word "Abstract": openers, and not headings."""
    if not _TITLE.fullmatch(lines[0]):
        return 0
    second = next((i for i in range(1, len(lines)) if lines[i]), 0)
    return second + 1 if _ABSTRACT.fullmatch(lines[second]) else 0


def _parts(lines: list[str], first: int, last: int) -> Iterator[tuple[int, int, Kind]]:
    """The headings and tables between two lines: (first, stop, kind) of each."""
    at = first
    while at < last:
        if (stop := _table(lines, at, last)) is not None:
            yield at, stop, "table"
            at = stop
        elif (stop := _header(lines, at, last)) is not None:
            yield at, stop, "header"
            at = stop
        else:
            at += 1


def _table(lines: list[str], at: int, last: int) -> int | None:
    """The line after the table that begins here."""
    ruled = at + 1 < last and "|" in lines[at] and bool(_RULE.fullmatch(lines[at + 1]))
    stop = at
    while stop < last and (_ROW.fullmatch(lines[stop]) or (ruled and "|" in lines[stop])):
        stop += 1
    return stop if stop - at >= 2 else None


def _header(lines: list[str], at: int, last: int) -> int | None:
    """The line after the heading that begins here."""
    line = lines[at]
    if not line or len(line) > 210:
        return None
    if _HEADER.fullmatch(line) or (at == 0 and _TITLE.fullmatch(line)):
        return at + 1
    alone = at == 0 or not lines[at - 1]
    under = at + 1 < last and bool(_UNDERLINE.fullmatch(lines[at + 1]))
    if under and alone and len(line) <= 80 and line[-1] not in ".!?:;,":
        return at + 2
    return None
