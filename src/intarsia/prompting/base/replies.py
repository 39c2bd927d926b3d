"""How tokens are to be chosen, and what comes back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from intarsia.prompting.base.messages import Call

Finish = Literal["stop", "length", "tool_calls", "cancelled"]


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen.

    - max_tokens: made at most. temperature: 0 takes the most likely token each time.
    - top_p, top_k: draw from the fewest tokens that have this share, from so many (1 and 0: from all).
    - seed: of the draws; the same request with the same seed gives the same answer, whoever else is served. None: any.
    - stop: texts that end the answer, and are not part of it.
    - logprobs: None: none; else of each token that was made, and of so many likely ones beside it.
    - presence_penalty, frequency_penalty: OpenAI's: taken off the logits of tokens that the answer holds already."""

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0

    @property
    def repeatable(self) -> bool:
        """Whether the same request gives the same answer again."""
        return self.temperature == 0 or self.seed is not None


@dataclass(frozen=True)
class Usage:
    """Tokens of a request. cached: of the prompt's, those that did not have to be computed. forced: of the answer's,
    those that the wanted form left no choice for. calls: requests that reached a model. cost: in the price's unit."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    forced: int = 0
    calls: int = 1
    cost: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, f) + getattr(other, f) for f in self.__dataclass_fields__))


class Scores(list[float]):
    """Natural log probabilities of choices, one each, in their order.

    - usage: of the prompt's tokens, and those that choices begin with, each beginning once: a choice's last token need
      not be read. None: nobody told."""

    def __init__(self, values: Iterable[float] = (), usage: Usage | None = None):
        super().__init__(values)
        self.usage = usage


def taken_by(scores: list[float]) -> Usage | None:
    """What scores took; None where nobody told."""
    return getattr(scores, "usage", None)


@dataclass(frozen=True)
class TokenLogprob:
    """Natural log probability of a token that was made, under the model's own distribution (temperature 1, nothing
    masked). top: likely tokens in its place, best first."""

    token: str
    id: int | None
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Delta:
    """A piece of an answer as it comes. The last has `finish`, `usage` and, where tools were called, `calls`."""

    text: str = ""
    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    finish: Finish | None = None
    usage: Usage | None = None
    calls: tuple[Call, ...] = ()


@dataclass(frozen=True)
class Reply:
    """An answer.

    - text: without special tokens, stop texts and calls of tools. tokens: ids, empty where a server does not tell.
    - cached: whether it came from the cache of answers, without a model."""

    text: str
    finish: Finish = "stop"
    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    calls: tuple[Call, ...] = ()
    usage: Usage = field(default_factory=Usage)
    cached: bool = False
