"""Tokens to text as they come: a character of several tokens is told once, whole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

UNREADABLE = "\ufffd"


class Detokeniser:
    """The text that tokens add, one call after the other. All pieces together are the text of all tokens.

    - kept: special tokens that are told as text all the same (markers of calls); the others are left out.

    A tokenizer may read a token by the one before (spaces of SentencePiece, bytes of one character), so each piece is
    the difference of two short decodings that begin at the same place: linear in the number of tokens."""

    def __init__(self, tokenizer: Any, kept: Iterable[int] = ()):
        self._tokenizer = tokenizer
        self._skipped = special_ids(tokenizer) - frozenset(kept)
        self._ids: list[int] = []
        self._start = 0  # where both decodings begin
        self._told = 0  # tokens that were told

    def add(self, ids: Iterable[int]) -> str:
        """Text that these tokens make sure of; a character that is not whole yet is held back."""
        self._ids.extend(i for i in ids if i not in self._skipped)
        before, after = self._before_and_after()
        if after.endswith(UNREADABLE) or len(after) <= len(before):
            return ""
        self._start, self._told = self._told, len(self._ids)
        return after[len(before) :]

    def end(self) -> str:
        """What is left: a character that never became whole, as the tokenizer shows it."""
        before, after = self._before_and_after()
        self._start = self._told = len(self._ids)
        return after[len(before) :]

    def _before_and_after(self) -> tuple[str, str]:
        before = decode(self._tokenizer, self._ids[self._start : self._told])
        return before, decode(self._tokenizer, self._ids[self._start :])


def special_ids(tokenizer: Any) -> frozenset[int]:
    """Tokens that are no text: ends of turns, padding, markers."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return frozenset(tokenizer.all_special_ids) | {i for i, token in added.items() if token.special}


def decode(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of tokens, special ones included, with nothing tidied up."""
    if not ids:
        return ""
    fast = getattr(tokenizer, "backend_tokenizer", None)
    if fast is not None and hasattr(fast, "decode"):  # the same, without what transformers does around it
        return fast.decode(list(ids), skip_special_tokens=False)
    return tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
