"""Trust: what came from outside, how it stands in a prompt, and what it may not reach.

The text of a prompt's file is trusted. Inputs are data, and `Untrusted` ones may hold anything: they are fenced,
cleaned and followed, and no tool that changes something is reached from them without a person's yes."""

from intarsia.prompting.execute.trust.calls import Confirm, Decision, may_call, reasons
from intarsia.prompting.execute.trust.cleaning import Cleaned, clean, hidden_in
from intarsia.prompting.execute.trust.fence import Fence, Span, fence_for, fenced
from intarsia.prompting.execute.trust.filters import (
    Check,
    Flag,
    Refused,
    allow,
    at_most,
    but,
    deny,
    every,
    flags,
    hidden,
    passed,
    topics,
)
from intarsia.prompting.execute.trust.links import links
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
    "Check",
    "Cleaned",
    "Confirm",
    "Decision",
    "Fence",
    "Flag",
    "Refused",
    "Span",
    "Untrusted",
    "allow",
    "at_most",
    "but",
    "can_taint",
    "clean",
    "deny",
    "every",
    "fence_for",
    "fenced",
    "flags",
    "hidden",
    "hidden_in",
    "is_untrusted",
    "joined",
    "links",
    "may_call",
    "passed",
    "plain",
    "reasons",
    "released",
    "spans_of",
    "taint",
    "topics",
]
