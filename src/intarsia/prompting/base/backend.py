"""`Backend`: what everything above asks, whatever runs the model."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from intarsia.prompting.base.messages import Input, ToolSpec
from intarsia.prompting.base.replies import Delta, Reply, Sampling

if TYPE_CHECKING:
    import numpy as np

    from intarsia.prompting.base.constraint import Constraint


@runtime_checkable
class Backend(Protocol):
    """A language model that can be asked.

    - name: what people call it. fingerprint: equal for equal weights, adapters and tokenizer: part of a cache's keys.
    - context_length: tokens, prompt and answer together; None: not known.
    - tokenizer: the Hugging Face tokenizer, where it is known here; None: the server alone knows.

    `constraint`: a form the text must have. `tools`: what may be called; calls come parsed, in `Reply.calls`. Raises
    `ContextOverflow`, `BackendError`, and `BadInput` for what this backend cannot do: nothing is ignored silently."""

    name: str
    fingerprint: str
    context_length: int | None
    tokenizer: Any

    async def generate(
        self, prompt: Input, sampling: Sampling = Sampling(), *, constraint: Constraint | None = None,
        tools: Sequence[ToolSpec] = (),
    ) -> Reply:  # fmt: skip
        """One answer, whole."""
        ...

    def stream(
        self, prompt: Input, sampling: Sampling = Sampling(), *, constraint: Constraint | None = None,
        tools: Sequence[ToolSpec] = (),
    ) -> AsyncIterator[Delta]:  # fmt: skip
        """The same answer as it comes. Closing the iterator cancels the work."""
        ...

    async def score(self, prompt: Input, choices: Sequence[str]) -> list[float]:
        """Natural log probability of each choice, all its tokens, as what comes after the prompt. No generation.
        `Scores`, where it is known what they took."""
        ...

    async def embed(self, texts: Sequence[str]) -> np.ndarray:
        """[text, width] float32, each of length one."""
        ...

    def count(self, prompt: Input, tools: Sequence[ToolSpec] = ()) -> int:
        """Tokens that the prompt has, template included."""
        ...

    async def close(self) -> None:
        """Let go of what it holds; requests under way end first."""
        ...
