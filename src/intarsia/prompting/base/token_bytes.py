"""The bytes that each token of a tokenizer stands for, and the tokenizer as llguidance takes it."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from typing import Any

from intarsia.errors import BadInput, first_line

_PROBES = ('{"name": [1, 2]}', "the cat sat on the mat")

_known: weakref.WeakKeyDictionary[Any, dict[tuple[Any, ...], Any]] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def end_tokens(tokenizer: Any, end: int | Sequence[int] | None = None) -> tuple[int, ...]:
    """The ids that end an answer: those given, else the tokenizer's own."""
    if end is None:
        end = tokenizer.eos_token_id
        if end is None:
            end = getattr(tokenizer, "sep_token_id", None)
    if end is None:
        raise BadInput("this tokenizer knows no token that ends a text: say which (end=)")
    return (end,) if isinstance(end, int) else tuple(end)


def lexicon(tokenizer: Any, end: int | Sequence[int] | None = None) -> Any:
    """A Hugging Face tokenizer as llguidance's `LLTokenizer`; made once for each tokenizer (about half a second for
    50,000 tokens) and kept as long as that is.

    llguidance reads the file of a fast tokenizer itself. Where it cannot (WordPiece, Unigram, tokenizers written in
    Python), or where what it read does not spell a plain text, the bytes of the tokens are worked out here."""
    ends = end_tokens(tokenizer, end)
    key = (len(tokenizer), ends)
    with _lock:
        if (found := _known.setdefault(tokenizer, {}).get(key)) is None:
            found = _known[tokenizer][key] = _build(tokenizer, ends)
        return found


def _build(tokenizer: Any, ends: tuple[int, ...]) -> Any:
    import llguidance
    import llguidance.hf

    reasons = []
    for build in (
        lambda: llguidance.hf.from_tokenizer(tokenizer, eos_token=list(ends)),
        lambda: llguidance.LLTokenizer(
            llguidance.TokenizerWrapper(_Spelling(tokenizer, ends[0])), eos_token=list(ends)
        ),
    ):
        try:
            built = build()
            if all(_spells(tokenizer, built, text) for text in _PROBES):
                return built
            reasons.append("its tokens do not spell the text they are made from")
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic of the library is no Exception
            reasons.append(first_line(error))
    raise BadInput(
        f"{type(tokenizer).__name__}: the text of its tokens cannot be told ({'; '.join(reasons)[:200]}), so answers "
        "cannot be held to a form: ask without one"
    )


def _spells(tokenizer: Any, built: Any, text: str) -> bool:
    """Whether the tokens of a text spell it; spaces and case aside, which a normaliser may change."""
    ids = tokenizer.encode(text, add_special_tokens=False)
    unknown = getattr(tokenizer, "unk_token_id", None)
    if unknown is not None and unknown in ids:
        return True  # a small vocabulary; what it has not, nobody can spell
    spelt = built.decode_bytes(list(ids)).decode("utf-8", "replace")
    return "".join(spelt.split()).lower() == "".join(text.split()).lower()


class _Spelling:
    """A tokenizer whose tokens' bytes are worked out from their names; as `llguidance.TokenizerWrapper` wants it."""

    def __init__(self, tokenizer: Any, end: int):
        self.tokenizer = tokenizer
        self.eos_token_id = end
        self.bos_token_id = tokenizer.bos_token_id
        self.tokens = token_bytes(tokenizer)
        self.special_token_ids = sorted({*tokenizer.all_special_ids, end})
        special = set(self.special_token_ids)
        self._ids = {spelt: i for i, spelt in reversed([*enumerate(self.tokens)]) if spelt and i not in special}
        self._longest = max(map(len, self._ids), default=1)

    def __call__(self, text: str | bytes) -> list[int]:
        """The ids of a text: the tokenizer's own where they spell exactly it, else the longest token each time."""
        wanted = text.encode() if isinstance(text, str) else text
        try:
            ids = list(self.tokenizer.encode(wanted.decode(), add_special_tokens=False))
        except UnicodeDecodeError:
            ids = []
        if b"".join(self.tokens[i] for i in ids) == wanted:
            return ids
        ids, at = [], 0
        while at < len(wanted):
            for length in range(min(self._longest, len(wanted) - at), 0, -1):
                if (i := self._ids.get(wanted[at : at + length])) is not None:
                    ids.append(i)
                    at += length
                    break
            else:
                break  # llguidance goes on by itself from what can be spelt
        return ids


def token_bytes(tokenizer: Any) -> list[bytes]:
    """The bytes of each token, by id; empty where a special token has no text. The way a vocabulary writes bytes is
    told from its tokens: GPT-2's alphabet (`Ġ`), SentencePiece (`▁`, `<0x0A>`), WordPiece (`##`), single bytes.

    A word of WordPiece has a space before it, since that is how its tokens are read back."""
    names: list[str] = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    names = [name or "" for name in names]
    special = set(tokenizer.all_special_ids)
    added = set(getattr(tokenizer, "added_tokens_decoder", {}))
    plain = [name for i, name in enumerate(names) if i not in special and i not in added]
    if any("▁" in name for name in plain):
        spell = _sentencepiece
    elif any("Ġ" in name for name in plain):
        spell = _byte_level
    elif any(name.startswith("##") for name in plain):
        spell = _wordpiece
    elif plain and all(len(name) == 1 and ord(name) < 256 for name in plain):
        spell = _latin
    else:
        spell = str.encode
    return [b"" if i in special else name.encode() if i in added else spell(name) for i, name in enumerate(names)]


def _sentencepiece(name: str) -> bytes:
    if len(name) == 6 and name.startswith("<0x") and name.endswith(">"):
        return bytes([int(name[3:5], 16)])
    return name.replace("▁", " ").encode()


def _wordpiece(name: str) -> bytes:
    return name[2:].encode() if name.startswith("##") and len(name) > 2 else b" " + name.encode()


def _latin(name: str) -> bytes:
    return name.encode("latin-1")


def _byte_level(name: str) -> bytes:
    try:
        return bytes(_ALPHABET[letter] for letter in name)
    except KeyError:
        return name.encode()


def _alphabet() -> dict[str, int]:
    """GPT-2's letters for bytes: printable ones stand for themselves, the others follow from U+0100 on."""
    kept = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in kept]
    return {chr(byte): byte for byte in kept} | {chr(256 + i): byte for i, byte in enumerate(others)}


_ALPHABET = _alphabet()
