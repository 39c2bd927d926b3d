"""Clients that talk at the same time, each in a stream of its own."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import httpx2

from bench.server.processes import Running

TOPICS = (
    "the sea", "a clock maker", "winter in the mountains", "bread", "an old library", "the first train", "bees",
    "a lighthouse", "maps", "rain on a tin roof", "a river crossing", "glass", "a night market", "tides", "an orchard",
    "a stone bridge",
)  # fmt: skip


def prompts(count: int) -> list[str]:
    """Requests for long answers, all different."""
    return [f"Write a long story, number {i}, about {TOPICS[i % len(TOPICS)]}." for i in range(count)]


@dataclass(frozen=True)
class Answer:
    """first, whole: seconds from the request; text: what came."""

    first: float
    whole: float
    text: str


async def _ask(client: httpx2.AsyncClient, server: Running, prompt: str, tokens: int) -> Answer:
    body = {"model": server.model, "messages": [{"role": "user", "content": prompt}], "max_tokens": tokens,
            "temperature": 0, "stream": True}  # fmt: skip
    begun, first, text = time.perf_counter(), None, ""
    async with client.stream("POST", f"{server.url}/v1/chat/completions", json=body) as answer:
        if answer.status_code != 200:
            raise RuntimeError(f"{server.name}: {answer.status_code} {(await answer.aread())[:500]!r}")
        async for line in answer.aiter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            event = json.loads(line[6:])
            if "error" in event:
                raise RuntimeError(f"{server.name}: {event['error']}")
            for choice in event["choices"]:
                if piece := (choice.get("delta") or {}).get("content"):
                    first = time.perf_counter() - begun if first is None else first
                    text += piece
    whole = time.perf_counter() - begun
    return Answer(whole if first is None else first, whole, text)


def talk(server: Running, said: Sequence[str], streams: int, tokens: int) -> tuple[float, list[Answer]]:
    """All prompts, so many at a time: seconds for all, and the answers in the prompts' order."""

    async def all_of() -> tuple[float, list[Answer]]:
        place = asyncio.Semaphore(streams)
        limits = httpx2.Limits(max_connections=streams + 4)
        async with httpx2.AsyncClient(timeout=1200, trust_env=False, limits=limits) as client:

            async def one(prompt: str) -> Answer:
                async with place:
                    return await _ask(client, server, prompt, tokens)

            begun = time.perf_counter()
            answers = await asyncio.gather(*map(one, said))
            return time.perf_counter() - begun, list(answers)

    return asyncio.run(all_of())


def quantile(values: Sequence[float], share: float) -> float:
    """The value that so large a share is below (the nearest one there is)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if share != 0.5 else statistics.median(ordered)
