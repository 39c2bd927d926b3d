"""The base level: one protocol over every language model, whatever runs it."""

from intarsia.prompting.base.backend import Backend
from intarsia.prompting.base.constraint import Constraint
from intarsia.prompting.base.errors import (
    BackendError,
    BudgetExceeded,
    ContextOverflow,
    InvalidOutput,
    PromptingError,
    ToolError,
)
from intarsia.prompting.base.messages import Call, Input, Message, ToolSpec
from intarsia.prompting.base.replies import Delta, Reply, Sampling, TokenLogprob, Usage

__all__ = [
    "Backend",
    "BackendError",
    "BudgetExceeded",
    "Call",
    "Constraint",
    "ContextOverflow",
    "Delta",
    "Input",
    "InvalidOutput",
    "Message",
    "PromptingError",
    "Reply",
    "Sampling",
    "TokenLogprob",
    "ToolError",
    "ToolSpec",
    "Usage",
]
