"""`Cached`: answers that were given before are given again, without a model."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
import warnings
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from intarsia.errors import IntarsiaError, Note
from intarsia.prompting.base.answers import Answers, Stats
from intarsia.prompting.base.backend import Backend
from intarsia.prompting.base.constraint import Constraint
from intarsia.prompting.base.flights import Flights
from intarsia.prompting.base.messages import Input, ToolSpec
from intarsia.prompting.base.replies import Delta, Reply, Sampling, Scores, Usage, taken_by
from intarsia.prompting.base.traced import asked
from intarsia.prompting.base.whole import as_delta, assembled, collected
from intarsia.prompting.base.wrapping import Wrapper, ids_of
from intarsia.prompting.tracing import pack, plain, unpack
from intarsia.prompting.tracing.values import canonical, dumps

if TYPE_CHECKING:
    import numpy as np

LIMIT = 1 << 30  # bytes


class Cached(Wrapper):
    """Keeps what a backend answers, and gives it to the same request again: `Reply.cached`, no call, no cost.

    - path: a SQLite file, made where there is none; several processes may use one at the same time.
    - limit: bytes of answers; beyond it, those that were used least recently go.

    The same request: an equal fingerprint of the backend, an equal prompt (its token ids, where they are known here),
    and equal sampling, seed, constraint and tools. Only what the model would answer the same way again is kept
    (`Sampling.repeatable`), and only whole answers; scores and embeddings always are, each text's embedding by itself.

    The same request while the first is under way waits for that one, also when whoever asked first is gone."""

    def __init__(self, inner: Backend, path: str | Path, *, limit: int = LIMIT):
        """Raises `BadInput` for a file that is something else, or cannot be written to."""
        super().__init__(inner)
        self._answers = Answers(path, limit)
        self._flights = Flights()

    async def generate(
        self, prompt: Input, sampling: Sampling = Sampling(), *, constraint: Constraint | None = None,
        tools: Sequence[ToolSpec] = (),
    ) -> Reply:  # fmt: skip
        """As `Backend.generate`."""
        if not sampling.repeatable:
            return await self.inner.generate(prompt, sampling, constraint=constraint, tools=tools)

        async def ask() -> AsyncIterator[Delta]:
            yield as_delta(await self.inner.generate(prompt, sampling, constraint=constraint, tools=tools))

        first, deltas = self._joined(asked(self._read(prompt, tools), sampling, constraint, tools), ask)
        async with aclosing(deltas):  # type: ignore[type-var]
            reply = await collected(deltas)
        return reply if first else _again(reply)

    async def stream(
        self, prompt: Input, sampling: Sampling = Sampling(), *, constraint: Constraint | None = None,
        tools: Sequence[ToolSpec] = (),
    ) -> AsyncIterator[Delta]:  # fmt: skip
        """As `Backend.stream`. What is kept comes in one piece, with a usage of no calls."""

        def ask() -> AsyncIterator[Delta]:
            return self.inner.stream(prompt, sampling, constraint=constraint, tools=tools)

        if sampling.repeatable:
            first, deltas = self._joined(asked(self._read(prompt, tools), sampling, constraint, tools), ask)
        else:
            first, deltas = True, ask()
        async with aclosing(deltas):  # type: ignore[type-var]
            async for delta in deltas:
                yield delta if first or delta.usage is None else replace(delta, usage=_free(delta.usage))

    async def score(self, prompt: Input, choices: Sequence[str]) -> list[float]:
        """As `Backend.score`."""
        key = self._score_key(prompt, choices)
        if (found := await self._get([key])).get(key) is not None:
            return _scores(found[key])
        scores = await self.inner.score(prompt, choices)
        await self._put("score", {key: _scored(scores)})
        return scores

    async def score_many(self, prompts: Sequence[Input], choices: Sequence[str]) -> list[Scores]:
        """As `many.score_many`; only the prompts that are not kept are asked for."""
        keys = [self._score_key(prompt, choices) for prompt in prompts]
        found = await self._get(keys)
        missing = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in found}
        made = await super().score_many([*missing.values()], choices) if missing else []
        fresh = dict(zip(missing, made, strict=True))
        await self._put("score", {key: _scored(scores) for key, scores in fresh.items()})
        return [fresh[key] if key in fresh else _scores(found[key]) for key in keys]

    def _score_key(self, prompt: Input, choices: Sequence[str]) -> str:
        return self._key("score", {"prompt": self._read(prompt), "choices": [*choices]})

    async def embed(self, texts: Sequence[str]) -> np.ndarray:
        """As `Backend.embed`; only the texts that are not kept are asked for, each once."""
        import numpy as np

        keys = {text: self._key("embed", {"text": text}) for text in texts}
        found = await self._get(list(keys.values()))
        missing = [text for text, key in keys.items() if key not in found]
        if missing or not keys:
            made = await self.inner.embed(missing)
            if not keys:
                return made
            fresh = {keys[text]: row.astype("<f4").tobytes() for text, row in zip(missing, made, strict=True)}
            await self._put("embed", fresh)
            found |= fresh
        return np.stack([np.frombuffer(found[keys[text]], "<f4") for text in texts]).astype(np.float32)

    def stats(self) -> Stats:
        """What is kept, and how often it was asked for here."""
        return self._answers.stats()

    def clear(self) -> int:
        """Forget every answer. Returns how many there were."""
        return self._answers.clear()

    async def close(self) -> None:
        """As `Backend.close`."""
        await self.inner.close()
        self._answers.close()

    def _read(self, prompt: Input, tools: Sequence[ToolSpec] = ()) -> Any:
        """What the model reads of a prompt: its token ids, where they are known here, else the prompt itself."""
        ids = ids_of(self.inner, prompt, tools)
        return ids if ids is not None else prompt if isinstance(prompt, str) else list(prompt)

    def _key(self, kind: str, given: Mapping[str, Any]) -> str:
        told = {"kind": kind, "fingerprint": self.inner.fingerprint, **given}
        # Without types: words from outside are the same words to a model.
        return hashlib.sha256(canonical(plain(pack(told))).encode()).hexdigest()

    def _joined(
        self, given: Mapping[str, Any], ask: Callable[[], AsyncIterator[Delta]]
    ) -> tuple[bool, AsyncIterator[Delta]]:  # fmt: skip
        """Whether nobody else is waiting for the same, and the pieces of the answer."""
        key = self._key("generate", given)

        # Looked up by the one request that all wait for: so none comes between it and its being kept.
        async def source() -> AsyncIterator[Delta]:
            if (value := (await self._get([key])).get(key)) is not None:
                yield as_delta(_again(unpack(json.loads(value))))
                return
            async with aclosing(ask()) as deltas:  # type: ignore[type-var]
                async for delta in deltas:
                    yield delta

        async def landed(came: list[Delta]) -> None:
            reply = assembled(came)
            if reply.finish != "cancelled" and not reply.cached:
                await self._put("generate", {key: dumps(pack(reply)).encode()})

        return self._flights.join(key, source, landed)

    async def _get(self, keys: list[str]) -> dict[str, bytes]:
        return await asyncio.to_thread(self._answers.get, keys)

    async def _put(self, kind: str, values: Mapping[str, bytes]) -> None:
        try:
            await asyncio.to_thread(self._answers.put, kind, values)
        except (IntarsiaError, sqlite3.Error) as error:  # the answer is there all the same
            warnings.warn(f"{self._answers.path}: an answer was not kept ({error})", Note, stacklevel=2)


def _again(reply: Reply) -> Reply:
    return replace(reply, cached=True, usage=_free(reply.usage))


def _scored(scores: list[float]) -> bytes:
    """Scores as they are kept."""
    return json.dumps({"scores": list(scores), "read": (taken_by(scores) or Usage()).prompt}).encode()


def _scores(kept: bytes) -> Scores:
    """The same again, for nothing."""
    said = json.loads(kept)
    known = said if isinstance(said, dict) else {"scores": said, "read": 0}  # (files of before told no tokens)
    return Scores(known["scores"], _free(Usage(known["read"])))


def _free(usage: Usage) -> Usage:
    """The same tokens, none of them computed."""
    return replace(usage, cached=usage.prompt, forced=0, calls=0, cost=0.0)
