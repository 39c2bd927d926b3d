"""A GGUF file in ik_llama.cpp, the quickest engine of the llama.cpp family on CPUs, as a `Runtime`."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from intarsia.errors import IntarsiaError, MissingExtra
from intarsia.models.runtime.asking import checked_ids, threads_for

if TYPE_CHECKING:
    from intarsia.models.runtime.llama_session import LlamaSession

FEW = 31  # tokens that every CPU reads right at once
CONTEXT = 2048  # tokens, whatever the file allows: memory for all of them is taken at once


def check() -> None:
    """Raise `MissingExtra` where the engine is not installed, or does not load on this machine."""
    try:
        from ik_llama_cpp import _ctypes_api, _internals  # noqa: F401
    except (ImportError, OSError):
        raise MissingExtra("running a GGUF file", "llama") from None


class LlamaCpp:
    """A GGUF file, run on the CPU.

    - context_length: the most tokens, prompt and answer together. stretch: tokens that are read at once."""

    name = "gguf"

    def __init__(self, path: str | Path, threads: int | None = None, context_length: int = CONTEXT):
        check()
        from ik_llama_cpp import _ctypes_api, _internals

        self._c, self._in = _ctypes_api, _internals
        self.path = Path(path)
        self.threads = threads_for(threads)
        self.bytes = self.path.stat().st_size
        self.context_length = context_length
        try:
            with silent():
                self._model = _internals.IkModel(str(self.path))
                # Its flash attention fails on long prompts where the CPU has no VNNI.
                self._context = _internals.IkContext(
                    self._model, n_ctx=self.context_length, n_threads=self.threads, flash_attn=False
                )
        except RuntimeError as error:
            raise IntarsiaError(f"{self.path} does not open in ik_llama.cpp: {error}") from None
        self.vocabulary: int = self._model.n_vocab
        self.stretch: int = self._context._n_ubatch
        self.stretch = self._proved_stretch()

    def _proved_stretch(self) -> int:
        """Tokens that may be read at once. From 32 on the engine multiplies by other code, wrong for some kinds of
        weights (Q4_1) on some CPUs: it is tried, and left out where the numbers differ."""
        ids = [(7 * i + 1) % self.vocabulary for i in range(FEW + 1)]
        if len(ids) > self.context_length:
            return FEW
        self._context.kv_cache_clear()
        at_once = self._run(ids, 0, False)[0]
        self._context.kv_cache_clear()
        self._run(ids[: FEW // 2], 0, False)
        parted = self._run(ids[FEW // 2 :], FEW // 2, False)[0]
        self._context.kv_cache_clear()
        apart = float(np.abs(at_once - parted).max())
        return self.stretch if apart <= 0.1 * float(np.abs(parted).max()) else FEW

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Logits of every position, float32 [token, vocabulary]."""
        ids = self._begun(ids, 0)
        return np.concatenate([self._read(ids, start, True) for start in self._starts(ids)])

    def generate(self, ids: Sequence[int], max_new_tokens: int) -> list[int]:
        """The tokens that follow `ids`, greedily; ends early after an end token, which is included."""
        ids = self._begun(ids, max_new_tokens)
        row = np.empty(0)
        for start in self._starts(ids):
            row = self._read(ids, start, False)[-1:]
        out: list[int] = []
        while len(out) < max_new_tokens:
            out.append(int(row[-1].argmax()))
            if self._c.llama_token_is_eog(self._model.model, out[-1]) or len(out) == max_new_tokens:
                break
            row = self._run([out[-1]], len(ids) + len(out) - 1, False)
        return out

    def session(self, rows: int = 1, context_length: int | None = None) -> LlamaSession:
        """The file asked step by step: `rows` at once, each up to `context_length` tokens (None: as the file has)."""
        from intarsia.models.runtime.llama_session import LlamaSession

        return LlamaSession(self, rows, context_length)

    def _begun(self, ids: Sequence[int], room: int) -> list[int]:
        """Token ids that may be read, with nothing left of what was read before."""
        ids = checked_ids(ids, room, self.vocabulary, self.context_length)
        self._context.kv_cache_clear()
        return ids

    def _starts(self, ids: list[int]) -> range:
        """Where each stretch begins that is read at once."""
        return range(0, len(ids), self.stretch)

    def _read(self, ids: list[int], start: int, every: bool) -> np.ndarray:
        return self._run(ids[start : start + self.stretch], start, every)

    def _run(self, ids: list[int], position: int, every: bool) -> np.ndarray:
        """Logits [token, vocabulary] of `every` token, or of the last alone."""
        batch = self._in.make_batch_range(ids, pos_start=position, logits_last=True)
        try:
            if every:
                for i in range(len(ids)):
                    batch.logits[i] = 1
            if self._context.decode(batch) != 0:
                raise IntarsiaError(f"{self.path}: ik_llama.cpp could not read {len(ids)} tokens at {position}")
        finally:
            self._c.llama_batch_free(batch)
        rows = range(len(ids)) if every else [len(ids) - 1]
        return np.stack([self._row(i) for i in rows])

    def _row(self, number: int) -> np.ndarray:
        pointer: Any = self._context.get_logits(number)
        return np.ctypeslib.as_array(pointer, (self.vocabulary,)).copy()


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
