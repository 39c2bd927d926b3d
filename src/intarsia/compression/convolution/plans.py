"""What a changed network is made of, as plain data: enough to build its layers again in a network fresh from its class.

A plan maps names of modules to what stands there: `["conv", in, out, kernel, ...]`, `["norm", channels, ...]` ...
Only modules of the kinds below are in it; all others are as their class builds them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from intarsia.compression.convolution.coded import CodedConv2d
from intarsia.compression.convolution.compact import Fire, Shuffle
from intarsia.compression.convolution.networks import as_pair
from intarsia.compression.quantization.grids import Grid
from intarsia.compression.quantization.modules import QuantLinear
from intarsia.errors import BadInput
from intarsia.sites import exchange

Plan = dict[str, list[Any]]


def spec_of(module: nn.Module) -> list[Any] | None:
    """What builds a module of this form again; None for a kind that no plan holds."""
    kind = type(module)
    if kind is nn.Conv2d:
        return ["conv", *_geometry(module)]
    if kind is CodedConv2d:
        twice = 0 if module.second is None else len(module.second)  # type: ignore[arg-type]
        return ["coded", module.format, twice, *_geometry(module)]
    if kind is nn.BatchNorm2d:
        return ["norm", module.num_features, module.eps, module.momentum, module.affine, module.track_running_stats]
    if kind is nn.Linear:
        return ["linear", module.in_features, module.out_features, module.bias is not None]
    if kind is QuantLinear:
        return ["coded linear", module.in_features, module.out_features, str(module.grid), module.bias is not None]
    if kind is nn.Identity:
        return ["same"]
    if kind is nn.ReLU:
        return ["relu"]
    if kind is Shuffle:
        return ["shuffle", module.groups]
    if kind is Fire:
        return ["fire", *(spec_of(part) for part in (module.squeeze, module.narrow, module.broad))]
    if kind is nn.Sequential:
        parts = [spec_of(part) for part in module]
        return None if None in parts or not parts else ["row", *parts]
    return None


def _geometry(module: Any) -> list[Any]:
    padding = module.padding if isinstance(module.padding, str) else list(as_pair(module.padding))
    return [
        module.in_channels, module.out_channels, list(as_pair(module.kernel_size)), list(as_pair(module.stride)),
        padding, list(as_pair(module.dilation)), module.groups, module.bias is not None, module.padding_mode,
    ]  # fmt: skip


def build(spec: list[Any], dtype: torch.dtype = torch.float32) -> nn.Module:
    """The module of a spec, its weights not set. Raises `BadInput` for a kind that is not known."""
    kind, *rest = spec
    match kind:
        case "conv":
            return _conv(rest, dtype)
        case "coded":
            return CodedConv2d(_conv(rest[2:], dtype), rest[0], rest[1])
        case "norm":
            count, eps, momentum, affine, tracks = rest
            return nn.BatchNorm2d(count, eps, momentum, affine, tracks, dtype=dtype)
        case "linear":
            return nn.Linear(rest[0], rest[1], rest[2], dtype=dtype)
        case "coded linear":
            bias = nn.Parameter(torch.zeros(rest[1], dtype=dtype)) if rest[3] else None
            return QuantLinear(rest[0], rest[1], Grid.parse(rest[2]), bias, dtype)
        case "same":
            return nn.Identity()
        case "relu":
            return nn.ReLU()
        case "shuffle":
            return Shuffle(rest[0])
        case "fire":
            return Fire(*(build(part, dtype) for part in rest))  # type: ignore[arg-type]
        case "row":
            return nn.Sequential(*(build(part, dtype) for part in rest))
    raise BadInput(f"the plan of this network holds '{kind}', which this version of Intarsia does not know")


def _conv(given: list[Any], dtype: torch.dtype) -> nn.Conv2d:
    inner, out, kernel, stride, padding, dilation, groups, bias, filling = given
    padding = padding if isinstance(padding, str) else tuple(padding)
    return nn.Conv2d(
        inner, out, tuple(kernel), tuple(stride), padding, tuple(dilation), groups, bias, filling, dtype=dtype
    )


def plan_of(network: nn.Module, fresh: nn.Module | None = None) -> Plan:
    """Name -> spec of the modules that a `fresh` network of the class has otherwise; without one, of all that a plan
    can hold. Raises `BadInput` for a difference that no plan holds."""
    plan: Plan = {}
    if fresh is None:
        for name, module in network.named_modules():
            if name and not _inside(name, plan) and (spec := spec_of(module)) is not None:
                plan[name] = spec
        return plan
    ours = dict(network.named_modules())
    for name, module in fresh.named_modules():
        if not name or _inside(name, plan) or name not in ours:
            continue
        spec = spec_of(ours[name])
        if spec is not None and spec != spec_of(module):
            plan[name] = spec
        elif spec is None and type(ours[name]) is not type(module):
            raise BadInput(f"'{name}' became a {type(ours[name]).__name__}, which no plan holds: it cannot be saved")
    return plan


def _inside(name: str, plan: Plan) -> bool:
    return any(name.startswith(f"{other}.") for other in plan)


def lay_out(network: nn.Module, plan: Plan) -> None:
    """Put the modules of a plan into a network fresh from its class, in place; weights are loaded afterwards.

    Raises `BadInput` where the network has no module of a name: it is another one."""
    known = dict(network.named_modules())
    like = next((p for p in network.parameters() if p.is_floating_point()), None)
    dtype, device = (torch.float32, torch.device("cpu")) if like is None else (like.dtype, like.device)
    for name, spec in plan.items():
        if name not in known:
            raise BadInput(f"{type(network).__name__} has no module '{name}': the plan is another network's")
        if spec != spec_of(known[name]):
            with torch.device(device):
                exchange(network, name, build(spec, dtype).to(device).train(known[name].training))
