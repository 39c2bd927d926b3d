"""What chat assistants say before the text they were asked for, and what people paste along with it.

Only the beginning of a text is looked at, and only what is plainly addressed to whoever asked: a person may begin with
"Of course, ..." as well."""

from __future__ import annotations

import re

from intarsia.detection.normalising.found import Found, Kind
from intarsia.detection.normalising.homoglyphs import skeleton
from intarsia.detection.normalising.mapped import Mapped

_TEXTS = (
    "essays?|abstracts?|texts?|summary|summaries|paragraphs?|passages?|versions?|rewrites?|rewrite|rewording|responses?|"
    "answers?|drafts?|articles?|story|stories|papers?|introductions?|conclusions?|reports?|letters?|e-?mails?|reviews?|"
    "posts?|paraphrases?|translations?|outlines?|statements?|polished|revised|rewritten|paraphrased|edited|improved"
)
_GLAD = (
    "sure(?: thing)?|certainly|of course|absolutely|definitely|okay|ok|alright|all right|great(?: question)?|"
    "no problem|gladly|yes|understood|got it"
)
_HERE = "here(?:'s| is| are)|below(?:'s| is| are)|the following is|this is"
# Up to a colon, in one sentence; what stands in quotes may hold any sign.
_ON = r'(?:"[^"]{0,300}"|[^.!?:"]){0,250}?'
_END = r"[*\"]{0,3}(?: -{3,})?(?: |$)"

_OPENERS = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # Sure, here is an essay about cats: / Certainly! Here's a polished version of the abstract.
        rf"(?:{_GLAD}) ?[,!.;:-]* ?(?:{_HERE})\b{_ON}(?::|\b(?:{_TEXTS})\b{_ON}[.!]){_END}",
        # Here is a 5 sentence abstract for the paper:
        rf"(?:here(?:'s| is| are)|below is) (?:{_ON}\W)?(?:{_TEXTS})\b{_ON}:{_END}",
        # I'd be happy to help you with that!
        rf"(?:(?:{_GLAD})[,!.]* )?I(?:'d| would|'ll| will|'m| am) (?:be )?(?:more than )?"
        rf"(?:happy|glad|pleased|delighted) to (?:help|assist|provide|write|share)\b{_ON}[.!:]{_END}",
        rf"(?:(?:{_GLAD})[,!.]* )?I can (?:certainly |definitely |gladly )?(?:help|assist)(?: you\b| with that\b)"
        rf"{_ON}[.!:]{_END}",
        # As an AI language model, I do not have personal opinions, but
        r"as an? (?:AI|artificial intelligence|large language model|language model)"
        r"(?: (?:large |text-based |powered )?(?:language model|model|assistant|chatbot))?"
        r"(?: (?:developed|created|trained|made) by \w+)?,"
        r"(?: I (?:do not|don't|cannot|can't|am not|am unable|'m not|have no)\b[^.!?]{0,300}?"
        r"(?:, but|; however,|[.!?]))?(?: |$)",
        # Title: Cats and Dogs Abstract: / **Title:** Cats **Abstract:**
        r"[#*\"]{0,4} ?title\**\s?:\** .{1,300}?"
        r"(?: [#*]{0,4} ?abstract\** ?[:.]| \*\*abstract\*\*| #+ abstract)\**(?: |$)",
        r"(?:gerne|natürlich|klar|selbstverständlich|sicher) ?[,!.]* ?(?:hier (?:ist|sind)|nachfolgend|im folgenden)\b"
        rf"{_ON}:{_END}",
        rf"(?:bien sûr|certainement|avec plaisir|volontiers) ?[,!.]* ?(?:voici|voilà)\b{_ON}:{_END}",
        r"¡?(?:claro(?: que sí)?|por supuesto|desde luego) ?[,!.]* ?(?:aquí (?:tienes?|está|están|te)|a continuación)\b"
        rf"{_ON}:{_END}",
        r"(?:好的|当然(?:可以)?|没问题) ?[,!。.]* ?(?:以下|下面|这)是[^。!?:]{0,100}: ?",
    )
]
_LABEL = re.compile(r"(?:[#*]{0,4} ?abstract\** ?[:.]|\*\*abstract\*\*|#+ abstract(?= ))\**(?: |$)", re.IGNORECASE)


def without_openers(text: Mapped) -> tuple[Mapped, list[Found]]:
    """A text whose white space is folded, without the openers it begins with, nor the word "Abstract:"."""
    looks, at = skeleton(text.text), 0
    cuts: list[tuple[int, int, Kind]] = []
    while found := next((m for p in _OPENERS if (m := p.match(looks, at))), None) or _LABEL.match(looks, at):
        cuts.append((at, found.end(), "header" if found.re is _LABEL else "chat_opener"))
        at = found.end()
    if not cuts:
        return text, []
    told = []
    openers = [(first, stop) for first, stop, kind in cuts if kind == "chat_opener"]
    if openers:
        words = tuple((text.text[first:stop].strip(), 1) for first, stop in openers)
        told.append(Found("chat_opener", tuple(text.span(*cut) for cut in openers), words))
    if labels := tuple(text.span(first, stop) for first, stop, kind in cuts if kind == "header"):
        told.append(Found("header", labels))
    return text.edited([(0, at, "")]), told
