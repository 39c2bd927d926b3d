"""The 30 x 30 sweep against the usual ways of working: seconds for all cells, and peak memory.

The contenders are one by one (the official code's way: per cell the source runs anew, the whole target runs with a
hook, `generate`), the naive batch (whole prompts of many cells batched, source and target, one hook a layer where the
official code has one a row), nnsight one by one, and Intarsia's `sweep`. The sweep runs all cells; the others are timed
on a sample and scaled to the grid. The cells of the samples are checked to give the same as the sweep.

Peak memory is the high-water mark of a fresh process that loads the network and runs one contender."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.patchscopes import Figures, Table

if TYPE_CHECKING:
    from torch import Tensor

    from bench.peers import NNsight
    from intarsia.models import Model

# The paper's token identity and entity description prompts, patched at their last token.
PROMPTS = {
    0: (
        "Alexander the Great was a king of the ancient kingdom of Macedon",
        "cat -> cat\n1135 -> 1135\nhello -> hello\n?",
    ),
    10: (
        "Alexander the Great",
        "Syria: Country in the Middle East, Leonardo DiCaprio: American actor, Samsung: South Korean multinational "
        "major appliance and consumer electronics corporation, x",
    ),
}
BATCH = 90  # rows of the naive batch


def run_speed(options: argparse.Namespace) -> tuple[Figures, list[Table]]:
    """Both sweeps, and the memory of the longer one."""
    import intarsia
    from bench.peers import available

    model = intarsia.load("smollm2-135m")
    tracer: Any = available(model.network, model.tokenizer, ["nnsight"]).get("nnsight")
    figures: Figures = {}
    tables: list[Table] = []
    for new_tokens, (cells, rounds) in {0: (24, 3), 10: (6, 1)}.items():
        if not options.quick:
            cells, rounds = cells * 4, rounds + 2
        source, target = prompts(model, new_tokens)
        totals, taken = measure(model, tracer, source, target, new_tokens, cells, BATCH, rounds)
        tables.append(_table(len(model.sites.blocks), source, target, new_tokens, totals, taken))
        figures |= _figures(new_tokens, totals)
    peaks = {name: peak(name, options.threads) for name in RUNS}
    figures["sweep_memory_ratio"] = peaks["intarsia"] / peaks["one by one"]
    figures |= {f"sweep_{_key(name)}_peak_mb": mb for name, mb in peaks.items()}
    rows = [[name, f"{mb:.0f}", f"{mb / peaks['one by one']:.2f}"] for name, mb in peaks.items()]
    title = "Peak memory of a process that loads the network and generates 10 tokens from cells"
    tables.append((f"{title} (sweep: all; batch: {BATCH}; one by one: 3)", ("", "MB", "over one by one"), rows))
    return figures, tables


def prompts(model: Model, new_tokens: int) -> tuple[Tensor, Tensor]:
    """Ids [1, token] of source and target."""
    import torch

    source, target = (torch.tensor([model.tokenizer(text)["input_ids"]]) for text in PROMPTS[new_tokens])  # type: ignore[misc]
    return source, target


def measure(
    model: Model, tracer: NNsight | None, source: Tensor, target: Tensor, new_tokens: int,
    cells: int, batch: int, rounds: int, ours: Callable[..., Any] | None = None,
) -> tuple[dict[str, float], dict[str, int]]:  # fmt: skip
    """Seconds for the whole grid by contender, and how many cells each has run to tell."""
    from bench import naive
    from bench.sites import check_cells, nnsight_cell, same, seconds
    from intarsia.sites import sweep

    once = ours or sweep
    network, blocks, depth = model.network, model.sites.blocks, len(model.sites.blocks)
    pairs, rows = naive.sample(depth, cells), naive.sample(depth, batch)
    times: dict[str, list[float]] = {"intarsia": [], "one by one": [], "naive batch": []}
    results: dict[str, Any] = {}

    def timed(name: str, scale: float, call: Callable[[], Any]) -> None:
        times.setdefault(name, []).append(seconds(lambda: results.__setitem__(name, call())) * scale)

    once(model, source, target, cells=pairs[:2], max_new_tokens=min(new_tokens, 2))  # warms up
    naive.cell(network, blocks, source, target, pairs[0], new_tokens=min(new_tokens, 2))
    for i, pair in enumerate(pairs):
        if i % max(1, len(pairs) // rounds) == 0 and len(times["intarsia"]) < rounds:
            settings = {"keep_logits": not new_tokens, "max_new_tokens": new_tokens}
            timed("intarsia", 1, lambda s=settings: once(model, source, target, **s))
            together = lambda: naive.batch(network, blocks, source, target, rows, new_tokens=new_tokens)  # noqa: E731
            timed("naive batch", depth**2 / len(rows), together)
        alone = lambda p=pair: naive.cell(network, blocks, source, target, p, new_tokens=new_tokens)  # noqa: E731
        timed("one by one", depth**2, alone)
        if tracer is not None and not new_tokens:
            timed("nnsight, one by one", depth**2, lambda p=pair: nnsight_cell(tracer, source, target, p))

    whole, (low, high) = results["intarsia"], zip(*rows, strict=True)
    check_cells(model, whole, source, target, pairs[:3] if new_tokens else pairs, new_tokens)
    ids = results["naive batch"]
    if new_tokens:
        assert bool((ids == whole.ids[0, low, high, : ids.shape[1]]).all()), "other tokens than the naive batch"
    else:
        assert same([ids], [whole.logits[0, low, high]]), "other logits than the naive batch"
        if tracer is not None:
            ours_there = whole.logits[0, pairs[-1][0], pairs[-1][1]]
            assert same([results["nnsight, one by one"]], [ours_there]), "other logits than nnsight"
    taken = {"intarsia": depth**2, "naive batch": len(rows)}
    return {n: statistics.median(t) for n, t in times.items()}, {n: taken.get(n, len(pairs)) for n in times}


def _table(
    depth: int, source: Tensor, target: Tensor, new_tokens: int, totals: dict[str, float], taken: dict[str, int]
) -> Table:
    what = f"{new_tokens} generated tokens" if new_tokens else "next token"
    title = f"Sweep of {depth} x {depth} cells, {what}; source {source.shape[1]}, target {target.shape[1]} tokens"
    rows = [[n, f"{taken[n]}", f"{s:.2f}", f"{s / totals['intarsia']:.1f}"] for n, s in totals.items()]
    return (f"{title}; scaled up from the cells measured", ("", "cells measured", "seconds", "over intarsia"), rows)


def _figures(new_tokens: int, totals: dict[str, float]) -> Figures:
    over = {name: total / totals["intarsia"] for name, total in totals.items()}
    key = f"generate{new_tokens}" if new_tokens else "next_token"
    made = {f"sweep_speedup_{key}": over["one by one"]}
    made["sweep_speedup_over_naive_batch" + ("" if new_tokens else "_next_token")] = over["naive batch"]
    if "nnsight, one by one" in over:
        made["sweep_speedup_over_nnsight"] = over["nnsight, one by one"]
    return made | {f"sweep_{key}_{_key(name)}_seconds": total for name, total in totals.items()}


def _key(name: str) -> str:
    return name.replace(",", "").replace(" ", "_")


def peak(name: str, threads: int) -> float:
    """High-water mark of the resident memory, in MB, of a fresh process that runs one contender."""
    command = [sys.executable, "-m", "bench.patchscopes.speed", name, str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    if done.returncode:
        raise RuntimeError(f"the process that runs '{name}' failed: {done.stderr.strip()[-400:]}")
    return float(done.stdout.split()[-1])


def _one_by_one(model: Model, source: Tensor, target: Tensor) -> None:
    from bench.naive import cell, sample

    for pair in sample(len(model.sites.blocks), 3):
        cell(model.network, model.sites.blocks, source, target, pair, new_tokens=10)


def _batch(model: Model, source: Tensor, target: Tensor) -> None:
    from bench import naive

    blocks = model.sites.blocks
    naive.batch(model.network, blocks, source, target, naive.sample(len(blocks), BATCH), new_tokens=10)


def _sweep(model: Model, source: Tensor, target: Tensor) -> None:
    from intarsia.sites import sweep

    sweep(model, source, target, max_new_tokens=10)


RUNS = {"intarsia": _sweep, "one by one": _one_by_one, "naive batch": _batch}


def _child(name: str, threads: int) -> None:
    import torch

    import intarsia
    from intarsia.measure.memory import own_peak

    torch.set_num_threads(threads)
    model = intarsia.load("smollm2-135m")
    RUNS[name](model, *prompts(model, 10))
    print(own_peak() / 2**20)


if __name__ == "__main__":
    _child(sys.argv[1], int(sys.argv[2]))
