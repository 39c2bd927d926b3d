"""A GGUF file in ik_llama.cpp, the quickest engine of the llama.cpp family on CPUs, as a `Runtime`."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from intarsia.errors import BadInput, IntarsiaError, MissingExtra
from intarsia.models.gguf_header import tensor_types
from intarsia.models.runtime.asking import checked_ids, threads_for
from intarsia.models.runtime.session import Step, greedy, until_end

if TYPE_CHECKING:
    from intarsia.models.runtime.llama_session import LlamaSession

CONTEXT = 2048  # tokens, whatever the file allows: memory for all of them is taken at once
SURE = {"F32": 0, "F16": 1, "Q4_0": 2, "Q5_0": 6, "Q8_0": 8, "BF16": 30}
"""Types of tensors, as ggml counts them, that the engine reads right however many tokens come at once. Those with a
minimum (Q4_1, Q5_1) it does not where 128 does not divide a row; of the others nothing is known."""


def check() -> None:
    """Raise `MissingExtra` where the engine is not installed, or does not load on this machine."""
    try:
        from ik_llama_cpp import _ctypes_api, _internals  # noqa: F401
    except (ImportError, OSError):
        raise MissingExtra("running a GGUF file", "llama") from None


class LlamaCpp:
    """A GGUF file, run on the CPU.

    - context_length: the most tokens, prompt and answer together.
    - stretch: tokens that may be read at once, as a session found out; None: nobody tried yet, or any number."""

    name = "gguf"

    def __init__(self, path: str | Path, threads: int | None = None, context_length: int = CONTEXT):
        check()
        from ik_llama_cpp import _ctypes_api, _internals

        self._c, self._in = _ctypes_api, _internals
        self.path = Path(path)
        self.threads = threads_for(threads)
        self.bytes = self.path.stat().st_size
        self.context_length = context_length
        self.stretch: int | None = None
        try:
            with silent():
                self._model = _internals.IkModel(str(self.path))
        except RuntimeError as error:
            raise IntarsiaError(f"{self.path} does not open in ik_llama.cpp: {error}") from None
        self.vocabulary: int = self._model.n_vocab

    @cached_property
    def sure(self) -> bool:
        """Whether the file has only tensors that the engine reads right however many tokens come at once."""
        try:
            return tensor_types(self.path) <= {*SURE.values()}
        except BadInput:  # the engine reads it, whatever we think of its header
            return False

    @cached_property
    def _alone(self) -> LlamaSession:
        """One row, made when it is first asked for: whoever serves has rows of his own."""
        from intarsia.models.runtime.llama_session import LlamaSession

        return LlamaSession(self, 1, self.context_length, self.context_length)

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Logits of every position, float32 [token, vocabulary]."""
        ids = checked_ids(ids, 0, self.vocabulary, self.context_length)
        return self._alone.read([Step(0, ids, 0)], every=True)[0]

    def tokens(self, ids: Sequence[int], count: int) -> Iterator[int]:
        """`count` tokens that follow, greedily, whatever they are; the first comes once the prompt is read."""
        return greedy(self._alone, checked_ids(ids, count, self.vocabulary, self.context_length), count)

    def generate(self, ids: Sequence[int], max_new_tokens: int) -> list[int]:
        """The tokens that follow `ids`, greedily; ends early after an end token, which is included."""
        return until_end(self.tokens(ids, max_new_tokens), self._alone.ends)

    def session(self, rows: int = 1, context_length: int | None = None) -> LlamaSession:
        """The file asked step by step: `rows` at once, each up to `context_length` tokens (None: as the file has)."""
        from intarsia.models.runtime.llama_session import LlamaSession

        return LlamaSession(self, rows, context_length)


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """The engine tells its life to the standard error; it is not asked."""
    logging.getLogger("ik_llama_cpp").setLevel(logging.ERROR)
    saved, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nothing)
