"""What rounding and factoring cost a language model: perplexity and divergence from the model as it was.

    python -m bench.compression [--quick] [--json FILE] [--parts rounding encoders peers elastic] [--only NAME ...]
                                [--points WORD ...] [--windows N] [--tokens 4096] [--keep DIR]

SmolLM2-135M off its 4-bit grid, on test scripts of MELD (INTARSIA_DATA) and on Python's documentation, calibrated on
MELD's train; embedding and head as they are, groups of 64; factors have 80 % of the blocks' weights. --windows: of 512
tokens, evenly spread over the first 40,000 tokens of each (default 4; quick 1). --parts encoders: sentence vectors of
MiniLM in 8 bits instead (`encoders`); peers: ours in their engines beside what other packages make, in quality, bytes
and speed (`peers`): those that are there; elastic: blocks, neurons and width that go, and searches over them
(`elastic`)."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.common import parser, show, start, write
from bench.compression import elastic, encoders, peers
from bench.compression.quality import Judge
from bench.compression.texts import WINDOW, domains, off_grid, records, scripts, spread
from bench.kept import Kept
from intarsia.compression import dequantize, factorize, quantize
from intarsia.models import Model

FOUR = {"bits": 4, "group_size": 64}
METHODS: dict[str, dict[str, Any]] = {
    "8 bits, nearest": {"bits": 8},
    "4 bits, nearest": FOUR,
    "4 bits, gptq": FOUR | {"method": "gptq"},
    "4 bits, awq": FOUR | {"method": "awq"},
    "4 bits, awq+gptq": FOUR | {"method": "awq+gptq"},
    "4 bits in the mean, awq+gptq": {"average_bits": 4, "group_size": 64, "method": "awq+gptq"},
    "powers of two, awq+gptq": {"values": "power", "group_size": 64, "method": "awq+gptq"},
    "ternary, awq+gptq": {"values": "ternary", "group_size": 64, "method": "awq+gptq"},
    "binary, awq+gptq": {"values": "binary", "group_size": 64, "method": "awq+gptq"},
    "4 bits, nearest, rank 16": FOUR | {"rank": 16},
    "4 bits, awq+gptq, rank 16": FOUR | {"method": "awq+gptq", "rank": 16},
}
FACTORED: dict[str, dict[str, Any]] = {
    "svd -20 %": {"method": "plain", "ranks": "uniform"},
    "whitened -20 %, uniform": {"ranks": "uniform", "sequential": False},
    "whitened -20 %": {"refit": False},
    "whitened+refit -20 %": {},
}


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    names = [*METHODS, *FACTORED]
    arguments.add_argument(
        "--parts", nargs="+", choices=["rounding", "encoders", "peers", "elastic"], default=["rounding"]
    )
    arguments.add_argument("--only", nargs="+", metavar="NAME", choices=names, help="only these methods")
    arguments.add_argument(
        "--points", nargs="+", metavar="WORD", help="only peers' and elastic points with such a word in the name"
    )
    arguments.add_argument("--windows", type=int, metavar="N")
    arguments.add_argument("--tokens", type=int, default=4096, help="of calibration text")
    arguments.add_argument("--keep", type=Path, metavar="DIR")
    options = arguments.parse_args()
    start(options)
    figures: dict[str, float] = {}
    if "rounding" in options.parts:
        figures |= rounding(options, names)
    if "encoders" in options.parts:
        figures |= encoders.measure(options)
    if "elastic" in options.parts:
        figures |= elastic.measure(options)
    if "peers" in options.parts:
        figures |= peers.measure(options)
    write(figures, options.json)


def rounding(options: argparse.Namespace, names: Sequence[str]) -> dict[str, float]:
    """Measure language models, print, and give the figures."""
    dense = off_grid()
    count = options.windows or (1 if options.quick else 4)
    judges = {text: Judge(dense, spread(dense, some, count)) for text, some in domains().items()}
    text = records(scripts("train"))
    kept = Kept(options.keep, f"compression-{count}-{options.tokens}", options.quick)

    def measured(name: str) -> dict[str, Any]:
        began = time.process_time()
        reads = {"calibration": text, "tokens": options.tokens}
        if name in FACTORED:
            small = factorize(dense, keep=0.8, **reads, **FACTORED[name])
        else:
            small = quantize(dense, embed="keep", kernel="reference", **reads, **METHODS[name])
        spent = time.process_time() - began
        return {"texts": judged(dequantize(small)), "seconds": spent}

    def judged(model: Model) -> dict[str, dict[str, float]]:
        return {text: judge(model) for text, judge in judges.items()}

    found: dict[str, dict[str, Any]] = {"as it is": {"texts": judged(dense)}}
    for name in options.only or names:
        found[name] = kept(name, lambda name=name: measured(name))
    read = " and ".join(f"{len(j.windows) * (WINDOW - 1):,} tokens of {text}" for text, j in judges.items())
    show(
        f"SmolLM2-135M on {read}",
        ["method", *(f"{text}: {what}" for text in judges for what in ("KL", "perplexity", "top-1")), "CPU s"],
        [[name, *(said for q in f["texts"].values()
                  for said in (f"{max(q['kl'], 0):.3f}", f"{q['perplexity']:.2f}", f"{q['top1']:.1%}")),
          f"{f['seconds']:.0f}" if "seconds" in f else ""] for name, f in found.items()],
    )  # fmt: skip
    wanted = {"4 bits in the mean, awq+gptq": "kl_int4_mixed", "4 bits, awq+gptq": "kl_int4"}
    return {key: found[name]["texts"]["MELD"]["kl"] for name, key in wanted.items() if name in found}


if __name__ == "__main__":
    main()
