"""`Budget`: what may be used, and what has been."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from intarsia.errors import BadInput
from intarsia.prompting.base.errors import BudgetExceeded
from intarsia.prompting.base.replies import Usage


@dataclass(frozen=True)
class Price:
    """What a million tokens cost: of prompts, of answers, and of prompts that were computed before (None: as prompts).
    unit: whatever a budget's cost is counted in too."""

    prompt_per_million: float
    completion_per_million: float
    unit: str = "USD"
    cached_per_million: float | None = None

    def of(self, usage: Usage) -> float:
        """What was used, in the unit."""
        cached = self.prompt_per_million if self.cached_per_million is None else self.cached_per_million
        fresh = usage.prompt - usage.cached
        total = fresh * self.prompt_per_million + usage.cached * cached + usage.completion * self.completion_per_million
        return total / 1e6


@dataclass
class Amounts:
    """What was used or is left: tokens of prompts and answers, requests, seconds, cost. None: without end."""

    tokens: float | None = 0
    calls: float | None = 0
    seconds: float | None = 0.0
    cost: float | None = 0.0


_NAMES = tuple(field.name for field in fields(Amounts))


class Budget:
    """What may be used: tokens (of prompts and answers together), calls of a model, seconds, cost. None: any.

    - seconds: of the clock, from the first request on.
    - within: a budget that this one is a part of: what is used here is used there too, and both have to allow it.

    A request holds what it may take at most before it starts, so that requests at the same time cannot overspend
    together; where only what others hold is in its way, it waits for them. Raises `BadInput` for limits below 0."""

    def __init__(
        self, *, tokens: int | None = None, calls: int | None = None, seconds: float | None = None,
        cost: float | None = None, within: Budget | None = None,
    ):  # fmt: skip
        self.limits = Amounts(tokens, calls, seconds, cost)
        for name in _NAMES:
            limit = getattr(self.limits, name)
            if limit is not None and not limit >= 0:
                raise BadInput(f"{name} of a budget is {limit}: give 0 or more, or nothing for any")
        self.within = within
        self._used = Amounts()
        self._held = Amounts()
        self._began: float | None = None
        # One lock and one queue for all budgets of a chain: a request takes from all of them or from none.
        self._lock: Any = within._lock if within else threading.Lock()
        self._queue: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = within._queue if within else []

    @property
    def spent(self) -> Amounts:
        """What was used so far; what requests under way hold is not in it."""
        return Amounts(self._used.tokens, self._used.calls, self._seconds(), self._used.cost)

    @property
    def left(self) -> Amounts:
        """What may still be used here and in what this is a part of; what requests under way hold is taken off."""
        left = Amounts(None, None, None, None)
        with self._lock:
            for budget in self.chain():
                for name in _NAMES:
                    if (most := getattr(budget.limits, name)) is not None:
                        free = max(0, most - budget._taken(name) - getattr(budget._held, name))
                        before = getattr(left, name)
                        setattr(left, name, free if before is None else min(before, free))
        return left

    @property
    def wants_price(self) -> bool:
        """Whether it, or what it is a part of, limits the cost."""
        return any(budget.limits.cost is not None for budget in self.chain())

    def part(self, **limits: Any) -> Budget:
        """A budget within this one: of an agent within a session's."""
        return Budget(within=self, **limits)

    async def hold(self, tokens: int = 0, cost: float = 0.0) -> Hold:
        """Set aside what one call may take at most; waits where others hold what it needs.

        Raises `BudgetExceeded` where it would not fit if they were done and had used nothing."""
        while True:
            with self._lock:
                now = time.monotonic()
                for budget in self.chain():
                    budget._began = now if budget._began is None else budget._began
                wanted = Amounts(tokens, 1, 0.0, cost)
                if not self._must_wait(wanted):
                    for budget in self.chain():
                        _add(budget._held, wanted)
                    return Hold(self, wanted)
                loop = asyncio.get_running_loop()
                free = loop.create_future()
                self._queue.append((loop, free))
            try:
                async with asyncio.timeout(self.left.seconds):
                    await free
            except TimeoutError:
                continue  # and find that the time is spent

    def _must_wait(self, wanted: Amounts) -> bool:
        """Whether others hold what is wanted. Raises `BudgetExceeded` where it is not there at all."""
        wait = False
        for budget in self.chain():
            for name in _NAMES:
                if (most := getattr(budget.limits, name)) is None:
                    continue
                needed = budget._taken(name) + getattr(wanted, name)
                more = most + 1e-9 * most  # what additions of fractions may be off by
                # Time that has run out is spent; of everything else the whole of it may be used.
                if needed > more or (name == "seconds" and needed >= most):
                    raise BudgetExceeded(name, budget._taken(name), most, getattr(wanted, name))
                wait = wait or needed + getattr(budget._held, name) > more
        return wait

    def _settle(self, held: Amounts, used: Amounts) -> None:
        with self._lock:
            for budget in self.chain():
                _add(budget._held, held, -1)
                _add(budget._used, used)
            waiting, self._queue[:] = list(self._queue), []
        for loop, free in waiting:
            if not loop.is_closed():
                loop.call_soon_threadsafe(lambda free=free: free.done() or free.set_result(None))

    def time(self) -> tuple[float, float]:
        """Seconds that were spent, and the limit, of the budget in the chain that has the fewest left."""
        timed = [(b._seconds(), b.limits.seconds) for b in self.chain() if b.limits.seconds is not None]
        return min(timed, key=lambda pair: pair[1] - pair[0], default=(self._seconds(), float("inf")))

    def chain(self) -> Iterator[Budget]:
        """This budget and those it is a part of, from the inside out."""
        budget: Budget | None = self
        while budget is not None:
            yield budget
            budget = budget.within

    def _taken(self, what: str) -> float:
        return self._seconds() if what == "seconds" else getattr(self._used, what)

    def _seconds(self) -> float:
        return 0.0 if self._began is None else time.monotonic() - self._began


class Hold:
    """What is set aside for one call."""

    def __init__(self, budget: Budget, amounts: Amounts):
        self.budget, self.amounts, self.settled = budget, amounts, False

    def settle(self, usage: Usage) -> None:
        """Give back what was not used; tokens of an answer that no model was asked for are free. Only the first time
        counts."""
        tokens = usage.prompt + usage.completion if usage.calls else 0
        self._end(Amounts(tokens, usage.calls, 0.0, usage.cost))

    def lose(self) -> None:
        """Nobody can tell what was used: all of it counts."""
        self._end(self.amounts)

    def _end(self, used: Amounts) -> None:
        if not self.settled:
            self.settled = True
            self.budget._settle(self.amounts, used)


def _add(to: Amounts, what: Amounts, sign: int = 1) -> None:
    for name in _NAMES:
        setattr(to, name, getattr(to, name) + sign * getattr(what, name))
