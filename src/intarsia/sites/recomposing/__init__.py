"""Blocks run with another number of tokens than they were given: what token merging stands on.

- `Rule`, `Seen`, `Step`: what a wing decides, what it sees, what it answers.
- `recompose`, `installed`, `remove`, `dense`: put rules on a network's towers, look, take off, switch off for a while.
- `Flow`, `Trace`: the bookkeeping of one forward.
- `Opened`, `Given`: the blocks run one by one, in halves, on streams of the caller's (expert parallelism)."""

from intarsia.sites.dense import dense
from intarsia.sites.recomposing.flow import Flow, Trace
from intarsia.sites.recomposing.installing import NAME, installed, recompose, remove
from intarsia.sites.recomposing.opening import Given, Opened
from intarsia.sites.recomposing.recomposed import Recomposed
from intarsia.sites.recomposing.rule import Rule, Seen
from intarsia.sites.recomposing.step import Step

__all__ = [
    "NAME",
    "Flow",
    "Given",
    "Opened",
    "Recomposed",
    "Rule",
    "Seen",
    "Step",
    "Trace",
    "dense",
    "installed",
    "recompose",
    "remove",
]
