"""Engines that run a small model, all asked alike: the logits of a text, and the tokens that follow a prompt.

None ends at an end token, so that all decode equally much. An engine imports its package when it is opened: a worker
has in memory what its own engine needs."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np


class Engine(Protocol):
    """A model in an engine. bytes: on disk."""

    bytes: int

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Of every position, float32 [token, vocabulary]."""
        ...

    def tokens(self, ids: Sequence[int], count: int) -> Iterator[int]:
        """`count` tokens that follow, greedily; the first comes once the prompt is read."""
        ...


class OnnxGenAI:
    """ONNX Runtime GenAI."""

    def __init__(self, folder: Path, threads: int):
        from intarsia.models.runtime.onnx_genai import OnnxGenAI as Runtime

        self._runtime = Runtime(folder / "model", threads)
        self.bytes = self._runtime.bytes

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        return self._runtime.logits(list(ids))

    def tokens(self, ids: Sequence[int], count: int) -> Iterator[int]:
        genai = self._runtime._genai
        parameters = genai.GeneratorParams(self._runtime._model)
        length = len(ids) + count
        parameters.set_search_options(max_length=length, min_length=length, do_sample=False)
        generator = genai.Generator(self._runtime._model, parameters)
        generator.append_tokens(np.asarray(ids, dtype=np.int32))
        for _ in range(count):
            generator.generate_next_token()
            yield int(generator.get_next_tokens()[0])


class _Exported:
    """A `Runtime` that gives tokens one by one."""

    runtime: Callable[[Path, int], Any]

    def __init__(self, folder: Path, threads: int):
        self._runtime = type(self).runtime(folder, threads)
        self.bytes = self._runtime.bytes

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        return self._runtime.logits(ids)

    def tokens(self, ids: Sequence[int], count: int) -> Iterator[int]:
        return self._runtime.tokens(ids, count)


class Gguf(_Exported):
    """ik_llama.cpp."""

    @staticmethod
    def runtime(folder: Path, threads: int) -> Any:
        from intarsia.models.runtime.llama_cpp import LlamaCpp

        return LlamaCpp(folder / "model.gguf", threads, 1024)


class OpenVino(_Exported):
    """OpenVINO: a stateful graph as its GenAI package writes it."""

    @staticmethod
    def runtime(folder: Path, threads: int) -> Any:
        from intarsia.models.runtime.openvino import OpenVino

        return OpenVino(folder / "model" if (folder / "model").is_dir() else folder, threads)


class CTranslate2(_Exported):
    """CTranslate2."""

    @staticmethod
    def runtime(folder: Path, threads: int) -> Any:
        from intarsia.models.runtime.ctranslate2 import CTranslate2

        return CTranslate2(folder / "model", threads)


class Torch:
    """A network in PyTorch, in eager mode, with transformers' cache."""

    def __init__(self, folder: Path, threads: int):
        import torch

        torch.set_num_threads(threads)
        self._torch = torch
        self._network = self._open(folder / "model")
        self.bytes = self._size(folder / "model")

    def _open(self, folder: Path) -> Any:
        import transformers

        import intarsia.compression  # noqa: F401  teaches transformers our grids

        return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=self._torch.float32).eval()

    def _size(self, folder: Path) -> int:
        return sum(file.stat().st_size for file in folder.glob("*.safetensors"))

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        with self._torch.inference_mode():
            return self._network(self._torch.tensor([list(ids)])).logits[0].float().numpy()

    def tokens(self, ids: Sequence[int], count: int) -> Iterator[int]:
        torch, network = self._torch, self._network
        given, cache = torch.tensor([list(ids)]), None
        for _ in range(count):
            with torch.inference_mode():
                out = network(given, past_key_values=cache, use_cache=True, logits_to_keep=1)
                given, cache = out.logits[:, -1:].argmax(-1), out.past_key_values
            yield int(given)


class _Rounded(Torch):
    """A dense folder that a peer rounds once it is open; its bytes are those of the saved tensors."""

    dtype = "float32"

    def _open(self, folder: Path) -> Any:
        import transformers

        network = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(self._torch, self.dtype))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self._round(network.eval())

    def _round(self, network: Any) -> Any:
        raise NotImplementedError

    def _size(self, folder: Path) -> int:
        file = io.BytesIO()
        self._torch.save(self._network.state_dict(), file)
        return file.getbuffer().nbytes


class TorchAo(_Rounded):
    """torch.ao's dynamic 8 bits."""

    def _round(self, network: Any) -> Any:
        torch = self._torch
        kind = torch.ao.quantization.per_channel_dynamic_qconfig
        return torch.ao.quantization.quantize_dynamic(network, {torch.nn.Linear: kind}, dtype=torch.qint8)


class TorchaoInt8(_Rounded):
    """torchao, weights in 8 bits, the rest in bfloat16: the type its kernels are made for."""

    dtype = "bfloat16"

    def _round(self, network: Any) -> Any:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_

        quantize_(network, Int8WeightOnlyConfig())
        return network


class TorchaoInt4(_Rounded):
    """torchao, weights in 4 bits in groups of 32, packed for the CPU's kernel; the rest in bfloat16."""

    dtype = "bfloat16"

    def _round(self, network: Any) -> Any:
        from torchao.prototype.quantization.int4 import PrototypeInt4WeightOnlyConfig
        from torchao.quantization import quantize_

        # The public configuration has no format for CPUs.
        quantize_(network, PrototypeInt4WeightOnlyConfig(group_size=32))
        return network


def fitted(folder: Path, threads: int) -> Engine:
    """What a search chose, in the engine that it chose: its name is in the file `engine`."""
    return ENGINES[(folder / "engine").read_text()](folder, threads)


ENGINES: dict[str, Callable[[Path, int], Engine]] = {
    "gguf": Gguf,
    "onnx-genai": OnnxGenAI,
    "openvino": OpenVino,
    "ctranslate2": CTranslate2,
    "torch": Torch,
    "torch-dense": Torch,
    "torch-ao": TorchAo,
    "torchao-int8": TorchaoInt8,
    "torchao-int4": TorchaoInt4,
    "fitted": fitted,
}
