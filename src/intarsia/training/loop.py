"""The training loop: AdamW, warm-up and decay, clipped gradients, batches of similar length, equal for equal seeds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from intarsia.errors import IntarsiaError
from intarsia.progress import track

if TYPE_CHECKING:
    import torch

    from intarsia.training.lora import LoraConfig

EASY = 1 / 3  # share of the steps that a curriculum keeps to what is easy


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


def rate(step: float, steps: int, config: LoraConfig) -> float:
    """The learning rate of a step (from 0) as a share of the peak."""
    warm = round(config.warmup * steps)
    if step < warm:
        return (step + 1) / (warm + 1)
    if config.schedule == "constant":
        return 1.0
    gone = min(1.0, (step - warm) / max(1, steps - warm))
    left = 1 - gone if config.schedule == "linear" else (1 + math.cos(math.pi * gone)) / 2
    return config.final_rate + (1 - config.final_rate) * left


class Training:
    """Minimising `loss_of(batch number)` over `batches` batches for `config.epochs`, in one go or in parts: it goes on
    where it was left.

    - groups: parameters, and the factor on the learning rate for each group. steps: of the whole. losses: so far.
    - loss_of: one loss, or several that add up, each in its turn (where all at once would take too much memory).
    - easy: batches that the first third of the steps is drawn from; all the others come in after it (a curriculum).

    With `config.minutes` it ends when they are over, at the latest: the learning rate falls by the clock."""

    def __init__(
        self, groups: Sequence[tuple[list[torch.nn.Parameter], float]], batches: int,
        loss_of: Callable[[int], torch.Tensor | Iterable[torch.Tensor]], config: LoraConfig, seed: int, task: str,
        easy: Sequence[int] = (),
    ):  # fmt: skip
        import random

        import torch

        steps = max(1, round(batches * config.epochs))
        self.steps = steps = min(steps, config.max_steps or steps)
        self.losses: list[float] = []
        self._batches, self._loss_of, self._config, self._task = batches, loss_of, config, task
        self._gone = 0.0  # share of the minutes that are used up
        self._optimiser = torch.optim.AdamW(
            [{"params": parameters, "lr": config.learning_rate * factor} for parameters, factor in groups],
            weight_decay=config.weight_decay,
            betas=config.betas,
        )
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimiser, lambda step: rate(max(step, self._gone * steps), steps, config)
        )
        self._easy, self._early, self._clock = list(easy), False, 0.0
        self._shuffle = random.Random(seed)
        self._order: list[int] = []
        self._everything = [p for parameters, _ in groups for p in parameters]

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Tensors (parameters and the optimiser's moments) and facts of a training that goes on later by `resume`."""
        moments = self._optimiser.state_dict()["state"]
        tensors = {f"parameter {i}": p.detach().clone() for i, p in enumerate(self._everything)}
        tensors |= {f"{key} {i}": value.clone() for i, some in moments.items() for key, value in some.items()}
        facts = {"losses": self.losses, "order": self._order, "clock": self._clock, "early": self._early}
        return tensors, facts | {"rates": self._schedule.get_last_lr(), "chance": self._shuffle.getstate()}

    def resume(self, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> None:
        """Go on from a `state` of a training of the same parameters, batches, settings and seed."""
        import torch

        with torch.no_grad():
            for i, parameter in enumerate(self._everything):
                parameter.copy_(tensors[f"parameter {i}"])
        given = self._optimiser.state_dict()
        for name, value in tensors.items():
            key, _, number = name.rpartition(" ")
            if key != "parameter":
                given["state"].setdefault(int(number), {})[key] = value
        self._optimiser.load_state_dict(given)
        self.losses[:] = facts["losses"]
        self._order, self._clock, self._early = list(facts["order"]), facts["clock"], facts["early"]
        version, numbers, rest = facts["chance"]
        self._shuffle.setstate((version, tuple(numbers), rest))
        self._schedule.last_epoch = len(self.losses)
        for group, rate_ in zip(self._optimiser.param_groups, facts["rates"], strict=True):
            group["lr"] = rate_

    def go(self, steps: int | None = None) -> Trained:
        """So many more steps, at most those that are left; None: all of these.

        Raises `IntarsiaError` when the loss is no longer a number."""
        import torch

        left = self.steps - len(self.losses)
        facts: dict[str, float | str] = {}
        before, began = self._clock, time.monotonic()
        for _ in track(range(left if steps is None else min(steps, left)), self._task, facts=facts):
            if self._config.minutes is not None:
                self._clock = before + time.monotonic() - began
                self._gone = self._clock / (60 * self._config.minutes)
                if self._gone >= 1 and self.losses:
                    break
            early = bool(self._easy) and max(len(self.losses) / self.steps, self._gone) < EASY
            if self._early and not early:
                # What was not seen yet comes first, that is last in the list.
                seen, unseen = list(self._easy), sorted(set(range(self._batches)) - set(self._easy))
                self._shuffle.shuffle(seen)
                self._shuffle.shuffle(unseen)
                self._order = seen + unseen
            self._early = early
            if not self._order:
                self._order = list(self._easy if early else range(self._batches))
                self._shuffle.shuffle(self._order)
            self._optimiser.zero_grad(set_to_none=True)
            given, total = self._loss_of(self._order.pop()), 0.0
            for loss in (given,) if isinstance(given, torch.Tensor) else given:
                if not torch.isfinite(loss):
                    raise IntarsiaError(
                        f"the loss is {loss.item()} at step {len(self.losses) + 1}: "
                        f"lower learning_rate (now {self._config.learning_rate})"
                    )
                loss.backward()
                total += loss.item()
            torch.nn.utils.clip_grad_norm_(self._everything, self._config.clip)
            self._optimiser.step()
            self._schedule.step()
            self.losses.append(total)
            recent = self.losses[-20:]
            facts["loss"] = round(sum(recent) / len(recent), 4)
        return Trained(self.losses, sum(p.numel() for p in self._everything))


def train(
    groups: Sequence[tuple[list[torch.nn.Parameter], float]],
    batches: int,
    loss_of: Callable[[int], torch.Tensor | Iterable[torch.Tensor]],
    config: LoraConfig,
    seed: int,
    task: str,
    easy: Sequence[int] = (),
) -> Trained:
    """A whole `Training`."""
    return Training(groups, batches, loss_of, config, seed, task, easy).go()
