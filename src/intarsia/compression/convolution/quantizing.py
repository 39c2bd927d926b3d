"""Putting a network's filters on few values, and what that costs made good by new batch-norm statistics."""

from __future__ import annotations

from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from intarsia.compression.convolution.coded import CodedConv2d, LearningConv2d, plain_of
from intarsia.compression.convolution.formats import FORMATS, rounded
from intarsia.compression.convolution.networks import check_network, check_pixels, convolutions
from intarsia.compression.convolution.normalising import reestimate
from intarsia.compression.quantization.grids import Grid
from intarsia.compression.quantization.modules import QuantLinear
from intarsia.errors import BadInput, did_you_mean
from intarsia.progress import track
from intarsia.sites import exchange

WHO = "compression.quantize_filters"
ROW = Grid(8, None, True)


def quantize_network(
    network: nn.Module,
    format: str = "int8",
    *,
    terms: float = 1.0,
    edges: str = "int8",
    skip: tuple[str, ...] = (),
    pixels: Tensor | None = None,
) -> list[str]:
    """Replace layers of filters by coded ones, in place; gives their names.

    - format: of `formats.FORMATS`. terms: `power`; 1 to 2 powers of two a filter in the mean: the filters that one
      term fits worst have two.
    - edges: format of the first layer of filters (`int8`, or `keep`); linear layers (`nn.Linear`) get 8 bits with it.
      With 8 bits or more than four everywhere the first layer is like the others.
    - pixels: the batch norms' statistics are taken again from these; None: they stay.

    Raises `BadInput` for an unknown format, a quantized network, and where nothing is left to quantize."""
    chosen, linear = _chosen(network, format, edges, skip)
    _check_terms(format, terms)
    if pixels is not None:
        check_pixels(network, pixels, WHO)
    layers = {name: network.get_submodule(name) for name in chosen}
    second = second_terms({n: m for n, m in layers.items() if chosen[n] == "power"}, terms)  # type: ignore[misc]
    for name, conv in track(layers.items(), "rounding filters", total=len(layers)):
        twice = second.get(name)
        coded = CodedConv2d(conv, chosen[name], 0 if twice is None else int(twice.sum()))  # type: ignore[arg-type]
        coded.fill(conv.weight, twice)  # type: ignore[arg-type]
        exchange(network, name, coded.train(conv.training))
    for name in linear:
        old = network.get_submodule(name)
        new = QuantLinear(old.in_features, old.out_features, ROW, old.bias, old.weight.dtype, old.weight.device)  # type: ignore[arg-type]
        new.fill(old.weight.detach())  # type: ignore[arg-type]
        exchange(network, name, new.train(old.training))
    if pixels is not None:
        reestimate(network, pixels)
    return [*chosen, *linear]


def practise(
    network: nn.Module, format: str, *, terms: float = 1.0, edges: str = "int8", skip: tuple[str, ...] = ()
) -> list[str]:
    """Put layers that learn rounded in the place of the filters, in place; gives their names. Then train, then
    `settle`, then `quantize_network` with the same settings."""
    chosen, _ = _chosen(network, format, edges, skip)
    _check_terms(format, terms)
    layers = {name: network.get_submodule(name) for name in chosen}
    second = second_terms({n: m for n, m in layers.items() if chosen[n] == "power"}, terms)  # type: ignore[misc]
    for name, conv in layers.items():
        exchange(network, name, LearningConv2d(conv, chosen[name], second.get(name)).train(conv.training))  # type: ignore[arg-type]
    return list(chosen)


def settle(network: nn.Module) -> None:
    """Put ordinary layers in the place of those that learn rounded, and of coded ones, with the weights they have."""
    for name, module in list(network.named_modules()):
        if isinstance(module, CodedConv2d):
            exchange(network, name, plain_of(module))
        elif isinstance(module, LearningConv2d):
            with torch.device("meta"):
                plain = nn.Conv2d(
                    module.in_channels, module.out_channels, module.kernel_size, module.stride, module.padding,  # type: ignore[arg-type]
                    module.dilation, module.groups, module.bias is not None, module.padding_mode,  # type: ignore[arg-type]
                )  # fmt: skip
            plain.weight, plain.bias = module.weight, module.bias
            exchange(network, name, plain.train(module.training))
        elif type(module) is QuantLinear:
            with torch.device("meta"):
                line = nn.Linear(module.in_features, module.out_features, bias=module.bias is not None)
            line.weight, line.bias = nn.Parameter(module.dequantized()), module.bias  # type: ignore[assignment]
            exchange(network, name, line.train(module.training))


def second_terms(layers: dict[str, nn.Conv2d], terms: float) -> dict[str, Tensor]:
    """Which filters get a second power of two, bool [out] by layer: of all filters those that one term fits worst,
    relative to their size, so many that a filter has `terms` in the mean."""
    if terms <= 1 or not layers:
        return {}
    errors = {}
    for name, conv in layers.items():
        weight = conv.weight.detach().flatten(1).float()
        gap = (rounded(weight, "power") - weight).norm(dim=1)
        errors[name] = gap / weight.norm(dim=1).clamp(min=1e-12)
    every = torch.cat(list(errors.values()))
    count = round((terms - 1) * len(every))
    worst = torch.zeros(len(every), dtype=torch.bool)
    worst[every.argsort(descending=True, stable=True)[:count].cpu()] = True
    return dict(zip(errors, worst.split([len(e) for e in errors.values()]), strict=True))


def _chosen(network: nn.Module, format: str, edges: str, skip: tuple[str, ...]) -> tuple[dict[str, str], list[str]]:
    """Format of each layer of filters by name, and the linear layers that get 8 bits."""
    check_network(network, WHO)
    if format not in FORMATS:
        raise BadInput(f"{WHO}: no format '{format}'{did_you_mean(format, FORMATS)}; one of {', '.join(FORMATS)}")
    first = next(iter(convolutions(network)))
    chosen = dict.fromkeys(convolutions(network, skip), format)
    if first in chosen and format not in ("int8", "int6", "int5"):
        if edges == "keep":
            del chosen[first]
        else:
            chosen[first] = "int8"
    linear = []
    if edges != "keep":
        linear = [
            name for name, module in network.named_modules()
            if type(module) is nn.Linear and not any(fnmatchcase(name, pattern) for pattern in skip)
        ]  # fmt: skip
    if not chosen:
        raise BadInput(f"{WHO}: nothing to quantize is left after `skip` and `edges`")
    return chosen, linear


def _check_terms(format: str, terms: float) -> None:
    if not 1 <= terms <= 2:
        raise BadInput(f"{WHO}: terms is 1 to 2, given {terms:g}")
    if terms != 1 and format != "power":
        raise BadInput(f"{WHO}: terms belong to the format 'power', not to '{format}'")
