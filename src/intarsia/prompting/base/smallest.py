"""A small text that has a form, where no model is there to write one."""

from __future__ import annotations

import json
import random
from functools import lru_cache

from intarsia.errors import BadInput
from intarsia.prompting.base.closing import CLOSES, Quotes
from intarsia.prompting.base.constraint import Constraint
from intarsia.prompting.base.validating import ByteMatcher

LENGTHS = (8, 32, 128)  # bytes of a text that is found at random, at most, in this order
MOST = 4096  # bytes of JSON
WALKS = 12  # at random, for each length


@lru_cache(256)
def smallest(constraint: Constraint, seed: int | None = None) -> str:
    """A small text of a form, the same every time. Of a choice: the shortest, or with a seed any.

    It is found by going on with what the form allows: of JSON with what ends something, else at random; and made
    smaller as long as a byte can be left out. Raises `BadInput` for a form of which none is found."""
    if constraint.kind == "choice":
        choices = json.loads(constraint.source)
        return min(choices, key=len) if seed is None else random.Random(f"{constraint.source} {seed}").choice(choices)
    if constraint.kind == "json" and (text := _walked(constraint, MOST, None)) is not None:
        return text.decode()
    draws = random.Random(constraint.source)
    for length in LENGTHS:
        found = [text for _ in range(WALKS) if (text := _walked(constraint, length, draws)) is not None]
        if found:
            return _shrunk(min(found, key=len), constraint).decode()
    raise BadInput(
        f"no text of the {constraint.kind} '{constraint.name}' was found within {LENGTHS[-1]} bytes: give the fake "
        "model a script that answers it"
    )


def _walked(constraint: Constraint, length: int, draws: random.Random | None) -> bytes | None:
    """A text that the form allows, or None where none ended in time."""
    at, text = ByteMatcher(constraint), bytearray()
    quotes = Quotes()
    while True:
        if at.may_end and _is_text(text):
            return bytes(text)
        if len(text) >= length or not (allowed := at.allowed()):
            return None
        plain = bytes(byte for byte in allowed if 32 <= byte < 127) or allowed
        step = _eager(plain, quotes.inside) if draws is None else _drawn(plain, draws, constraint.source.encode())
        at.accept(bytes([step]))
        text.append(step)
        quotes.read(bytes([step]))


def _eager(allowed: bytes, inside: bool) -> int:
    return next((byte for byte in CLOSES[inside] if byte in allowed), allowed[-1])


def _drawn(allowed: bytes, draws: random.Random, source: bytes) -> int:
    """As often as not a byte that the form itself is written with; else a kind of byte first, then one of it: a class
    of many letters would hardly ever be left."""
    if (literal := bytes(set(allowed) & set(source))) and draws.random() < 0.5:
        return draws.choice(sorted(literal))
    kinds: dict[object, list[int]] = {}
    for byte in allowed:
        kinds.setdefault("letter" if chr(byte).isalnum() else byte, []).append(byte)
    return draws.choice(draws.choice(list(kinds.values())))


def _shrunk(text: bytes, constraint: Constraint) -> bytes:
    place = 0
    while place < len(text):
        shorter = text[:place] + text[place + 1 :]
        at = ByteMatcher(constraint)
        if _is_text(shorter) and at.accept(shorter) == len(shorter) and at.may_end:
            text = shorter
        else:
            place += 1
    return text


def _is_text(data: bytes | bytearray) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
