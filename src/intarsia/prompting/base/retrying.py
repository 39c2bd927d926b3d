"""`Retrying`: what may pass is asked again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, TypeVar

from intarsia.models.remote.patience import attempts
from intarsia.prompting.base.backend import Backend
from intarsia.prompting.base.constraint import Constraint
from intarsia.prompting.base.messages import Input, ToolSpec
from intarsia.prompting.base.replies import Delta, Reply, Sampling, Scores
from intarsia.prompting.base.wrapping import Wrapper

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")


class Retrying(Wrapper):
    """Asks again where a `BackendError` says that it may pass, and nowhere else.

    tries, pause: how often, and the seconds before the second time, doubled every time after. Servers are asked again
    as it is; this is for what else may fail for a while. A stream is begun again only while nothing of it came."""

    def __init__(self, inner: Backend, *, tries: int = 5, pause: float = 1.0):
        super().__init__(inner)
        self.tries, self.pause = tries, pause

    async def generate(
        self, prompt: Input, sampling: Sampling = Sampling(), *, constraint: Constraint | None = None,
        tools: Sequence[ToolSpec] = (),
    ) -> Reply:  # fmt: skip
        """As `Backend.generate`."""
        return await self._again(lambda: self.inner.generate(prompt, sampling, constraint=constraint, tools=tools))

    async def stream(
        self, prompt: Input, sampling: Sampling = Sampling(), *, constraint: Constraint | None = None,
        tools: Sequence[ToolSpec] = (),
    ) -> AsyncIterator[Delta]:  # fmt: skip
        """As `Backend.stream`."""

        async def begun() -> tuple[AsyncIterator[Delta], list[Delta]]:
            deltas = self.inner.stream(prompt, sampling, constraint=constraint, tools=tools)
            try:
                return deltas, [await anext(deltas)]
            except StopAsyncIteration:
                return deltas, []

        deltas, head = await self._again(begun)
        async with aclosing(deltas):  # type: ignore[type-var]
            for delta in head:
                yield delta
            async for delta in deltas:
                yield delta

    async def score(self, prompt: Input, choices: Sequence[str]) -> list[float]:
        """As `Backend.score`."""
        return await self._again(lambda: self.inner.score(prompt, choices))

    async def score_many(self, prompts: Sequence[Input], choices: Sequence[str]) -> list[Scores]:
        """As `many.score_many`."""
        return await self._again(lambda: super(Retrying, self).score_many(prompts, choices))

    async def embed(self, texts: Sequence[str]) -> np.ndarray:
        """As `Backend.embed`."""
        return await self._again(lambda: self.inner.embed(texts))

    async def _again(self, ask: Callable[[], Awaitable[T]]) -> T:
        async for attempt in attempts(self.tries, self.pause):
            with attempt:
                return await ask()
        raise AssertionError("the last try returns or raises")
