"""What rounding costs a language model, by how it is done: perplexity and divergence from the model as it was.

    python -m bench.compression [--quick] [--json FILE] [--only NAME ...] [--windows N] [--tokens 4096] [--keep DIR]

SmolLM2-135M off its 4-bit grid, on test scripts of MELD (INTARSIA_DATA), calibrated on train; embedding and head as
they are, groups of 64. --windows: of 512 tokens, evenly spread over the first 40,000 tokens (default 4; quick 1)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from bench.common import parser, show, start, write
from bench.compression.quality import Judge
from bench.compression.texts import off_grid, records, scripts, windows
from bench.kept import Kept
from intarsia.compression import dequantize, quantize

SPAN = 40_000  # tokens of test text that the windows are spread over
FOUR = {"bits": 4, "group_size": 64}
METHODS: dict[str, dict[str, Any]] = {
    "8 bits, nearest": {"bits": 8},
    "4 bits, nearest": FOUR,
    "4 bits, gptq": FOUR | {"method": "gptq"},
    "4 bits, awq": FOUR | {"method": "awq"},
    "4 bits, awq+gptq": FOUR | {"method": "awq+gptq"},
    "4 bits in the mean, awq+gptq": {"average_bits": 4, "group_size": 64, "method": "awq+gptq"},
}


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--only", nargs="+", metavar="NAME", choices=METHODS, help="only these methods")
    arguments.add_argument("--windows", type=int, metavar="N")
    arguments.add_argument("--tokens", type=int, default=4096, help="of calibration text")
    arguments.add_argument("--keep", type=Path, metavar="DIR")
    options = arguments.parse_args()
    start(options)
    dense = off_grid()
    every = windows(dense, scripts("test"), SPAN)
    count = options.windows or (1 if options.quick else 4)
    judge = Judge(dense, every[:: max(1, len(every) // count)][:count])
    text = records(scripts("train"))
    kept = Kept(options.keep, f"compression-{count}-{options.tokens}", options.quick)

    def measured(settings: dict[str, Any]) -> dict[str, Any]:
        began = time.process_time()
        small = quantize(
            dense, embed="keep", kernel="reference", calibration=text, tokens=options.tokens, **settings
        )  # fmt: skip
        spent = time.process_time() - began
        return {**judge(dequantize(small)), "seconds": spent}

    found = {"as it is": judge(dense)}
    for name in options.only or METHODS:
        found[name] = kept(name, lambda settings=METHODS[name]: measured(settings))
    show(
        f"SmolLM2-135M on {int(found['as it is']['tokens']):,} tokens of MELD's test scripts",
        ["method", "KL", "perplexity", "same first choice", "CPU s"],
        [[name, f"{max(f['kl'], 0):.3f}", f"{f['perplexity']:.2f}", f"{f['top1']:.1%}",
          f"{f['seconds']:.0f}" if "seconds" in f else ""] for name, f in found.items()],
    )  # fmt: skip
    wanted = {"4 bits in the mean, awq+gptq": "kl_int4_mixed", "4 bits, awq+gptq": "kl_int4"}
    write({key: found[name]["kl"] for name, key in wanted.items() if name in found}, options.json)


if __name__ == "__main__":
    main()
