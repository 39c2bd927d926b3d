"""An answer that is held to a form ends within its room: when hardly enough tokens are left to complete the form, only
those may come after which it can still be completed.

A model may go on for ever inside a form (a text without a bound, a list without one); cut at the last token allowed,
what it wrote would have no form at all. The way to an end is found as `smallest` finds a text: by what closes JSON.
It is looked for again from time to time, more often the less room is left; for the last tokens, behind each of the
likely ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

LAST = 512  # tokens of room from which on ends are looked for
SPARE = 24  # tokens of room beyond the way to an end, below which each token is looked behind
OFTEN = 8  # looks while the spare room is used up to one over e of it
LIKELY = 16  # tokens that are looked behind
ENOUGH = 8  # of them that fit
CLOSES = (b'}],0nft"[{-', b'"a ')
"""Bytes that bring JSON to an end, the soonest first: outside a string, and inside one."""
SIGNS = b"@.:-_/"
REST = bytes([*range(0x80, 0xC0), *range(126, 31, -1)])  # the rest of a letter that was begun; what can be printed


class Quotes:
    """Whether a text is inside a JSON string, and whether its last byte is a letter or digit."""

    def __init__(self, inside: bool = False, escaped: bool = False, word: bool = False):
        self.inside, self.escaped, self.word = inside, escaped, word

    def read(self, text: bytes) -> None:
        self.word = text[-1:].isalnum() if text else self.word
        for byte in text:
            self.inside ^= byte == ord('"') and not self.escaped
            self.escaped = self.inside and byte == ord("\\") and not self.escaped

    def fork(self) -> Quotes:
        return Quotes(self.inside, self.escaped, self.word)


class Closing:
    """How an answer can end soon.

    - lexicon: llguidance's `LLTokenizer`. vocabulary: tokens from this number on never come. end: the token that ends
      an answer."""

    def __init__(self, lexicon: Any, vocabulary: int, end: int):
        self._lexicon, self._vocabulary, self._end = lexicon, vocabulary, end
        self._tokens: dict[int, int | None] = {}  # by byte
        self._new: list[int] = []  # accepted, not read yet
        self._quotes = Quotes()
        self._way: list[int] | None = None
        self._wait = 0  # tokens until the next look
        self._before: list[int] = []  # a way that was good a moment ago
        self._needed = self._jump = self._most = 0

    def accept(self, token: int) -> None:
        """A token of the answer."""
        self._new.append(token)
        self._wait -= 1
        if self._way:
            self._before = self._way
            self._way = self._way[1:] if self._way[0] == token else None

    def tight(self, at: Any, room: int) -> bool:
        """Whether the tokens that may come have to be looked behind (`fitting`).

        - at: llguidance's `LLMatcher`. room: tokens that may still come, with the one that ends the answer."""
        if room > LAST or (self._way is None and self._wait > 0):
            return False
        if self._way is None:
            self._look(at, room)
        spare = room - len(self._way or ())
        # A list may begin another object like the one that all of it is.
        near = max(SPARE, 2 * self._jump, self._most)
        self._wait = max(spare - near, 0) // OFTEN
        return self._way is not None and spare <= near

    def fitting(self, at: Any, room: int, likely: Iterable[int]) -> list[int]:
        """Those of the likely tokens after which the form can be completed within the room, and the first on the way to
        the soonest end."""
        found = (self._way or [])[:1]
        for token in likely:
            if token not in found and self._fits(at, token, room):
                found.append(token)
                if len(found) >= ENOUGH:
                    break
        return found

    def fork(self) -> Closing:
        """Another one that goes its own way."""
        other = object.__new__(Closing)
        other.__dict__.update(self.__dict__, _new=list(self._new))
        other._quotes = self._quotes.fork()
        return other

    def _look(self, at: Any, room: int) -> None:
        self._quotes.read(self._lexicon.decode_bytes(self._new))
        self._new = []
        if self._before and len(self._before) <= room and self._leads(at, self._before):
            self._way = self._before
        else:
            self._way = self._found(at.deep_copy(), room, self._quotes.fork())
        if self._way is not None:
            # What one token may add to what is needed: an object that it opens wants all its names.
            if self._needed:
                self._jump = max(self._jump, len(self._way) - self._needed)
            self._needed = len(self._way)
            self._most = max(self._most, self._needed)

    def _leads(self, at: Any, tokens: list[int]) -> bool:
        """Whether these tokens complete the form from here. A way often still does after one more letter of a text."""
        some = tokens[:-1] if tokens[-1] == self._end else tokens
        then = at.deep_copy()
        return bool(then.try_consume_tokens(some)) and then.is_accepting()

    def _fits(self, at: Any, token: int, room: int) -> bool:
        if token == self._end:
            return True
        if self._way and len(self._way) < room and self._leads(at, [token, *self._way]):
            return True
        then, quotes = at.deep_copy(), self._quotes.fork()
        quotes.read(self._lexicon.decode_bytes([*self._new, token]))
        return bool(then.try_consume_tokens([token])) and self._found(then, room - 1, quotes) is not None

    def _found(self, at: Any, room: int, quotes: Quotes) -> list[int] | None:
        """A way to an end from where a copy of the form's state stands, one byte at a time where there is a choice: a
        token of several bytes may hold what opens more. None: no way was found that fits into the room."""
        ids: list[int] = []
        while not at.is_accepting():
            some = at.compute_ff_tokens() or self._step(at, quotes)
            if not some or len(ids) + len(some) > room or any(token >= self._vocabulary for token in some):
                return None
            if not at.try_consume_tokens(some):
                return None
            quotes.read(self._lexicon.decode_bytes(some))
            ids += some
        whole = ids if at.is_stopped() else [*ids, self._end]
        return whole if len(whole) <= room else None

    def _step(self, at: Any, quotes: Quotes) -> list[int]:
        closes = CLOSES[quotes.inside]
        if quotes.inside:
            # What has a pattern often goes on with a sign: name@host, 10.0, 12:30.
            closes = closes[:1] + (SIGNS + closes[1:] if quotes.word else closes[1:] + SIGNS)
        for byte in dict.fromkeys(closes + REST):
            token = self._spelt(byte)
            if token is not None and at.validate_tokens([token]):
                return [token]
        return []

    def _spelt(self, byte: int) -> int | None:
        """The token that is this byte alone."""
        if byte not in self._tokens:
            ids = self._lexicon.tokenize_bytes(bytes([byte]))
            alone = len(ids) == 1 and self._lexicon.decode_bytes(ids) == bytes([byte])
            self._tokens[byte] = ids[0] if alone and ids[0] < self._vocabulary else None
        return self._tokens[byte]
