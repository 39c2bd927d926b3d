"""The training loop: AdamW, warm-up and decay, clipped gradients, batches of similar length, equal for equal seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from intarsia.errors import IntarsiaError
from intarsia.progress import track

if TYPE_CHECKING:
    import torch

    from intarsia.adaptation.lora import LoraConfig


@dataclass(frozen=True)
class Trained:
    """Loss of every step, and how many parameters were trained."""

    losses: list[float]
    parameters: int


@contextmanager
def seeded(seed: int):
    """Torch's global generator from `seed` inside the block, as it was after it."""
    import torch

    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if torch.cuda.is_available() else []):
        torch.manual_seed(seed)
        yield


def fixed_batches(lengths: Sequence[int], size: int, seed: int) -> list[list[int]]:
    """Row numbers in batches of `size` rows of similar length; which rows meet depends on the seed where lengths tie.

    The batches keep their members through all epochs (so that states can be stored per batch); their order is drawn
    anew in each."""
    import random

    order = list(range(len(lengths)))
    random.Random(seed).shuffle(order)
    order.sort(key=lambda i: lengths[i])
    return [order[i : i + size] for i in range(0, len(order), size)]


def rate(step: int, steps: int, config: LoraConfig) -> float:
    """The learning rate of a step (from 0) as a share of the peak."""
    warm = round(config.warmup * steps)
    if step < warm:
        return (step + 1) / (warm + 1)
    if config.schedule == "constant":
        return 1.0
    gone = (step - warm) / max(1, steps - warm)
    left = 1 - gone if config.schedule == "linear" else (1 + math.cos(math.pi * gone)) / 2
    return config.final_rate + (1 - config.final_rate) * left


def train(
    groups: Sequence[tuple[list[torch.nn.Parameter], float]],
    batches: int,
    loss_of: Callable[[int], torch.Tensor],
    config: LoraConfig,
    seed: int,
    task: str,
) -> Trained:
    """Minimise `loss_of(batch number)` over `batches` batches for `config.epochs`.

    - groups: parameters, and the factor on the learning rate for each group.

    Raises `IntarsiaError` when the loss is no longer a number."""
    import random

    import torch

    steps = max(1, round(batches * config.epochs))
    steps = min(steps, config.max_steps or steps)
    optimiser = torch.optim.AdamW(
        [{"params": parameters, "lr": config.learning_rate * factor} for parameters, factor in groups],
        weight_decay=config.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rate(step, steps, config))
    shuffle = random.Random(seed)
    order: list[int] = []
    losses: list[float] = []
    facts: dict[str, float | str] = {}
    everything = [p for parameters, _ in groups for p in parameters]
    for _ in track(range(steps), task, facts=facts):
        if not order:
            order = list(range(batches))
            shuffle.shuffle(order)
        optimiser.zero_grad(set_to_none=True)
        loss = loss_of(order.pop())
        if not torch.isfinite(loss):
            raise IntarsiaError(
                f"the loss is {loss.item()} at step {len(losses) + 1}: lower learning_rate (now {config.learning_rate})"
            )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(everything, config.clip)
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
        recent = losses[-20:]
        facts["loss"] = round(sum(recent) / len(recent), 4)
    return Trained(losses, sum(p.numel() for p in everything))
