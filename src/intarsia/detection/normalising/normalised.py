"""`normalise`: a text as detectors read it, and the way back to the text as it was given."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from intarsia.detection.normalising.composing import composed, recoded, straight_quotes
from intarsia.detection.normalising.equations import without_equations
from intarsia.detection.normalising.found import Found
from intarsia.detection.normalising.hidden import without_hidden
from intarsia.detection.normalising.homoglyphs import folded, skeleton
from intarsia.detection.normalising.lines import without_lines
from intarsia.detection.normalising.mapped import Mapped
from intarsia.detection.normalising.openers import without_openers
from intarsia.detection.normalising.references import list_in_line
from intarsia.detection.normalising.spaces import lined, spaced
from intarsia.errors import BadInput


@dataclass(frozen=True, eq=False)
class Normalised:
    """- text: one line, in NFKC, words divided by single spaces.
    - origin: [len(text) + 1] the offset in the original where each character of the text comes from; the last one is
      where the text ends there. until: [len(text)] the offset where what it comes from ends.
    - findings: of each kind that there is, what was found and changed or left out."""

    text: str
    origin: np.ndarray
    until: np.ndarray
    findings: list[Found] = field(default_factory=list)

    def original(self, start: int, end: int) -> tuple[int, int]:
        """The span of the original that `text[start:end]` comes from.

        What was left out around it is not in it, what was left out within it is. Raises `BadInput` for a span that is
        not in the text."""
        if not 0 <= start <= end <= len(self.text):
            raise BadInput(f"no characters {start} to {end} in a text of {len(self.text)}")
        first = int(self.origin[start])
        return (first, int(self.until[end - 1])) if end > start else (first, first)


def normalise(text: str) -> Normalised:
    """The wording of a text, spelled in one way, so that a score cannot hang on how it was typed or pasted.

    In this order:

    1. hidden characters go; quotes become straight, the rest NFKC;
    2. by lines: headings, Markdown tables and the list of references at the end go;
    3. white space becomes single spaces;
    4. LaTeX equations go, and at the beginning what a chat assistant says before the text;
    5. letters of other alphabets that look Latin become Latin, in words and texts that are Latin else.

    Takes time in proportion to the text, and changes nothing in a text that it made (`normalise(t.text).text` is
    `t.text`)."""
    now = recoded(Mapped.of(text))
    findings: list[Found] = []
    # By what a thing looks like and not by its letters, all steps before the last find what they look for: else one
    # strange letter would hide it from them, and a second time they would find more.
    now = _step(without_hidden(now), findings)
    now = straight_quotes(composed(straight_quotes(now)))
    now = _step(without_lines(lined(now)), findings)
    now = _step(without_equations(spaced(now)), findings)
    now = _step(without_openers(now), findings)
    now = _step(_without_list(now), findings)
    now = _step(folded(now), findings)
    origin = np.append(now.start, now.end[-1] if len(now.end) else 0)
    return Normalised(now.text, origin, now.end, _merged(findings))


def _step(made: tuple[Mapped, list[Found]], findings: list[Found]) -> Mapped:
    findings += made[1]
    return made[0]


def _without_list(text: Mapped) -> tuple[Mapped, list[Found]]:
    """Without a list of references that has lost its ends of lines."""
    at = list_in_line(skeleton(text.text))
    if at is None:
        return text, []
    end = len(text.text)
    return text.edited([(at, end, "")]), [Found("references", (text.span(at, end),))]


def _merged(findings: list[Found]) -> list[Found]:
    """One finding of each kind: headings and tables are found in two steps."""
    by_kind: dict[str, Found] = {}
    for found in findings:
        before = by_kind.get(found.kind)
        if before is not None:
            found = Found(found.kind, tuple(sorted(before.spans + found.spans)), before.what + found.what)
        by_kind[found.kind] = found
    return list(by_kind.values())
