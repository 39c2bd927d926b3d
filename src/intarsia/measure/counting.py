"""Multiply-accumulates, counted: what a call really computes, whatever it runs and on which kernels.

torch's own counter (`torch.utils.flop_counter`) does the bookkeeping. It passes over some operators without a word: the
attention kernel of CPUs, the fused `nn.MultiheadAttention`, the grouped products of mixtures of experts, products with
a vector, integer products. What it lacks is here."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

Shape = Sequence[int]


class Counted(NamedTuple):
    """What a call computed: `macs` in all, and `by_kind` (matrix products, attention, convolutions)."""

    macs: int
    by_kind: dict[str, int]


def count_macs(call: Callable[[], Any], *, gradients: bool = False) -> Counted:
    """Run `call` once and count the multiply-accumulates of its matrix products, convolutions and attention.

    - gradients: run with autograd on, and count a backward pass that `call` makes, too.

    Attention counts as its two full products: a mask or a causal mask saves nothing, on whatever kernel. Element-wise
    work, norms, softmax, sorting, gathers and look-ups are not counted. What runs outside torch is not seen."""
    counter = FlopCounterMode(display=False, custom_mapping=_missing_formulas())
    with torch.set_grad_enabled(gradients), _no_fused_attention(), counter:
        call()
    kinds: dict[str, int] = {}
    for operator, flops in counter.get_flop_counts().get("Global", {}).items():
        name = str(operator).rpartition(".")[2]
        kind = "attention" if "attention" in name else "convolutions" if "conv" in name else "products"
        kinds[kind] = kinds.get(kind, 0) + flops // 2
    return Counted(counter.get_total_flops() // 2, kinds)


@contextmanager
def _no_fused_attention() -> Iterator[None]:
    """`nn.MultiheadAttention` and `nn.TransformerEncoderLayer` step by step: fused they are one operator, unseen."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@functools.cache
def _missing_formulas() -> dict[Any, Callable[..., int]]:
    """FLOPs (twice the MACs) of operators that torch's registry lacks, where this torch has them."""
    formulas: dict[str, Callable[..., int]] = {
        "_scaled_dot_product_flash_attention_for_cpu": _attention,
        "_scaled_dot_product_fused_attention_overrideable": _attention,
        "_scaled_dot_product_attention_math_for_mps": _attention,
        "_scaled_dot_product_flash_attention_for_cpu_backward": _attention_backward,
        "_grouped_mm": _grouped,
        "_int_mm": _product,
        "_weight_int8pack_mm": _transposed_product,
        "mv": lambda a, b, **_: 2 * math.prod(a),
        "addmv": lambda c, a, b, **_: 2 * math.prod(a),
        "dot": lambda a, b, **_: 2 * a[0],
        "vdot": lambda a, b, **_: 2 * a[0],
        "addbmm": lambda c, a, b, *_, **__: 2 * a[0] * a[1] * a[2] * b[2],
    }
    known = {name: getattr(torch.ops.aten, name, None) for name in formulas}
    return {operator: formulas[name] for name, operator in known.items() if operator is not None}


def _attention(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    # Query heads: grouped key heads are repeated for them.
    batch, heads, rows, width = query
    return 2 * batch * heads * rows * key[-2] * (width + value[-1])


def _attention_backward(gradient: Shape, query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    # Scores again, then the gradients of values, scores, queries and keys.
    batch, heads, rows, width = query
    return 2 * batch * heads * rows * key[-2] * (3 * width + 2 * value[-1])


def _grouped(a: Shape, b: Shape, *_: Any, **__: Any) -> int:
    # Rows in groups, each with its own matrix: [rows, k] x [groups, k, n], or [groups, rows, k] x [groups, k, n].
    # With both flat ([m, rows] x [rows, n], a gradient of weights) every row is met once.
    return 2 * math.prod(a) * b[-1]


def _product(a: Shape, b: Shape, *_: Any, **__: Any) -> int:
    return 2 * a[0] * a[1] * b[1]


def _transposed_product(a: Shape, b: Shape, *_: Any, **__: Any) -> int:
    return 2 * a[0] * a[1] * b[0]
