"""The shared weights learn: each step the largest network, the smallest and a few drawn by chance, all by what the
network said before anything was cut.

    loss = sum over the networks of a step of KL(stopgrad p_base || p_network) / their number

Adapters (`tune: lora`) are two thin matrices beside each linear layer of the full network, cut with it; they are added
in at the end, so that what is sliced afterwards is plain.

Source: sandwich rule: Yu & Huang 2019, arXiv 1903.05134, §3.2; in-place distillation: the same, §3.3, with the base
as it was in place of the largest network."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from intarsia.compression.distillation.losses import LogitLoss, forward_kl
from intarsia.compression.elastic.choices import Choice, Space
from intarsia.compression.elastic.supernet import Supernet
from intarsia.compression.linears import linears
from intarsia.training.loop import Training, seeded
from intarsia.training.lora import LoraConfig

DRAWN = 2  # networks by chance in each step
KEEP_EVERY = 20  # steps


class Sandwich:
    """- config: of the optimiser and of the adapters. adapters: else all weights learn. keep: folder of what is
    finished, for a training that was stopped."""

    def __init__(
        self, supernet: Supernet, space: Space, windows: Sequence[Sequence[int]], config: LoraConfig, *,
        adapters: bool, order: Sequence[int] = (), keep: Path | None = None, seed: int = 0,
    ):  # fmt: skip
        self.supernet, self.space, self.config, self.seed, self.keep = supernet, space, config, seed, keep
        length = min(map(len, windows))
        self.rows = torch.tensor([list(w[:length]) for w in windows], device=supernet.base.device)
        supernet.unite()
        self.form = supernet.form(supernet.largest)
        self.ends = (supernet.largest, space.smallest(supernet.full[0], order))
        self.loss = LogitLoss(forward_kl)
        network: Any = self.form.model.network
        network.requires_grad_(False)
        self.pairs: dict[str, tuple[nn.Parameter, nn.Parameter]] = {}
        with seeded(seed):
            self.parameters = _adapters(self, network) if adapters else _all(network)
        size = max(1, min(config.batch_size, len(self.rows)))
        order_ = list(range(len(self.rows)))
        random.Random(seed).shuffle(order_)
        self.batches = [order_[i : i + size] for i in range(0, len(order_), size)]
        self.training = Training(
            [(self.parameters, 1.0)], len(self.batches), self._losses, config, seed, "teaching the shared weights"
        )

    def go(self) -> list[float]:
        """To the end; the losses. The full network has what was learned."""
        self._restore()
        while len(self.training.losses) < self.training.steps:
            before = len(self.training.losses)
            self.training.go(KEEP_EVERY if self.keep is not None else None)
            if len(self.training.losses) == before:
                break  # the minutes are over
            self._store()
        with torch.no_grad():
            for name, weight in self.weights().items():
                self.form.model.network.get_parameter(name).copy_(weight)
        self.form.model.network.requires_grad_(True)
        return self.training.losses

    def weights(self) -> Mapping[str, Tensor]:
        """Weights that are not the full network's own, by name."""
        scale = self.config.alpha / self.config.rank
        network = self.form.model.network
        return {
            name: network.get_parameter(name) + scale * (second @ first) for name, (first, second) in self.pairs.items()
        }

    def networks(self, step: int) -> list[Choice]:
        """Of one step. Drawn for each step by itself: a training that goes on draws what it would have drawn."""
        chance = random.Random(f"{self.seed} {step}")
        return [*self.ends, *(self.space.drawn(self.supernet.full[0], chance) for _ in range(DRAWN))]

    def _losses(self, number: int) -> Iterator[Tensor]:
        ids = self.rows[self.batches[number]]
        with torch.no_grad():
            told = self.supernet.base.network(input_ids=ids, use_cache=False).logits[:, :-1].flatten(0, 1)
        some = self.networks(len(self.training.losses))
        for choice in some:
            said = self.supernet.logits(choice, ids, weights=self.weights())[:, :-1].flatten(0, 1)
            yield self.loss(told, said).mean() / len(some)

    def _store(self) -> None:
        if self.keep is None:
            return
        from safetensors.torch import save_file

        self.keep.mkdir(parents=True, exist_ok=True)
        tensors, facts = self.training.state()
        part = self.keep / "sandwich.part"
        save_file(tensors, part, metadata={"facts": json.dumps(facts)})
        part.replace(self.keep / "sandwich.safetensors")

    def _restore(self) -> None:
        if self.keep is None or not (path := self.keep / "sandwich.safetensors").is_file():
            return
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            self.training.resume(tensors, json.loads(file.metadata()["facts"]))


def _adapters(task: Sandwich, network: Any) -> list[nn.Parameter]:
    """Of every linear layer of the blocks: [rank, in], drawn, and [out, rank], zero."""
    for layer in linears(task.form.model):
        weight: Any = layer.module.weight
        out, width = weight.shape
        rank = min(task.config.rank, out, width)
        first = nn.Parameter(torch.empty(rank, width, dtype=weight.dtype, device=weight.device))
        nn.init.kaiming_uniform_(first, a=5**0.5)
        task.pairs[f"{layer.name}.weight"] = first, nn.Parameter(weight.new_zeros(out, rank))
    return [p for pair in task.pairs.values() for p in pair]


def _all(network: Any) -> list[nn.Parameter]:
    network.requires_grad_(True)
    return list(network.parameters())
