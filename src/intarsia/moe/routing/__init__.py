"""Routing traces: which experts every token was sent to, recorded, kept in compact files, split and counted."""

from intarsia.moe.routing.counts import Counts
from intarsia.moe.routing.trace import Trace, TraceFacts

__all__ = ["Counts", "Trace", "TraceFacts"]
