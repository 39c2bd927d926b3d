"""Which tokens stay: by their count in a text, each with the tokens that its merges go through."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from itertools import pairwise

from intarsia.errors import BadInput


class Merges:
    """The merges of a byte-pair encoding, in their order.

    whole_words: whether a word that is a token is taken before any merge (Llama 3), so that tokens may be in use which
    no merges lead to."""

    def __init__(self, pairs: Iterable[tuple[str, str]], whole_words: bool = False):
        self.ranks = {pair: rank for rank, pair in enumerate(pairs)}
        self.whole_words = whole_words

    def path(self, token: str) -> set[str]:
        """The tokens that stand between the bytes of `token` and itself, itself included, as encoding it meets them.

        Where merges do not lead to it: only itself with `whole_words`, else nothing, as then no text has it.

        Merges inside of a token do not depend on its neighbours (none goes over its border in a text that has the
        token). With all these kept, whatever else goes, the same merges are made in the same order: each is still
        there, and those that are gone were never made."""
        parts = list(token)
        met = {*parts}
        while len(parts) > 1:
            rank, at = min((self.ranks.get(pair, math.inf), i) for i, pair in enumerate(pairwise(parts)))
            if rank == math.inf:
                return {token} if self.whole_words else set()
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
            met.add(parts[at])
        return met


@dataclass(frozen=True)
class Choice:
    """kept: old ids in rising order, so that the new id of a token is its place. Counts of why: `always`, `counted` in
    the text, `between` the bytes and a kept token, and `filled` up; coverage: share of the text's tokens kept."""

    kept: tuple[int, ...]
    always: int
    counted: int
    between: int
    filled: int
    coverage: float


def choose(
    counts: Counter[int],
    always: Set[int],
    vocabulary: Mapping[str, int],
    merges: Merges,
    size: int | None = None,
    coverage: float | None = None,
) -> Choice:
    """Add tokens from the commonest on, ties by id, until `coverage` of the text or `size` tokens are reached.

    `always` must hold its own paths. A token that does not fit with its path is passed over for a rarer one that
    does. With a size and no coverage, places left over go to tokens of no count in the order of their ids, which is
    that of the merges."""
    if size is not None and size < len(always):
        raise BadInput(f"size {size}: {len(always)} tokens (bytes, specials, chat template) always stay; give more")
    kept, filled = set(always), 0
    total = counts.total()
    covered = sum(counts[i] for i in kept)
    names = {i: token for token, i in vocabulary.items()}
    for i in sorted(names, key=lambda i: (-counts[i], i)):
        if not counts[i] and (size is None or coverage is not None):
            break
        if len(kept) == size or (coverage is not None and covered >= coverage * total):
            break
        if i in kept:
            continue
        need = {vocabulary[token] for token in merges.path(names[i])} - kept
        if size is None or len(kept) + len(need) <= size:
            kept |= need
            covered += sum(counts[n] for n in need)
            filled += not counts[i] and bool(need)
    added = kept - set(always)
    counted = sum(1 for i in added if counts[i])
    return Choice(
        kept=tuple(sorted(kept)),
        always=len(always),
        counted=counted,
        between=len(added) - counted - filled,
        filled=filled,
        coverage=covered / total if total else 1.0,
    )
