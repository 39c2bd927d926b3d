"""Others' words in a template's text: found again in it, and encoded so that none of them becomes a special token."""

from __future__ import annotations

import itertools
import json
import re
import secrets
import threading
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from intarsia.errors import BadInput

_known: weakref.WeakKeyDictionary[Any, tuple[Any, Encoder]] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


@dataclass(frozen=True)
class Piece:
    """A part of a rendered text. words: whether it is others' words, else the template's."""

    text: str
    words: bool


class Marks:
    """Marks that stand for texts while a template is rendered. They are letters and digits that are nowhere in `text`;
    spaces around a text stay around its mark, so that a template which trims one trims the other.

    - only: the texts that get a mark; None: all."""

    def __init__(self, text: str, only: frozenset[str] | None = None):
        self._nonce = next(n for n in iter(lambda: secrets.token_hex(6), "") if n not in text)
        self._only = only
        self._marks: dict[str, str] = {}
        self._words: dict[str, str] = {}

    def of(self, text: str, kept: bool = False) -> str:
        """The mark of a text; itself, where it is empty or gets none. kept: give every text that no mark is asked for
        back as it is, also where all get one (words of a schema, on which templates branch)."""
        core = text.strip()
        if not core or (self._only is None and kept) or (self._only is not None and text not in self._only):
            return text
        if core not in self._marks:
            mark = f"x{self._nonce}n{len(self._marks)}x"
            self._marks[core], self._words[mark] = mark, core
        start = text.index(core)
        return text[:start] + self._marks[core] + text[start + len(core) :]

    def shown(self, text: str, skeleton: str) -> bool:
        """Whether a text that was marked is in what was rendered."""
        return self._marks.get(text.strip(), text) in skeleton

    def pieces(self, skeleton: str, text: str) -> list[Piece]:
        """The rendered text in parts: what the template wrote around the marks, and the words in their places.

        skeleton: rendered with marks; text: without. Where words were written another way (in JSON, say), as the text
        has them; a template that does something else with them gets them as they are."""
        parts = self._split(skeleton)
        return self._as_written(parts, text) or [Piece(self._words[p] if marked else p, marked) for p, marked in parts]

    def _split(self, skeleton: str) -> list[tuple[str, bool]]:
        found = re.split(f"(x{self._nonce}n[0-9]+x)", skeleton)
        return [(part, i % 2 == 1) for i, part in enumerate(found) if part]

    def _as_written(self, parts: Sequence[tuple[str, bool]], text: str) -> list[Piece] | None:
        """The parts as they stand in the text; None where they do not fit to it."""
        out: list[Piece] = []
        at = 0
        for i, (part, marked) in enumerate(parts):
            if not marked:
                if not text.startswith(part, at):
                    return None
                out.append(Piece(part, False))
                at += len(part)
                continue
            behind = parts[i + 1][0] if i + 1 < len(parts) and not parts[i + 1][1] else ""
            written = next(
                (way for way in _ways(self._words[part]) if text.startswith(way + behind, at)
                 and (i + 1 < len(parts) or at + len(way) == len(text))), None,
            )  # fmt: skip
            if written is None:
                return None
            out.append(Piece(written, True))
            at += len(written)
        return out if at == len(text) else None


def _ways(words: str) -> Iterator[str]:
    """How templates write a text: as it is, or inside JSON."""
    yield words
    yield json.dumps(words, ensure_ascii=False)[1:-1]
    yield json.dumps(words)[1:-1]
    escaped = json.dumps(words)[1:-1]
    for letter in "<>&'":
        escaped = escaped.replace(letter, f"\\u{ord(letter):04x}")
    yield escaped


class Encoder:
    """A tokenizer's ways to encode: a template's text, and others' words inside it."""

    def __init__(self, tokenizer: Any):
        added = getattr(tokenizer, "added_tokens_decoder", {})
        self._special = frozenset(tokenizer.all_special_ids) | {i for i, token in added.items() if token.special}
        self._added = self._special | frozenset(added)
        self._texts = {i: str(tokenizer.convert_ids_to_tokens(i)) for i in self._added}
        # Weakly: the encoder is kept by the tokenizer it is of.
        self._tokenizer = weakref.proxy(tokenizer)
        self._inner = _without_first_space(tokenizer)

    def template(self, text: str) -> list[int]:
        """Tokens of a whole text, special tokens included."""
        return list(self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def specials(self, ids: Sequence[int]) -> list[int]:
        """The special tokens among some, in order."""
        return [i for i in ids if i in self._special]

    def holds(self, words: str, strict: bool = True) -> bool:
        """Whether something in a text would become a special token; strict: or any other added one (`<think>`)."""
        found = self._added if strict else self._special
        return not found.isdisjoint(self.template(words))

    def spliced(self, pieces: Sequence[Piece]) -> list[int]:
        """Tokens of a text in parts: special tokens are those of the template's parts alone. What lies between two of
        them is encoded in one go, as the tokenizer itself does."""
        out: list[int] = []
        run = ""
        for piece in pieces:
            if piece.words:
                run += piece.text
                continue
            at = 0
            for start, end, token in self._marked(piece.text):
                run += piece.text[at:start]
                out += [*self._plain(run, first=not out), token]
                run, at = "", end
            run += piece.text[at:]
        return out + self._plain(run, first=not out)

    def _marked(self, text: str) -> list[tuple[int, int, int]]:
        """Where added tokens stand in a template's text: start, end, id."""
        both = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        rows = zip(both["offset_mapping"], both["input_ids"], strict=True)
        return [(start, end, i) for (start, end), i in rows if i in self._added and end > start]

    def _plain(self, text: str, first: bool) -> list[int]:
        """Tokens of characters alone. first: whether nothing stands before it."""
        if not text:
            return []
        ids = self._characters(text, first)
        if self._added.isdisjoint(ids):
            return ids
        # A vocabulary can spell an added token, or finds it all the same: part it after its first character.
        cuts = sorted({at + 1 for i in self._added & set(ids) for at in _all(text, self._texts[i].strip())})
        if not cuts:
            raise BadInput("the tokenizer makes special tokens of plain text: it cannot be used for conversations")
        bounds = [0, *cuts, len(text)]
        out = []
        for start, end in itertools.pairwise(bounds):
            out += self._characters(text[start:end], first and start == 0)
        if not self._added.isdisjoint(out):
            raise BadInput("the tokenizer makes special tokens of plain text: it cannot be used for conversations")
        return out

    def _characters(self, text: str, first: bool) -> list[int]:
        if not first and self._inner is not None:
            return self._inner.encode(text, add_special_tokens=False).ids
        return list(
            self._tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
        )  # fmt: skip


def encoder(tokenizer: Any) -> Encoder:
    """The encoder of a tokenizer, made once for each."""
    with _lock:
        state = len(tokenizer)
        found = _known.get(tokenizer)
        if found is None or found[0] != state:
            found = (state, Encoder(tokenizer))
            _known[tokenizer] = found
        return found[1]


def _without_first_space(tokenizer: Any) -> Any:
    """A copy of the tokenizer's backend that puts no space before a text, where only the first text gets one: for
    what stands inside. None where all texts are encoded alike."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not hasattr(backend, "to_str"):
        return None
    made = json.loads(backend.to_str())
    if not _never_first(made.get("pre_tokenizer")):
        return None
    from tokenizers import Tokenizer

    inner = Tokenizer.from_str(json.dumps(made))
    inner.encode_special_tokens = True
    inner.no_truncation()
    return inner


def _never_first(part: Any) -> bool:
    """Change `first` to `never` wherever a pre-tokenizer's description says so, in place; whether it did."""
    parts = part if isinstance(part, list) else list(part.values()) if isinstance(part, dict) else []
    changed = sum(_never_first(one) for one in parts)
    if isinstance(part, dict) and part.get("prepend_scheme") == "first":
        part["prepend_scheme"] = "never"
        changed += 1
    return changed > 0


def _all(text: str, part: str) -> Iterator[int]:
    at = text.find(part) if part else -1
    while at >= 0:
        yield at
        at = text.find(part, at + 1)
