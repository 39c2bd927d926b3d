"""Rows of tokens in OpenVINO, each in a request of its own: the `Session` of its folders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from intarsia.errors import IntarsiaError
from intarsia.models.runtime.session import Step

if TYPE_CHECKING:
    from intarsia.models.runtime.openvino import OpenVino


class OpenVinoSession:
    """See `Session`. Rows share the weights; they are computed one after another, for the graph's cache has one length
    for all rows of a batch.

    - rows: at once; each is made when it is first used. context_length: of a row; None: the model's."""

    def __init__(self, runtime: OpenVino, rows: int = 1, context_length: int | None = None):
        self._runtime = runtime
        self.rows, self.vocabulary, self.ends = rows, runtime.vocabulary, runtime.ends
        self.context_length = min(context_length or runtime.context_length, runtime.context_length)
        self.places = rows * self.context_length  # memory is taken as it is needed
        self._requests: dict[int, Any] = {}
        self._held = [0] * rows

    def read(self, steps: Sequence[Step], *, every: bool = False) -> list[np.ndarray]:
        out = []
        for row, ids, start in steps:
            self.cut(row, start)
            if self._held[row] != start:
                raise IntarsiaError(f"row {row} holds {self._held[row]} tokens, not {start}")
            logits = self._infer(row, ids, start)
            self._held[row] += len(ids)
            out.append(logits if every else logits[-1:])
        return out

    def cut(self, row: int, length: int) -> None:
        if self._held[row] <= length:
            return
        request = self._requests[row]
        if length:
            for state in request.query_state():
                state.state = self._first(state.state, self._held[row], length)
        else:
            request.reset_state()
        self._held[row] = length

    def copy(self, source: int, target: int, length: int) -> None:
        self.cut(target, 0)
        if not length:
            return
        kept = {state.name: state.state for state in self._request(source).query_state()}
        for state in self._request(target).query_state():
            state.state = self._first(kept[state.name], self._held[source], length)
        self._held[target] = length

    def _request(self, row: int) -> Any:
        if row not in self._requests:
            self._requests[row] = self._runtime.request()
            self._requests[row].reset_state()
        return self._requests[row]

    def _infer(self, row: int, ids: Sequence[int], past: int) -> np.ndarray:
        """Logits [token, vocabulary] of tokens after `past` others."""
        given: dict[str, Any] = {
            "input_ids": np.asarray([ids], dtype=np.int64),
            "attention_mask": np.ones((1, past + len(ids)), dtype=np.int64),
            "position_ids": np.arange(past, past + len(ids), dtype=np.int64)[None],
            "beam_idx": np.zeros(1, dtype=np.int32),
        }
        found = self._request(row).infer({k: v for k, v in given.items() if k in self._runtime.inputs})
        return np.asarray(found[0][0], dtype=np.float32)

    def _first(self, state: Any, held: int, length: int) -> Any:
        """A copy of the first `length` of `held` tokens of keys or values [1, head, token, width]."""
        import openvino

        kept = np.asarray(state.data)
        if kept.ndim != 4 or kept.shape[2] != held:
            raise IntarsiaError(
                f"{self._runtime.path}: OpenVINO keeps a state of {list(kept.shape)} for {held} tokens, which is none "
                "of keys or values [row, head, token, width]"
            )
        return openvino.Tensor(np.ascontiguousarray(kept[:, :, :length]))
