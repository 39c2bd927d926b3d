"""`Request`: a prompt to go on with, and how its tokens are chosen - the same on whatever rank, at whatever time."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from intarsia.errors import BadInput


@dataclass(frozen=True)
class Request:
    """One prompt.

    - id: any number below 2**31, unique among the requests of a runtime.
    - prompt: token ids. max_new_tokens: how many are made at most.
    - temperature: 0: the most likely token each time. top_k, top_p: draw from the k most likely, or from the fewest
      that have the share p (0 and 1: from all).
    - stop: token ids that end it (they are the last token made).
    - home: the rank that is to hold its keys and values; None: the runtime chooses."""

    id: int
    prompt: tuple[int, ...]
    max_new_tokens: int = 16
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    stop: tuple[int, ...] = ()
    home: int | None = None

    def __post_init__(self) -> None:
        if not self.prompt:
            raise BadInput(f"request {self.id} has an empty prompt: give one token at least")
        if not 0 <= self.id < 2**31:
            raise BadInput(f"request ids lie in 0..2147483647, was given {self.id}")
        if self.max_new_tokens < 1:
            raise BadInput(f"request {self.id}: max_new_tokens is {self.max_new_tokens}, one at least is wanted")
        if self.temperature < 0 or self.top_k < 0 or not 0 < self.top_p <= 1:
            raise BadInput(f"request {self.id}: temperature >= 0, top_k >= 0 and 0 < top_p <= 1 are wanted")

    def check(self, vocabulary: int, positions: int | None, ranks: int) -> None:
        """Raise `BadInput` where a network with so many tokens and positions, on so many ranks, cannot run it."""
        if max(self.prompt) >= vocabulary or min(self.prompt) < 0:
            raise BadInput(f"request {self.id} has token ids outside the vocabulary of {vocabulary}")
        if positions is not None and len(self.prompt) + self.max_new_tokens > positions:
            raise BadInput(
                f"request {self.id} wants {len(self.prompt)} + {self.max_new_tokens} tokens, the network has "
                f"positions for {positions}"
            )
        if self.home is not None and not 0 <= self.home < ranks:
            raise BadInput(f"request {self.id} asks for rank {self.home} of {ranks}")


class Token(NamedTuple):
    """A token that was made: for which request, which one, and whether it was the last."""

    request: int
    token: int
    last: bool


@dataclass
class Running:
    """A request that was admitted.

    - home: the rank that holds its keys and values (coherent: the rank where its tokens start).
    - made: the tokens made so far; the last of them has not run yet."""

    request: Request
    home: int
    made: list[int] = field(default_factory=list)

    @property
    def position(self) -> int:
        """Where its next token to run stands."""
        return len(self.request.prompt) + len(self.made) - 1

    def take(self, token: int) -> Token:
        """Note a new token."""
        self.made.append(token)
        last = token in self.request.stop or len(self.made) >= self.request.max_new_tokens
        return Token(self.request.id, token, last)


def choose(logits: Tensor, running: Sequence[Running], seed: int) -> list[int]:
    """The next token of each request from its logits [row, vocabulary].

    A draw depends on the seed, the request and its number of tokens, never on the rank or the other rows."""
    best = logits.argmax(-1).tolist()
    for row, one in enumerate(running):
        request = one.request
        if request.temperature == 0:
            continue
        scores = logits[row].double().cpu() / request.temperature
        if request.top_k:
            lowest = scores.topk(min(request.top_k, len(scores))).values[-1]
            scores = scores.masked_fill(scores < lowest, -torch.inf)
        share, order = scores.softmax(-1).sort(descending=True, stable=True)
        share = share.masked_fill(share.cumsum(-1) - share >= request.top_p, 0.0)
        name = f"{seed}/{request.id}/{len(one.made)}".encode()
        generator = torch.Generator().manual_seed(int.from_bytes(hashlib.blake2b(name, digest_size=7).digest(), "big"))
        best[row] = int(order[torch.multinomial(share, 1, generator=generator)])
    return best
