"""Compact layers in the place of a network's filters: how wide, and taught on what the old layers gave."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from intarsia.compression.convolution.compact import FIXED, KINDS, compact, fits, groups_of
from intarsia.compression.convolution.networks import answers, check_network, check_pixels, convolutions, mode
from intarsia.compression.convolution.normalising import reestimate
from intarsia.errors import BadInput, did_you_mean
from intarsia.measure.size import tensor_bytes
from intarsia.progress import track
from intarsia.sites import exchange, watching

WHO = "compression.factorize_filters"
PICTURES = 512  # the old layers are asked on so many at most
GRID = 40  # widths that are tried to reach a size


def factorize_network(
    network: nn.Module, pixels: Tensor, kind: str = "tucker", share: float = 0.5, *, times: float | None = None,
    skip: tuple[str, ...] = (), steps: int = 100, learning_rate: float = 2e-3, renormalise: bool = True, seed: int = 0,
) -> tuple[nn.Module, dict[str, tuple[float, float]]]:  # fmt: skip
    """A copy of a network with compact layers, and for each of them the relative error of its output, before and after
    it was taught.

    - pixels [picture, channel, height, width]: for what layers read, and for the batch norms' statistics.
    - kind: of `compact.KINDS`. share: of the width that a layer can have. times: in its place, how many times less
      memory the network is to take: the widest that does.
    - steps: of teaching each layer on the old one's inputs and outputs (mean squared error); 0: none.

    A layer that would not shrink stays as it is; so do 1x1 filters and those in groups. Raises `BadInput` where none is
    left, or `times` cannot be reached."""
    check_network(network, WHO)
    if kind not in KINDS:
        raise BadInput(f"{WHO}: no kind '{kind}'{did_you_mean(kind, KINDS)}; one of {', '.join(KINDS)}")
    if not 0 < share <= 1:
        raise BadInput(f"{WHO}: share is above 0 and at most 1, given {share:g}")
    check_pixels(network, pixels, WHO)
    layers = {name: conv for name, conv in convolutions(network, skip).items() if fits(conv, kind)}
    if not layers:
        raise BadInput(f"{WHO}: no filters that '{kind}' could take the place of (larger than 1x1, in one group)")
    if times is not None:
        share = _reaching(network, layers, kind, times)
    made = {}
    for name, conv in track(layers.items(), "finding factors", total=len(layers)):
        new = compact(conv, kind, share, seed)
        if tensor_bytes(new) < tensor_bytes(conv):
            made[name] = new
    if not made:
        raise BadInput(f"{WHO}: no layer is smaller as '{kind}' with share {share:g}: give less")
    errors = taught(network, {n: layers[n] for n in made}, made, pixels[:PICTURES], steps, learning_rate, seed)
    small = copy.deepcopy(network)
    for name, new in made.items():
        exchange(small, name, new)
    if renormalise:
        reestimate(small, pixels)
    return small, errors


def taught(
    network: nn.Module, old: dict[str, nn.Conv2d], new: dict[str, nn.Module], pixels: Tensor, steps: int,
    learning_rate: float, seed: int,
) -> dict[str, tuple[float, float]]:  # fmt: skip
    """Teach each new layer, in place, to give on the old one's inputs what the old one gave; relative errors
    |new - old| / |old| before and after.

    One layer after the other: what one of them reads is kept, and not what all do."""
    generator = torch.Generator().manual_seed(seed)
    errors = {}
    for name in track(list(new), "teaching layers"):
        pairs: list[tuple[Tensor, Tensor]] = []
        with (
            torch.no_grad(),
            mode(network, training=False),
            watching(
                network, {name: old[name]}, lambda _, given, gave, to=pairs: to.append((given.clone(), gave.clone()))
            ),
        ):
            for part in pixels.split(64):
                answers(network, part)
        layer = new[name]
        before = error_of(layer, pairs)
        was = layer.training
        if steps:
            layer.train()
            optimiser = torch.optim.Adam(layer.parameters(), lr=learning_rate)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
            size = torch.cat([gave.flatten() for _, gave in pairs]).square().mean().clamp(min=1e-12)
            for _ in range(steps):
                given, gave = pairs[int(torch.randint(len(pairs), (1,), generator=generator))]
                loss = F.mse_loss(layer(given), gave) / size
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
        layer.train(was)
        errors[name] = (before, error_of(layer, pairs))
    return errors


@torch.no_grad()
def error_of(layer: nn.Module, pairs: list[tuple[Tensor, Tensor]]) -> float:
    """|layer(given) - gave| / |gave| over all pairs; batch norms inside use each batch's statistics."""
    was = layer.training
    kept = copy.deepcopy(layer).train()  # statistics of the layer itself are not touched
    gap = sum(float((kept(given) - gave).square().sum()) for given, gave in pairs)
    whole = sum(float(gave.square().sum()) for _, gave in pairs)
    layer.train(was)
    return (gap / max(whole, 1e-30)) ** 0.5


def _reaching(network: nn.Module, layers: dict[str, nn.Conv2d], kind: str, times: float) -> float:
    """The largest share with which the network takes `times` less memory."""
    if times < 1:
        raise BadInput(f"{WHO}: times is 1 or more, given {times:g}")
    whole = tensor_bytes(network)
    least = float(whole)
    shares = [1.0] if kind in FIXED else [(GRID - i) / GRID for i in range(GRID)]
    for share in shares:
        saved = sum(max(0, conv.weight.nbytes - shape_bytes(conv, kind, share)) for conv in layers.values())
        least = min(least, whole - saved)
        if whole - saved <= whole / times:
            return share
    raise BadInput(f"{WHO}: {times:g} times less memory cannot be reached with '{kind}': {whole / least:.1f} at most")


def shape_bytes(conv: nn.Conv2d, kind: str, share: float) -> int:
    """Bytes of float32 weights of the compact layer for `conv`."""
    out, inner = conv.out_channels, conv.in_channels
    high, wide = conv.weight.shape[2:]

    def rank(most: int) -> int:
        return max(1, min(most, round(share * most)))

    if kind == "tucker":
        count = rank(out) * rank(inner) * high * wide + out * rank(out) + inner * rank(inner)
    elif kind == "polyadic":
        count = rank(out + inner) * (out + inner + high + wide)
    elif kind == "spatial":
        r = rank(min(inner * high, out * wide))
        count = r * (inner * high + out * wide)
    elif kind == "separable":
        count = inner * high * wide + out * inner
    elif kind == "grouped":
        groups = groups_of(conv, share)
        count = inner * (inner // groups) + out * (inner // groups) * high * wide
    elif kind == "bottleneck":
        w = rank(min(out, inner))
        count = w * inner + w * w * high * wide + w * out + 8 * w + 4
    else:
        w, half = rank(inner), out // 2
        count = w * inner + half * w + (out - half) * w * high * wide
    return 4 * count
