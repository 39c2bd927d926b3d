"""OpenVINO as a `Runtime`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from intarsia.errors import IntarsiaError, MissingExtra, first_line
from intarsia.models.runtime.asking import checked_ids, known_of, threads_for


class OpenVino:
    """A folder with a stateful OpenVINO graph, run on the CPU. Where the CPU has bfloat16, it computes in that.

    - context_length: the most tokens, prompt and answer together."""

    name = "openvino"

    def __init__(self, path: str | Path, threads: int | None = None):
        try:
            import openvino
        except ImportError:
            raise MissingExtra("running an OpenVINO model", "openvino") from None
        self.path = Path(path)
        self.threads = threads_for(threads)
        graph = self.path / "openvino_model.xml"
        self.bytes = sum(file.stat().st_size for file in (graph, graph.with_suffix(".bin")))
        settings = {"INFERENCE_NUM_THREADS": self.threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
        try:
            core = openvino.Core()
            model = core.read_model(graph)
            self._names = {name for port in model.inputs for name in port.get_names()}
            self._request = core.compile_model(model, "CPU", settings).create_infer_request()
        except RuntimeError as error:
            raise IntarsiaError(f"{self.path} does not open in OpenVINO: {first_line(error)}") from None
        known = known_of(self.path)
        self.context_length: int = known.get("context_length") or 2048
        self.vocabulary: int = known.get("vocabulary") or model.outputs[0].get_partial_shape()[2].get_length()
        self.ends: tuple[int, ...] = tuple(known.get("end", ()))

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Logits of every position, float32 [token, vocabulary]."""
        ids = checked_ids(ids, 0, self.vocabulary, self.context_length)
        self._request.reset_state()
        return np.asarray(self._read(ids, 0), dtype=np.float32)

    def tokens(self, ids: Sequence[int], count: int) -> Iterator[int]:
        """`count` tokens that follow, greedily, whatever they are; the first comes once the prompt is read."""
        ids = checked_ids(ids, count, self.vocabulary, self.context_length)
        self._request.reset_state()
        row = self._read(ids, 0)
        for place in range(len(ids), len(ids) + count):
            token = int(row[-1].argmax())
            yield token
            row = self._read([token], place)

    def generate(self, ids: Sequence[int], max_new_tokens: int) -> list[int]:
        """The tokens that follow `ids`, greedily; ends early after an end token, which is included."""
        out: list[int] = []
        for token in self.tokens(ids, max_new_tokens):
            out.append(token)
            if token in self.ends or len(out) == max_new_tokens:
                break
        return out

    def _read(self, ids: Sequence[int], past: int) -> np.ndarray:
        """Logits [token, vocabulary] of tokens after `past` others; the engine keeps keys and values."""
        given: dict[str, Any] = {
            "input_ids": np.asarray([ids], dtype=np.int64),
            "attention_mask": np.ones((1, past + len(ids)), dtype=np.int64),
            "position_ids": np.arange(past, past + len(ids), dtype=np.int64)[None],
            "beam_idx": np.zeros(1, dtype=np.int32),
        }
        return self._request.infer({k: v for k, v in given.items() if k in self._names})[0][0]
