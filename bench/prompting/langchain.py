"""Requests and tokens that three tasks take, with Intarsia and with LangChain, as the same server counts them.

    python -m bench.prompting --parts langchain [--quick] [--json FILE] [--peer langchain=DIR]

Each contender has a server of its own (`bench.prompting.counting`), fresh, so that no cache of beginnings serves two.
Everything is asked twice, each side's cache of answers being on and empty at first: the second time is a row of its
own. LangChain is measured where it can be imported; --peer: the folder that it was installed to
(`pip install --target DIR langchain langchain-openai langgraph`).

`calls_ratio_langchain`, `tokens_ratio_langchain`: LangChain's `agent` over the first of ours, the mean of the tasks'
ratios; `..._best`: of what takes LangChain the fewest, in each task."""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
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
    before, began, spent = server.counts(), time.perf_counter(), time.process_time()
    values = await run()
    wall, client, between = time.perf_counter() - began, time.process_time() - spent, server.counts()
    await run()
    return between - before, wall, client, values, server.counts() - between


def row(name: str, task: Any, ours: bool, contender: str, found: tuple[Counts, float, float, list[Any], Counts]) -> Row:
    counts, wall, client, values, again = found
    valid = sum(value is not None for value in values) / len(values)
    return Row(name, contender, ours, counts, wall, client, valid, task.judge(values), again)


def of_ours(made: Mapping[str, Any], serve: Callable[[], AbstractContextManager[Server]], folder: Path) -> list[Row]:
    """Our rows."""
    rows = []
    for name, task in made.items():
        for contender, work in tasks.OURS[name].items():
            with serve() as server:

                async def run(server: Server = server, work: Any = work, task: Any = task, key: str = name + contender):
                    backend = open_backend(
                        f"openai:{server.url}#{server.model}", cache=folder / f"{key}.sqlite", trace=False
                    )
                    try:
                        return await measured(server, task, lambda: work(backend, task))
                    finally:
                        await backend.close()

                rows.append(row(name, task, True, contender, asyncio.run(run())))
    return rows


def of_theirs(made: Mapping[str, Any], serve: Callable[[], AbstractContextManager[Server]]) -> list[Row]:
    """LangChain's rows."""
    rows = []
    for name, task in made.items():
        for contender in langchain_peer.THEIRS[name](langchain_peer.model("http://127.0.0.1:9/v1", MODEL), task):
            with serve() as server:
                run = langchain_peer.THEIRS[name](langchain_peer.model(server.url, server.model), task)[contender]
                rows.append(row(name, task, False, contender, asyncio.run(measured(server, task, run))))
    return rows


def figures(rows: Sequence[Row]) -> dict[str, float]:
    """All figures; those against LangChain where it was measured."""
    out: dict[str, float] = {}
    for one in rows:
        side = "ours" if one.ours else "langchain"
        about = f"{one.task}.{side}_{one.name}"
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
    return out | {
        "calls_ratio_langchain": statistics.fmean(calls), "tokens_ratio_langchain": statistics.fmean(tokens),
        "calls_ratio_langchain_best": statistics.fmean(best_calls),
        "tokens_ratio_langchain_best": statistics.fmean(best_tokens),
    }  # fmt: skip


def table(made: Mapping[str, Any], rows: Sequence[Row]) -> None:
    for name, task in made.items():
        show(
            f"{name}: {len(task.texts)} texts; right: {QUALITY[name]}; again: calls of the second time; tokens read "
            "and made; seconds on the clock, and of the processor, here and in the server",
            ["", "calls", "again", "read", "made", "valid", "right", "wall s", "here", "there"],
            [[f"{'intarsia' if one.ours else 'LangChain'}, {one.name}", str(one.counts.calls), str(one.again.calls),
              f"{one.counts.prompt:,}", f"{one.counts.completion:,}", f"{one.valid:.0%}", f"{one.right:.0%}",
              f"{one.wall:.1f}", f"{one.client:.1f}", f"{one.counts.seconds:.1f}"]
             for one in rows if one.task == name],
        )  # fmt: skip


def run(
    options: argparse.Namespace, serve: Callable[[], AbstractContextManager[Server]] | None = None
) -> dict[str, float]:
    """Measure and print; the figures."""
    serve = serve or (lambda: running(MODEL, options.threads))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        given = made(QUICK if options.quick else SIZES, folder)
        with given["questions"].store:
            rows = of_ours(given, serve, folder)
            try:
                versions = langchain_peer.here(dict(options.peer).get("langchain"))
            except ImportError as error:
                print(f"LangChain is left out ({error}): install it and give --peer langchain=DIR")
            else:
                print(f"{versions}; {MODEL}, {tasks.AT_ONCE} requests at a time")
                rows += of_theirs(given, serve)
        table(given, rows)
    return figures(rows)
