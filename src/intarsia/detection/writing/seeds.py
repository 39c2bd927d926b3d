"""Seeds for the parts of a whole: each part's draws depend on the whole's seed and on itself, never on what else there
is to draw."""

from __future__ import annotations

import hashlib


def mixed_seed(*parts: object) -> int:
    """A seed from 0 to 2^32 - 1 of a seed and what tells the part (a text, a number). Equal parts, equal seed; others
    have one that is not near it, so that the second batch of seed 0 is not the first of seed 1."""
    digest = hashlib.blake2b(repr(parts).encode("utf-8", "surrogatepass"), digest_size=4)
    return int.from_bytes(digest.digest(), "big")
