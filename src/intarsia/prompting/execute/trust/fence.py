"""Fences: where data stands in a prompt, so marked that nothing in the data can end it.

The mark's name has a nonce that no text inside can know: it is a keyed hash of what is fenced. Whatever looks like such
a mark inside, in whatever letters, loses its bracket.

Source: Hines et al. 2024, "Defending Against Indirect Prompt Injection Attacks With Spotlighting", §3 (delimiting)."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field

from intarsia.errors import BadInput
from intarsia.prompting.execute.trust.cleaning import clean
from intarsia.prompting.execute.trust.untrusted import Untrusted, plain, spans_of
from intarsia.prompting.tracing import current

NAME = "untrusted"
_KEY = secrets.token_bytes(32)  # of this process: nobody outside can compute a nonce

# Letters and brackets that look like those of a mark, beside what compatibility forms (NFKC) cover.
_ALIKE = str.maketrans({
    **dict.fromkeys("‹〈⟨❮❰⧼⟪«《˂ᐸᚲ⩽≺", "<"), **dict.fromkeys("›〉⟩❯❱⧽⟫»》˃ᐳ⩾≻", ">"),
    **dict.fromkeys("⁄∕⧸╱⟋〳ノ", "/"),
    **dict(zip("абвгеёѕіјкмнопрстухԁһц", "abbreesijkmhonpctyxdhu", strict=True)),
    **dict(zip("αβγεικνορτυχω", "abyeikvoptuxw", strict=True)),
    **dict(zip("ոռսᴀᴄᴅᴇɪɴᴏʀꜱᴛᴜɗ℮", "nnuacdeinorstude", strict=True)),
})  # fmt: skip
# At most so many characters between letters, so that a flood of brackets costs no more than its length.
_MARK = re.compile(r"<(?=[\W_]{0,16}" + r"[\W_]{0,4}".join(NAME) + ")")

_OPEN = re.compile(rf"<({NAME}-[0-9a-f]{{16}})>\n?\Z")


@dataclass(frozen=True)
class Fence:
    """The marks around data. nonce: 16 hexadecimal digits."""

    nonce: str

    @property
    def open(self) -> str:
        """The mark before data."""
        return f"<{NAME}-{self.nonce}>"

    @property
    def close(self) -> str:
        """The mark after data."""
        return f"</{NAME}-{self.nonce}>"


@dataclass(frozen=True)
class Span:
    """Where text from outside stands: characters start to end of the message of this number, the marks not counted.

    - removed: hidden characters that were taken out, by kind. defused: marks inside that lost their bracket."""

    message: int
    start: int
    end: int
    removed: dict[str, int] = field(default_factory=dict)
    defused: int = 0


def fence_for(texts: Iterable[str], *, about: str = "", seed: str | None = None) -> Fence:
    """The fence for some texts: the same for the same texts in one process, in one trace, and with a seed everywhere.

    - about: what else the nonce depends on (a prompt's version).
    - seed: default: the id of the trace that is open, so that going on with it says the same again; else a key of this
      process. Whoever knows it can compute the nonce, so it is nothing to show.

    Its nonce stands in none of the texts."""
    if seed is None and (recording := current()) is not None:
        seed = recording.id
    key = _KEY if seed is None else hashlib.sha256(b"intarsia fence\0" + seed.encode()).digest()
    texts = [plain(text) for text in texts]
    whole = hashlib.sha256(about.encode(errors="replace"))
    for text in texts:
        data = text.encode(errors="surrogatepass")
        whole.update(b"\0%d\0" % len(data) + data)
    shadows = [shadow(clean(text).text) for text in texts]
    for turn in range(1000):
        nonce = hmac.new(key, whole.digest() + b"%d" % turn, "sha256").hexdigest()[:16]
        if not any(nonce in letters for letters in shadows):
            return Fence(nonce)
    raise BadInput("no fence can be made for these texts: they hold every mark that would be made of the seed")


def fenced(text: str, fence: Fence | None = None, *, message: int = 0) -> tuple[str, list[Span]]:
    """A text with every span from outside between marks, cleaned and defused, and where the spans are now. What stands
    between marks already stays as it is.

    - text: a `str` is all trusted and comes back as it is. fence: default: one made for this text alone.
    - message: the number that the spans name."""
    spans = spans_of(text)
    if not isinstance(text, Untrusted):
        return text, []
    fence = fence or fence_for([text])
    bare, out, found, at, done = plain(text), [], [], 0, 0
    for number, (start, end) in enumerate(spans):
        until = spans[number + 1][0] if number + 1 < len(spans) else len(bare)
        if _stands_fenced(bare, start, end, done, until):
            out.append(bare[done:end])
            found.append(Span(message, at + start - done, at + end - done))
            at, done = at + end - done, end
            continue
        data = clean(bare[start:end])
        inside, count = _defused(data.text, fence.nonce)
        line = "\n" if "\n" in inside else ""  # data of several lines gets marks on their own lines
        before = bare[done:start] + fence.open + line
        out += [before, inside, line + fence.close]
        begin = at + len(before)
        found.append(Span(message, begin, begin + len(inside), data.removed, count))
        at, done = begin + len(inside) + len(line) + len(fence.close), end
    made = "".join([*out, bare[done:]])
    return Untrusted(made, [(span.start, span.end) for span in found]), found


def _stands_fenced(text: str, start: int, end: int, trusted_from: int, trusted_to: int) -> bool:
    """Whether a span was fenced before: marks around it, in trusted text, where nobody outside can have put them, and
    nothing in it that fencing takes out."""
    before = _OPEN.search(text, trusted_from, start)
    if before is None or re.compile(rf"\n?</{before[1]}>").match(text, end, trusted_to) is None:
        return False
    data = text[start:end]
    return clean(data).text == data == _defused(data, before[1][-16:])[0]


def _defused(text: str, nonce: str) -> tuple[str, int]:
    """The text without brackets before what reads as a mark's name, and without the nonce."""
    letters = shadow(text)
    places = {match.start(): "[" for match in _MARK.finditer(letters)}
    places |= {match.start(): "…" for match in re.finditer(nonce, letters)}
    if not places:
        return text, 0
    characters = list(text)
    for place, mark in places.items():
        characters[place] = mark
    return "".join(characters), len(places)


def shadow(text: str) -> str:
    """The text in plain small letters, look-alikes and compatibility forms replaced, character by character: each place
    is the same place in both."""
    return text.lower() if text.isascii() else text.translate(_FOLDED)


class _Folded(dict[int, str]):
    """Made as characters come; each is one character."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if code < 128:
            plainer = character.lower()
        else:
            plainer = unicodedata.normalize("NFKD", character)[:1].casefold().translate(_ALIKE)
        self[code] = plainer if len(plainer) == 1 else character
        return self[code]


_FOLDED = _Folded()
