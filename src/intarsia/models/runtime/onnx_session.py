"""One row of tokens in ONNX Runtime GenAI: the `Session` of its folders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from intarsia.errors import BadInput
from intarsia.models.runtime.session import Step

if TYPE_CHECKING:
    from intarsia.models.runtime.onnx_genai import OnnxGenAI


class OnnxSession:
    """See `Session`: one row.

    - context_length: None: the model's."""

    rows = 1

    def __init__(self, runtime: OnnxGenAI, context_length: int | None = None):
        self._runtime = runtime
        self.vocabulary = runtime.vocabulary
        self.context_length = self.places = min(context_length or runtime.context_length, runtime.context_length)
        self.ends = runtime.ends
        self._generator = runtime.generator(self.context_length)
        self._held = 0

    def read(self, steps: Sequence[Step], *, every: bool = False) -> list[np.ndarray]:
        if len(steps) != 1 or steps[0].row:
            raise BadInput("this engine reads one row at a time")
        step = steps[0]
        self.cut(0, step.start)
        if not every or len(step.ids) == 1:
            return [self._append(step.ids)[-1:]]
        rows = self._append(step.ids)
        if len(rows) == len(step.ids):
            return [rows]
        # An export that gives the last position's logits alone.
        self.cut(0, step.start)
        return [np.concatenate([self._append([token])[-1:] for token in step.ids])]

    def cut(self, row: int, length: int) -> None:
        if self._held > length:
            self._generator.rewind_to(length)
            self._held = length

    def copy(self, source: int, target: int, length: int) -> None:
        raise BadInput("this engine has one row: there is none to copy to")

    def _append(self, ids: Sequence[int]) -> np.ndarray:
        """Logits [token or 1, vocabulary] of tokens that follow."""
        self._generator.append_tokens(np.asarray(ids, dtype=np.int32))
        self._held += len(ids)
        return np.array(self._generator.get_output("logits"), dtype=np.float32)[0]
