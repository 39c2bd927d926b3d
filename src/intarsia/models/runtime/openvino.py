"""OpenVINO as a `Runtime`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from intarsia.errors import IntarsiaError, MissingExtra, first_line
from intarsia.models.runtime.asking import checked_ids, known_of, threads_for
from intarsia.models.runtime.session import Step, greedy, until_end

if TYPE_CHECKING:
    from intarsia.models.runtime.openvino_session import OpenVinoSession


class OpenVino:
    """A folder with a stateful OpenVINO graph, run on the CPU. Where the CPU has bfloat16, it computes in that.

    - context_length: the most tokens, prompt and answer together. inputs: names of those that the graph has."""

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
            self.inputs = frozenset(name for port in model.inputs for name in port.get_names())
            self._compiled = core.compile_model(model, "CPU", settings)
        except RuntimeError as error:
            raise IntarsiaError(f"{self.path} does not open in OpenVINO: {first_line(error)}") from None
        known = known_of(self.path)
        self.context_length: int = known.get("context_length") or 2048
        self.vocabulary: int = known.get("vocabulary") or model.outputs[0].get_partial_shape()[2].get_length()
        self.ends: tuple[int, ...] = tuple(known.get("end", ()))

    def request(self) -> Any:
        """A place of the engine's own for one row: it keeps keys and values, and shares the weights."""
        return self._compiled.create_infer_request()

    @cached_property
    def _alone(self) -> OpenVinoSession:
        return self.session()

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Logits of every position, float32 [token, vocabulary]."""
        ids = checked_ids(ids, 0, self.vocabulary, self.context_length)
        return self._alone.read([Step(0, ids, 0)], every=True)[0]

    def tokens(self, ids: Sequence[int], count: int) -> Iterator[int]:
        """`count` tokens that follow, greedily, whatever they are; the first comes once the prompt is read."""
        return greedy(self._alone, checked_ids(ids, count, self.vocabulary, self.context_length), count)

    def generate(self, ids: Sequence[int], max_new_tokens: int) -> list[int]:
        """The tokens that follow `ids`, greedily; ends early after an end token, which is included."""
        return until_end(self.tokens(ids, max_new_tokens), self.ends)

    def session(self, rows: int = 1, context_length: int | None = None) -> OpenVinoSession:
        """The model asked step by step: `rows` that wait for one another, each up to `context_length` tokens."""
        from intarsia.models.runtime.openvino_session import OpenVinoSession

        return OpenVinoSession(self, rows, context_length)
