"""A backend whose answers are known, and a server that runs in a thread."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import math
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import uvicorn

from intarsia.errors import BadInput
from intarsia.prompting.base import Call, Constraint, ContextOverflow, Delta, Reply, Sampling, TokenLogprob, Usage


def said(prompt: Any) -> str:
    """A prompt as one text."""
    if isinstance(prompt, str):
        return prompt
    if prompt and isinstance(prompt[0], int):
        return "".join(map(chr, prompt))
    return "\n".join(f"{m.role}: {m.content}" for m in prompt)


@dataclass
class Spelling:
    """Spells the alphabet from the letter after the prompt's last one, a token a letter. Of what is asked for it keeps
    a list; what was cancelled it counts. A prompt that ends in `call TOOL` calls the tool."""

    name: str = "spelling"
    fingerprint: str = "0123456789abcdef"
    context_length: int | None = 1000
    tokenizer: Any = None
    pause: float = 0.0
    asked: list[tuple[Any, Sampling, Constraint | None, tuple]] = field(default_factory=list)
    cancelled: int = 0
    made: int = 0
    running: int = 0
    closed: bool = False

    async def stream(
        self, prompt: Any, sampling: Sampling = Sampling(), *, constraint: Constraint | None = None, tools: Any = ()
    ) -> AsyncIterator[Delta]:
        text = said(prompt)
        self.asked.append((prompt, sampling, constraint, tuple(tools)))
        if text.endswith("bad"):
            raise BadInput("a bad prompt")
        count = self.count(prompt)
        if self.context_length is not None and count + sampling.max_tokens > self.context_length:
            raise ContextOverflow(count + sampling.max_tokens, self.context_length)
        usage = Usage(prompt=count, cached=min(count, 2))
        self.running += 1
        try:
            if text.startswith("fail"):
                raise RuntimeError("secret inside")
            if tools and (words := text.split())[-2:-1] == ["call"]:
                await asyncio.sleep(self.pause)
                calls = (Call(words[-1], {"city": "Bern"}), Call(words[-1], {"city": "Genf"}))
                yield Delta(finish="tool_calls", usage=usage + Usage(completion=5, calls=0), calls=calls)
                return
            answer = {"choice": '"', "json": "{}", None: ""}.get(constraint.kind if constraint else None, "")
            if constraint is not None and constraint.kind == "choice":
                answer = constraint.source.split('"')[1]
            elif constraint is not None and constraint.kind == "json":
                answer = '{"name": "weather", "arguments": {"city": "Bern"}}' if "const" in constraint.source else (
                    '{"city": "Bern", "degrees": 7}'
                )  # fmt: skip
            elif constraint is not None:
                answer = "42"
            start = ord(text[-1]) if text else 96
            out, finish = "", "length"
            for i in range(sampling.max_tokens):
                if answer and i == len(answer):
                    finish = "stop"
                    break
                await asyncio.sleep(self.pause)
                letter = answer[i] if answer else chr(97 + (start - 96 + i) % 26)
                self.made += 1
                out += letter
                if any(out.endswith(stop) for stop in sampling.stop):
                    finish = "stop"
                    break
                rows: tuple[TokenLogprob, ...] = ()
                if sampling.logprobs is not None:
                    top = tuple((chr(97 + j), -float(j + 1)) for j in range(sampling.logprobs))
                    rows = (TokenLogprob(letter, ord(letter), -0.5, top),)
                yield Delta(letter, (ord(letter),), rows)
            yield Delta(finish=finish, usage=usage + Usage(completion=len(out), calls=0))
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    async def generate(
        self, prompt: Any, sampling: Sampling = Sampling(), *, constraint: Constraint | None = None, tools: Any = ()
    ) -> Reply:
        text, tokens, rows, last = "", (), (), Delta()
        async for last in self.stream(prompt, sampling, constraint=constraint, tools=tools):
            text, tokens, rows = text + last.text, tokens + last.tokens, rows + last.logprobs
        return Reply(text, last.finish or "stop", tokens, rows, last.calls, last.usage or Usage())

    async def score(self, prompt: Any, choices: Sequence[str]) -> list[float]:
        return [-float(len(choice)) for choice in choices]

    async def embed(self, texts: Sequence[str]) -> np.ndarray:
        rows = [np.frombuffer(hashlib.sha256(t.encode()).digest(), np.uint8)[:4] + 1.0 for t in texts]
        return np.stack([row / math.sqrt(float(row @ row)) for row in rows]).astype(np.float32)

    def count(self, prompt: Any, tools: Any = ()) -> int:
        return len(said(prompt))

    def statistics(self) -> dict[str, float]:
        return {"running": self.running, "waiting": 0, "prefix_hits": 3, "prefix_tokens": 40}

    async def close(self) -> None:
        while self.running:
            await asyncio.sleep(0.01)
        self.closed = True


@contextlib.contextmanager
def running(app: Any, server: type[uvicorn.Server] = uvicorn.Server, **settings: Any) -> Iterator[str]:
    """An application behind a port of its own; the address."""
    made = server(uvicorn.Config(app, port=0, log_level="critical", **settings))
    thread = threading.Thread(target=made.run, daemon=True)
    thread.start()
    until = time.monotonic() + 20
    while not made.started and time.monotonic() < until:
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{made.servers[0].sockets[0].getsockname()[1]}"
    finally:
        made.should_exit = True
        thread.join(10)


def until(true: Any, seconds: float = 10.0) -> bool:
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.01)
    return bool(true())
