"""Ours beside the peers: one model, the same windows, and one interleaved run.

Every point has a process of its own. Its peak of memory is that of opening it, reading 256 tokens and writing 64. Then
it is asked for the windows' logits, of every kind of text (one with a vocabulary of its own reads the windows as text,
and the same number of its own tokens when it is timed). At last all are timed in turn, round after round, each in a
fresh process that was warmed up; the median round counts."""

from __future__ import annotations

import argparse
import importlib.metadata
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from bench.common import Timing, alternate, ratio, show
from bench.compression.contenders import Contender, Source, contenders
from bench.compression.families import families
from bench.compression.quality import Judge, by_text
from bench.compression.texts import MODEL, WINDOW, calibration, domains, off_grid, spread
from bench.compression.worker import Worker
from bench.kept import Kept
from intarsia.errors import first_line
from intarsia.measure.scores import front

PREFILL, DECODE = 256, 64
NOISE = 0.05  # of the decoding speed: what two runs of one file differ by on a busy machine
LEAST = 2e-4  # nats: what two roundings to 8 bits by the same rule differ by
COSTS = (
    "MB", "peak MB", "prefill/CPU s", "decode/CPU s", "prefill/s", "decode/s", "on the front",
)  # fmt: skip


def plain(name: str) -> str:
    """A point's name as that of a file."""
    return re.sub(r"[^A-Za-z0-9]+", "-", name)


def made(contender: Contender, source: Source) -> Path:
    """The folder with what the contender's engine opens; made beside and renamed, so that a broken one never counts."""
    place = source.folder / plain(contender.name)
    if not place.is_dir():
        part = place.with_name(f"{place.name}.part-{os.getpid()}")
        part.mkdir(parents=True)
        contender.make(source, part)
        part.rename(place)
    return place


@contextmanager
def opened(contender: Contender, source: Source, threads: int) -> Iterator[Worker]:
    """A process that runs it, made if need be."""
    worker = Worker(contender.engine, made(contender, source), threads)
    try:
        yield worker
    finally:
        worker.close()


def looked_at(contender: Contender, source: Source, judges: Mapping[str, Judge], threads: int) -> dict[str, Any]:
    """What a point costs in quality, bytes and memory."""
    with opened(contender, source, threads) as worker:
        # First of all, while nothing else has asked for memory.
        memory = worker.time(prompt_of(contender, source, next(iter(judges.values()))), DECODE)["peak"]
        texts = {}
        for text, judge in judges.items():
            if contender.own_tokens:
                own = tokenizer_of(contender, source)
                texts[text] = by_text(source.dense, own, judge, lambda ids: _floats(worker.logits(ids)))
            else:
                rows = ahead(worker.logits, judge.windows)
                texts[text] = judge.of(lambda ids, rows=rows: _floats(next(rows))[:-1])
        return {"texts": texts, "bytes": worker.bytes, "peak": memory}


def _floats(logits: Any) -> torch.Tensor:
    return torch.from_numpy(logits).float()


def tokenizer_of(contender: Contender, source: Source) -> Any:
    """Of a point that has one of its own."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(made(contender, source) / "tokenizer")


def prompt_of(contender: Contender, source: Source, judge: Judge) -> list[int]:
    """What is read when speed and memory are measured: `PREFILL` tokens of the first window, in the point's own."""
    ids = judge.windows[0]
    if contender.own_tokens:
        text = source.dense.tokenizer.decode(ids, clean_up_tokenization_spaces=False)  # type: ignore[union-attr]
        ids = tokenizer_of(contender, source)(text, add_special_tokens=False)["input_ids"]
    return ids[:PREFILL]


def ahead(give: Callable[[Sequence[int]], Any], windows: Sequence[Sequence[int]]) -> Iterator[Any]:
    """What an engine gives of each window; it reads the next one while the last is judged."""
    with ThreadPoolExecutor(1) as pool:
        coming = [pool.submit(give, windows[0])]
        for window in windows[1:]:
            found = coming.pop().result()
            coming.append(pool.submit(give, window))
            yield found
        yield coming.pop().result()


def measured(
    given: Sequence[Contender], source: Source, judges: Mapping[str, Judge], rounds: int, threads: int = 1,
    kept: Kept | None = None,
) -> tuple[dict[str, dict[str, Any]], dict[str, Timing]]:  # fmt: skip
    """Of every point: what it costs in quality, bytes and memory, its seconds; and the processor's time to decode.
    Those that cannot be made or opened here are left out, with a line that says why."""
    kept = kept or Kept(None, "", False)
    found: dict[str, dict[str, Any]] = {}
    there: dict[str, Contender] = {}
    for contender in given:
        name = contender.name
        try:
            look = kept(plain(name), lambda c=contender: looked_at(c, source, judges, threads))
        except Exception as error:
            print(f"left out: {name}: {first_line(error) or type(error).__name__}", flush=True)
            continue
        there[name] = contender
        found[name] = {
            **look, "ours": contender.ours, "bits": contender.bits, "smaller": contender.smaller,
            "version": version(contender.package),
        }  # fmt: skip
        said = ", ".join(divergence(quality) for quality in look["texts"].values())
        print(f"{name}: KL {said}, {look['bytes'] / 1e6:.1f} MB", flush=True)
    prompts = {name: prompt_of(c, source, next(iter(judges.values()))) for name, c in there.items()}

    def once(contender: Contender) -> dict[str, float]:
        prompt = prompts[contender.name]
        with opened(contender, source, threads) as worker:
            worker.time(prompt[:8], 2)
            return worker.time(prompt, DECODE)

    seconds: dict[str, list[dict[str, float]]] = {name: [] for name in there}
    asked = {name: (lambda c=c: once(c)) for name, c in there.items()}
    for name, timed in alternate(asked, rounds, warmup=0):
        seconds[name].append(timed())
    decode = {}
    for name, some in seconds.items():
        for part, count in (("prefill", len(prompts[name])), ("decode", DECODE)):
            for key, suffix in ((f"{part}_cpu", "_a_cpu_second"), (part, "_a_second")):
                found[name][part + suffix] = count / Timing(tuple(s[key] for s in some)).median
        decode[name] = Timing(tuple(s["decode_cpu"] for s in some))
    return found, decode


def version(package: str) -> str:
    """The name and version of a package."""
    return f"{package} {importlib.metadata.version(package)}"


def divergences(row: Mapping[str, Any]) -> list[float]:
    """KL in nats a token, by kind of text; infinite where tokens went, which have no probability any more."""
    return [math.inf if quality["kl"] is None else quality["kl"] for quality in row["texts"].values()]


def divergence(quality: Mapping[str, Any]) -> str:
    """As the table has it: in brackets what is over the tokens that both vocabularies have."""
    return f"({quality['kl_shared']:.4f})" if quality["kl"] is None else f"{max(quality['kl'], 0):.4f}"


def place(row: Mapping[str, Any], slack: float = 0.0, least: float = 0.0) -> tuple[float, ...]:
    """A point as `front` wants it: higher is better in quality on every text, in size and in speed."""
    return *(least - kl for kl in divergences(row)), -row["bytes"], row["decode_a_cpu_second"] * (1 + slack)


def beyond(theirs: Mapping[str, Mapping[str, Any]], ours: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Peers' points that our front does not cover: no point of ours is as good in divergence on every text, in bytes
    and in decoding. What lies within the noise counts as equal."""
    front_of_ours = [place(row, NOISE, LEAST) for row in ours.values()]
    return [name for name, row in theirs.items() if len(front_of_ours) in front([*front_of_ours, place(row)])]


def figures(found: Mapping[str, Mapping[str, Any]], decode: Mapping[str, Timing]) -> dict[str, float]:
    """What is written with --json. The quickest of ours is of those that are whole networks: a smaller one is quicker
    in any engine."""
    ours = {name: row for name, row in found.items() if row["ours"]}
    theirs = {name: row for name, row in found.items() if not row["ours"]}
    whole = [name for name, row in ours.items() if not row.get("smaller")]
    out: dict[str, float] = {}
    if mixed := [divergences(row)[0] for name, row in ours.items() if "4.1 bits in the mean" in name]:
        out["kl_int4_mixed"] = mixed[0]
    if four := [divergences(row)[0] for row in theirs.values() if row["bits"] == 4]:
        out["kl_int4_best_peer"] = min(four)
    if whole and theirs:
        quick = min(whole, key=lambda name: decode[name].median)
        rival = min(theirs, key=lambda name: decode[name].median)
        # Within rounds: the machine is as slow for one as for the other.
        out["decode_over_fastest_peer"] = ratio(decode[rival], decode[quick])
    if ours and theirs:
        out["peer_points_beyond_front"] = len(beyond(theirs, ours))
    return out


def columns(texts: Iterable[str]) -> list[str]:
    """The table's heads."""
    each = [f"{text}: {what}" for text in texts for what in ("KL", "perplexity", "top-1")]
    return ["", "version", *each, *COSTS]


def table(found: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """The rows, by decoding speed; the last column: o on the common front, + beyond ours, or nothing."""
    ours = {name: row for name, row in found.items() if row["ours"]}
    out = set(beyond({n: r for n, r in found.items() if not r["ours"]}, ours))
    names = sorted(found, key=lambda name: -found[name]["decode_a_cpu_second"])
    # What has no divergence to compare is on no front.
    told = [name for name in names if math.inf not in divergences(found[name])]
    best = {told[i] for i in front([place(found[name]) for name in told])}
    return [
        [name, row["version"],
         *(said for q in row["texts"].values() for said in (divergence(q), f"{q['perplexity']:.2f}", _same(q))),
         f"{row['bytes'] / 1e6:.1f}", f"{row['peak'] / 1e6:.0f}", f"{row['prefill_a_cpu_second']:.0f}",
         f"{row['decode_a_cpu_second']:.1f}", f"{row['prefill_a_second']:.0f}", f"{row['decode_a_second']:.1f}",
         "o" * (name in best) + "+" * (name in out)]
        for name in names for row in [found[name]]
    ]  # fmt: skip


def _same(quality: Mapping[str, Any]) -> str:
    said = f"{quality['top1']:.1%}"
    return f"({said})" if quality["kl"] is None else said


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Make, measure, print, and give the figures."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = (options.keep or Path(scratch)) / f"peers-{options.tokens}"
        folder.mkdir(parents=True, exist_ok=True)
        first, both = calibration()
        source = Source(off_grid(), folder, first, options.tokens, both)
        count = options.windows or (1 if options.quick else 4)
        judges = {text: Judge(source.dense, spread(source.dense, some, count)) for text, some in domains().items()}
        given = [
            c for c in (*contenders(), *families())
            if not options.points or any(word in c.name for word in options.points)
        ]  # fmt: skip
        kept = Kept(options.keep, f"peers-{options.tokens}-{count}", options.quick)
        found, decode = measured(given, source, judges, rounds=3, kept=kept)
    title = f"{MODEL} off its grid: ours and the peers, one thread, {count * (WINDOW - 1):,} tokens of each text"
    show(title, columns(judges), table(found))
    return figures(found, decode)
