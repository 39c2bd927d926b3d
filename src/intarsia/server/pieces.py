"""Whatever makes tokens from a prompt in a thread of its own (the ranks of `intarsia.moe`) as a `Backend`."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from intarsia.errors import BadInput, IntarsiaError
from intarsia.prompting.base import Delta, Sampling, Usage
from intarsia.prompting.base.chat import chat
from intarsia.prompting.base.stopping import Stopper
from intarsia.prompting.base.whole import Streaming

if TYPE_CHECKING:
    import numpy as np

    from intarsia.prompting.base import Constraint, Input, ToolSpec


class Piece(Protocol):
    """A token that was made, the text it adds (it may come later), and whether it was the last."""

    token: int
    text: str
    last: bool


class Pieces(Protocol):
    """Tokens as they come."""

    def __iter__(self) -> Iterator[Piece]: ...

    def cancel(self) -> None:
        """Make no more; who waits for them gets an `IntarsiaError`."""
        ...


class Source(Protocol):
    """What makes tokens. Any thread may call it."""

    def submit(
        self, prompt: str | Sequence[int], max_new_tokens: int, *, temperature: float, top_p: float, top_k: int
    ) -> Pieces: ...

    def token_ids(self, prompt: str | Sequence[int]) -> Sequence[int]: ...


class PiecesBackend(Streaming):
    """A source of tokens, asked like any model: texts, token ids and conversations, whole or as they come.

    What it cannot do (forms, tools, scores, vectors, seeds, penalties) it refuses.

    - alive: whether the source still is. context_length, tokenizer: as for `Backend`."""

    def __init__(
        self, source: Source, name: str, *, context_length: int | None = None,
        alive: Callable[[], bool] = lambda: True, fingerprint: str = "",
    ):  # fmt: skip
        self.source, self.name, self.alive, self.context_length = source, name, alive, context_length
        self.fingerprint = fingerprint or hashlib.sha256(name.encode()).hexdigest()
        self.tokenizer = getattr(source, "tokenizer", None)
        self._running = 0
        self._closing = False

    async def stream(
        self, prompt: Input, sampling: Sampling = Sampling(), *, constraint: Constraint | None = None,
        tools: Sequence[ToolSpec] = (),
    ) -> AsyncIterator[Delta]:  # fmt: skip
        """The answer as it comes."""
        if self._closing or not self.alive():
            raise IntarsiaError(f"{self.name} was stopped")
        plain = self._plain(prompt)
        for given, what in [
            (constraint is not None, "forms of answers"), (bool(tools), "tools"),
            (sampling.logprobs is not None, "logprobs"), (sampling.seed is not None and sampling.temperature, "seed"),
            (sampling.presence_penalty or sampling.frequency_penalty, "penalties"),
        ]:  # fmt: skip
            if given:
                raise BadInput(f"{self.name} runs on an engine that knows no {what}: leave it out")
        count = len(self.source.token_ids(plain))
        pieces = self.source.submit(
            plain, sampling.max_tokens, temperature=sampling.temperature, top_p=sampling.top_p, top_k=sampling.top_k
        )
        stopper = Stopper(sampling.stop)
        made, finish = 0, None
        came: asyncio.Queue[Piece | IntarsiaError | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        threading.Thread(target=_follow, args=(pieces, loop, came), daemon=True).start()
        self._running += 1
        try:
            while (piece := await came.get()) is not None:
                if isinstance(piece, IntarsiaError):
                    raise piece
                made += 1
                text = stopper.feed(piece.text) + (stopper.end() if piece.last else "")
                yield Delta(text, (piece.token,))
                if stopper.stopped:
                    finish = "stop"
                    break
            else:
                finish = "length" if made >= sampling.max_tokens else "stop"
            yield Delta(finish=finish, usage=Usage(prompt=count, completion=made))
        finally:
            self._running -= 1
            if finish is None or stopper.stopped:
                pieces.cancel()

    def _plain(self, prompt: Input) -> str | Sequence[int]:
        if isinstance(prompt, str) or (prompt and isinstance(prompt[0], int)):
            return prompt  # type: ignore[return-value]
        if not prompt:
            raise BadInput("the prompt is empty: give a text or token ids")
        if self.tokenizer is None:
            raise BadInput(f"{self.name} has no tokenizer: give token ids, not a conversation")
        return chat(self.tokenizer, prompt).ids  # type: ignore[arg-type]

    async def score(self, prompt: Input, choices: Sequence[str]) -> list[float]:
        """Refused."""
        raise BadInput(f"{self.name} runs on an engine that makes tokens alone: it cannot score choices")

    async def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Refused."""
        raise BadInput(f"{self.name} runs on an engine that makes tokens alone: it has no vectors of texts")

    def count(self, prompt: Input, tools: Sequence[ToolSpec] = ()) -> int:
        """Tokens that the prompt has."""
        return len(self.source.token_ids(self._plain(prompt)))

    def statistics(self) -> dict[str, float]:
        """running: requests under way."""
        return {"running": self._running}

    async def close(self) -> None:
        """Take no more requests, and wait for those under way; the source is its maker's to stop."""
        self._closing = True
        while self._running:
            await asyncio.sleep(0.02)


def _follow(pieces: Pieces, loop: asyncio.AbstractEventLoop, came: asyncio.Queue[Any]) -> None:
    """In a thread: hand on what comes, then None or what went wrong."""
    last: Any = None
    try:
        for piece in pieces:
            loop.call_soon_threadsafe(came.put_nowait, piece)
    except IntarsiaError as error:
        last = error
    except Exception as error:
        last = IntarsiaError(f"the engine failed: {type(error).__name__}")
    try:
        loop.call_soon_threadsafe(came.put_nowait, last)
    except RuntimeError:  # the loop has ended: nobody waits
        return
