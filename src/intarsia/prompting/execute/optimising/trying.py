"""Trying a prompt on examples, within a number of calls."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from intarsia.prompting.base import Backend, Sampling
from intarsia.prompting.execute.optimising.examples import Example, Value
from intarsia.prompting.execute.optimising.journal import Journal
from intarsia.prompting.execute.prompt import Prompt, Rendered
from intarsia.prompting.execute.trust import plain


class CallsSpent(Exception):
    """The next step would take more calls than are left."""


@dataclass(frozen=True)
class Tried:
    """What a prompt made of an example. answer: as the model gave it, or the likeliest choice; score: the metric's."""

    answer: str
    score: float


class Trier:
    """Asks, counts, and remembers.

    - choices: where the answer is one of them, the likeliest is taken (`Backend.score`); None: it is generated.
    - calls: of any model, at most; what the journal holds counts as it did the first time, so that a run that goes on
      is the run that it would have been."""

    def __init__(
        self, backend: Backend, metric: Value, journal: Journal, *, calls: int, choices: Sequence[str] | None,
        sampling: Sampling | None, shots: str, at_once: int,
    ):  # fmt: skip
        self.backend, self.metric, self.journal, self.choices = backend, metric, journal, choices
        self.calls, self.spent, self.sampling, self.shots = calls, 0, sampling, shots
        self._gate = asyncio.Semaphore(at_once)
        self._known: dict[tuple[str, str], Tried] = {}

    @property
    def left(self) -> int:
        """Calls that may still be made."""
        return self.calls - self.spent

    def needed(self, prompt: Prompt, examples: Sequence[Example]) -> int:
        """Calls that trying these takes: what was tried before takes none."""
        return sum(_key(prompt, one) not in self._known for one in examples)

    async def tried(self, prompt: Prompt, examples: Sequence[Example], *, reserve: int = 0) -> list[Tried]:
        """Each example's answer and score. Raises `CallsSpent` before it asks anything, where that would leave fewer
        calls than `reserve`."""
        new = {_key(prompt, one): one for one in examples if _key(prompt, one) not in self._known}
        if len(new) > self.left - reserve:
            raise CallsSpent
        self.spent += len(new)
        tasks = [asyncio.ensure_future(self._answer(prompt, key, one)) for key, one in new.items()]
        try:
            answers = await asyncio.gather(*tasks)
        finally:
            for task in tasks:  # where one failed, the others need not go on
                task.cancel()
        for (key, one), answer in zip(new.items(), answers, strict=True):
            self._known[key] = Tried(answer, self.metric(answer, one.label, one.row))
        return [self._known[_key(prompt, one)] for one in examples]

    async def generated(self, backend: Backend, made: Rendered, sampling: Sampling, key: str, reserve: int) -> str:
        """What a model writes; one call."""
        if self.left - reserve < 1:
            raise CallsSpent
        self.spent += 1
        if key not in self.journal.known:
            self.journal.add(key, plain((await backend.generate(made, sampling)).text))
        return self.journal.known[key]

    async def _answer(self, prompt: Prompt, key: tuple[str, str], example: Example) -> str:
        name = "/".join(key)
        if name in self.journal.known:
            return self.journal.known[name]
        made = prompt.render(shape=self.choices, seed="optimise", **example.inputs)
        async with self._gate:
            if self.choices is not None:
                scores = await self.backend.score(made, self.choices)
                answer = self.choices[max(range(len(scores)), key=scores.__getitem__)]
            else:
                answer = plain((await self.backend.generate(made, self.sampling or made.sampling)).text).strip()
        self.journal.add(name, answer)
        return answer


def _key(prompt: Prompt, example: Example) -> tuple[str, str]:
    return prompt.version, digest(example.text, example.label)


def digest(*parts: Any) -> str:
    """16 hexadecimal digits that stand for texts."""
    return hashlib.sha256("\0".join(map(str, parts)).encode(errors="surrogatepass")).hexdigest()[:16]
