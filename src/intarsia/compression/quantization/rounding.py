"""Quantizing a network: which modules, which grid, and putting the new modules in place."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from intarsia.compression import QuantizeConfig
from intarsia.compression.calibration import calibration_windows
from intarsia.compression.factorization.modules import FactoredLinear, fill_factors, has_factors, lay_factors
from intarsia.compression.linears import EXPERTS, Linear, expert_tensors, heads, linears, matrix, tables_and_heads
from intarsia.compression.quantization.calibrated import Codes, Rounded, calibrated
from intarsia.compression.quantization.grids import ROW, Grid, legal_group
from intarsia.compression.quantization.hf import IntarsiaQuantizationConfig, factors_of, mark, shapes_of
from intarsia.compression.quantization.mixed import check_average
from intarsia.compression.quantization.modules import (
    QuantConv1D,
    QuantEmbedding,
    Quantized,
    QuantLinear,
    TiedEmbedding,
    TiedHead,
    has_codes,
)
from intarsia.errors import BadInput, Note
from intarsia.models import Model
from intarsia.progress import track
from intarsia.sites import exchange, move_beside

if TYPE_CHECKING:
    from intarsia.data import Text

NAME = "compression.quantize"
SMALLEST_GROUP = 8


def quantize(model: Model, config: QuantizeConfig, calibration: Sequence[Text] | None = None) -> Model:
    """See `intarsia.compression.quantize`."""
    if has_codes(model.network):
        raise BadInput("the model is quantized already; quantize the original, or `dequantize` it first")
    if config.rank and has_factors(model.network):
        raise BadInput("rank: layers of this network are factored already; quantize them without a rank of their own")
    if config.values != "whole" and config.average_bits is not None:
        raise BadInput(f"average_bits chooses among whole numbers of bits: not with values '{config.values}'")
    if config.average_bits is not None:
        check_average(config.average_bits, config.among)
        # Groups, scheme and input scales are those of the nearest whole number of bits.
        config = config.model_copy(update={"bits": min(config.among, key=lambda bits: abs(bits - config.average_bits))})
    model = model.copy()
    network = model.network
    plan, kept = plan_for(network, config)
    if not plan.modules:
        raise BadInput("nothing to quantize: no linear layer or embedding is left after `skip` and `embed`")
    parameters = sum(p.numel() for p in network.parameters())
    before = _bytes(network)
    rounded = None
    if config.method != "nearest" or config.average_bits is not None or config.rank:
        rounded = _calibrated(model, plan, config, calibration)
        _put_factors(network, plan, rounded)
    put_codes(network, plan, rounded.codes if rounded is not None else {})
    changed = model.with_network(network, technique=NAME, config=config.model_dump(mode="json"))
    changed.extras[NAME] = {
        "bits": config.bits,
        "grids": {grid: len(names) for grid, names in plan.modules.items()},
        "kept": kept,
        "parameters": parameters,
        "bytes_before": before,
        "bytes": _bytes(network),
    }
    if rounded is not None:
        changed.extras[NAME] |= {"errors": rounded.errors, "scaled": rounded.scaled, "unscaled": rounded.unscaled}
        if config.rank:
            changed.extras[NAME]["rank"] = config.rank
            changed.extras[NAME]["factored"] = sorted(plan.factors)
        if (mix := rounded.mix) is not None:
            changed.extras[NAME] |= {
                "average_bits": config.average_bits,
                "bits_of": {name: grid.bits for name, grid in mix.grids.items()},
                "predicted_kl": mix.predicted,
                "predicted_kl_uniform": mix.uniform,
            }
    return changed


def put_codes(network: Any, plan: IntarsiaQuantizationConfig, codes: dict[str, Codes]) -> None:
    """Put quantized modules in the place of those that `plan` names, in the network itself, and note it there.

    - codes: of linear layers, by name; they are used up. A module without codes is rounded to nearest."""
    originals = {name: network.get_submodule(name) for names in plan.modules.values() for name in names}
    weights = {name: matrix(module) for name, module in originals.items()}
    lay_out(network, plan)
    with torch.no_grad():
        for name in track(list(weights), "putting codes in place"):
            weight, module = weights.pop(name), network.get_submodule(name)
            if name in codes:
                module.put(*codes.pop(name))
            else:
                module.fill(weight)
            originals.pop(name)
    mark(network, plan)


def _calibrated(
    model: Model, plan: IntarsiaQuantizationConfig, config: QuantizeConfig, texts: Sequence[Text] | None
) -> Rounded:
    """Codes of the linear layers, chosen by what they read; the network's weights become the rounded ones, and the plan
    has the grids that were chosen."""
    grids = {name: Grid.parse(text) for text, names in plan.modules.items() for name in names}
    layers = [layer for layer in linears(model) if layer.name in grids]
    windows = calibration_windows(model, texts, config.tokens)
    last = heads_of(model, plan) if config.embed == "int4" else {}
    out = calibrated(
        model, layers, grids | {head.name: grids[owner] for owner, head in last.items()}, windows,
        scale="awq" in config.method, feedback="gptq" in config.method, sequential=config.sequential,
        damping=config.damping, average=config.average_bits, among=config.among, rank=config.rank,
        heads=list(last.values()),
    )  # fmt: skip
    for owner, head in last.items():
        out.codes[owner] = out.codes.pop(head.name)
    if out.mix is not None:
        plan.modules = {}
        for name, grid in (grids | out.mix.grids).items():
            plan.modules.setdefault(str(grid), []).append(name)
    return out


def heads_of(model: Model, plan: IntarsiaQuantizationConfig) -> dict[str, Linear]:
    """The output heads whose tables are rounded, by the name of the module that holds the table."""
    owners = {plan.ties.get(head.name, head.name): head for head in heads(model)}
    named = {name for names in plan.modules.values() for name in names}
    return {owner: head for owner, head in owners.items() if owner in named}


def _put_factors(network: nn.Module, plan: IntarsiaQuantizationConfig, rounded: Rounded) -> None:
    """Put what makes good the rounding error beside the layers, to be rounded to 8 bits itself."""
    made = rounded.factors
    if not made:
        return
    plan.factors |= {name: left.shape[1] for name, (left, _) in made.items()}
    if plan.shapes:
        from intarsia.compression.elastic.uneven import lay_shapes

        lay_shapes(network, plan.shapes)
    lay_factors(network, plan.factors, based=made)
    for name, pair in made.items():
        fill_factors(network.get_submodule(name), *pair)  # type: ignore[arg-type]
        rounded.codes[f"{name}.base"] = rounded.codes.pop(name)
    plan.modules = {
        grid: [f"{name}.base" if name in made else name for name in names] for grid, names in plan.modules.items()
    }
    plan.modules.setdefault(str(ROW), []).extend(f"{name}.{part}" for name in made for part in ("first", "second"))


def plan_for(network: nn.Module, config: QuantizeConfig) -> tuple[IntarsiaQuantizationConfig, dict[str, str]]:
    """Grid -> module names, ties, and what is left as it is, with the reason."""
    modules: dict[str, list[str]] = {}
    ties: dict[str, str] = {}
    kept: dict[str, str] = {}
    shrunk: dict[tuple[int, int], int] = {}
    tables, heads = _tables(network)
    edges = tables | heads
    owners: dict[int, str] = {}
    ordered = sorted(_candidates(network), key=lambda pair: pair[0] not in tables)
    uses: dict[int, list[str]] = {}
    for name, module in ordered:
        uses.setdefault(id(module.weight), []).append(name)
    for name, module in ordered:
        embedding = isinstance(module, nn.Embedding)
        shared = uses[id(module.weight)]
        if any(fnmatchcase(user, pattern) for user in shared for pattern in config.skip):
            kept[name] = "skip"
        elif embedding and (name not in tables or _scale_of(module) is None):
            kept[name] = "not the input embedding" if name not in tables else "an unknown kind of embedding"
        elif (name in edges or len(shared) > 1) and config.embed == "keep":
            kept[name] = "embed: keep"
        elif (owner := owners.get(id(module.weight))) is not None:
            ties[name] = owner
        elif len(shared) > 1 and not embedding:
            kept[name] = "shares its weight with another module"
        else:
            grid = _table_grid(module, config, shrunk) if name in edges else _grid(module, config, shrunk)
            if grid is None:
                kept[name] = f"its rows have no group of {SMALLEST_GROUP} or more"
                continue
            owners[id(module.weight)] = name
            modules.setdefault(str(grid), []).append(name)
    for (width, wanted), group in sorted(shrunk.items()):
        warnings.warn(f"rows of {width} are not divisible by group_size {wanted}: {group} is used", Note, stacklevel=4)
    if experts := expert_tensors(network):
        kept |= dict.fromkeys(experts, EXPERTS)
        warnings.warn("the experts of this network stay as they are: only its other layers shrink", Note, stacklevel=4)
    plan = IntarsiaQuantizationConfig(modules, ties, config.kernel, factors_of(network), shapes_of(network))
    return plan, dict(sorted(kept.items()))


def _candidates(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, module in network.named_modules():
        # Exactly these classes: a subclass of Linear may do anything with its weight.
        if type(module) in (nn.Linear, Conv1D) or isinstance(module, nn.Embedding):
            yield name, module


def _tables(network: nn.Module) -> tuple[set[str], set[str]]:
    """Names of the input embeddings and of the output heads, of every tower."""
    tables, heads = tables_and_heads(network)
    names = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Embedding)]
    linear = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    return {n for n, m in names if m in tables}, {n for n, m in linear if m in heads}


def _table_grid(module: Any, config: QuantizeConfig, shrunk: dict[tuple[int, int], int]) -> Grid | None:
    if config.embed == "int8":
        return ROW
    group = config.group_size if config.bits < 8 else None  # of 8 bits one scale a row is usual, of 4 none is enough
    return _grid(module, config.model_copy(update={"bits": 4, "values": "whole", "group_size": group}), shrunk)


def _grid(module: Any, config: QuantizeConfig, shrunk: dict[tuple[int, int], int]) -> Grid | None:
    width = matrix(module).shape[1]
    symmetric = config.bits == 8 if config.scheme == "auto" else config.scheme == "symmetric"
    other = config.values != "whole"
    wanted = config.group_size or (32 if config.bits < 8 or other else None)
    if wanted is None:
        return Grid(config.bits, None, symmetric)
    group = legal_group(width, wanted)
    if group < SMALLEST_GROUP:
        return None
    if group != wanted:
        shrunk[width, wanted] = group
    return Grid.of(config.values, group) if other else Grid(config.bits, group, symmetric)


def _scale_of(module: Any) -> float | None:
    """What an embedding multiplies its rows by; None when its class does more than that."""
    if type(module) is nn.Embedding:
        return 1.0
    scale = getattr(module, "scalar_embed_scale", getattr(module, "embed_scale", None))
    if isinstance(scale, torch.Tensor):
        scale = None if scale.is_meta else scale.item()
    return None if scale is None else float(scale)


def lay_out(network: Any, plan: IntarsiaQuantizationConfig) -> None:
    """Put empty quantized and factored modules where `plan` says; what they hold is loaded or filled afterwards."""
    rounded = {name for names in plan.modules.values() for name in names}
    if plan.shapes:
        from intarsia.compression.elastic.uneven import lay_shapes

        lay_shapes(network, plan.shapes)
    lay_factors(network, plan.factors, {name for name in plan.factors if f"{name}.base" in rounded})
    for text, names in plan.modules.items():
        for name in names:
            old = network.get_submodule(name)
            exchange(network, name, _quantized(old, Grid.parse(text), plan.kernel))
    for name, owner in plan.ties.items():
        old, table = network.get_submodule(name), network.get_submodule(owner)
        if isinstance(old, nn.Embedding):
            exchange(network, name, TiedEmbedding(table, _scale_of(old) or 1.0))
        else:
            exchange(network, name, TiedHead(table, old.bias))
    _drop_ties(network)


def _quantized(old: Any, grid: Grid, kernel: str) -> Quantized:
    like = dict(dtype=old.weight.dtype, device=old.weight.device)
    if isinstance(old, nn.Embedding):
        return QuantEmbedding(*old.weight.shape, grid, old.padding_idx, _scale_of(old) or 1.0, **like)
    new = QuantConv1D if isinstance(old, Conv1D) else QuantLinear
    rows, width = matrix(old).shape
    return new(width, rows, grid, old.bias, kernel=kernel, **like)  # type: ignore[arg-type]


def _drop_ties(network: Any) -> None:
    """Forget the ties that transformers knows of weights that are no parameters any more."""
    alive = {name for name, _ in network.named_parameters(remove_duplicate=False)}
    for prefix, module in network.named_modules():
        if not isinstance(module, PreTrainedModel):
            continue
        dot = f"{prefix}." if prefix else ""
        if known := getattr(module, "all_tied_weights_keys", None):
            module.all_tied_weights_keys = {k: v for k, v in known.items() if dot + k in alive and dot + v in alive}
            # Ties outside of what was replaced (a head's bias) stay; whole patterns are kept when all are alive.
            if len(module.all_tied_weights_keys) < len(known):
                module._tied_weights_keys = dict(module.all_tied_weights_keys)


def lay_plain(network: Any, dtype: torch.dtype | None = None) -> Any:
    """Put ordinary modules with the rounded weights in the place of the quantized ones, and factors multiplied out in
    the place of the factored ones (in `network` itself)."""
    for name, module in list(network.named_modules()):
        if isinstance(module, FactoredLinear):
            exchange(network, name, module.dense(dtype))
    made: dict[int, nn.Parameter] = {}
    for name, module in list(network.named_modules()):
        if isinstance(module, Quantized | TiedHead | TiedEmbedding):
            table = module._table[0] if isinstance(module, TiedHead | TiedEmbedding) else module
            if id(table) not in made:
                made[id(table)] = nn.Parameter(module.weight.to(dtype or table.like.dtype).contiguous())
            exchange(network, name, _plain(module, made[id(table)]))
    return network


def _plain(module: Any, weight: nn.Parameter) -> nn.Module:
    with torch.device("meta"):
        if isinstance(module, QuantEmbedding | TiedEmbedding):
            new: Any = nn.Embedding(module.num_embeddings, module.embedding_dim, module.padding_idx)
        elif isinstance(module, QuantConv1D):
            new = Conv1D(module.out_features, module.in_features)
        else:
            new = nn.Linear(module.in_features, module.out_features, bias=module.bias is not None)
    new.weight = weight
    if not isinstance(new, nn.Embedding):
        new.bias = module.bias
    return new.train(module.training)


def dequantize(model: Model) -> Model:
    """See `intarsia.compression.dequantize`."""
    if not has_codes(model.network) and not has_factors(model.network):
        return model.copy()
    quantized = model.network
    config = type(quantized.config).from_dict(
        {k: v for k, v in quantized.config.to_dict().items() if k != "quantization_config"}
    )
    config._attn_implementation = quantized.config._attn_implementation
    plain = lay_plain(model.copy().network)
    # A network made anew has transformers' own ties, embedding classes and flags; its weights are loaded by name.
    with torch.device("meta"):
        network = type(quantized)(config)
        if shapes := shapes_of(quantized):
            from intarsia.compression.elastic.uneven import lay_shapes, mark_shapes

            lay_shapes(network, shapes)
            mark_shapes(network, shapes)
    network.load_state_dict(plain.state_dict(), strict=True, assign=True)
    move_beside(plain, network)
    for name, buffer in plain.named_buffers():
        owner, _, leaf = name.rpartition(".")
        network.get_submodule(owner)._buffers[leaf] = buffer
    _finish_buffers(network)
    network.tie_weights()
    if hasattr(quantized, "generation_config"):
        network.generation_config = quantized.generation_config
    return model.with_network(network.train(quantized.training), technique="compression.dequantize")


def _finish_buffers(network: Any) -> None:
    """Make the buffers that only the original classes have (the scale of a scaled embedding)."""
    for module in network.modules():
        for leaf, buffer in module._buffers.items():
            if buffer is not None and buffer.is_meta:
                module._buffers[leaf] = torch.tensor(module.scalar_embed_scale)


def tune_kernels(model: Model, repeats: int = 3) -> Model:
    """See `intarsia.compression.tune_kernels`."""
    model = model.copy()
    chosen: dict[str, str] = {}
    for module in model.network.modules():
        if not isinstance(module, QuantLinear) or not module.has_packed_kernel:
            continue
        shape = f"{module.out_features}x{module.in_features}:{module.grid}"
        if shape not in chosen:
            chosen[shape] = min(("packed", "reference"), key=lambda kernel: _seconds(module, kernel, repeats))
        module.kernel = chosen[shape]  # type: ignore[assignment]
    if not has_codes(model.network):
        raise BadInput("tune_kernels wants a quantized model; call `compression.quantize` first")
    model.extras.setdefault(NAME, {})["kernels"] = chosen
    return model


def _seconds(module: QuantLinear, kernel: str, repeats: int) -> float:
    x = torch.zeros(1, module.in_features, dtype=module.like.dtype, device=module.codes.device)
    before, module.kernel = module.kernel, kernel  # type: ignore[assignment]
    times = []
    with torch.no_grad():
        module(x)
        for _ in range(repeats):
            start = time.perf_counter()
            module(x)
            times.append(time.perf_counter() - start)
    module.kernel = before
    return min(times)


def _bytes(network: nn.Module) -> int:
    """Bytes of all tensors, each once."""
    state = {t.data_ptr(): t for t in network.state_dict().values()}
    return sum(t.numel() * t.element_size() for t in state.values())
