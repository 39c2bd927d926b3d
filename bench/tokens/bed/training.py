"""One training loop for all: it can be killed at any time, and the same call goes on where it was."""

from __future__ import annotations

import contextlib
import fcntl
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


def fit(
    module: nn.Module,
    loss: Callable[[int], Tensor],
    path: Path,
    *,
    steps: int,
    rate: float,
    warmup: int = 50,
    decay: float = 0.05,
    gently: Mapping[str, float] | None = None,
    every_s: float = 60.0,
    say: Callable[[str], None] = print,
    check: Callable[[], str] | None = None,
) -> nn.Module:
    """Train `module` in place and leave its weights in `path`.

    - loss: of the batch of a step (0, 1, ...); what it draws at random must follow from that number.
    - rate: largest learning rate of AdamW: a straight rise over `warmup` steps, then a cosine down to 0.
    - gently: beginning of a parameter's name -> its share of `rate`; for what is good already.
    - every_s: seconds between two writings of `path` with `.part` behind it, from which the next call goes on.
    - check: called now and then, says how good the module is.

    A finished `path` is only read. Returns the module in eval mode."""
    with _alone(path):
        if path.exists():
            module.load_state_dict(torch.load(path, weights_only=True))
        else:
            _train(module, loss, path, steps, rate, warmup, decay, gently or {}, every_s, say, check)
    return module.eval()


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Nobody else trains the same meanwhile: who comes second waits, then reads what the first has made."""
    with path.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _train(
    module: nn.Module,
    loss: Callable[[int], Tensor],
    path: Path,
    steps: int,
    rate: float,
    warmup: int,
    decay: float,
    gently: Mapping[str, float],
    every_s: float,
    say: Callable[[str], None],
    check: Callable[[], str] | None,
) -> None:
    module.train()
    groups = _groups(module, rate, decay, gently)
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98))
    largest = [group["lr"] for group in groups]
    part = path.with_suffix(".part")
    first = 0
    if part.exists():
        state = torch.load(part, weights_only=True)
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    saved = told = time.monotonic()
    began, mean = saved, math.nan
    for step in range(first, steps):
        for group, peak in zip(optimizer.param_groups, largest, strict=True):
            group["lr"] = peak * pace(step, steps, warmup)
        value = loss(step)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        now = time.monotonic()
        seen = value.item()
        mean = seen if math.isnan(mean) else 0.95 * mean + 0.05 * seen
        if now - told > every_s / 2:
            told = now
            said = f"{path.stem}: step {step + 1} of {steps}, loss {mean:.3f}"
            say(f"{said}, {(now - began) / (step + 1 - first):.3f} s a step")
        if now - saved > every_s:
            saved = now
            state = {"module": module.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}
            write(state, part)
            if check is not None:
                module.eval()
                say(f"{path.stem}: {check()}")
                module.train()
    write(module.state_dict(), path)
    part.unlink(missing_ok=True)


def _groups(module: nn.Module, rate: float, decay: float, gently: Mapping[str, float]) -> list[dict[str, Any]]:
    """Parameters by learning rate; vectors (gains, biases) do not decay."""
    found: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            share = next((share for start, share in gently.items() if name.startswith(start)), 1.0)
            found.setdefault((share, decay if parameter.dim() > 1 else 0.0), []).append(parameter)
    return [{"params": ps, "lr": rate * share, "weight_decay": d} for (share, d), ps in found.items()]


def pace(step: int, steps: int, warmup: int) -> float:
    """Share of the largest learning rate at a step."""
    rise = min(1.0, (step + 1) / max(1, warmup))
    return rise * 0.5 * (1 + math.cos(math.pi * step / steps))


def write(state: Any, path: Path) -> None:
    """Write beside, then rename: a file that is there is whole."""
    beside = path.with_name(path.name + ".new")
    torch.save(state, beside)
    beside.replace(path)
