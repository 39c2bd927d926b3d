"""A chain of thought as steps, and the ways to spoil one."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence


def split_steps(chain: str, most: int) -> list[str]:
    """The steps of a chain: its lines, or the sentences of a single line. Joined they are the chain again.

    What comes after `most` steps stays in the last one."""
    parts = re.findall(r"[^\n]*\n+|[^\n]+$", chain)
    if len([p for p in parts if p.strip()]) < 2:
        parts = [p for p in re.split(r"(?<=[.!?])(?=\s)", chain) if p]
    steps: list[str] = []
    for part in parts:
        if steps and (not part.strip() or not steps[-1].strip() or len(steps) >= most):
            steps[-1] += part  # white space alone is no step
        else:
            steps.append(part)
    return steps


def mistaken(step: str, others: Sequence[str], chance: random.Random) -> str:
    """The step with a mistake: its last number changed; without one, another chain's step in its place; without any
    other, its words in another order."""
    numbers = list(re.finditer(r"\d+", step))
    if numbers:
        last = numbers[-1]
        wrong = str(int(last.group()) + chance.randint(1, 9))
        return step[: last.start()] + wrong + step[last.end() :]
    head, tail = step[: len(step) - len(step.lstrip())], step[len(step.rstrip()) :]
    fitting = [other.strip() for other in others if other.strip() and other.strip() != step.strip()]
    if fitting:
        return head + chance.choice(fitting) + tail
    words = step.split()
    return head + " ".join(chance.sample(words, len(words))) + tail


def filled(filler: str, filler_tokens: int, tokens: int) -> str:
    """The filler as often as it takes to be about `tokens` tokens long, at least once."""
    return filler * max(1, round(tokens / max(filler_tokens, 1)))
