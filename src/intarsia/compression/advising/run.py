"""The work of `compression.advise`: sizes by arithmetic, formats on this machine, and the traps that hold here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import nn

from intarsia.compression.advising.guidance import FAMILIES, Family
from intarsia.compression.advising.machine import abilities, commonest, timed
from intarsia.compression.advising.technique import Advice, AdviseConfig, Advised, Size, Timed
from intarsia.compression.linears import Linear, expert_tensors, linears, tables_and_heads
from intarsia.compression.quantization.grids import legal_group
from intarsia.compression.quantization.modules import has_codes
from intarsia.compression.searching.anatomy import Anatomy, anatomy
from intarsia.compression.searching.budgets import Budget, parse_budget
from intarsia.compression.searching.feasibility import Limits, feasible
from intarsia.compression.searching.stores import STORES, Store
from intarsia.errors import BadInput
from intarsia.measure.provenance import provenance
from intarsia.models import Model

K_BLOCK = 256  # weights in a block of llama.cpp's K types
FILTERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def look(model: Model, config: AdviseConfig) -> Advice:
    """Everything of `compression.advise`."""
    budget = None if config.budget is None else parse_budget(config.budget)
    network: Any = model.network
    weights = [p for p in network.parameters() if p.is_floating_point()]
    now = sum(p.numel() * p.element_size() for p in network.parameters())
    filters = sum(m.weight.numel() for m in network.modules() if isinstance(m, FILTERS))
    layers = _layers(model)
    edges = set().union(*tables_and_heads(network)) - {None}
    roles = {
        "linear layers": sum(math.prod(layer.shape) for layer in layers),
        "vocabulary": sum({id(m.weight): m.weight.numel() for m in edges if hasattr(m, "weight")}.values()),
        "filters": filters,
    }
    every = sum(p.numel() for p in weights)
    roles["the rest"] = every - sum(roles.values())
    shape = _shape(model)
    out = Advice(
        title=f"What to do to {model.identity.source}", technique="compression.advise", parameters=roles, bytes_now=now,
        sizes=_sizes(model, shape, every), abilities=abilities(), shape=commonest(layers),
        provenance=provenance(model=model, settings=config.model_dump(mode="json")),
    )  # fmt: skip
    if config.measure and all(out.shape):
        out.timed = [Timed(format=name, one=one, many=many) for name, (one, many) in timed(out.shape).items()]
    out.families = _families(model, layers, roles, out.sizes, now, config)
    out.warnings = [*_budgeted(budget, model, shape, now), *_traps(model, layers, roles, out)]
    out.missing = _missing(config)
    best = next((f for f in out.families if f.rank == 1), None)
    out.summary = f"{every:,} parameters, {now / 1e6:,.1f} MB. " + (
        f"First: {best.family}. {best.here}" if best else ""
    )
    return out


def _layers(model: Model) -> list[Linear]:
    """The linear layers; none of a network that is no stack of blocks, such as one of filters."""
    try:
        return linears(model)
    except BadInput:
        return []


def _shape(model: Model) -> Anatomy | None:
    """By role, of a network with a plain vocabulary; None for others."""
    if has_codes(model.network):
        return None
    try:
        return anatomy(model)
    except (BadInput, NotImplementedError, AttributeError):
        return None


def _sizes(model: Model, shape: Anatomy | None, every: int) -> list[Size]:
    """Of the files that a model could be, the smallest bits last."""
    if has_codes(model.network):
        return []
    if shape is None:
        named = (("int8", 8), ("int4", 4), ("ternary", 2), ("binary", 1))
        return [Size(engine="torch", what=f"filters in {name}", bytes=every * bits // 8) for name, bits in named]
    out = []
    for store in STORES.values():
        refused = store.refuses(model)
        kinds = sorted({grid.bits for m in shape.matrices for grid in store.grids(m)}, reverse=True)
        for bits in kinds:
            out.append(
                Size(engine=store.name, what=f"{bits} bits", bytes=_with_bits(store, shape, bits), refused=refused)
            )
    return out


def _with_bits(store: Store, shape: Anatomy, bits: int) -> int:
    """Of a file whose matrices have so many bits, where they can (the fewest of their grids with them)."""
    total = store.fixed(shape)
    for m in shape.matrices:
        found = [store.matrix(m, grid) for grid in store.grids(m) if grid.bits == bits]
        total += min(found or store.costs(m))
    return total


def _families(
    model: Model, layers: Sequence[Linear], roles: dict[str, int], sizes: list[Size], now: int, config: AdviseConfig
) -> list[Advised]:
    """The table, with what each row means here."""
    convolutional = roles["filters"] > roles["linear layers"]
    blocks = len(model.sites.blocks) if layers else 0
    out, rank = [], 0
    for family in FAMILIES:
        fits = (family.name == "compact filters") <= convolutional and not has_codes(model.network)
        if family.name == "distillation":
            fits = fits and config.texts
        if fits:
            rank += 1
        out.append(
            Advised(
                family=family.name, rank=rank if fits else None, gain=family.gain, price=family.price,
                remedy=family.remedy, here=_here(family, blocks, sizes, now, convolutional, config, model),
                commands=_commands(family, model, convolutional) if fits else [],
            )
        )  # fmt: skip
    return out


def _here(
    family: Family, blocks: int, sizes: list[Size], now: int, convolutional: bool, config: AdviseConfig, model: Model
) -> str:  # fmt: skip
    """What a family comes to with this model, in a sentence, and the advice."""
    if has_codes(model.network):
        return "It is quantized already: `dequantize` it, or begin from the original."
    said = []
    made = [s for s in sizes if s.refused is None]
    if family.name == "quantization" and made:
        # With fewer bits than four quality falls quickly; PyTorch's own file is the slow one.
        usual = [s for s in made if not s.what.startswith(("3", "2"))] or made
        usual = [s for s in usual if s.engine != "torch"] or usual
        small = min(usual, key=lambda s: s.bytes)
        said.append(
            f"{small.bytes / 1e6:,.1f} MB as {small.engine} in {small.what}, {small.bytes / max(now, 1):.0%} of now."
        )
    elif family.name == "pruning" and blocks > 1 and not convolutional:
        said.append(f"{blocks} blocks; one of them is {1 / blocks:.0%} of the body and of its time.")
    elif family.name == "compact filters" and not convolutional:
        said.append("It has no filters to speak of.")
    elif family.name == "distillation" and not config.texts:
        said.append("Wants text of the domain.")
    if family.cost is not None and not convolutional:
        said.append(f"Measured on a model of 135 M ({family.cost[0]}): KL {family.cost[1]:.2f} nats.")
    advice = family.advice[0].upper() + family.advice[1:]
    return " ".join([*said, f"{advice}."])


def _commands(family: Family, model: Model, convolutional: bool) -> list[str]:
    """The family's techniques for this kind of network."""
    some = family.filters if convolutional else family.commands
    return [f"intarsia compression {command} --model {model.identity.source} --out small" for command in some]


def _budgeted(budget: Budget | None, model: Model, shape: Anatomy | None, now: int) -> list[str]:
    """What the budget takes, by arithmetic."""
    if budget is None:
        return []
    if shape is None:
        return [f"budget {budget.text}: arithmetic of budgets is for networks with a vocabulary"]
    stores = [store for store in STORES.values() if store.refuses(model) is None]
    limits = Limits(rows=(max(1, shape.rows // 3),), blocks=shape.blocks // 3, neurons=1 / 3)
    base = {"bytes": float(now), "params": float(shape.parameters)}
    try:
        said = feasible(budget, shape, stores, limits, base)
    except BadInput as error:
        return [f"budget {budget.text}: out of reach. {error}"]
    return said or [f"budget {budget.text}: bits alone may keep its sizes; speed and quality are for `compression fit`"]


def _traps(model: Model, layers: Sequence[Linear], roles: dict[str, int], advice: Advice) -> list[str]:
    """The traps that hold here."""
    network: Any = model.network
    out = []
    if roles["filters"] > roles["linear layers"]:
        out.append(
            "filters: dynamic 8 bits are slower than single precision; export with static scales "
            "(`compression export-filters`), and tell batch norms anew after every step (`compression renormalize`)"
        )
    elif not network.can_generate():
        out.append("encoder: one scale for a whole matrix ruins 8 bits; take a scale a row")
    out.append("zeros, also 2:4: stored smaller, but no CPU kernel here is quicker for them")
    by = {t.format: t for t in advice.timed}
    if by:
        gain = by["float32"].many / by["bfloat16"].many
        out.append(
            f"bfloat16: reads a prompt {gain:.1f} times as quickly as float32 here, and halves the bytes"
            if gain > 1 else f"bfloat16: halves the bytes, but takes {1 / gain:.1f} times as long as float32 here"
        )  # fmt: skip
    widths = {layer.shape[1] for layer in layers}
    if odd := sorted(w for w in widths if legal_group(w, 128) != 128):
        told = ", ".join(f"{w:,} (groups of {legal_group(w, 128)})" for w in odd[:4])
        out.append(f"groups of 128 do not divide rows of {told}")
    if odd := sorted(w for w in widths if w % K_BLOCK):
        out.append(f"K types of GGUF hold blocks of {K_BLOCK}: not rows of {', '.join(f'{w:,}' for w in odd[:4])}")
    if experts := expert_tensors(network):
        out.append(f"{len(experts)} tensors of experts are left as they are by quantization, pruning and factorization")
    out.append("calibration text of another domain than the model is for makes awq, gptq and pruning worse")
    return out


def _missing(config: AdviseConfig) -> list[str]:
    """What would let it say more."""
    out = []
    if not config.texts:
        out.append("text of the domain, a few thousand tokens: to calibrate, to judge quality, and to distil")
    if config.budget is None:
        out.append("a budget, such as --budget 'bytes<90MB, decode>4x, quality>0.95x'")
    out.append("a power meter: without one energy is an estimate from processor time")
    return out
