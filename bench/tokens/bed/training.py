"""One training loop for all: it can be killed at any time, and the same call goes on where it was."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
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
    every_s: float = 60.0,
    say: Callable[[str], None] = print,
    check: Callable[[], str] | None = None,
) -> nn.Module:
    """Train `module` in place and leave its weights in `path`.

    - loss: of the batch of a step (0, 1, ...); what it draws at random must follow from that number.
    - rate: largest learning rate of AdamW: a straight rise over `warmup` steps, then a cosine down to 0.
    - every_s: seconds between two writings of `path` with `.part` behind it, from which the next call goes on.
    - check: called now and then, says how good the module is.

    A finished `path` is only read. Returns the module in eval mode."""
    if path.exists():
        module.load_state_dict(torch.load(path, weights_only=True))
        return module.eval()
    module.train()
    groups = [
        {"params": [p for p in module.parameters() if p.requires_grad and p.dim() > 1], "weight_decay": decay},
        {"params": [p for p in module.parameters() if p.requires_grad and p.dim() <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))
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
        for group in optimizer.param_groups:
            group["lr"] = rate * pace(step, steps, warmup)
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
    return module.eval()


def pace(step: int, steps: int, warmup: int) -> float:
    """Share of the largest learning rate at a step."""
    rise = min(1.0, (step + 1) / max(1, warmup))
    return rise * 0.5 * (1 + math.cos(math.pi * step / steps))


def write(state: Any, path: Path) -> None:
    """Write beside, then rename: a file that is there is whole."""
    beside = path.with_name(path.name + ".new")
    torch.save(state, beside)
    beside.replace(path)
