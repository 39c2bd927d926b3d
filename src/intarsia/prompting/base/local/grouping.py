"""Which prompts are read together in a forward: padding costs as much as tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def grouped(unread: Sequence[T], most: int, size: Callable[[T], int]) -> tuple[list[T], int]:
    """Those that are read next, the first and others of about its size; tokens of each at most.

    - most: tokens of all together, padding included; of what is longer, that many are read. size: tokens of one."""
    if not unread:
        return [], 0
    width = min(size(unread[0]), most)
    group = [unread[0]]
    for one in unread[1:]:
        wide = max(width, min(size(one), most))
        least = min(min(size(other), most) for other in (*group, one))
        if (len(group) + 1) * wide <= most and 2 * least >= wide:
            group.append(one)
            width = wide
    return group, width
