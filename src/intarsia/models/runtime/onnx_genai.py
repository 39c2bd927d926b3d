"""ONNX Runtime GenAI as a `Runtime`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from intarsia.errors import BadInput, IntarsiaError, MissingExtra, first_line
from intarsia.models.runtime.asking import checked_ids, threads_for

if TYPE_CHECKING:
    from intarsia.models.runtime.onnx_session import OnnxSession


class OnnxGenAI:
    """An ONNX Runtime GenAI folder, run on the CPU.

    - context_length: the most tokens, prompt and answer together
    - all_positions: whether it gives the logits of every position (else only the prompt's last)"""

    name = "onnx-genai"

    def __init__(self, path: str | Path, threads: int | None = None):
        try:
            import onnxruntime_genai as genai
        except ImportError:
            raise MissingExtra("running an ONNX Runtime GenAI model", "export") from None
        self._genai = genai
        self.path = Path(path)
        self.threads = threads_for(threads)
        self.bytes = sum(file.stat().st_size for file in self.path.glob("*.onnx*"))
        settings = json.loads((self.path / "genai_config.json").read_text(encoding="utf-8"))["model"]
        self.context_length: int = settings["context_length"]
        self.vocabulary: int = settings["vocab_size"]
        end = settings.get("eos_token_id", ())
        self.ends: tuple[int, ...] = tuple(end) if isinstance(end, list) else (end,) if isinstance(end, int) else ()
        config = genai.Config(str(self.path))
        config.overlay(json.dumps({"model": {"decoder": {"session_options": {"intra_op_num_threads": self.threads}}}}))
        try:
            self._model = genai.Model(config)
        except Exception as error:
            raise IntarsiaError(f"{self.path} does not open in ONNX Runtime GenAI: {first_line(error)}") from None

    def generator(self, length: int) -> Any:
        """The engine's own generator, for so many tokens at most."""
        parameters = self._genai.GeneratorParams(self._model)
        parameters.set_search_options(max_length=length, do_sample=False, min_length=0)
        return self._genai.Generator(self._model, parameters)

    def session(self, rows: int = 1, context_length: int | None = None) -> OnnxSession:
        """The model asked step by step; one row, whatever is asked for."""
        from intarsia.models.runtime.onnx_session import OnnxSession

        return OnnxSession(self, context_length)

    def _start(self, ids: list[int], room: int):  # type: ignore[no-untyped-def]
        ids = checked_ids(ids, room, self.vocabulary, self.context_length)
        generator = self.generator(len(ids) + room)
        generator.append_tokens(np.asarray(ids, dtype=np.int32))
        return generator

    def logits(self, ids: list[int]) -> np.ndarray:
        """Logits of every position, float32 [token, vocabulary]."""
        output = np.array(self._start(ids, 0).get_output("logits"), dtype=np.float32)
        if output.shape[1] != len(ids):
            raise BadInput("this export gives the last position's logits only; export it with logits='all'")
        return output[0]

    def generate(self, ids: list[int], max_new_tokens: int) -> list[int]:
        """The tokens that follow `ids`, greedily; ends early after an end token, which is included."""
        generator = self._start(ids, max_new_tokens)
        while not generator.is_done():
            generator.generate_next_token()
        return [int(i) for i in generator.get_sequence(0)[len(ids) :]]
