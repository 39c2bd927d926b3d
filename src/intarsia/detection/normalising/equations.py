"""LaTeX equations, and tables in LaTeX, in a text of one line.

Delimiters pair up like brackets, the inner ones first. Each pair is looked at once, when its second one is reached, so
the time grows with the text, and no pair is left that a second look would find."""

from __future__ import annotations

import re

from intarsia.detection.normalising.found import Found, Kind
from intarsia.detection.normalising.homoglyphs import skeleton
from intarsia.detection.normalising.mapped import Mapped
from intarsia.detection.normalising.spaces import spaced

LONG, SHORT = 4000, 300
"""The most characters of an equation that stands apart, and of one in a sentence: else a sign is lost, not a pair."""

_MATH = (
    "equation|align|aligned|alignat|gather|gathered|multline|eqnarray|math|displaymath|split|cases|array|"
    "matrix|pmatrix|bmatrix|vmatrix|Vmatrix|Bmatrix|smallmatrix|flalign"
)
_TABLES = "table|tabular|tabularx|longtable"
# A backslash before a backslash or a dollar makes it a plain sign.
_TOKEN = re.compile(rf"\\\\|\\\$|\\[()\[\]]|\$\$?|\\(?:begin|end)\{{(?:{_MATH}|{_TABLES})\*?\}}")
_PLAIN = ("\\\\", "\\$")
_CLOSES = {"\\)": "\\(", "\\]": "\\[", "$": "$", "$$": "$$"}
_FORMULA = re.compile(r"[\\^_={}<>]|\w [-+*/] ?\w|\w[-+*/] \w")
_TABLE = re.compile(rf"\\end\{{(?:{_TABLES})\*?\}}")


def without_equations(text: Mapped) -> tuple[Mapped, list[Found]]:
    """A text whose white space is folded, without its equations; a space is left where one stood."""
    if "$" not in text.text and "\\" not in text.text:
        return text, []
    pairs = _Pairs(skeleton(text.text))
    # What lies within another pair went with it.
    cuts: list[tuple[int, int, Kind]] = []
    for first, stop, kind in sorted(pairs.cuts, key=lambda cut: (cut[0], -cut[1])):
        if not cuts or first >= cuts[-1][1]:
            cuts.append((first, stop, kind))
    found = []
    for kind in ("table", "equation"):
        if spans := tuple(text.span(first, stop) for first, stop, of in cuts if of == kind):
            found.append(Found(kind, spans))
    return spaced(text.edited((first, stop, " ") for first, stop, _ in cuts)), found


class _Pairs:
    """The pairs of delimiters of a text. `cuts`: (first, stop, kind) of each."""

    def __init__(self, text: str):
        self.cuts: list[tuple[int, int, Kind]] = []
        # What is left so far, in pieces; and the delimiters among them that have no partner yet.
        self.pieces: list[str] = []
        self.length = 0
        self.waiting: list[tuple[str, int, int, int]] = []  # the delimiter, its piece, length before it, its place
        at = 0
        for token in _TOKEN.finditer(text):
            self._add(text[at : token.start()])
            at = token.end()
            if token[0] in _PLAIN or not self._close(token[0], token.start(), at, text[at : at + 1]):
                if token[0] not in _PLAIN:
                    self.waiting.append((token[0], len(self.pieces), self.length, token.start()))
                self._add(token[0])

    def _add(self, piece: str) -> None:
        if piece.startswith(" ") and (not self.length or self.pieces[-1].endswith(" ")):
            piece = piece[1:]
        if piece:
            self.pieces.append(piece)
            self.length += len(piece)

    def _close(self, token: str, start: int, end: int, after: str) -> bool:
        """Take out the last delimiter that waits and all after it, if this one ends what it began."""
        if not self.waiting:
            return False
        opening, piece, length, place = self.waiting[-1]
        closes = token.replace("\\end", "\\begin") if token.startswith("\\end") else _CLOSES.get(token)
        most = SHORT if token == "$" else LONG
        if opening != closes or self.length - length - len(opening) > most:
            return False
        content = "".join(self.pieces[piece + 1 :])
        before = self.pieces[piece - 1][-1] if piece else ""
        if token.startswith("$") and not _is_formula(token, content, before, after):
            return False
        self.waiting.pop()
        del self.pieces[piece:]
        self.length = length
        self._add(" ")
        self.cuts.append((place, end, "table" if _TABLE.fullmatch(token) else "equation"))
        return True


def _is_formula(token: str, content: str, before: str, after: str) -> bool:
    """Whether dollars are delimiters and not money, by what stands between and around them."""
    if token == "$$":
        return bool(_FORMULA.search(content))
    # As Pandoc has it: no space within, no digit after; and no letter before (US$).
    if not content or content[0] == " " or content[-1] == " " or before.isalnum() or after.isdigit():
        return False
    return " " not in content or bool(_FORMULA.search(content))
