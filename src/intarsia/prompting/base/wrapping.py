"""`Wrapper`: a backend around another one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from intarsia.prompting.base.backend import Backend
from intarsia.prompting.base.constraint import Constraint
from intarsia.prompting.base.messages import Input, ToolSpec
from intarsia.prompting.base.replies import Delta, Reply, Sampling, Scores

if TYPE_CHECKING:
    import numpy as np


class Wrapper:
    """Passes everything on to `inner`. What a subclass wants otherwise, it says."""

    def __init__(self, inner: Backend):
        self.inner = inner

    @property
    def name(self) -> str:
        """The name of the model inside; so are the three below."""
        return self.inner.name

    @property
    def fingerprint(self) -> str:
        """What tells the model inside from any other."""
        return self.inner.fingerprint

    @property
    def context_length(self) -> int | None:
        """The most tokens it takes, prompt and answer together; None: not known."""
        return self.inner.context_length

    @property
    def tokenizer(self) -> Any:
        """Its tokenizer; None where it has none here."""
        return self.inner.tokenizer

    async def generate(
        self, prompt: Input, sampling: Sampling = Sampling(), *, constraint: Constraint | None = None,
        tools: Sequence[ToolSpec] = (),
    ) -> Reply:  # fmt: skip
        """As `Backend.generate`."""
        return await self.inner.generate(prompt, sampling, constraint=constraint, tools=tools)

    def stream(
        self, prompt: Input, sampling: Sampling = Sampling(), *, constraint: Constraint | None = None,
        tools: Sequence[ToolSpec] = (),
    ) -> AsyncIterator[Delta]:  # fmt: skip
        """As `Backend.stream`."""
        return self.inner.stream(prompt, sampling, constraint=constraint, tools=tools)

    async def score(self, prompt: Input, choices: Sequence[str]) -> list[float]:
        """As `Backend.score`."""
        return await self.inner.score(prompt, choices)

    async def score_many(self, prompts: Sequence[Input], choices: Sequence[str]) -> list[Scores]:
        """As `many.score_many`, of a backend inside that has one. What wraps `score` alone is asked for each."""
        if type(self).score is not Wrapper.score and type(self).score_many is Wrapper.score_many:
            return await scored_each(self, prompts, choices)
        return await self.inner.score_many(prompts, choices)  # type: ignore[attr-defined]

    async def embed(self, texts: Sequence[str]) -> np.ndarray:
        """As `Backend.embed`."""
        return await self.inner.embed(texts)

    def count(self, prompt: Input, tools: Sequence[ToolSpec] = ()) -> int:
        """As `Backend.count`."""
        return self.inner.count(prompt, tools)

    async def close(self) -> None:
        """As `Backend.close`."""
        await self.inner.close()


def layers(backend: Backend) -> Iterator[Backend]:
    """A backend and what it is wrapped around, from the outside in; the last is what runs the model."""
    yield backend
    while isinstance(backend, Wrapper):
        backend = backend.inner
        yield backend


def innermost(backend: Backend) -> Backend:
    """What runs the model, without what is wrapped around it."""
    *_, last = layers(backend)
    return last


def runs_here(backend: Backend) -> bool:
    """Whether its model runs in this process, and not behind a server."""
    return not getattr(innermost(backend), "server", "")


def ids_of(backend: Backend, prompt: Input, tools: Sequence[ToolSpec] = ()) -> list[int] | None:
    """Exactly the token ids that its model reads; None where only a server knows. Raises as `Backend.count`."""
    model = innermost(backend)
    return model.ids(prompt, tools) if runs_here(model) and hasattr(model, "ids") else None


async def scored_each(backend: Backend, prompts: Sequence[Input], choices: Sequence[str]) -> list[Scores]:
    """`Backend.score` of each prompt, all asked for at once."""
    tasks = [asyncio.ensure_future(backend.score(prompt, choices)) for prompt in prompts]
    try:
        return [made if isinstance(made, Scores) else Scores(made) for made in await asyncio.gather(*tasks)]
    finally:
        for task in tasks:  # where one failed, the others need not go on
            task.cancel()
