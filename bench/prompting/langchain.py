"""Requests and tokens that three tasks take, with Intarsia and with LangChain, as the same server counts them.

    python -m bench.prompting --parts langchain [--quick] [--json FILE] [--peer langchain=DIR]

The server (`bench.prompting.counting`) forgets all beginnings of prompts before each contender, so that none profits
from what another one asked. Everything is asked twice, each side's cache of answers being on and empty at first: the
second time is a column of its own. LangChain is measured where it can be imported; --peer: the folder
that it was installed to (`pip install --target DIR langchain langchain-openai langgraph`).

`calls_ratio_langchain`, `tokens_ratio_langchain`: LangChain's `agent` over the first of ours, the mean of the tasks'
ratios; `..._best`: of what takes LangChain the fewest, in each task. Beside these, what does the same work on both
sides (`LIKE`)."""

from __future__ import annotations

import argparse
import asyncio
import re
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.common import show
from bench.prompting import langchain_peer, tasks
from bench.prompting.counting import Counts, Server, running
from intarsia.prompting.base import open_backend

MODEL = "smollm2-135m"
SIZES, QUICK = {"labelling": 60, "extraction": 20, "questions": 20}, {"labelling": 14, "extraction": 4, "questions": 4}
LIKE = {
    "labelling": [("score", "structured")], "extraction": [("ask", "structured")],
    "questions": [("flow", "chain"), ("agent", "agent"), ("agent, search first", "agent, search first")],
}  # fmt: skip
"""Ours and theirs that do the same work: one request a text, a search and a request, an agent."""
QUALITY = {"labelling": "labels", "extraction": "fields", "questions": "the passage cited"}


@dataclass(frozen=True)
class Row:
    """What a contender took. client: seconds of this process. valid: share with an answer of the form; right: the
    task's quality; again: requests when all was asked a second time."""

    task: str
    name: str
    ours: bool
    counts: Counts
    wall: float
    client: float
    valid: float
    right: float
    again: Counts

    @property
    def tokens(self) -> int:
        return self.counts.prompt + self.counts.completion


def made(sizes: Mapping[str, int], folder: Path) -> dict[str, Any]:
    """The tasks by name."""
    return {
        "labelling": tasks.labelling(sizes["labelling"]),
        "extraction": tasks.extraction(sizes["extraction"]),
        "questions": tasks.asking(sizes["questions"], folder / "store"),
    }


async def measured(
    server: Server, task: Any, run: Callable[[], Awaitable[list[Any]]]
) -> tuple[Counts, float, float, list[Any], Counts]:
    """(counts, wall seconds, this process' CPU seconds, values, counts of the second time)."""
    before, began, spent = server.forget(), time.perf_counter(), time.process_time()
    values = await run()
    wall, client, between = time.perf_counter() - began, time.process_time() - spent, server.counts()
    await run()
    return between - before, wall, client, values, server.counts() - between


def row(name: str, task: Any, ours: bool, contender: str, found: tuple[Counts, float, float, list[Any], Counts]) -> Row:
    counts, wall, client, values, again = found
    print(f"{name}, {contender}: {counts.calls} calls in {wall:.0f} s", flush=True)
    valid = sum(value is not None for value in values) / len(values)
    return Row(name, contender, ours, counts, wall, client, valid, task.judge(values), again)


def of_ours(name: str, task: Any, server: Server, folder: Path, loop: asyncio.Runner) -> Iterator[Row]:
    """Our rows of a task."""
    for contender, work in tasks.OURS[name].items():

        async def run(work: Any = work, file: Path = folder / f"{name}-{contender}.sqlite") -> Any:
            backend = open_backend(f"openai:{server.url}#{server.model}", cache=file, trace=False)
            try:
                return await measured(server, task, lambda: work(backend, task))
            finally:
                await backend.close()

        yield row(name, task, True, contender, loop.run(run()))


def of_theirs(name: str, task: Any, server: Server, loop: asyncio.Runner) -> Iterator[Row]:
    """LangChain's rows of a task, each with a model, and so a cache of answers, of its own. loop: one for all: its
    models share their connections, and in another loop the first requests on these would be lost and sent again."""
    for contender in langchain_peer.THEIRS[name](langchain_peer.model(server), task):
        run = langchain_peer.THEIRS[name](langchain_peer.model(server), task)[contender]
        yield row(name, task, False, contender, loop.run(measured(server, task, run)))


def named(contender: str) -> str:
    """A contender in a figure's name."""
    return re.sub(r"\W+", "_", contender)


def alike(rows: Sequence[Row]) -> dict[tuple[str, str, str], tuple[float, float]]:
    """Ratios of calls and tokens, theirs over ours, by task and contenders that do the same work."""
    out = {}
    for task, pairs in LIKE.items():
        for pair in pairs:
            both = [
                next((one for one in rows if (one.task, one.ours, one.name) == (task, ours, name)), None)
                for ours, name in zip((True, False), pair, strict=True)
            ]
            if (mine := both[0]) is not None and (other := both[1]) is not None:
                out[(task, *pair)] = (other.counts.calls / mine.counts.calls, other.tokens / mine.tokens)
    return out


def figures(rows: Sequence[Row]) -> dict[str, float]:
    """All figures; those against LangChain where it was measured."""
    out: dict[str, float] = {}
    for one in rows:
        side = "ours" if one.ours else "langchain"
        about = f"{one.task}.{side}_{named(one.name)}"
        out |= {
            f"{about}.calls": one.counts.calls, f"{about}.prompt_tokens": one.counts.prompt,
            f"{about}.completion_tokens": one.counts.completion, f"{about}.cached_tokens": one.counts.cached,
            f"{about}.failed": one.counts.failed, f"{about}.wall_s": one.wall,
            f"{about}.client_cpu_s": one.client, f"{about}.server_cpu_s": one.counts.seconds,
            f"{about}.valid_share": one.valid, f"{about}.right_share": one.right,
            f"{about}.calls_again": one.again.calls,
        }  # fmt: skip
    if all(one.ours for one in rows):
        return out
    calls, tokens, best_calls, best_tokens = [], [], [], []
    for name in dict.fromkeys(one.task for one in rows):
        ours = next(one for one in rows if one.task == name and one.ours)
        theirs = [one for one in rows if one.task == name and not one.ours]
        usual = next(one for one in theirs if one.name == "agent")
        calls.append(usual.counts.calls / ours.counts.calls)
        tokens.append(usual.tokens / ours.tokens)
        best_calls.append(min(one.counts.calls for one in theirs) / ours.counts.calls)
        best_tokens.append(min(one.tokens for one in theirs) / ours.tokens)
        out |= {f"{name}.calls_ratio_langchain": calls[-1], f"{name}.tokens_ratio_langchain": tokens[-1]}
    for (task, mine, other), (fewer, shorter) in alike(rows).items():
        about = f"{task}.like_{named(mine)}_and_{named(other)}"
        out |= {f"{about}.calls_ratio": fewer, f"{about}.tokens_ratio": shorter}
    return out | {
        "calls_ratio_langchain": statistics.fmean(calls), "tokens_ratio_langchain": statistics.fmean(tokens),
        "calls_ratio_langchain_best": statistics.fmean(best_calls),
        "tokens_ratio_langchain_best": statistics.fmean(best_tokens),
    }  # fmt: skip


def table(name: str, task: Any, rows: Sequence[Row]) -> None:
    show(
        f"{name}: {len(task.texts)} texts; right: {QUALITY[name]}; again: calls of the second time; tokens read and "
        "made; seconds on the clock, and of the processor, here and in the server",
        ["", "calls", "again", "read", "made", "valid", "right", "wall s", "here", "there"],
        [[f"{'intarsia' if one.ours else 'LangChain'}, {one.name}", str(one.counts.calls), str(one.again.calls),
          f"{one.counts.prompt:,}", f"{one.counts.completion:,}", f"{one.valid:.0%}", f"{one.right:.0%}",
          f"{one.wall:.1f}", f"{one.client:.1f}", f"{one.counts.seconds:.1f}"] for one in rows],
    )  # fmt: skip


def run(
    options: argparse.Namespace, serve: Callable[[], AbstractContextManager[Server]] | None = None
) -> dict[str, float]:
    """Measure and print; the figures."""
    serve = serve or (lambda: running(MODEL, options.threads))
    try:
        versions = langchain_peer.here(dict(options.peer).get("langchain"))
        print(f"{versions}; {MODEL}, {tasks.AT_ONCE} requests at a time", flush=True)
        there = True
    except ImportError as error:
        print(f"LangChain is left out ({error}): install it and give --peer langchain=DIR", flush=True)
        there = False
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        given = made(QUICK if options.quick else SIZES, folder)
        with given["questions"].store, serve() as server, asyncio.Runner() as loop:
            for name, task in given.items():
                some = list(of_ours(name, task, server, folder, loop))
                some += of_theirs(name, task, server, loop) if there else ()
                table(name, task, some)
                rows += some
    if pairs := alike(rows):
        show(
            "the same work on both sides: LangChain's calls and tokens over ours", ["", "calls", "tokens"],
            [[f"{task}: {mine}; {other}", f"{calls:.2f}", f"{tokens:.2f}"]
             for (task, mine, other), (calls, tokens) in pairs.items()],
        )  # fmt: skip
    return figures(rows)
