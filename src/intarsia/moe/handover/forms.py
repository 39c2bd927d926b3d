"""A placement in the words of serving engines, each with what is to be known before it is used there.

Engines change: the forms are those of SGLang, vLLM, TensorRT-LLM and the ExFlow repository as documented in 2026."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from intarsia.moe.placement.placement import Placement


@dataclass(frozen=True)
class Form:
    """- suffix: of the file; text: what makes its contents, of a placement and the number of decoder layers.
    - use: how the engine is told; notes: what to know."""

    suffix: str
    text: Callable[[Placement, int], str]
    use: str
    notes: tuple[str, ...]


def slots(placement: Placement) -> NDArray[np.int64]:
    """[layer, physical expert] the logical expert in every slot, device after device, equally many each.

    A device's own experts come first, then its copies; where it has fewer than the fullest one, its first expert again,
    for engines want devices of one size."""
    rows = []
    for layer in range(len(placement.device_of)):
        held = []
        for device in range(placement.devices):
            own = np.flatnonzero(placement.device_of[layer] == device).tolist()
            copies = placement.replicas[layer][device] if placement.replicas else ()
            held.append([*own, *(e for e in copies if e not in own)])
        rows.append(held)
    most = max(len(h) for held in rows for h in held)
    return np.array([[e for h in held for e in [*h, *h[:1] * (most - len(h))]] for held in rows])


def sglang(placement: Placement, decoder_layers: int) -> str:
    """`physical_to_logical_map` [decoder layer][physical expert], the only key SGLang takes.

    Layers without a router are in the order of the file."""
    table = slots(placement)
    plain = np.arange(table.shape[1]) % placement.experts
    rows = [plain.tolist()] * decoder_layers
    for layer, row in zip(placement.layers, table.tolist(), strict=True):
        rows[layer] = row
    return json.dumps({"physical_to_logical_map": rows})


def eplb(placement: Placement, decoder_layers: int) -> str:
    """The triple that EPLB's `rebalance_experts` returns, for routed layers: physical to logical [layer, physical],
    logical to physical [layer, expert, copy] (-1: none), copies [layer, expert]."""
    table = slots(placement)
    layers, experts = placement.device_of.shape
    counts = np.stack([np.bincount(row, minlength=experts) for row in table])
    back = np.full((layers, experts, counts.max()), -1)
    for layer, row in enumerate(table):
        for expert in range(experts):
            found = np.flatnonzero(row == expert)
            back[layer, expert, : len(found)] = found
    return json.dumps(
        {
            "physical_to_logical_map": table.tolist(),
            "logical_to_physical_map": back.tolist(),
            "logical_replica_count": counts.tolist(),
        }
    )


def tensorrt_llm(placement: Placement, decoder_layers: int) -> str:
    """`MoeLoadBalancerConfig` as YAML: the slots of each routed layer, and no moves afterwards."""
    table = slots(placement)
    lines = [f"num_slots: {table.shape[1]}", "layer_updates_per_iter: 0", "initial_global_assignments:"]
    lines += [f"  {layer}: {row}" for layer, row in zip(placement.layers, table.tolist(), strict=True)]
    return "\n".join(lines) + "\n"


def official_csv(placement: Placement, decoder_layers: int) -> str:
    """`Expert,Node`: experts numbered through over the routed layers, and the device of each."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["Expert", "Node"])
    writer.writerows(enumerate(placement.device_of.ravel().tolist()))
    return out.getvalue()


_BALANCERS = "A load balancer that goes on moving experts undoes the placement: it sees loads, not steps."
FORMS = {
    "sglang": Form(
        ".json", sglang, "--init-expert-location FILE --ep-size DEVICES",
        (
            "With copies also --ep-num-redundant-experts (slots less experts), and --ep-dispatch-algorithm static, "
            "which takes a copy on the same device first.",
            "Leave --enable-eplb off. " + _BALANCERS,
            "SGLang runs plain expert parallelism: only experts that are used together save rows there (goal: rows).",
            "Marlin kernels with DeepEP want the trivial order: use the permuted checkpoint.",
        ),
    ),
    "vllm": Form(
        ".json", eplb, "no released option reads it: serve the permuted checkpoint (moe.permute) with "
        "--enable-expert-parallel, whose linear placement is then this one",
        (
            "The file is the triple that an EPLB policy returns, for those who register a policy of their own.",
            "The default backend (allgather_reducescatter) sends every token to every rank, so no placement changes "
            "anything there: it pays with a dispatch backend (DeepEP, pplx, nixl).",
            "Leave --enable-eplb off. " + _BALANCERS,
        ),
    ),
    "tensorrt-llm": Form(
        ".yaml", tensorrt_llm, "moe_config: load_balancer: FILE in the extra LLM API options",
        ("layer_updates_per_iter is 0: " + _BALANCERS[0].lower() + _BALANCERS[1:],),
    ),
    "csv": Form(
        ".csv", official_csv, "the form of the ExFlow repository's solver",
        ("It has no place for copies, and needs as many experts on every device.",),
    ),
}  # fmt: skip
