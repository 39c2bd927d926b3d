"""One network that holds many: each group of channels at several widths, blocks that can be left out, kernels that can
be their own middle, all on the same weights.

A narrower group is its best units by score (so widths are nested), a smaller kernel the middle of the larger, a block
left out the way past it. Source: Cai et al. 2020 (Once-for-All), arXiv 1908.09791, section 3; training by the sandwich
rule: Yu & Huang 2019, arXiv 1903.05134, section 3.2, with the full network's answers as targets of the others."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from intarsia.compression.convolution.channels import channels_of, fit_attributes
from intarsia.compression.convolution.narrowing import apply_cut, unit_scores
from intarsia.compression.convolution.networks import (
    answers,
    as_pair,
    check_network,
    check_pixels,
    convolutions,
    mode,
)
from intarsia.compression.convolution.recovering import Lesson, jittered
from intarsia.compression.distillation.losses import LogitLoss, forward_kl
from intarsia.errors import BadInput, IntarsiaError
from intarsia.progress import track
from intarsia.sites import exchange, watching

WHO = "compression.search_filters"
SHARES = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)


@dataclass(frozen=True)
class Choice:
    """One of the networks. widths: units left of each group; blocks: whether each block that can go is there; kernels:
    size of each kernel that can be smaller."""

    widths: tuple[int, ...]
    blocks: tuple[bool, ...]
    kernels: tuple[int, ...]


class Elastic:
    """- network: the full one, a copy whose weights all share. blocks, kernels: names of what can go or be smaller.
    - widths: of each group, those to choose from, the smallest first; sizes: the same of each kernel."""

    def __init__(self, network: nn.Module, pixels: Tensor, *, shares: Sequence[float] = SHARES, multiple: int = 4):
        check_network(network, WHO)
        check_pixels(network, pixels, WHO)
        self.network = copy.deepcopy(network)
        self.channels = channels_of(self.network, pixels, WHO)
        scores = unit_scores(self.network, self.channels)
        self.ranked = [sorted(group.units, key=lambda u: -scores[u]) for group in self.channels.groups]
        self.widths = [_widths(len(units), shares, multiple) for units in self.ranked]
        self.blocks = blocks_that_can_go(self.network, pixels[:2])
        self.kernels = [name for name, conv in convolutions(self.network).items() if _can_shrink(conv)]
        self.sizes = [tuple(range(1, self._conv(name).kernel_size[0] + 1, 2)) for name in self.kernels]
        if all(len(w) == 1 for w in self.widths) and not (self.blocks or self.kernels):
            raise BadInput(f"{WHO}: nothing of {type(network).__name__} can be narrower, shallower or smaller")

    def _conv(self, name: str) -> Any:
        return self.network.get_submodule(name)

    @property
    def largest(self) -> Choice:
        """The full network."""
        return Choice(
            tuple(w[-1] for w in self.widths), (True,) * len(self.blocks), tuple(s[-1] for s in self.sizes)
        )  # fmt: skip

    @property
    def smallest(self) -> Choice:
        """The least of everything."""
        return Choice(tuple(w[0] for w in self.widths), (False,) * len(self.blocks), tuple(s[0] for s in self.sizes))

    def uniform(self, share: float) -> Choice:
        """Every group at about one share of its width; all blocks and kernels whole."""
        widths = tuple(min(w, key=lambda x, full=w[-1]: abs(x - share * full)) for w in self.widths)
        return replace(self.largest, widths=widths)

    def drawn(self, chance: random.Random) -> Choice:
        """One by chance."""
        return Choice(
            tuple(chance.choice(w) for w in self.widths), tuple(chance.random() < 0.7 for _ in self.blocks),
            tuple(s[-1] if chance.random() < 0.7 else chance.choice(s) for s in self.sizes),
        )  # fmt: skip

    def kept(self, choice: Choice) -> dict[tuple[str, int], Tensor]:
        """(tensor, dim) -> the indices that stay."""
        gone = {u for units, width in zip(self.ranked, choice.widths, strict=True) for u in units[width:]}
        return self.channels.kept(gone)

    def bytes_of(self, choice: Choice) -> int:
        """Bytes of the state of one of the networks, told from shapes."""
        kept, lost = self.kept(choice), self._lost(choice)
        small = dict(zip(self.kernels, choice.kernels, strict=True))
        total = 0
        for name, tensor in self.network.state_dict().items():
            if name.startswith(lost):
                continue
            count, shape = tensor.element_size(), list(tensor.shape)
            owner, _, leaf = name.rpartition(".")
            if leaf == "weight" and owner in small:
                shape[2:] = [small[owner]] * 2
            for dim, size in enumerate(shape):
                count *= len(kept[name, dim]) if (name, dim) in kept else size
            total += count
        return total

    def _lost(self, choice: Choice) -> tuple[str, ...]:
        return tuple(f"{name}." for name, there in zip(self.blocks, choice.blocks, strict=True) if not there)

    def answers(self, choice: Choice, pixels: Tensor) -> Tensor:
        """Logits of one of the networks on the shared weights, with gradients; in training, norms see the batch."""
        kept, lost = self.kept(choice), self._lost(choice)
        small = dict(zip(self.kernels, choice.kernels, strict=True))
        tensors: dict[str, Tensor] = {}
        for name, tensor in [*self.network.named_parameters(), *self.network.named_buffers()]:
            if name.startswith(lost):
                continue
            owner, _, leaf = name.rpartition(".")
            value = tensor
            for dim in range(tensor.dim()):
                if (name, dim) in kept:
                    value = value.index_select(dim, kept[name, dim].to(tensor.device))
            if leaf == "weight" and owner in small:
                value = _middle(value, small[owner])
            # A batch norm writes its running statistics: into a copy, for each network has others.
            tensors[name] = value if isinstance(tensor, nn.Parameter) else value.clone()
        with self._shaped(choice):
            return answers(_Called(self.network, tensors), pixels)

    @contextmanager
    def _shaped(self, choice: Choice) -> Iterator[None]:
        """What of a network is no tensor, as the choice has it: blocks past which it goes, paddings, groups."""
        undo: list[tuple[str, nn.Module]] = []
        settings: list[tuple[Any, str, Any]] = []
        kept = self.kept(choice)
        try:
            for name, size in zip(self.kernels, choice.kernels, strict=True):
                conv = self._conv(name)
                settings.append((conv, "padding", conv.padding))
                conv.padding = _padding(conv, size)
            for name in self.channels.depthwise:
                if (index := kept.get((f"{name}.weight", 0))) is not None:
                    conv = self._conv(name)
                    settings.append((conv, "groups", conv.groups))
                    conv.groups = len(index)
            for name, there in zip(self.blocks, choice.blocks, strict=True):
                if not there:
                    undo.append((name, self.network.get_submodule(name)))
                    self.network.set_submodule(name, nn.Identity())
            yield
        finally:
            for name, module in undo:
                self.network.set_submodule(name, module)
            for conv, key, value in reversed(settings):
                setattr(conv, key, value)

    def network_of(self, choice: Choice) -> nn.Module:
        """One of the networks by itself, with its own weights; batch-norm statistics are those of the full one."""
        small = copy.deepcopy(self.network)
        apply_cut(small, self.kept(choice))
        for name, size in zip(self.kernels, choice.kernels, strict=True):
            conv: Any = small.get_submodule(name)
            conv.padding = _padding(conv, size)
            conv.weight = nn.Parameter(_middle(conv.weight.detach(), size).clone())
        for name, there in zip(self.blocks, choice.blocks, strict=True):
            if not there:
                exchange(small, name, nn.Identity())
        fit_attributes(small, self.channels.depthwise)
        return small

    def train(
        self, pixels: Tensor, labels: Tensor | None, teacher: nn.Module, lesson: Lesson, seed: int = 0, draws: int = 2
    ) -> list[float]:
        """Teach the shared weights by the sandwich rule: each step the largest network (by labels and teacher), the
        smallest and `draws` others (by what the largest says). Gives the largest one's losses."""
        loss_of = LogitLoss(forward_kl, lesson.temperature, lesson.soft if labels is not None else 1.0)
        like_full = LogitLoss(forward_kl, lesson.temperature, 1.0)
        chance, generator = random.Random(seed), torch.Generator().manual_seed(seed)
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        steps = max(1, round(-(-len(pixels) // lesson.batch) * lesson.epochs))
        optimiser = torch.optim.AdamW(parameters, lr=lesson.learning_rate, weight_decay=lesson.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lesson.learning_rate, total_steps=steps + 1)
        losses: list[float] = []
        facts: dict[str, float | str] = {}
        teacher.eval()
        self.network.train()
        for _ in track(range(steps), "teaching the shared weights", facts=facts):
            rows = torch.randint(len(pixels), (lesson.batch,), generator=generator)
            given = jittered(pixels[rows], lesson.shift, lesson.flip, generator)
            optimiser.zero_grad()
            with torch.no_grad():
                told = answers(teacher, given)
            full = self.answers(self.largest, given)
            loss = loss_of(told, full, None if labels is None else labels[rows]).mean()
            loss.backward()
            told = full.detach()
            for choice in (self.smallest, *(self.drawn(chance) for _ in range(draws))):
                like_full(told, self.answers(choice, given)).mean().backward()
            nn.utils.clip_grad_norm_(parameters, 5.0)
            optimiser.step()
            schedule.step()
            losses.append(float(loss.detach()))
            if losses[-1] != losses[-1]:
                raise IntarsiaError(
                    f"{WHO}: the loss is no number after {len(losses)} steps; try a lower learning rate"
                )
            facts["loss"] = losses[-1]
        self.network.eval()
        return losses


class _Called(nn.Module):
    """A network with other tensors."""

    def __init__(self, network: nn.Module, tensors: dict[str, Tensor]):
        super().__init__()
        self._held = (network, tensors)  # in a tuple: torch must not register it

    def forward(self, pixels: Tensor) -> Any:
        network, tensors = self._held
        return functional_call(network, tensors, (pixels,))


def blocks_that_can_go(network: nn.Module, pixels: Tensor) -> list[str]:
    """Names of the smallest modules that give what they are given when all their weights are zero: filters beside a way
    past them that changes nothing."""
    inner = {
        name: module for name, module in network.named_modules()
        if name and sum(isinstance(m, nn.Conv2d) for m in module.modules()) and not isinstance(module, nn.ModuleList)
    }  # fmt: skip
    given: dict[str, Tensor] = {}
    with mode(network, training=False), torch.no_grad():
        with watching(network, inner, lambda name, x, y: given.setdefault(name, x.clone())):
            answers(network, pixels)
        found = [name for name, x in given.items() if _passes(inner[name], x)]
    order = [name for name in inner if name in found]
    return [name for name in order if not any(other.startswith(f"{name}.") for other in order)]


def _passes(block: nn.Module, given: Tensor) -> bool:
    silent = copy.deepcopy(block)
    for parameter in silent.parameters():
        parameter.zero_()
    for norm in silent.modules():
        if isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and not norm.affine:
            norm.running_mean.zero_()
    out = silent(given)
    return isinstance(out, Tensor) and out.shape == given.shape and torch.equal(out, given)


def _widths(full: int, shares: Sequence[float], multiple: int) -> tuple[int, ...]:
    found = {min(full, max(multiple, round(share * full / multiple) * multiple)) for share in shares}
    return tuple(sorted(found | {full}))


def _can_shrink(conv: nn.Conv2d) -> bool:
    """An odd square kernel that looks as far to every side as its padding makes up for."""
    if isinstance(conv.padding, str) or conv.in_channels < 4:
        return False
    (high, wide), padding, dilation = as_pair(conv.kernel_size), as_pair(conv.padding), as_pair(conv.dilation)
    return (
        high == wide > 1 and high % 2 == 1 and all(p >= d * (high // 2) for p, d in zip(padding, dilation, strict=True))
    )


def _padding(conv: nn.Conv2d, size: int) -> tuple[int, int]:
    less = (conv.weight.shape[2] - size) // 2
    high, wide = as_pair(conv.padding)
    dilation = as_pair(conv.dilation)
    return high - less * dilation[0], wide - less * dilation[1]


def _middle(weight: Tensor, size: int) -> Tensor:
    less = (weight.shape[2] - size) // 2
    return weight if not less else weight[:, :, less : less + size, less : less + size]
