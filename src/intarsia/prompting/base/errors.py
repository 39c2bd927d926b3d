"""What can go wrong between a prompt and an answer. Only a `BackendError` that says so is worth another try."""

from __future__ import annotations

from intarsia.errors import BadInput, IntarsiaError


class PromptingError(IntarsiaError):
    """Any error of the framework that is not the input's."""


class ContextOverflow(BadInput):
    """A prompt does not fit. needed, limit: tokens, those that are to be made included."""

    def __init__(self, needed: int, limit: int):
        super().__init__(
            f"the prompt and the tokens that are to be made need {needed}, the model takes {limit}: "
            "shorten the prompt, or ask for fewer tokens"
        )
        self.needed, self.limit = needed, limit


class InvalidOutput(PromptingError):
    """What a model wrote has not the form that was asked for. raw: all it wrote; errors: what is wrong with it."""

    def __init__(self, raw: str, errors: list[str]):
        super().__init__(f"the answer has not the wanted form: {'; '.join(errors)[:300]}")
        self.raw, self.errors = raw, errors


class BudgetExceeded(PromptingError):
    """More was asked for than the budget allows. what: tokens, calls, seconds or cost. wanted: by what was refused, at
    most; 0 where the budget was simply at its end."""

    def __init__(self, what: str, spent: float, limit: float, wanted: float = 0.0):
        state = f"is spent ({spent:g})"
        if spent < limit < spent + wanted:
            state = f"has {limit - spent:g} left, and this may take {wanted:g}"
        super().__init__(f"the budget of {limit:g} {what} {state}: give more, or ask for less")
        self.what, self.spent, self.limit, self.wanted = what, spent, limit, wanted


class ToolError(PromptingError):
    """A tool failed, or was called with what it does not take. tool: its name."""

    def __init__(self, tool: str, message: str):
        super().__init__(f"{tool}: {message}")
        self.tool = tool


class BackendError(PromptingError):
    """A model could not be asked. retryable: whether the same request may succeed later; after: seconds the server
    asks to wait, if it does; status: of HTTP, if it came by HTTP."""

    def __init__(self, message: str, *, retryable: bool = False, after: float | None = None, status: int | None = None):
        super().__init__(message)
        self.retryable, self.after, self.status = retryable, after, status
