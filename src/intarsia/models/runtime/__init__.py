"""Running a model that was exported for another engine.

runtime = open_runtime("runs/emotion/exports/onnx-genai")   # or a .gguf file
runtime.logits(ids)                     # every position's logits [token, vocabulary]
runtime.generate(ids, max_new_tokens=20)
encoder = open_runtime("small/export/onnx")   # an exported encoder (BERT and its kind)
encoder.embed(texts)                    # sentence vectors [text, width]; encoder.states(ids, mask): each token's"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from intarsia.errors import BadInput

if TYPE_CHECKING:
    import numpy as np

    from intarsia.models.runtime.onnx_encoder import OnnxEncoder

__all__ = ["Runtime", "open_runtime"]


@runtime_checkable
class Runtime(Protocol):
    """A model inside an engine.

    - name: of the engine, as in `model.exports`
    - bytes: of the weights and graph on disk
    - threads: CPU threads it computes with"""

    name: str
    bytes: int
    threads: int

    def logits(self, ids: list[int]) -> np.ndarray:
        """Logits of every position, float32 [token, vocabulary]."""
        ...

    def generate(self, ids: list[int], max_new_tokens: int) -> list[int]:
        """The tokens that follow `ids`, greedily; ends early after an end token, which is included."""
        ...


def open_runtime(path: str | Path, threads: int | None = None) -> Runtime | OnnxEncoder:
    """Open an exported folder, or a GGUF file, with the engine it was made for; an encoder gives states, no logits.

    threads: CPU threads; default all cores this process may use. Raises `BadInput` when the folder holds no known
    export, `MissingExtra` when its engine is not installed."""
    path = Path(path)
    if path.is_file() and path.suffix == ".gguf":
        return _gguf(path, threads)
    if not path.is_dir():
        raise BadInput(f"no folder {path}; give the folder of an exported model, or a .gguf file")
    if (path / "genai_config.json").is_file():
        from intarsia.models.runtime.onnx_genai import OnnxGenAI

        return OnnxGenAI(path, threads)
    if (path / "encoder.json").is_file():
        from intarsia.models.runtime.onnx_encoder import OnnxEncoder

        return OnnxEncoder(path, threads)
    if (path / "openvino_model.xml").is_file():
        from intarsia.models.runtime.openvino import OpenVino

        return OpenVino(path, threads)
    if (path / "model.bin").is_file() and (path / "vocabulary.json").is_file():
        from intarsia.models.runtime.ctranslate2 import CTranslate2

        return CTranslate2(path, threads)
    if len(files := sorted(path.glob("*.gguf"))) == 1:
        return _gguf(files[0], threads)
    raise BadInput(
        f"{path} holds no exported model: expected genai_config.json, encoder.json, openvino_model.xml, CTranslate2's "
        "model.bin or one .gguf file (made by compression.export)"
    )


def _gguf(path: Path, threads: int | None) -> Runtime:
    from intarsia.models.runtime.llama_cpp import LlamaCpp

    return LlamaCpp(path, threads)
