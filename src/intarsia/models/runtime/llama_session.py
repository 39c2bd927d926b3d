"""Rows of tokens in ik_llama.cpp, computed together: the `Session` of a GGUF file."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from intarsia.errors import IntarsiaError
from intarsia.models.runtime.llama_cpp import silent
from intarsia.models.runtime.session import Step

if TYPE_CHECKING:
    from intarsia.models.runtime.llama_cpp import LlamaCpp

LONGEST = 8192  # tokens of a row, where the file allows more: memory for all places is taken at once
FEW = 31  # tokens that every CPU reads right at once


class LlamaSession:
    """See `Session`. All rows share one store of keys and values; a row that is copied shares the places.

    - rows: at once. context_length: of a row; None: the file's, at most `LONGEST`. places: None: for eight rows of
      2048 tokens, or one of the longest."""

    def __init__(
        self, runtime: LlamaCpp, rows: int, context_length: int | None = None, places: int | None = None
    ):  # fmt: skip
        self._c, self._in, self._model = runtime._c, runtime._in, runtime._model
        self._path = runtime.path
        library = self._c._lib
        trained = _bound(library.llama_n_ctx_train, [ctypes.c_void_p], ctypes.c_int32)
        self._remove = _bound(library.llama_kv_cache_seq_rm, [ctypes.c_void_p, *[ctypes.c_int32] * 3], ctypes.c_bool)
        self._copy = _bound(library.llama_kv_cache_seq_cp, [ctypes.c_void_p, *[ctypes.c_int32] * 4], None)
        self.rows, self.vocabulary = rows, runtime.vocabulary
        self.context_length = context_length or min(trained(self._model.model), LONGEST)
        self.places = places or max(self.context_length, min(rows, 8) * 2048)
        try:
            with silent():
                # Its flash attention fails on long prompts where the CPU has no VNNI.
                self._context = self._in.IkContext(
                    self._model, n_ctx=self.places, n_threads=runtime.threads, flash_attn=False, n_seq_max=rows
                )
        except RuntimeError as error:
            raise IntarsiaError(f"{self._path} does not open in ik_llama.cpp: {error}") from None
        self._held = [0] * rows
        self._stretch: int = self._context._n_ubatch
        if not runtime.sure:
            runtime.stretch = runtime.stretch or self._proved_stretch()
            self._stretch = min(self._stretch, runtime.stretch)
        self.ends = tuple(i for i in range(self.vocabulary) if self._c.llama_token_is_eog(self._model.model, i))

    def read(self, steps: Sequence[Step], *, every: bool = False) -> list[np.ndarray]:
        for step in steps:
            self.cut(step.row, step.start)
            if self._held[step.row] != step.start:
                raise IntarsiaError(f"row {step.row} holds {self._held[step.row]} tokens, not {step.start}")
        places = [
            (token, step.start + i, step.row, number if every or i == len(step.ids) - 1 else -1)
            for number, step in enumerate(steps)
            for i, token in enumerate(step.ids)
        ]
        out: list[list[np.ndarray]] = [[] for _ in steps]
        for start in range(0, len(places), self._stretch):
            part = places[start : start + self._stretch]
            self._decode(part)
            for i, (_, _, row, number) in enumerate(part):
                self._held[row] += 1
                if number >= 0:
                    out[number].append(self._row(i))
        return [np.stack(rows) for rows in out]

    def cut(self, row: int, length: int) -> None:
        if self._held[row] > length:
            self._remove(self._context.ctx, row, length, -1)
            self._held[row] = length

    def copy(self, source: int, target: int, length: int) -> None:
        self.cut(target, 0)
        if length:
            self._copy(self._context.ctx, source, target, 0, length)
        self._held[target] = length

    def _proved_stretch(self) -> int:
        """Tokens that may be read at once. From 32 on the engine multiplies by other code, wrong for some kinds of
        weights (Q4_1) on some CPUs: it is tried, and left out where the numbers differ."""
        ids = [(7 * i + 1) % self.vocabulary for i in range(FEW + 1)]
        if len(ids) > self.places:
            return FEW
        (at_once,) = self.read([Step(0, ids, 0)])
        self.read([Step(0, ids[: FEW // 2], 0)])
        (parted,) = self.read([Step(0, ids[FEW // 2 :], FEW // 2)])
        self.cut(0, 0)
        apart = float(np.abs(at_once - parted).max())
        return self._stretch if apart <= 0.1 * float(np.abs(parted).max()) else FEW

    def _decode(self, part: Sequence[tuple[int, int, int, int]]) -> None:
        batch = self._c.llama_batch_init(len(part), 0, 1)
        try:
            batch.n_tokens = len(part)
            for i, (token, position, row, number) in enumerate(part):
                batch.token[i], batch.pos[i] = token, position
                batch.n_seq_id[i], batch.seq_id[i][0] = 1, row
                batch.logits[i] = int(number >= 0)
            if (code := self._context.decode(batch)) != 0:
                why = "no places are left" if code == 1 else f"code {code}"
                raise IntarsiaError(f"{self._path}: ik_llama.cpp could not read {len(part)} tokens ({why})")
        finally:
            self._c.llama_batch_free(batch)

    def _row(self, number: int) -> np.ndarray:
        pointer: Any = self._context.get_logits(number)
        return np.ctypeslib.as_array(pointer, (self.vocabulary,)).copy()


def _bound(function: Any, arguments: list[Any], result: Any) -> Any:
    """A function of the library that its Python package does not declare."""
    function.argtypes, function.restype = arguments, result
    return function
