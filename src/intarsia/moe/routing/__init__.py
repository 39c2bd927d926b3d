"""Routing traces: which experts every token was sent to, recorded, kept in compact files, split and counted."""

from intarsia.lazy import lazily
from intarsia.moe.routing.trace import Trace, TraceFacts

__all__ = ["Counts", "Trace", "TraceFacts"]

__getattr__ = lazily(__name__, {"Counts": "counts"})
