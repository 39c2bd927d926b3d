"""`Traced`: a backend that writes down what it is asked and what it answers."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from intarsia.errors import BadInput
from intarsia.prompting.base.constraint import Constraint
from intarsia.prompting.base.messages import Input, ToolSpec
from intarsia.prompting.base.replies import Delta, Reply, Sampling, Scores, Usage, taken_by
from intarsia.prompting.base.whole import as_delta, assembled
from intarsia.prompting.base.wrapping import Wrapper, ids_of, innermost
from intarsia.prompting.tracing import step, tracing

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Scored:
    """Scores as a trace keeps them."""

    scores: list[float]
    usage: Usage | None = None


class Traced(Wrapper):
    """Each request is an event of the trace that is open where it is made, if one is: the prompt as it is given to the
    model, everything that is asked along with it, a hash of the tokens that it reads (where they are known here), the
    answer and what it took. In a trace that is gone on with, what it holds already is not asked again. Of embeddings
    the texts are kept, and not the vectors."""

    async def generate(
        self, prompt: Input, sampling: Sampling = Sampling(), *, constraint: Constraint | None = None,
        tools: Sequence[ToolSpec] = (),
    ) -> Reply:  # fmt: skip
        """As `Backend.generate`."""
        with self._step("generate", asked(prompt, sampling, constraint, tools)) as event:
            if event.replayed:
                return event.output
            event.facts.update(self._facts(), **self._read(prompt, tools))
            event.output = reply = await self.inner.generate(prompt, sampling, constraint=constraint, tools=tools)
            event.facts["cached"] = reply.cached
            event.used(reply.usage)
            return reply

    async def stream(
        self, prompt: Input, sampling: Sampling = Sampling(), *, constraint: Constraint | None = None,
        tools: Sequence[ToolSpec] = (),
    ) -> AsyncIterator[Delta]:  # fmt: skip
        """As `Backend.stream`. Of what is closed early, or fails, the text that came is written."""

        def asking() -> Any:
            return aclosing(self.inner.stream(prompt, sampling, constraint=constraint, tools=tools))  # type: ignore[type-var]

        if not tracing():
            async with asking() as deltas:
                async for delta in deltas:
                    yield delta
            return
        # Not `with`: between two pieces, what the caller does is not a part of this.
        event = self._step("generate", asked(prompt, sampling, constraint, tools))
        event.begin()
        if event.replayed:
            yield as_delta(event.output)
            return
        event.facts.update(self._facts(), streamed=True, **self._read(prompt, tools))
        came: list[Delta] = []
        failed: BaseException | None = None
        try:
            async with asking() as deltas:
                async for delta in deltas:
                    came.append(delta)
                    yield delta
        except BaseException as error:  # closing it early, too: what came is no answer to go on with another time
            failed = error if str(error) else type(error)("before it had ended")
            raise
        finally:
            event.output = reply = assembled(came)
            event.facts["cached"] = reply.cached
            event.used(reply.usage)
            if failed is not None:
                event.facts["came"] = reply.text
            event.end(failed)

    async def score(self, prompt: Input, choices: Sequence[str]) -> list[float]:
        """As `Backend.score`."""
        with self._step("score", {"prompt": prompt, "choices": list(choices)}) as event:
            if event.replayed:
                return _again(event.output)
            event.facts.update(self._facts())
            scores = await self.inner.score(prompt, choices)
            event.output = Scored(list(scores), taken_by(scores))
            event.used(taken_by(scores))
            return scores

    async def score_many(self, prompts: Sequence[Input], choices: Sequence[str]) -> list[Scores]:
        """As `many.score_many`."""
        with self._step("score_many", {"prompts": [*map(_whole, prompts)], "choices": list(choices)}) as event:
            if event.replayed:
                return [_again(kept) for kept in event.output]
            event.facts.update(self._facts())
            found = await super().score_many(prompts, choices)
            event.output = [Scored(list(scores), taken_by(scores)) for scores in found]
            for scores in found:
                event.used(taken_by(scores))
            return found

    async def embed(self, texts: Sequence[str]) -> np.ndarray:
        """As `Backend.embed`."""
        with self._step("embed", {"texts": list(texts)}) as event:
            event.facts.update(self._facts())
            vectors = await self.inner.embed(texts)
            event.output = {"shape": list(vectors.shape)}
            return vectors

    def _step(self, name: str, given: dict[str, Any]) -> Any:
        # A fingerprint may have to be worked out: not where nobody wants it.
        return step("model", name, given, code=self.inner.fingerprint if tracing() else "")

    def _facts(self) -> dict[str, Any]:
        if not tracing():
            return {}
        provider = getattr(innermost(self), "provider", "")
        return {"model": self.name, "fingerprint": self.fingerprint} | ({"provider": provider} if provider else {})

    def _read(self, prompt: Input, tools: Sequence[ToolSpec]) -> dict[str, Any]:
        """What proves which tokens the model read: their number and hash, where they are known here."""
        try:
            ids = ids_of(self.inner, prompt, tools) if tracing() else None
        except BadInput:  # the model says so itself
            ids = None
        return {} if ids is None else {"ids": {"count": len(ids), "sha256": sha256_of_ids(ids)}}


def sha256_of_ids(ids: Sequence[int]) -> str:
    """sha256 of token ids, each as 8 bytes, least first."""
    return hashlib.sha256(b"".join(int(i).to_bytes(8, "little") for i in ids)).hexdigest()


def asked(
    prompt: Input, sampling: Sampling, constraint: Constraint | None, tools: Sequence[ToolSpec]
) -> dict[str, Any]:
    """All that a model is given in a request, as it is written down and as keys are made of it."""
    given: dict[str, Any] = {"prompt": _whole(prompt), "sampling": sampling}
    return given | ({"constraint": constraint} if constraint else {}) | ({"tools": list(tools)} if tools else {})


def _whole(prompt: Input) -> Any:
    """A prompt as it is written down."""
    return prompt if isinstance(prompt, str) else list(prompt)


def _again(kept: Any) -> Scores:
    """Scores out of a trace; those of before told no usage."""
    return Scores(kept.scores, kept.usage) if isinstance(kept, Scored) else Scores(kept)
