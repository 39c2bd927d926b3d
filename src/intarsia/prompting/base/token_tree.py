"""`TokenTree`: the beginnings that texts have, each token once: what has to be read to know how likely they all are."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class TokenTree:
    """Tokens that part ways behind a prompt.

    - tokens: parents before their children. parents: of each the number of the token before it; -1: the prompt's last.
    """

    tokens: tuple[Hashable, ...] = ()
    parents: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def depths(self) -> list[int]:
        """How far behind the prompt each token stands: 1 is right behind it."""
        out: list[int] = []
        for parent in self.parents:
            out.append(1 if parent < 0 else out[parent] + 1)
        return out

    @property
    def paths(self) -> list[list[int]]:
        """The numbers of the tokens from the prompt to each end, in order: every token is on one path or more."""
        inner = set(self.parents)
        out = []
        for end in range(len(self)):
            if end in inner:
                continue
            path = [end]
            while (parent := self.parents[path[-1]]) >= 0:
                path.append(parent)
            out.append(path[::-1])
        return out


def tree_of(texts: Sequence[Sequence[Hashable]]) -> tuple[TokenTree, list[list[int]]]:
    """The tree of all proper beginnings of texts (what is behind the last token need not be known), and of each text
    where each of its tokens is told of: 0: behind the prompt; 1 + n: behind token n of the tree."""
    numbers: dict[tuple[int, Hashable], int] = {}
    places = []
    for text in texts:
        at, place = -1, []
        for token in text[:-1]:
            place.append(at + 1)
            at = numbers.setdefault((at, token), len(numbers))
        places.append([*place, at + 1] if len(text) else place)
    return TokenTree(tuple(token for _, token in numbers), tuple(parent for parent, _ in numbers)), places
