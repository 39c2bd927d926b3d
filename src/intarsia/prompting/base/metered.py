"""`Metered`: a backend that keeps within a budget."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from intarsia.errors import BadInput
from intarsia.prompting.base.backend import Backend
from intarsia.prompting.base.budget import Budget, Hold, Price
from intarsia.prompting.base.constraint import Constraint
from intarsia.prompting.base.errors import BackendError, BudgetExceeded, InvalidOutput
from intarsia.prompting.base.messages import Input, ToolSpec
from intarsia.prompting.base.replies import Delta, Reply, Sampling, Scores, Usage, taken_by
from intarsia.prompting.base.wrapping import Wrapper, layers

if TYPE_CHECKING:
    import numpy as np


class Metered(Wrapper):
    """Asks only for what a budget allows, and notes there what was used.

    - budget: None: everything is allowed, and noted all the same.
    - price: what makes `Usage.cost`; None: as what is inside says.

    Before a request, its prompt and `max_tokens` are set aside; after it, what it really took is noted. Where nobody
    can tell (it was cancelled, or its time ran out), all that was set aside counts; of a stream that is closed early,
    or that breaks off, the prompt and what came. A budget of seconds cancels a request that is under way.

    Raises `BudgetExceeded`; `BadInput` for a budget of cost without a price."""

    def __init__(self, inner: Backend, budget: Budget | None = None, *, price: Price | None = None):
        super().__init__(inner)
        self.budget = budget if budget is not None else Budget()
        self.price = price
        prices = (layer.price for layer in layers(inner) if isinstance(layer, Metered) and layer.price)
        self._known = price or next(prices, None)
        if self._known is None and self.budget.wants_price:
            raise BadInput("a budget of cost needs to know what tokens cost: give price=Price(...)")

    async def generate(
        self, prompt: Input, sampling: Sampling = Sampling(), *, constraint: Constraint | None = None,
        tools: Sequence[ToolSpec] = (),
    ) -> Reply:  # fmt: skip
        """As `Backend.generate`."""
        most = Usage(self.inner.count(prompt, tools), sampling.max_tokens)
        async with self._paid(most) as hold, self._in_time():
            reply = await self.inner.generate(prompt, sampling, constraint=constraint, tools=tools)
            reply = replace(reply, usage=self._priced(reply.usage))
            hold.settle(reply.usage)
            return reply

    async def stream(
        self, prompt: Input, sampling: Sampling = Sampling(), *, constraint: Constraint | None = None,
        tools: Sequence[ToolSpec] = (),
    ) -> AsyncIterator[Delta]:  # fmt: skip
        """As `Backend.stream`."""
        used = self.inner.count(prompt, tools)
        came = 0
        async with self._paid(Usage(used, sampling.max_tokens)) as hold:
            deltas = self.inner.stream(prompt, sampling, constraint=constraint, tools=tools)
            async with aclosing(deltas):  # type: ignore[type-var]
                try:
                    while True:
                        async with self._in_time():
                            try:
                                delta = await anext(deltas)
                            except StopAsyncIteration:
                                break
                        came += len(delta.tokens) or bool(delta.text)
                        if delta.usage is not None:
                            delta = replace(delta, usage=self._priced(delta.usage))
                            hold.settle(delta.usage)
                        yield delta
                except (GeneratorExit, BackendError):
                    if came:
                        hold.settle(self._priced(Usage(used, came)))
                    raise
            hold.settle(self._priced(Usage(used, came)))

    async def score(self, prompt: Input, choices: Sequence[str]) -> list[float]:
        """As `Backend.score`. The tokens of the prompt and of all choices are set aside; those that were read count."""
        most = Usage(self.inner.count(prompt) + sum(map(self._tokens, choices)))
        async with self._paid(most) as hold, self._in_time():
            scores = await self.inner.score(prompt, choices)
            usage = self._priced(taken_by(scores) or most)
            hold.settle(usage)
            return Scores(scores, usage)

    async def score_many(self, prompts: Sequence[Input], choices: Sequence[str]) -> list[Scores]:
        """As `many.score_many`, and as `score`."""
        more = sum(map(self._tokens, choices))
        most = Usage(sum(self.inner.count(prompt) + more for prompt in prompts))
        async with self._paid(most) as hold, self._in_time():
            found = await super().score_many(prompts, choices)
            told = [self._paid_for(taken_by(scores)) for scores in found]
            if None in told:
                hold.settle(self._priced(most))
            else:
                hold.settle(sum((usage for usage in told if usage is not None and not _is_free(usage)), Usage(calls=0)))
            return [Scores(scores, usage) for scores, usage in zip(found, told, strict=True)]

    async def embed(self, texts: Sequence[str]) -> np.ndarray:
        """As `Backend.embed`. The tokens of the texts count."""
        most = Usage(sum(map(self._tokens, texts)))
        async with self._paid(most) as hold, self._in_time():
            vectors = await self.inner.embed(texts)
            hold.settle(self._priced(most))
            return vectors

    def _paid_for(self, usage: Usage | None) -> Usage | None:
        """With its cost: of those that share a request, the first alone has the call."""
        if usage is None or self.price is None or _is_free(usage):
            return usage
        return replace(usage, cost=self.price.of(usage))

    def _tokens(self, text: str) -> int:
        return self.inner.count(text) if text else 0

    def _priced(self, usage: Usage) -> Usage:
        return usage if self.price is None or not usage.calls else replace(usage, cost=self.price.of(usage))

    @asynccontextmanager
    async def _paid(self, most: Usage) -> AsyncIterator[Hold]:
        """A request for which `most` is set aside; what it took is settled whatever happens."""
        cost = self._known.of(most) if self._known is not None else 0.0
        hold = await self.budget.hold(most.prompt + most.completion, cost)
        try:
            yield hold
        except InvalidOutput as error:
            hold.settle(self._priced(Usage(most.prompt, self._tokens(error.raw))))
            raise
        except BackendError:
            hold.settle(Usage())
            raise
        except (BadInput, BudgetExceeded) as error:  # not asked at all, unless it was time that ran out
            if getattr(error, "what", "") != "seconds":
                hold.settle(Usage(calls=0))
            raise
        finally:
            hold.lose()

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        """Cancel what is inside when the budget's time is over."""
        timer = asyncio.timeout(self.budget.left.seconds)
        try:
            async with timer:
                yield
        except TimeoutError:
            if not timer.expired():
                raise
            raise BudgetExceeded("seconds", *self.budget.time()) from None


def _is_free(usage: Usage) -> bool:
    """Whether no model was asked: it came from a cache of answers."""
    return not usage.calls and usage.cached >= usage.prompt
