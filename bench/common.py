"""What every benchmark shares: options, interleaved timing, the table on the terminal, one flat JSON object.

A contender is timed in turn with the others, round after round, so that a machine that gets slower slows all alike; a
ratio is the median of the ratios within each round."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "transformers", "nnsight", "transformer-lens", "pyvene", "onnxruntime", "onnxruntime-genai")


def parser(doc: str | None) -> argparse.ArgumentParser:
    """The options all benchmarks have; a benchmark may add its own."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--quick", action="store_true", help="fewer rounds and samples: under five minutes on two cores")
    made.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file, one flat object")
    made.add_argument(
        "--peer", action="append", default=[], type=_peer, metavar="NAME=DIR", help="a checkout of a peer's code"
    )
    made.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="torch threads (default: all cores)")
    return made


def _peer(text: str) -> tuple[str, Path]:
    name, equals, folder = text.partition("=")
    if not (name and equals and Path(folder).is_dir()):
        raise argparse.ArgumentTypeError(f"'{text}': give NAME=DIR, DIR being a folder")
    return name, Path(folder)


def start(options: argparse.Namespace) -> None:
    """Set the threads, and say what this run measures on."""
    import torch

    torch.set_num_threads(options.threads)
    print(f"{facts()}; {options.threads} torch threads")
    if (load := os.getloadavg()[0]) > 0.75:
        # Threads that wait for each other at every operation lose far more than their share to a busy neighbour.
        print(f"warning: the machine is busy (load average {load:.1f}): expect worse figures than on an idle one")


def facts() -> str:
    """Machine and versions, for docs/benchmarks.md."""
    have = []
    for name in PACKAGES:
        try:
            have.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return f"{os.cpu_count()} cores {platform.machine()}, Python {platform.python_version()}, {', '.join(have)}"


def alternate(
    contenders: Mapping[str, Callable[[], Any]], rounds: int, warmup: int = 1
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Contenders in the order they are to run: round after round, each round beginning with the next one. Those of the
    warm-up are called here and not given out."""
    names = list(contenders)
    for turn in range(warmup + rounds):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            if turn < warmup:
                contenders[name]()
            else:
                yield name, contenders[name]


@dataclass(frozen=True)
class Timing:
    """Seconds of each round."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def spread(self) -> tuple[float, float]:
        """Lower and upper quartile (both the value itself when there is only one round)."""
        if len(self.seconds) == 1:
            return self.seconds[0], self.seconds[0]
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return low, high


def interleave(
    contenders: Mapping[str, Callable[[], Any]],
    rounds: int,
    warmup: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Seconds of every contender in every round."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for name, once in alternate(contenders, rounds, warmup):
        begin = clock()
        once()
        seconds[name].append(clock() - begin)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def ratio(ours: Timing, *others: Timing) -> float:
    """Ours over the fastest of the others: the median of the ratios within rounds, against the toughest of them."""
    return max(statistics.median(a / b for a, b in zip(ours.seconds, other.seconds, strict=True)) for other in others)


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on the terminal; the first column is words, the others are figures."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def timing_rows(timings: Mapping[str, Timing], base: str) -> list[list[str]]:
    """Rows of name, median, quartiles and the ratio to `base`."""
    return [
        [name, f"{t.median * 1e3:.1f}", "{:.1f} - {:.1f}".format(*(s * 1e3 for s in t.spread)),
         f"{ratio(t, timings[base]):.3f}"]
        for name, t in timings.items()
    ]  # fmt: skip


TIMING_COLUMNS = ("", "median ms", "quartiles ms", "over bare")


def write(figures: Mapping[str, float], path: Path | None) -> None:
    """Print the named figures, and write them as one flat JSON object. Raises `TypeError` for anything but numbers."""
    for name, value in figures.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise TypeError(f"figure '{name}' must be a finite number, not {value!r}")
    text = json.dumps({k: round(v, 6) for k, v in sorted(figures.items())}, indent=1)
    print(text)
    if path is not None:
        path.write_text(text + "\n", encoding="utf-8")
