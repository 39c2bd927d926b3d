"""`fit`: the training loop on ready batches."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from intarsia.errors import BadInput, IntarsiaError
from intarsia.progress import tell
from intarsia.sites.dense import dense
from intarsia.sites.recomposing import NAME
from intarsia.tokens.alignment import Alignment, has_guides
from intarsia.tokens.losses import Outcome, Task, distillation
from intarsia.tokens.train import TrainConfig
from intarsia.tokens.training.annealing import annealed
from intarsia.tokens.training.keeping import Keeping, key_of

TASK = "training"
Batch = Mapping[str, Any]
Batches = Callable[[int], Batch] | Iterable[Batch]


@dataclass
class Fitted:
    """What was lost in each step: `task`; `aligned`, `distilled` where there was such a loss."""

    task: list[float] = field(default_factory=list)
    aligned: list[float] = field(default_factory=list)
    distilled: list[float] = field(default_factory=list)


def fit(network: Any, batches: Batches, task: Task, config: TrainConfig, *, seed: int = 0, facts: Any = None) -> Fitted:
    """Train `network` in place for `config.steps` steps, dense or with its tokens merged.

    - batches: the batch of a step (0, 1, ...), or an iterable that gives one batch a step.
    - task: the loss of a network on a batch: a scalar, or an `Outcome` (wanted for distillation).
    - config: `epochs` and `batch_size` are not looked at; with `trains` lora the adapters must be there already.
    - seed: of dropout, by step.
    - facts: JSON-able, what the batches are; a checkpoint of other facts is refused.

    The teacher of distillation is a frozen deep copy, run dense: the network's own weights move, so switching its rules
    off would let teacher and pupil drift together. It costs the weights once more, no gradients and no moments.

    When it ends, and when it is stopped, the plans, the mode (eval or train) and what wants gradients are as before.
    Raises `BadInput` when there is nothing to train or batches run out, `IntarsiaError` when a loss is no number."""
    named = _trained(network, config.trains)
    _check(named, config)
    aligns = config.align > 0 and has_guides(network)
    alignment = Alignment(network, config.alignment) if aligns else None
    settings = config.model_dump(mode="json", exclude={"checkpoint", "epochs"})
    kept = Keeping(config.checkpoint, key_of(named, settings, seed, facts) if config.checkpoint is not None else "")
    optimiser = _optimiser(named, config)
    teacher = _teacher(network) if config.distill > 0 else None  # (before anything kept is put into the network)
    done = Fitted()
    if (note := kept.load(named, optimiser)) is not None:
        done = Fitted(**note)
    first = len(done.task)
    if first >= config.steps:
        return done
    steps = _steps(batches, first, config.steps)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_training(network, named))
        remove = stack.enter_context(annealed(network))
        if alignment is not None:
            stack.enter_context(alignment.aligning())
        tell(TASK, first, config.steps)
        try:
            for step, batch in steps:
                remove(1.0 if config.anneal == 0 else min(1.0, step / (config.anneal * config.steps)))
                _set_rates(optimiser, pace(step, config.steps, config.warmup))
                with torch.random.fork_rng():
                    torch.manual_seed(seed * 1_000_003 + step)
                    _one(network, batch, task, config, alignment, teacher, done)
                _clip(named, config.clip)
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
                shown = {"loss": round(done.task[-1], 4)}
                tell(TASK, step + 1, config.steps, **shown)
                if kept.due() or step + 1 == config.steps:
                    kept.save(named, optimiser, vars(done))
        finally:
            tell(TASK, len(done.task), config.steps, finished=True)
            optimiser.zero_grad(set_to_none=True)
    return done


def pace(step: int, steps: int, warmup: float) -> float:
    """Share of the largest learning rate at a step: a straight rise over `warmup` of the steps, then a cosine to 0."""
    rise = max(1, round(warmup * steps)) if warmup > 0 else 0
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def _one(
    network: Any,
    batch: Batch,
    task: Task,
    config: TrainConfig,
    alignment: Alignment | None,
    teacher: Any,
    done: Fitted,
) -> None:
    """Gradients of one step, and its losses noted."""
    with alignment.watching(batch) if alignment is not None else contextlib.nullcontext():
        outcome = task(network, batch)
    outcome = outcome if isinstance(outcome, Outcome) else Outcome(outcome)
    parts = {"task": outcome.loss}
    total = outcome.loss if config.trains != "offsets" else outcome.loss.new_zeros(())
    if alignment is not None:
        parts["aligned"] = alignment.loss()
        total = total + config.align * parts["aligned"]
    if teacher is not None and config.trains != "offsets":
        with torch.no_grad(), dense():
            taught = task(teacher, batch)
        parts["distilled"] = distillation(outcome, taught if isinstance(taught, Outcome) else Outcome(taught))
        total = total + config.distill * parts["distilled"]
    values = {name: float(value.detach()) for name, value in parts.items()}
    for name, value in values.items():
        if not math.isfinite(value):
            raise IntarsiaError(
                f"the loss ({name}) is {value} at step {len(done.task) + 1}: lower learning_rate "
                f"(now {config.learning_rate:g})"
            )
    total.backward()
    for name, value in values.items():
        getattr(done, name).append(value)


def _steps(batches: Batches, first: int, steps: int) -> Iterator[tuple[int, Batch]]:
    if callable(batches):
        for step in range(first, steps):
            yield step, batches(step)
        return
    given = iter(batches)
    for step in range(steps):
        batch = next(given, None)
        if batch is None:
            raise BadInput(f"the batches ended after {step} of {steps} steps: give one for each step")
        if step >= first:
            yield step, batch


def _is_offset(name: str) -> bool:
    return f"{NAME}." in name and name.endswith("offsets")


def _trained(network: nn.Module, trains: str) -> dict[str, nn.Parameter]:
    """The parameters that learn, by name: those that want gradients, or the offsets alone."""
    named = dict(network.named_parameters())
    if trains == "offsets":
        named = {name: p for name, p in named.items() if _is_offset(name)}
        if not named:
            raise BadInput("this model has no offsets to train: merge it with cross (merge(model, cross=True))")
        return named
    return {name: p for name, p in named.items() if p.requires_grad or _is_offset(name)}


def _check(named: Mapping[str, nn.Parameter], config: TrainConfig) -> None:
    if not named:
        raise BadInput("no weight of this network wants a gradient: set requires_grad on what is to learn")
    if any(p.dtype == torch.float16 for p in named.values()):
        raise BadInput("weights in float16 cannot be trained (their steps round to nothing): load in float32")
    if config.trains == "offsets" and config.align == 0:
        raise BadInput("only the offsets are to be trained, and they learn from alignment alone: give align above 0")


def _optimiser(named: Mapping[str, nn.Parameter], config: TrainConfig) -> torch.optim.AdamW:
    """AdamW over three groups: matrices, other weights, offsets."""
    offsets = [p for name, p in named.items() if _is_offset(name)]
    weights = [p for name, p in named.items() if not _is_offset(name)]
    rate = config.learning_rate
    made = [
        {"params": [p for p in weights if p.dim() > 1], "weight_decay": config.weight_decay, "rate": rate},
        {"params": [p for p in weights if p.dim() <= 1], "weight_decay": 0.0, "rate": rate},
        {"params": offsets, "weight_decay": 0.0, "rate": rate * config.offset_rate},
    ]
    groups = [group | {"lr": group["rate"]} for group in made if group["params"]]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98))


def _clip(named: Mapping[str, nn.Parameter], largest: float) -> None:
    """Weights and offsets each by themselves: a task's large gradient must not shrink what the guides learn."""
    for of_offsets in (False, True):
        nn.utils.clip_grad_norm_([p for name, p in named.items() if _is_offset(name) is of_offsets], largest)


def _set_rates(optimiser: torch.optim.Optimizer, share: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = group["rate"] * share


def _teacher(network: Any) -> Any:
    """A frozen copy, as the network is now."""
    teacher = copy.deepcopy(network).eval()
    return teacher.requires_grad_(False)


@contextlib.contextmanager
def _training(network: nn.Module, named: Mapping[str, nn.Parameter]) -> Iterator[None]:
    """Training mode, and gradients for the named parameters alone."""
    modes = [(module, module.training) for module in network.modules()]
    wanted = [(p, p.requires_grad) for p in network.parameters()]
    chosen: set[int] = {id(p) for p in named.values()}
    network.train()
    for p, _ in wanted:
        if p.dtype.is_floating_point:
            p.requires_grad_(id(p) in chosen)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for p, was in wanted:
            if p.dtype.is_floating_point:
                p.requires_grad_(was)
