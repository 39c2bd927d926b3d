"""What this machine does with a model's own matrices: what a format costs here can only be measured here."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from intarsia.compression.quantization.grids import ROW, Grid, legal_group
from intarsia.compression.quantization.modules import QuantLinear
from intarsia.progress import track

if TYPE_CHECKING:
    from intarsia.compression.linears import Linear

TOKENS = (1, 256)
"""Tokens at once: as in writing, and as in reading a prompt."""
FLAGS = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_vnni": "VNNI", "avx_vnni": "VNNI", "avx512_bf16": "bfloat16",
         "amx_bf16": "bfloat16", "amx_int8": "AMX", "asimddp": "dot products", "bf16": "bfloat16"}  # fmt: skip


def abilities() -> list[str]:
    """What the processor has for small numbers, by the names of `FLAGS`; none where it does not say (it is read from
    /proc/cpuinfo)."""
    try:
        with Path("/proc/cpuinfo").open() as file:
            line = next((line for line in file if line.startswith(("flags", "Features"))), "")
    except OSError:
        return []
    there = set(line.partition(":")[2].split())
    return list(dict.fromkeys(name for flag, name in FLAGS.items() if flag in there))


def commonest(layers: Sequence[Linear]) -> tuple[int, int]:
    """(out, in) of the linear layers that hold most of the weights; (0, 0) without any."""
    held: Counter[tuple[int, int]] = Counter()
    for layer in layers:
        held[layer.shape] += layer.shape[0] * layer.shape[1]
    return held.most_common(1)[0][0] if held else (0, 0)


def timed(shape: tuple[int, int], repeats: int = 7, tokens: Sequence[int] = TOKENS) -> dict[str, list[float]]:
    """Format -> seconds of a product with a matrix [out, in] in PyTorch, for so many tokens each: the best of some
    rounds, in which all take turns."""
    out, width = shape
    torch.manual_seed(0)
    weight = torch.randn(out, width) / width**0.5
    work: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"float32": lambda x: F.linear(x, weight)}
    halves = weight * (torch.rand_like(weight) < 0.5)
    work["float32, half of it zeros"] = lambda x: F.linear(x, halves)
    low = weight.bfloat16()
    work["bfloat16"] = lambda x: F.linear(x.bfloat16(), low)
    work["8 bits"] = _quantized(weight, ROW)
    if (group := legal_group(width, 32)) >= 8:
        work["4 bits"] = _quantized(weight, Grid(4, group, False))
    found: dict[str, list[float]] = {name: [] for name in work}
    with torch.no_grad():
        for count in tokens:
            x = torch.randn(count, width)
            best = dict.fromkeys(work, float("inf"))
            for round_ in track(range(repeats + 1), "timing formats"):
                for name, product in work.items():
                    begun = time.perf_counter()
                    product(x)
                    if round_:  # the first warms up
                        best[name] = min(best[name], time.perf_counter() - begun)
            for name, seconds in best.items():
                found[name].append(seconds)
    return found


def _quantized(weight: torch.Tensor, grid: Grid) -> QuantLinear:
    layer = QuantLinear(weight.shape[1], weight.shape[0], grid)
    layer.fill(weight)
    return layer
