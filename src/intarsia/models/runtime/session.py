"""`Session`: an engine that is asked step by step - tokens in, the next one's logits out, and back again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np


class Step(NamedTuple):
    """Tokens that a row goes on with. start: how many it holds before them; what it held after those is forgotten."""

    row: int
    ids: Sequence[int]
    start: int


@runtime_checkable
class Session(Protocol):
    """Rows of tokens inside an engine, which keeps what it computed of them.

    - rows: how many there are. places: tokens that all rows together may hold (those that rows share count once).
    - context_length, vocabulary: of the model. ends: tokens that end an answer, as the engine's file says."""

    rows: int
    places: int
    context_length: int
    vocabulary: int
    ends: tuple[int, ...]

    def read(self, steps: Sequence[Step], *, every: bool = False) -> list[np.ndarray]:
        """Logits after each row's last token, float32 [1, vocabulary]; `every`: after each token it goes on with."""
        ...

    def cut(self, row: int, length: int) -> None:
        """Forget a row's tokens after the first `length`."""
        ...

    def copy(self, source: int, target: int, length: int) -> None:
        """Let an empty row hold the first `length` tokens of another. Only where there are several rows."""
        ...


def greedy(session: Session, ids: Sequence[int], count: int) -> Iterator[int]:
    """The `count` most probable tokens that follow `ids` in the first row, whatever they are; the first comes once
    `ids` are read. No token is read before the one after it is asked for."""
    step = Step(0, ids, 0)
    for _ in range(count):
        (row,) = session.read([step])
        yield (token := int(row[-1].argmax()))
        step = Step(0, [token], step.start + len(step.ids))


def until_end(tokens: Iterable[int], ends: Sequence[int]) -> list[int]:
    """Tokens up to the first that ends an answer, which is included."""
    out: list[int] = []
    for token in tokens:
        out.append(token)
        if token in ends:
            break
    return out
