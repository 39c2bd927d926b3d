"""A list of references at the end: other people's titles, and nobody's wording."""

from __future__ import annotations

import re

SPARSE = 250
"""Characters for each year or address in a list of references, at the most; running text has fewer of them."""

_TITLES = (
    "references|reference list|list of references|bibliography|works cited|literature cited|cited literature|"
    "literaturverzeichnis|quellenverzeichnis|literatur|références|références bibliographiques|bibliographie|"
    "bibliografía|referencias|referencias bibliográficas|riferimenti bibliografici|bibliografia|参考文献"
)
_NUMBER = r"(?:(?:\d{1,2}(?:\.\d{1,2})*|[IVX]{1,5}|[A-H])[.)]?\s+)?"
_HEADING = re.compile(rf"(?i)[#*_\s]*{_NUMBER}(?:{_TITLES})\s*[:.]?[*_\s]*")
_AFTER = re.compile(
    rf"(?i)[#*_\s]*{_NUMBER}(?:appendix|appendices|supplement\w*|anhang|annexes?|anexos?|附录)\b.{{0,80}}"
)
_IN_A_LINE = re.compile(
    r" (?:References|REFERENCES|Bibliography|BIBLIOGRAPHY|Works Cited|WORKS CITED|参考文献) ?:? "
    r"(?=\[1\]|1[.)] |[A-Z][\w'-]+, (?:[A-Z]\.|[A-Z][\w'-]+))"
)
_SIGN = re.compile(r"(?<!\d)(?:1[6-9]|20)\d\d[a-z]?(?!\d)|https?://|\bdoi\b|arXiv:", re.IGNORECASE)


def list_in_lines(lines: list[str]) -> tuple[int, int] | None:
    """The lines, from a first to before a second, of the list of references that a text ends in, with its heading.

    An appendix may come after it."""
    heading = next((i for i in reversed(range(len(lines))) if _is_heading(lines[i])), None)
    if heading is None or heading == 0:
        return None
    stop = next((i for i in range(heading + 1, len(lines)) if _AFTER.fullmatch(lines[i])), len(lines))
    return (heading, stop) if _is_list("\n".join(lines[heading + 1 : stop])) else None


def list_in_line(text: str, start: int = 0) -> int | None:
    """Where, in a text of one line, the list of references begins that it ends in."""
    # Of several places the first one: so nothing that is left could be a list in its turn.
    found = _IN_A_LINE.search(text, start)
    return found.start() if found and _is_list(text[found.end() :]) else None


def _is_heading(line: str) -> bool:
    return len(line) <= 60 and bool(_HEADING.fullmatch(line))


def _is_list(text: str) -> bool:
    text = text.strip()
    return bool(text) and len(_SIGN.findall(text)) * SPARSE >= len(text)
