"""`Runner`: what computes logits for the engine, whatever it is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from intarsia.prompting.base.token_tree import TokenTree


@dataclass(frozen=True)
class Work:
    """Tokens of one row for the next forward. row: its handle. start: where they stand."""

    row: int
    ids: Sequence[int]
    start: int


class Runner(Protocol):
    """Rows of tokens with what was computed of them. Used from one thread at a time.

    - rows: how many there may be at once. vocabulary, context_length: of the model. bytes: of keys and values now.
    - most: tokens that rows at once may hold, by memory; None: as many as their contexts."""

    rows: int
    vocabulary: int
    context_length: int | None
    most: int | None

    @property
    def bytes(self) -> int: ...

    def open(self, ids: Sequence[int], room: int, adapter: str | None = None) -> tuple[int, int]:
        """A row for these tokens and `room` more: its handle, and how many of them are computed already."""
        ...

    def run(self, work: Sequence[Work]) -> Tensor:
        """Logits after the last token of each row, float32 [row, vocabulary]."""
        ...

    def branch(self, work: Sequence[Work], trees: Sequence[TokenTree]) -> list[Tensor]:
        """The same, and logits after each token of the tree behind that row: float32 [1 + token, vocabulary] of each.
        Afterwards the row holds nothing of its tree; its room has to be enough for it."""
        ...

    def keep(self, row: int, ids: Sequence[int]) -> None:
        """Remember the row's first tokens for prompts that begin alike."""
        ...

    def close(self, row: int) -> None:
        """The row is not needed any more."""
        ...

    def reset(self) -> None:
        """Forget everything: a forward failed, and nobody knows what it left."""
        ...
