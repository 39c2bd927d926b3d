"""Ours beside the peers: one model, the same windows, and one interleaved run.

Every point has a process of its own. Its peak of memory is that of opening it, reading 256 tokens and writing 64. Then
all are asked for the windows' logits, and then timed in turn, round after round; the median round counts."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from bench.common import Timing, alternate, ratio, show
from bench.compression.contenders import Contender, Source, contenders
from bench.compression.quality import Judge
from bench.compression.texts import MODEL, SPAN, off_grid, records, scripts, windows
from bench.compression.worker import Worker
from intarsia.errors import first_line
from intarsia.measure.scores import front

PREFILL, DECODE = 256, 64
NOISE = 0.05  # of the decoding speed: what two runs of one file differ by on a busy machine
COLUMNS = (
    "", "version", "KL", "perplexity", "top-1", "MB", "peak MB", "prefill/CPU s", "decode/CPU s", "prefill/s",
    "decode/s", "on the front",
)  # fmt: skip


def made(contender: Contender, source: Source) -> Path:
    """The folder with what the contender's engine opens; made beside and renamed, so that a broken one never counts."""
    place = source.folder / re.sub(r"[^A-Za-z0-9]+", "-", contender.name)
    if not place.is_dir():
        part = place.with_name(f"{place.name}.part-{os.getpid()}")
        part.mkdir(parents=True)
        contender.make(source, part)
        part.rename(place)
    return place


def opened(given: Sequence[Contender], source: Source, threads: int) -> Iterator[tuple[Contender, Worker]]:
    """Those that can be made and opened here; of the others a line says why not."""
    for contender in given:
        worker = None
        try:
            worker = Worker(contender.engine, made(contender, source), threads)
        except Exception as error:
            print(f"left out: {contender.name}: {first_line(error) or type(error).__name__}", flush=True)
        if worker is not None:
            yield contender, worker


def measured(
    given: Sequence[Contender], source: Source, judge: Judge, rounds: int, threads: int = 1
) -> tuple[dict[str, dict[str, Any]], dict[str, Timing]]:
    """Of every point: what it costs in quality, bytes and memory, its seconds; and the processor's time to decode."""
    prompt = judge.windows[0][:PREFILL]
    found: dict[str, dict[str, Any]] = {}
    workers: dict[str, Worker] = {}
    try:
        for contender, worker in opened(given, source, threads):
            name = contender.name
            workers[name] = worker
            try:
                # First of all, while nothing else has asked for memory.
                memory = worker.time(prompt, DECODE)["peak"]
                quality = judge.of(lambda ids, worker=worker: torch.from_numpy(worker.logits(ids))[:-1].float())
            except RuntimeError as error:
                print(f"left out: {name}: {error}", flush=True)
                workers.pop(name).close()
                continue
            found[name] = {**quality, "bytes": worker.bytes, "peak": memory, "ours": contender.ours,
                           "bits": contender.bits, "version": version(contender.package)}  # fmt: skip
            print(f"{name}: KL {quality['kl']:.4f}, {worker.bytes / 1e6:.1f} MB", flush=True)
        seconds: dict[str, list[dict[str, float]]] = {name: [] for name in workers}
        asked = {name: (lambda w=w: w.time(prompt, DECODE)) for name, w in workers.items()}
        # Each has run once already: no warm-up.
        for name, once in alternate(asked, rounds, warmup=0):
            seconds[name].append(once())
    finally:
        for worker in workers.values():
            worker.close()
    decode = {}
    for name, some in seconds.items():
        for part, count in (("prefill", len(prompt)), ("decode", DECODE)):
            for key, suffix in ((f"{part}_cpu", "_a_cpu_second"), (part, "_a_second")):
                found[name][part + suffix] = count / Timing(tuple(s[key] for s in some)).median
        decode[name] = Timing(tuple(s["decode_cpu"] for s in some))
    return found, decode


def version(package: str) -> str:
    """The name and version of a package."""
    return f"{package} {importlib.metadata.version(package)}"


def place(row: Mapping[str, Any], slack: float = 0.0) -> tuple[float, float, float]:
    """A point as `front` wants it: higher is better in quality, size and speed."""
    return -row["kl"], -row["bytes"], row["decode_a_cpu_second"] * (1 + slack)


def beyond(theirs: Mapping[str, Mapping[str, Any]], ours: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Peers' points that our front does not cover: no point of ours is as good in divergence, bytes and decoding. A
    decoding speed within the noise counts as equal."""
    front_of_ours = [place(row, NOISE) for row in ours.values()]
    return [name for name, row in theirs.items() if len(front_of_ours) in front([*front_of_ours, place(row)])]


def figures(found: Mapping[str, Mapping[str, Any]], decode: Mapping[str, Timing]) -> dict[str, float]:
    """What is written with --json."""
    ours = {name: row for name, row in found.items() if row["ours"]}
    theirs = {name: row for name, row in found.items() if not row["ours"]}
    out: dict[str, float] = {}
    if mixed := [row["kl"] for name, row in ours.items() if "in the mean" in name]:
        out["kl_int4_mixed"] = mixed[0]
    if four := [row["kl"] for row in theirs.values() if row["bits"] == 4]:
        out["kl_int4_best_peer"] = min(four)
    if ours and theirs:
        quick = min(ours, key=lambda name: decode[name].median)
        rival = min(theirs, key=lambda name: decode[name].median)
        # Within rounds: the machine is as slow for one as for the other.
        out["decode_over_fastest_peer"] = ratio(decode[rival], decode[quick])
        out["peer_points_beyond_front"] = len(beyond(theirs, ours))
    return out


def table(found: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """The rows, by decoding speed; the last column: o on the common front, + beyond ours, or nothing."""
    ours = {name: row for name, row in found.items() if row["ours"]}
    out = set(beyond({n: r for n, r in found.items() if not r["ours"]}, ours))
    names = sorted(found, key=lambda name: -found[name]["decode_a_cpu_second"])
    best = {names[i] for i in front([place(found[name]) for name in names])}
    return [
        [name, row["version"], f"{max(row['kl'], 0):.4f}", f"{row['perplexity']:.2f}", f"{row['top1']:.1%}",
         f"{row['bytes'] / 1e6:.1f}", f"{row['peak'] / 1e6:.0f}", f"{row['prefill_a_cpu_second']:.0f}",
         f"{row['decode_a_cpu_second']:.1f}", f"{row['prefill_a_second']:.0f}", f"{row['decode_a_second']:.1f}",
         "o" * (name in best) + "+" * (name in out)]
        for name in names for row in [found[name]]
    ]  # fmt: skip


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Make, measure, print, and give the figures."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = (options.keep or Path(scratch)) / f"peers-{options.tokens}"
        folder.mkdir(parents=True, exist_ok=True)
        source = Source(off_grid(), folder, records(scripts("train")), options.tokens)
        every = windows(source.dense, scripts("test"), SPAN)
        count = options.windows or (1 if options.quick else 4)
        judge = Judge(source.dense, every[:: max(1, len(every) // count)][:count])
        given = [c for c in contenders() if not options.points or any(word in c.name for word in options.points)]
        found, decode = measured(given, source, judge, rounds=3 if options.quick else 5)
    show(f"{MODEL} off its grid: ours and the peers, one thread", COLUMNS, table(found))
    return figures(found, decode)
