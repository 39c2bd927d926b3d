"""An answer in pieces, and the same answer whole."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

from intarsia.prompting.base.constraint import Constraint
from intarsia.prompting.base.messages import Input, ToolSpec
from intarsia.prompting.base.replies import Delta, Finish, Reply, Sampling, Usage


def assembled(deltas: Iterable[Delta]) -> Reply:
    """The answer that pieces add up to; one that ends without saying how was `cancelled`, one that took no call of a
    model came from the cache."""
    texts, tokens, logprobs, calls = [], [], [], []
    finish: Finish = "cancelled"
    usage = None
    for delta in deltas:
        texts.append(delta.text)
        tokens += delta.tokens
        logprobs += delta.logprobs
        calls += delta.calls
        finish = delta.finish or finish
        usage = delta.usage or usage
    usage = usage or Usage()
    return Reply("".join(texts), finish, tuple(tokens), tuple(logprobs), tuple(calls), usage, cached=not usage.calls)


async def collected(deltas: AsyncIterator[Delta]) -> Reply:
    """The same of a stream, read to its end."""
    return assembled([delta async for delta in deltas])


class Streaming:
    """The whole answer of a backend that gives it in pieces."""

    stream: Any

    async def generate(
        self, prompt: Input, sampling: Sampling = Sampling(), *, constraint: Constraint | None = None,
        tools: Sequence[ToolSpec] = (),
    ) -> Reply:  # fmt: skip
        """One answer, whole. Raises what `stream` raises."""
        return await collected(self.stream(prompt, sampling, constraint=constraint, tools=tools))


def as_delta(reply: Reply) -> Delta:
    """A whole answer as the one piece of a stream."""
    return Delta(reply.text, reply.tokens, reply.logprobs, reply.finish, reply.usage, reply.calls)
