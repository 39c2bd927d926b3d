"""The base level: one protocol over every language model, whatever runs it.

    backend = open_backend("smollm2-135m", cache="answers.sqlite", budget=Budget(tokens=10_000))
    reply = await backend.generate([Message("user", "Name a river.")], Sampling(max_tokens=20))
    reply = wait(backend.generate("A river: "))        # from plain code

What runs a model: `open_backend` knows by its name. What goes around any: `Cached`, `Metered`, `Retrying`, `Traced`."""

from __future__ import annotations

from intarsia.lazy import lazily
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
from intarsia.prompting.base.replies import Delta, Reply, Sampling, Scores, TokenLogprob, Usage

_HOMES = {
    "Budget": "budget",
    "Cached": "cache",
    "FailedPrompt": "many",
    "FakeBackend": "fake",
    "Metered": "metered",
    "OpenAICompatible": "openai_compatible",
    "Price": "budget",
    "Retrying": "retrying",
    "Traced": "traced",
    "Wrapper": "wrapping",
    "as_delta": "whole",
    "assembled": "whole",
    "collected": "whole",
    "generate_many": "many",
    "innermost": "wrapping",
    "open_backend": "opening",
    "wait": "waiting",
}

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
    "Scores",
    "TokenLogprob",
    "ToolError",
    "ToolSpec",
    "Usage",
    *_HOMES,
]

__getattr__ = lazily(__name__, _HOMES)
