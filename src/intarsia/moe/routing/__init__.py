"""Routing traces: which experts every token was sent to, recorded, kept in compact files, split and counted."""

from typing import Any

from intarsia.moe.routing.trace import Trace, TraceFacts

__all__ = ["Counts", "Trace", "TraceFacts"]


def __getattr__(name: str) -> Any:
    if name != "Counts":
        raise AttributeError(f"module 'intarsia.moe.routing' has no attribute '{name}'")
    from intarsia.moe.routing.counts import Counts

    return Counts
