"""Trust: what came from outside, how it stands in a prompt, and what it may not reach.

The text of a prompt's file is trusted. Inputs are data, and `Untrusted` ones may hold anything: they are fenced,
cleaned and followed, and no tool that changes something is reached from them without a person's yes."""

from intarsia.prompting.execute.trust.calls import Confirm, Decision, may_call, reasons
from intarsia.prompting.execute.trust.cleaning import Cleaned, clean
from intarsia.prompting.execute.trust.fence import Fence, Span, fence_for, fenced
from intarsia.prompting.execute.trust.untrusted import (
    Untrusted,
    can_taint,
    is_untrusted,
    joined,
    plain,
    released,
    spans_of,
    taint,
)

__all__ = [
    "Cleaned",
    "Confirm",
    "Decision",
    "Fence",
    "Span",
    "Untrusted",
    "can_taint",
    "clean",
    "fence_for",
    "fenced",
    "is_untrusted",
    "joined",
    "may_call",
    "plain",
    "reasons",
    "released",
    "spans_of",
    "taint",
]
