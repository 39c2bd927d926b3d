"""Filters taken out: the least needed units of each group of channels go, from every tensor that knows of them, and
what is left is an ordinary, smaller network.

Scores: `l2`, the norm of all weights that make or read a unit (Li et al. 2017, arXiv 1608.08710, take a filter's own
l1 norm; units tied by additions are scored together as in Fang et al. 2023, arXiv 2301.12900, section 3.3); `gamma`,
the size of its batch norms' scales (Liu et al. 2017, arXiv 1708.06519)."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from intarsia.compression.convolution.channels import Channels, channels_of, fit_attributes
from intarsia.compression.convolution.networks import check_network, check_pixels
from intarsia.compression.convolution.normalising import reestimate
from intarsia.errors import BadInput
from intarsia.measure.size import tensor_bytes

WHO = "compression.prune_filters"
Score = Literal["l2", "gamma"]


def prune_network(
    network: nn.Module,
    pixels: Tensor,
    share: float = 0.5,
    *,
    times: float | None = None,
    score: Score = "l2",
    scope: Literal["group", "global"] = "group",
    multiple: int = 4,
    renormalise: bool = True,
) -> nn.Module:
    """A copy of a network without the least needed filters.

    - pixels [picture, channel, height, width]: for the graph, and for the batch norms' statistics.
    - share: of the filters of every group (`scope` group) or of all (`global`) that go. times: in its place, how many
      times less memory the network is to take.
    - multiple: the filters left in a group are a multiple of this, and at least as many.

    Raises `BadInput` where no filter can go, or `times` cannot be reached."""
    check_network(network, WHO)
    check_pixels(network, pixels, WHO)
    channels = channels_of(network, pixels, WHO)
    if not channels.groups:
        raise BadInput(f"{WHO}: no filter of {type(network).__name__} can go: something reads all channels at once")
    scores = unit_scores(network, channels, score)
    if times is not None:
        wanted = tensor_bytes(network) / times
        gone = _reaching(network, channels, scores, scope, multiple, wanted, times)
    else:
        gone = least(channels, scores, share, scope, multiple)
    small = cut(network, channels, gone)
    if renormalise:
        reestimate(small, pixels)
    return small


def unit_scores(network: nn.Module, channels: Channels, score: Score = "l2") -> dict[int, float]:
    """What each unit is worth, 1 being the mean of its group."""
    state = network.state_dict()
    norm_scales = {
        f"{name}.weight" for name, module in network.named_modules()
        if isinstance(module, nn.BatchNorm2d) and module.affine
    }  # fmt: skip
    total = torch.zeros(1 + max((int(u.units.max()) for u in channels.uses), default=0), dtype=torch.float64)
    if score == "gamma" and not any(use.name in norm_scales for use in channels.uses):
        raise BadInput(f"{WHO}: score gamma wants batch norms with a scale after the filters; score l2 does without")
    for use in channels.uses:
        tensor = state[use.name].detach().double()
        if score == "gamma":
            if use.name in norm_scales:
                total.index_add_(0, torch.from_numpy(use.units), tensor.abs().cpu())
        elif tensor.dim() > 1:
            each = tensor.movedim(use.dim, 0).flatten(1).square().sum(1)
            total.index_add_(0, torch.from_numpy(use.units), each.cpu())
    value = total if score == "gamma" else total.sqrt()
    out: dict[int, float] = {}
    for group in channels.groups:
        own = value[group.units]
        mean = float(own.mean()) or 1.0
        out.update(zip(group.units, (own / mean).tolist(), strict=True))
    return out


def least(
    channels: Channels, scores: Mapping[int, float], share: float, scope: str = "group", multiple: int = 4
) -> set[int]:
    """The units that go: the lowest share of each group, or of all of them, in whole multiples."""
    if not 0 <= share < 1:
        raise BadInput(f"{WHO}: share is 0 or more and below 1, given {share:g}")
    ordered = {i: sorted(group.units, key=lambda u: scores[u]) for i, group in enumerate(channels.groups)}
    if scope == "global":
        every = sorted((u for units in ordered.values() for u in units), key=lambda u: scores[u])
        low = set(every[: round(share * len(every))])
        left = {i: sum(u not in low for u in units) for i, units in ordered.items()}
    else:
        left = {i: round((1 - share) * len(units)) for i, units in ordered.items()}
    gone: set[int] = set()
    for i, units in ordered.items():
        keep = min(len(units), max(multiple, round(left[i] / multiple) * multiple))
        gone.update(units[: len(units) - keep])
    return gone


def bytes_without(network: nn.Module, channels: Channels, gone: Iterable[int]) -> int:
    """Bytes of the network's state without some units, told from the shapes alone."""
    kept = channels.kept(gone)
    total = 0
    for name, tensor in network.state_dict().items():
        count = tensor.element_size()
        for dim, size in enumerate(tensor.shape):
            count *= len(kept[name, dim]) if (name, dim) in kept else size
        total += count
    return total


def _reaching(
    network: nn.Module, channels: Channels, scores: Mapping[int, float], scope: str, multiple: int, wanted: float,
    times: float,
) -> set[int]:  # fmt: skip
    if times < 1:
        raise BadInput(f"{WHO}: times is 1 or more, given {times:g}")
    for step in range(100):
        gone = least(channels, scores, step / 100, scope, multiple)
        if bytes_without(network, channels, gone) <= wanted:
            return gone
    most = tensor_bytes(network) / bytes_without(network, channels, gone)
    raise BadInput(
        f"{WHO}: {times:g} times less memory cannot be reached: {most:.1f} times at most (multiple {multiple})"
    )


def cut(network: nn.Module, channels: Channels, gone: Iterable[int]) -> nn.Module:
    """A copy of the network without some units. Batch norms keep their statistics of the channels that are left."""
    kept = channels.kept(gone)
    small = copy.deepcopy(network)
    apply_cut(small, kept)
    fit_attributes(small, channels.depthwise)
    return small


def apply_cut(network: nn.Module, kept: Mapping[tuple[str, int], Tensor]) -> None:
    """Leave only these indices of tensors of the state, in place."""
    for (name, dim), index in kept.items():
        owner, _, leaf = name.rpartition(".")
        module = network.get_submodule(owner)
        tensor = getattr(module, leaf)
        fewer = tensor.detach().index_select(dim, index.to(tensor.device)).clone()
        if leaf in module._parameters:
            module._parameters[leaf] = nn.Parameter(fewer, requires_grad=tensor.requires_grad)
        else:
            module._buffers[leaf] = fewer
